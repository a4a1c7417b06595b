package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	goamqp "github.com/Azure/go-amqp"
)

// TestCommandOutcomes has a device do with a command what its name says.
func TestCommandOutcomes(t *testing.T) {
	r := startFakeRouter(t, "")
	r.device(t, "T", func(s *goamqp.Session, in *goamqp.Receiver, m *goamqp.Message) {
		ctx := context.Background()
		word := strings.SplitN(*m.Properties.Subject, "-", 2)
		switch word[0] {
		case "reject":
			in.RejectMessage(ctx, m, &goamqp.Error{Condition: "hono:bad-request", Description: "no such\nvalve"})
		case "refuse":
			in.RejectMessage(ctx, m, nil)
		case "release":
			in.ReleaseMessage(ctx, m)
		case "modify":
			in.ModifyMessage(ctx, m, &goamqp.ModifyMessageOptions{UndeliverableHere: len(word) > 1})
		case "silent":
			in.AcceptMessage(ctx, m)
		case "deaf":
		case "early":
			respond(t, s, m, m.Properties.CorrelationID, 200, "text/plain", []byte("early"))
			in.AcceptMessage(ctx, m)
		case "fail":
			in.AcceptMessage(ctx, m)
			respond(t, s, m, m.Properties.CorrelationID, 404, "text/plain", []byte("which valve?"))
		case "binary":
			in.AcceptMessage(ctx, m)
			respond(t, s, m, m.Properties.CorrelationID, 200, "application/octet-stream", []byte{0xff, 0})
		default:
			in.AcceptMessage(ctx, m)
			if m.Properties.ReplyTo != nil {
				respond(t, s, m, "of another command", 500, "text/plain", nil)
				respond(t, s, m, m.Properties.CorrelationID, 200, "application/json", append([]byte(*m.Properties.ContentType+" "), m.GetData()...))
			}
		}
	})
	for name, c := range map[string]struct {
		args         []string
		out          string
		failure, err string // parts
	}{
		"answer":         {args: []string{"set", `{"a": 1}`}, out: `application/json {"a": 1}`, err: "4711 answered with 200 after "},
		"text":           {args: []string{"set", "on"}, out: "text/plain on"},
		"type given":     {args: []string{"set", "on", "--content-type", "x/y"}, out: "x/y on"},
		"one-way":        {args: []string{"set", "--one-way"}, err: "4711 has the command set after "},
		"early":          {args: []string{"early"}, out: "early"},
		"binary":         {args: []string{"binary"}, out: "\xff\x00"},
		"status 404":     {args: []string{"fail"}, out: "which valve?", failure: "the device answered with 404"},
		"released":       {args: []string{"release"}, failure: "4711 is not reachable: it is not connected or not subscribed"},
		"rejected":       {args: []string{"reject"}, failure: "the command was rejected: no such valve (hono:bad-request)"},
		"without reason": {args: []string{"refuse"}, failure: "the command was rejected, without a reason"},
		"modified":       {args: []string{"modify"}, failure: "4711 did not take the command (modified)"},
		"undeliverable":  {args: []string{"modify-here"}, failure: "4711 does not take this command"},
		"no answer":      {args: []string{"silent", "--timeout", "1500ms"}, failure: "4711 got the command but did not answer within 1.5s"},
		"no outcome":     {args: []string{"deaf", "--timeout", "1s"}, failure: "no outcome within 1s: whether 4711 got the command is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			got := runWith(t, newCommandCommand(), nil, r.login(append([]string{"T", "4711"}, c.args...)...)...)
			if c.failure == "" && got.failure != nil || c.failure != "" && (got.failure == nil || !strings.Contains(got.failure.Error(), c.failure)) {
				t.Errorf("got %v, want %q", got.failure, c.failure)
			}
			if got.out != c.out {
				t.Errorf("printed %q, want %q", got.out, c.out)
			}
			if !strings.Contains(got.err, c.err) || strings.Contains(got.err, "\x1b") {
				t.Errorf("standard error %q, want %q", got.err, c.err)
			}
		})
	}
	for name, c := range map[string]struct {
		args []string
		want map[string]any
	}{
		"answer":  {[]string{"set", "on"}, map[string]any{"outcome": "accepted", "status": 200.0, "payload": "text/plain on", "content-type": "application/json", "responding-device": "4711"}},
		"binary":  {[]string{"binary"}, map[string]any{"status": 200.0, "payload-base64": "/wA="}},
		"fails":   {[]string{"fail"}, map[string]any{"status": 404.0, "error": "the device answered with 404"}},
		"release": {[]string{"release"}, map[string]any{"outcome": "released"}},
	} {
		t.Run(name+" as JSON", func(t *testing.T) {
			got := runWith(t, newCommandCommand(), nil, r.login(append([]string{"T", "4711", "-o", "json"}, c.args...)...)...)
			var o map[string]any
			if err := json.Unmarshal([]byte(got.out), &o); err != nil {
				t.Fatalf("%v in %q", err, got.out)
			}
			for k, want := range c.want {
				if o[k] != want {
					t.Errorf("%s: got %v, want %v", k, o[k], want)
				}
			}
			if o["device"] != "4711" || o["command"] != c.args[0] || o["correlation-id"] == "" || (o["error"] == nil) != (got.failure == nil) {
				t.Errorf("got %v, %v", o, got.failure)
			}
		})
	}
}

// TestCommandMessage looks at what goes over the wire.
func TestCommandMessage(t *testing.T) {
	r := startFakeRouter(t, "")
	seen := make(chan *goamqp.Message, 10)
	r.device(t, "T", func(_ *goamqp.Session, in *goamqp.Receiver, m *goamqp.Message) {
		seen <- m
		in.ReleaseMessage(context.Background(), m)
	})
	file := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(file, []byte{1, 0xff}, 0o600); err != nil {
		t.Fatal(err)
	}
	runWith(t, newCommandCommand(), nil, r.login("T", "4711", "set", "@"+file)...)
	m := <-seen
	p := m.Properties
	if *p.To != "command/T/4711" || *p.Subject != "set" || p.CorrelationID == nil || p.CorrelationID != p.MessageID || !strings.HasPrefix(*p.ReplyTo, "command_response/T/") ||
		*p.ContentType != "application/octet-stream" || !bytes.Equal(m.GetData(), []byte{1, 0xff}) {
		t.Errorf("got %+v, %v", p, m.GetData())
	}
	runWith(t, newCommandCommand(), strings.NewReader("from in"), r.login("T", "4711", "set", "-", "--one-way")...)
	if m = <-seen; m.Properties.ReplyTo != nil || m.Properties.CorrelationID != nil || string(m.GetData()) != "from in" || *m.Properties.ContentType != "text/plain" {
		t.Errorf("one-way: got %+v", m.Properties)
	}
	runWith(t, newCommandCommand(), nil, r.login("T", "4711", "set")...)
	if m = <-seen; m.Properties.ContentType != nil || len(m.GetData()) > 0 {
		t.Errorf("without payload: got %+v", m.Properties)
	}
}

func TestCommandRefused(t *testing.T) {
	r := startFakeRouter(t, "")
	t.Setenv("SLUICE_DATA", t.TempDir())
	for want, args := range map[string][]string{
		"expected a tenant, a device":                 {"T", "4711"},
		`"a/b" is no tenant`:                          {"a/b", "4711", "x"},
		`"" is no device`:                             {"T", "", "x"},
		"the command has no name":                     {"T", "4711", ""},
		"app needs --password or SLUICE_APP_PASSWORD": {"T", "4711", "x", "--user", "app"},
		"--timeout 0s: expected more":                 r.login("T", "4711", "x", "--timeout", "0"),
		`--output "xml"`:                              r.login("T", "4711", "x", "-o", "xml"),
		"no such file":                                r.login("T", "4711", "x", "@/absent"),
		"who are you?":                                {"T", "4711", "x"},
		"app may not receive the answers of devices of forbidden": r.login("forbidden", "4711", "x"),
		"app may not send commands to devices of forbidden":       r.login("forbidden", "4711", "x", "--one-way"),
		"gave no credit for commands to nobody within 1s":         r.login("nobody", "4711", "x", "--timeout", "1s"),
		"name or secret is wrong":                                 {"T", "4711", "x", "--url", "amqp://" + r.address, "--user", "app", "--password", "other"},
		"expected a URL such as amqp":                             {"T", "4711", "x", "--url", "http://h", "--user", "app", "--password", "pw"},
	} {
		got := runWith(t, newCommandCommand(), nil, args...)
		if got.failure == nil || !strings.Contains(got.failure.Error(), want) {
			t.Errorf("%q: got %v, want %s", args, got.failure, want)
		}
		if got.out != "" {
			t.Errorf("%q: printed %q", args, got.out)
		}
	}
}

func TestCommandInterrupted(t *testing.T) {
	r := startFakeRouter(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	r.device(t, "T", func(*goamqp.Session, *goamqp.Receiver, *goamqp.Message) { cancel() })
	var errs bytes.Buffer
	cmd := newCommandCommand()
	cmd.SetArgs(r.login("T", "4711", "x"))
	cmd.SetOut(&errs)
	cmd.SetErr(&errs)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.ExecuteContext(ctx); err == nil || err.Error() != "interrupted; whether 4711 got the command is not known" {
		t.Errorf("got %v", err)
	}
	if errs.Len() > 0 {
		t.Errorf("printed %q", errs.String())
	}
}
