package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
)

// aMessage is one of a device.
func aMessage(device, contentType, payload string, properties map[string]any) *goamqp.Message {
	created := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	m := &goamqp.Message{Properties: &goamqp.MessageProperties{ContentType: &contentType, CreationTime: &created},
		ApplicationProperties: map[string]any{"device_id": device}, Data: [][]byte{[]byte(payload)}}
	for k, v := range properties {
		m.ApplicationProperties[k] = v
	}
	return m
}

func TestConsumeFilter(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 10, 0, 0, time.UTC)
	m := aMessage("meter-1", "text/plain", "x", map[string]any{"site": "Kiel", "n": int32(5), "ttd": int32(-1)})
	for name, c := range map[string]struct {
		f    consumeFilter
		want bool
	}{
		"none":             {consumeFilter{}, true},
		"device":           {consumeFilter{devices: []string{"meter-1"}}, true},
		"glob":             {consumeFilter{devices: []string{"x", "meter-*"}}, true},
		"question mark":    {consumeFilter{devices: []string{"meter-?"}}, true},
		"other device":     {consumeFilter{devices: []string{"meter"}}, false},
		"content type":     {consumeFilter{contentTypes: []string{"text/*"}}, true},
		"other type":       {consumeFilter{contentTypes: []string{"application/*"}}, false},
		"property":         {consumeFilter{properties: []string{"site=K*"}}, true},
		"number":           {consumeFilter{properties: []string{"n=5"}}, true},
		"one of two":       {consumeFilter{properties: []string{"site=Bonn", "site=Kiel"}}, true},
		"not both":         {consumeFilter{properties: []string{"site=Kiel", "n=6"}}, false},
		"absent property":  {consumeFilter{properties: []string{"none=*"}}, false},
		"since then":       {consumeFilter{since: "2026-01-31T12:00:00Z"}, true},
		"since later":      {consumeFilter{since: "2026-01-31T13:00:01+01:00"}, false},
		"since 10 minutes": {consumeFilter{since: "10m"}, true},
		"since 9 minutes":  {consumeFilter{since: "9m"}, false},
		"ttd":              {consumeFilter{ttdOnly: true}, true},
	} {
		if err := c.f.compile(now); err != nil {
			t.Fatal(err)
		}
		if got := c.f.match(m); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	if f := (consumeFilter{ttdOnly: true}); f.match(aMessage("d", "", "", nil)) {
		t.Error("a message without ttd passes --ttd-only")
	}
	for _, f := range []consumeFilter{{since: "yesterday"}, {since: "-5m"}, {properties: []string{"x"}}, {properties: []string{"=x"}}} {
		if err := f.compile(now); err == nil {
			t.Errorf("%+v is taken", f)
		}
	}
}

func TestWildcard(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "abc", true}, {"a*c", "abbc", true}, {"a*c", "abcd", false}, {"*b*", "abc", true},
		{"a?c", "abc", true}, {"a?c", "ac", false}, {"?", "ä", true}, {"a**", "a", true}, {"[a]", "a", false}, {"*a*a*a*b", strings.Repeat("a", 100), false},
	} {
		if got := wildcard(c.pattern, c.text); got != c.want {
			t.Errorf("%q, %q: got %v", c.pattern, c.text, got)
		}
	}
}

func TestPrintMessage(t *testing.T) {
	at := aMessage("", "", "", nil).Properties.CreationTime.Local().Format("15:04:05.000")
	until := aMessage("", "", "", nil).Properties.CreationTime.Add(20 * time.Second).Local().Format("15:04:05")
	for name, c := range map[string]struct {
		m    *goamqp.Message
		want string
	}{
		"text":           {aMessage("d", "text/plain", "a\x1b[2Jb\nc", nil), at + " d text/plain a [2Jb c\n"},
		"ttd":            {aMessage("d", "text/plain", "x", map[string]any{"ttd": int32(20)}), at + " d text/plain x (can be reached for 20 s, until " + until + ")\n"},
		"connected":      {aMessage("d", emptyNotification, "", map[string]any{"ttd": int32(-1)}), at + " d can be reached from now on\n"},
		"disconnected":   {aMessage("d", emptyNotification, "", map[string]any{"ttd": int32(0)}), at + " d can no longer be reached\n"},
		"empty":          {aMessage("d", emptyNotification, "", nil), at + " d sent an empty notification\n"},
		"without a time": {&goamqp.Message{ApplicationProperties: map[string]any{"device_id": "d", "ttd": int32(5)}}, "d  (can be reached for 5 s, from a time that is not known)\n"},
	} {
		var out bytes.Buffer
		if err := printMessage(&out, false, c.m); err != nil || out.String() != c.want {
			t.Errorf("%s: got %q, %v; want %q", name, out.String(), err, c.want)
		}
	}
}

func TestPrintMessageAsJSON(t *testing.T) {
	m := aMessage("d", "text/plain", "x", map[string]any{"nan": float64(0), "id": goamqp.UUID{1}})
	m.Header = &goamqp.MessageHeader{Durable: true, TTL: 5 * time.Second, DeliveryCount: 2}
	m.Annotations = goamqp.Annotations{"x-opt-retain": true, "x-opt-trace-context": map[any]any{"traceparent": "00-1"}, "list": []any{int32(1), map[any]any{"a": "b"}}}
	m.DeliveryAnnotations = goamqp.Annotations{"hop": uint8(1)}
	var out bytes.Buffer
	if err := printMessage(&out, true, m); err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal([]byte(`{"device":"d","content-type":"text/plain","created":"2026-01-31T12:00:00Z","payload":"x","durable":true,"ttl-ms":5000,"delivery-count":2,
		"properties":{"device_id":"d","nan":0,"id":"01000000-0000-0000-0000-000000000000"},
		"annotations":{"x-opt-retain":true,"x-opt-trace-context":{"traceparent":"00-1"},"list":[1,{"a":"b"}]},"delivery-annotations":{"hop":1}}`), &want)
	if a, b := compact(got), compact(want); a != b {
		t.Errorf("got %s\nwant %s", a, b)
	}
}

// shared is a buffer that two goroutines use.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startConsume runs sluice consume until stop, which returns its error.
func startConsume(t *testing.T, args ...string) (out, info *shared, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, info = &shared{}, &shared{}
	cmd := newConsumeCommand()
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(info)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	result := make(chan error, 1)
	go func() { result <- cmd.ExecuteContext(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-result
	})
	t.Cleanup(func() { stop() })
	return out, info, stop
}

func awaitText(t *testing.T, in *shared, text string) {
	t.Helper()
	for !strings.Contains(in.String(), text) {
		select {
		case <-t.Context().Done():
			t.Fatalf("no %q in %q", text, in.String())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// TestConsumeTakesWhatItDoesNotShow expects of a filtered consumer that it accepts
// what does not match, releases it with --release, and tells at the end.
func TestConsumeTakesWhatItDoesNotShow(t *testing.T) {
	r := startFakeRouter(t, "")
	for _, release := range []bool{false, true} {
		args := r.login("telemetry", "T", "--device", "a*")
		if release {
			args = append(args, "--release")
		}
		out, info, stop := startConsume(t, args...)
		awaitText(t, info, "waiting for messages on telemetry/T")
		s := r.sender(t, "telemetry/T")
		states := ""
		for _, device := range []string{"b1", "a1", "b2", "a2"} {
			receipt, err := s.SendWithReceipt(t.Context(), aMessage(device, "text/plain", "x", nil), nil)
			if err != nil {
				t.Fatal(err)
			}
			state, err := receipt.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := state.(*goamqp.StateAccepted); ok {
				states += "a"
			} else if _, ok := state.(*goamqp.StateReleased); ok {
				states += "r"
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		want, sum := "aaaa", "2 messages printed; 2 messages did not match and were taken"
		if release {
			want, sum = "rara", "2 messages printed; 2 messages did not match and were released"
		}
		if states != want || strings.Count(out.String(), "\n") != 2 || !strings.Contains(info.String(), sum) {
			t.Errorf("release %v: outcomes %s, printed %q, told %q", release, states, out.String(), info.String())
		}
	}
}

// TestConsumeConnectsAgain stops the router and starts it at the same address.
func TestConsumeConnectsAgain(t *testing.T) {
	r := startFakeRouter(t, "")
	out, info, stop := startConsume(t, r.login("event", "T", "-n", "2")...)
	awaitText(t, info, "waiting for messages")
	if err := r.sender(t, "event/T").Send(t.Context(), aMessage("d1", "text/plain", "one", nil), nil); err != nil {
		t.Fatal(err)
	}
	r.stop()
	awaitText(t, info, "connecting again in ")
	again := startFakeRouter(t, r.address)
	awaitText(t, info, "waiting again for messages")
	if err := again.sender(t, "event/T").Send(t.Context(), aMessage("d2", "text/plain", "two", nil), nil); err != nil {
		t.Fatal(err)
	}
	awaitText(t, out, "two")
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := out.String(); !strings.Contains(got, "d1 text/plain one\n") || strings.Count(got, "\n") != 2 {
		t.Errorf("printed %q", got)
	}
}

func TestConsumeRefused(t *testing.T) {
	r := startFakeRouter(t, "")
	gone := startFakeRouter(t, "")
	gone.stop()
	t.Setenv("SLUICE_DATA", t.TempDir())
	for want, args := range map[string][]string{
		"expected telemetry or event":                {"commands", "T"},
		`"a b" is no tenant`:                         {"event", "a b"},
		"who are you?":                               {"event", "T"},
		"--release is for telemetry":                 r.login("event", "T", "--release"),
		"--count -1":                                 r.login("event", "T", "-n", "-1"),
		"--since \"x\"":                              r.login("event", "T", "--since", "x"),
		"app may not consume from event/forbidden: ": r.login("event", "forbidden"),
		"name or secret is wrong":                    {"event", "T", "--url", "amqp://" + r.address, "--user", "app", "--password", "x"},
		"connection refused":                         gone.login("event", "T"),
	} {
		got := runWith(t, newConsumeCommand(), nil, args...)
		if got.failure == nil || !strings.Contains(got.failure.Error(), want) {
			t.Errorf("%q: got %v, want %s", args, got.failure, want)
		}
	}
	_, info, _ := startConsume(t, r.login("event", "T", "--no-reconnect")...)
	awaitText(t, info, "waiting for messages")
	r.stop()
}
