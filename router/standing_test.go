package router_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/auth/oidctest"
	"github.com/sluice-iot/sluice/router"
)

// rewrite replaces the identities file and has it read.
func (s *served) rewrite(t testing.TB, text string) {
	t.Helper()
	if err := os.WriteFile(s.path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.path+".new", s.path); err != nil {
		t.Fatal(err)
	}
	if changed, err := s.dir.Reload(); err != nil || !changed {
		t.Fatal(changed, err)
	}
}

// entry is one of an identities file; members are such as `limits: {links: 2}`.
func entry(name string, authorities []string, members ...string) string {
	var list []string
	for _, a := range authorities {
		what, address, _ := strings.Cut(a, " ")
		list = append(list, fmt.Sprintf("{address: %q, may: [%s]}", address, what))
	}
	more := ""
	for _, m := range members {
		more += ", " + m
	}
	return fmt.Sprintf("  - {name: %s, secret: \"{plain}%s\", authorities: [%s]%s}\n", name, secret, strings.Join(list, ", "), more)
}

// closed waits until the connection was closed by the router and says why.
func closed(t testing.TB, c *goamqp.Conn) *goamqp.Error {
	t.Helper()
	<-c.Done()
	var e *goamqp.ConnError
	if err := c.Err(); !errors.As(err, &e) || e.RemoteErr == nil {
		t.Fatalf("the connection ended with %v", err)
	}
	return e.RemoteErr
}

func TestReload(t *testing.T) {
	all := []string{"read telemetry/A", "write telemetry/A", "read telemetry/B"}
	for name, c := range map[string]struct {
		attach func(t *testing.T, x *goamqp.Session) error
		now    string // the entry afterwards
		gone   string // in the description; "" = it stays
	}{
		"entry gone":              {receiveFrom("telemetry/A"), "", "is no more"},
		"right of a receiver":     {receiveFrom("telemetry/A"), entry("app", all[1:]), "read on telemetry/A"},
		"right of a sender":       {sendTo("telemetry/A"), entry("app", all[:1]), "write on telemetry/A"},
		"right that is not used":  {receiveFrom("telemetry/A"), entry("app", all[:2]), ""},
		"more rights":             {receiveFrom("telemetry/A"), entry("app", append(all, "read telemetry/C")), ""},
		"other limits":            {receiveFrom("telemetry/A"), entry("app", all, "limits: {links: 7}"), ""},
		"other secret":            {receiveFrom("telemetry/A"), strings.Replace(entry("app", all), "}"+secret, "}other", 1), ""},
		"a wider right instead":   {receiveFrom("telemetry/A"), entry("app", []string{"read telemetry/*"}), ""},
		"assertions from now on":  {sendTo("telemetry/A"), entry("app", all, "assertions: required"), "need assertions"},
		"dynamic address":         {receiveDynamic, entry("app", nil), ""},
		"anonymous terminus":      {sendTo(""), entry("app", all[:1]), ""},
		"nothing attached, gone":  {func(*testing.T, *goamqp.Session) error { return nil }, "", "is no more"},
		"nothing attached, other": {func(*testing.T, *goamqp.Session) error { return nil }, entry("app", nil), ""},
	} {
		t.Run(name, func(t *testing.T) {
			other := entry("other", all)
			s := serveFile(t, "identities:\n"+entry("app", all)+other, router.Listener{})
			conn, bystander := s.dial(t, "app"), s.dial(t, "other")
			x, err := conn.NewSession(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			y, err := bystander.NewSession(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(c.attach(t, x), receiveFrom("telemetry/A")(t, y)); err != nil {
				t.Fatal(err)
			}
			s.rewrite(t, "identities:\n"+c.now+other)
			if c.gone != "" {
				if e := closed(t, conn); e.Condition != "amqp:unauthorized-access" || !strings.Contains(e.Description, c.gone) {
					t.Errorf("closed with %v", e)
				}
			}
			// The file is read once more, so that the first review is over.
			s.rewrite(t, "identities:\n"+c.now+other+"# again\n")
			if _, err := bystander.NewSession(t.Context(), nil); err != nil {
				t.Errorf("the bystander: %v", err)
			}
			if c.gone == "" {
				if _, err := conn.NewSession(t.Context(), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func receiveFrom(address string) func(*testing.T, *goamqp.Session) error {
	return func(t *testing.T, x *goamqp.Session) error {
		_, err := x.NewReceiver(t.Context(), address, nil)
		return err
	}
}

func sendTo(address string) func(*testing.T, *goamqp.Session) error {
	return func(t *testing.T, x *goamqp.Session) error {
		_, err := x.NewSender(t.Context(), address, nil)
		return err
	}
}

func receiveDynamic(t *testing.T, x *goamqp.Session) error {
	_, err := x.NewReceiver(t.Context(), "", &goamqp.ReceiverOptions{DynamicAddress: true})
	return err
}

// What an anonymous sender was granted once is asked for again after a reload.
func TestReloadAndAnonymousTerminus(t *testing.T) {
	all := []string{"read telemetry/A", "write telemetry/A"}
	s := serveFile(t, "identities:\n"+entry("app", all), router.Listener{})
	x := s.session(t, "app")
	r, err := x.NewReceiver(t.Context(), "telemetry/A", &goamqp.ReceiverOptions{Credit: 10})
	if err != nil {
		t.Fatal(err)
	}
	w, err := x.NewSender(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	send := func() error {
		to := "telemetry/A"
		sent := make(chan error, 1)
		go func() {
			sent <- w.Send(t.Context(), &goamqp.Message{Properties: &goamqp.MessageProperties{To: &to}, Data: [][]byte{{1}}}, nil)
		}()
		return <-sent
	}
	go func() {
		for {
			m, err := r.Receive(t.Context(), nil)
			if err != nil || r.AcceptMessage(t.Context(), m) != nil {
				return
			}
		}
	}()
	if err := send(); err != nil {
		t.Fatal(err)
	}
	s.rewrite(t, "identities:\n"+entry("app", all[:1]))
	if err := send(); condition(err) != "amqp:unauthorized-access" {
		t.Errorf("after the reload: %v", err)
	}
}

// A connection of a token ends when its issuer is no longer believed.
func TestReloadOfIssuers(t *testing.T) {
	s, issuer := serveIssuer(t)
	token := issuer.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice"})
	c, err := goamqp.Dial(t.Context(), "amqp://"+s.addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypeXOAUTH2("app", token, 16*1024)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.rewrite(t, fmt.Sprintf(bearerFile, issuer.URL)+"# the same\n")
	if _, err := c.NewSession(t.Context(), nil); err != nil {
		t.Error(err)
	}
	s.rewrite(t, "identities: []\n")
	if e := closed(t, c); e.Condition != "amqp:unauthorized-access" {
		t.Error(e)
	}
}

func TestLimits(t *testing.T) {
	s := serveFile(t, "identities:\n"+entry("app", []string{"read telemetry/A", "write telemetry/A"},
		"limits: {connections: 2, sessions: 2, links: 3, message-size: 100}"), router.Listener{})
	c := s.dial(t, "app")
	ctx := t.Context()
	var sessions []*goamqp.Session
	for range 2 {
		x, err := c.NewSession(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, x)
	}
	var first *goamqp.Receiver
	for i := range 2 {
		r, err := sessions[i].NewReceiver(ctx, "telemetry/A", nil)
		if err != nil {
			t.Fatal(err)
		}
		first = r
	}
	w, err := sessions[0].NewSender(ctx, "telemetry/A", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.MaxMessageSize(); got != 100 {
		t.Errorf("max-message-size %d", got)
	}
	if _, err := sessions[1].NewSender(ctx, "telemetry/A", nil); condition(err) != "amqp:resource-limit-exceeded" {
		t.Errorf("a fourth link: %v", err)
	}
	if err := first.Close(ctx); err != nil {
		t.Fatal(err)
	}
	anonymous, err := sessions[1].NewSender(ctx, "", nil)
	if err != nil {
		t.Fatalf("in place of the one that was closed: %v", err)
	}
	if got := anonymous.MaxMessageSize(); got != 100 {
		t.Errorf("max-message-size without an address %d", got)
	}
	d := s.dial(t, "app")
	for range 2 {
		if _, err := d.NewSession(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { // go-amqp itself closes a connection on which too many are asked for
		if _, err := d.NewSession(ctx, nil); err == nil {
			t.Error("a third session")
		}
	}()
	third, err := goamqp.Dial(ctx, "amqp://"+s.addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain("app", secret)})
	if err == nil {
		if e := closed(t, third); e.Condition != "amqp:resource-limit-exceeded" {
			t.Errorf("a third connection: %v", e)
		}
	} else if condition(err) != "amqp:resource-limit-exceeded" {
		t.Errorf("a third connection: %v", err)
	}
}

// A peer that begins more sessions than it may is closed.
func TestSessionsBeyondTheLimit(t *testing.T) {
	s := serveFile(t, "identities:\n"+entry("app", nil, "limits: {sessions: 1}"), router.Listener{})
	w := s.wire(t, amqp.HeaderSASL)
	w.mechanisms()
	w.send(&amqp.SASLInit{Mechanism: "PLAIN", InitialResponse: []byte("\x00app\x00" + secret)})
	if got := w.outcome(); got != amqp.SASLOK {
		t.Fatalf("outcome %d", got)
	}
	w.write([]byte(amqp.HeaderAMQP))
	frame := func(channel uint16, p amqp.Performative) { w.write(amqp.AppendFrame(nil, amqp.FrameAMQP, channel, p)) }
	frame(0, &amqp.Open{ContainerID: "c", MaxFrameSize: 512, ChannelMax: 10})
	if got := string(w.take(8)); got != amqp.HeaderAMQP {
		t.Fatalf("header %q", got)
	}
	if p, ok := w.next().(*amqp.Open); !ok || p.ChannelMax != 0 {
		t.Fatalf("got %+v", p)
	}
	frame(0, &amqp.Begin{IncomingWindow: 10, OutgoingWindow: 10})
	if p, ok := w.next().(*amqp.Begin); !ok {
		t.Fatalf("got %+v", p)
	}
	frame(1, &amqp.Begin{IncomingWindow: 10, OutgoingWindow: 10})
	if p, ok := w.next().(*amqp.Close); !ok || p.Error == nil || p.Error.Condition != amqp.CondFramingError {
		t.Fatalf("got %+v", p)
	}
}

// An identity that goes away between its log-in and its open is not let in.
func TestGoneBeforeOpen(t *testing.T) {
	s := serveFile(t, "identities:\n"+entry("app", nil), router.Listener{})
	w := s.wire(t, amqp.HeaderSASL)
	w.mechanisms()
	w.send(&amqp.SASLInit{Mechanism: "PLAIN", InitialResponse: []byte("\x00app\x00" + secret)})
	w.outcome()
	s.rewrite(t, "identities: []\n")
	w.write([]byte(amqp.HeaderAMQP))
	w.write(amqp.AppendFrame(nil, amqp.FrameAMQP, 0, &amqp.Open{ContainerID: "c", MaxFrameSize: 512}))
	w.take(8)
	if p, ok := w.next().(*amqp.Open); !ok {
		t.Fatalf("got %+v", p)
	}
	if p, ok := w.next().(*amqp.Close); !ok || p.Error == nil || p.Error.Condition != amqp.CondUnauthorizedAccess {
		t.Fatalf("got %+v", p)
	}
}

// While identities change all the time, nobody keeps a link that he may not have.
func TestReloadRaces(t *testing.T) {
	with, without := "identities:\n"+entry("app", []string{"read telemetry/A"}), "identities:\n"+entry("app", nil)
	s := serveFile(t, with, router.Listener{})
	for i := range 30 {
		c := s.dial(t, "app")
		x, err := c.NewSession(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		attached := make(chan error, 1)
		go func() {
			_, err := x.NewReceiver(context.WithoutCancel(t.Context()), "telemetry/A", nil)
			attached <- err
		}()
		s.rewrite(t, fmt.Sprintf("%s# %d\n", without, i))
		if err := <-attached; err == nil {
			if e := closed(t, c); e.Condition != "amqp:unauthorized-access" {
				t.Error(e)
			}
		}
		s.rewrite(t, fmt.Sprintf("%s# %d\n", with, i))
	}
}

const rheaLogin = `
const c = require('rhea').create_container();
const [host, port, token] = process.argv.slice(1);
c.on('connection_open', x => { console.log('opened'); x.connection.close(); });
c.on('connection_error', x => console.log('refused', x.error.condition));
c.connect({host, port, username: 'app', token, reconnect: false});
`

func TestRheaXOAuth2(t *testing.T) {
	modules, err := filepath.Abs("../build/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "rhea")); err != nil {
		if os.Getenv("SLUICE_TEST_ALL") != "" {
			t.Fatal("rhea is not installed")
		}
		t.Skip("rhea is not installed")
	}
	s, issuer := serveIssuer(t)
	host, port, _ := strings.Cut(s.addr, ":")
	for audience, want := range map[string]string{"sluice": "opened", "other": "refused amqp:unauthorized-access"} {
		cmd := exec.CommandContext(t.Context(), "node", "-e", rheaLogin, host, port, issuer.Token(t, oidctest.Claims{"sub": "app", "aud": audience}))
		cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("audience %s: got %q, %v", audience, got, err)
		}
	}
}
