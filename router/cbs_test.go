package router_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/router"
)

// names makes tokens that are names.
type names struct{}

func (names) Issue(id *auth.Identity) (string, error) { return "token-of-" + id.Name, nil }

// fetch gets the token as the application of Hono does, and waits for the link's end.
func fetch(t testing.TB, x *goamqp.Session, options *goamqp.ReceiverOptions) (*goamqp.Message, error) {
	t.Helper()
	r, err := x.NewReceiver(t.Context(), "cbs", options)
	if err != nil {
		return nil, err
	}
	if options != nil && options.Credit < 0 {
		if err := r.IssueCredit(1); err != nil {
			return nil, err
		}
	}
	m, err := r.Receive(t.Context(), nil)
	if err != nil {
		return nil, err
	}
	var end *goamqp.LinkError
	if err := r.AcceptMessage(t.Context(), m); err != nil && !errors.As(err, &end) { // the end may be quicker than the return
		return nil, err
	}
	_, err = r.Receive(t.Context(), nil)
	if !errors.As(err, &end) || end.RemoteErr != nil {
		t.Errorf("after the token: got %v, want the link closed without an error", err)
	}
	return m, nil
}

func TestTokensAreFetched(t *testing.T) {
	h := serveHono(t, router.Options{Tokens: names{}})
	for name, s := range map[string]*served{"northbound": &h.all, "auth": &h.tokens} {
		for options, o := range map[string]*goamqp.ReceiverOptions{
			"as clients do": nil, "credit later": {Credit: -1}, "receiver settles second": {SettlementMode: goamqp.ReceiverSettleModeSecond.Ptr()},
		} {
			t.Run(name+" "+options, func(t *testing.T) {
				x := s.session(t, "http-adapter@HONO")
				for range 2 { // a client may come again
					m, err := fetch(t, x, o)
					if err != nil {
						t.Fatal(err)
					}
					if m.Value != "token-of-http-adapter@HONO" || len(m.ApplicationProperties) != 1 || m.ApplicationProperties["type"] != "amqp:jwt" {
						t.Errorf("got %v %v", m.Value, m.ApplicationProperties)
					}
				}
			})
		}
	}
}

func TestManyFetchTokensAtOnce(t *testing.T) {
	h := serveHono(t, router.Options{Tokens: names{}})
	var wg sync.WaitGroup
	for _, user := range []string{"http-adapter@HONO", "hono-client", "links", "nobody"} {
		for range 8 {
			// One session each: go-amqp uses the handle of a link that its peer closed for
			// the next one before it has answered that the link is closed.
			x := h.all.session(t, user)
			wg.Go(func() {
				if m, err := fetch(t, x, nil); err != nil || m.Value != "token-of-"+user {
					t.Errorf("%s: got %v, %v", user, m, err)
				}
			})
		}
	}
	wg.Wait()
}

func TestTokenLinksThatAreRefused(t *testing.T) {
	h := serveHono(t, router.Options{Tokens: names{}, Invoker: functions(registry)})
	for name, s := range map[string]*served{"northbound": &h.all, "auth": &h.tokens, "registry": &h.services} {
		x := s.session(t, "http-adapter@HONO")
		want := [2]string{"amqp:not-allowed", "amqp:invalid-field"}
		if name == "registry" {
			want = [2]string{"amqp:not-found", "amqp:not-found"}
		}
		if _, err := x.NewSender(t.Context(), "cbs", nil); condition(err) != want[0] {
			t.Errorf("%s: sender: got %v, want %s", name, err, want[0])
		}
		_, err := x.NewReceiver(t.Context(), "cbs", &goamqp.ReceiverOptions{RequestedSenderSettleMode: goamqp.SenderSettleModeSettled.Ptr()})
		if condition(err) != want[1] {
			t.Errorf("%s: settled: got %v, want %s", name, err, want[1])
		}
	}
	x := h.tokens.session(t, "http-adapter@HONO")
	for _, address := range []string{"telemetry/T", "tenant/r", "$management/r"} {
		if _, err := x.NewReceiver(t.Context(), address, nil); condition(err) != "amqp:not-found" {
			t.Errorf("%s on a listener for tokens: got %v", address, err)
		}
	}
	if _, err := x.NewReceiver(t.Context(), "", &goamqp.ReceiverOptions{DynamicAddress: true}); condition(err) != "amqp:not-found" {
		t.Errorf("dynamic address on a listener for tokens: got %v", err)
	}
	if _, err := x.NewSender(t.Context(), "", nil); condition(err) != "amqp:not-allowed" {
		t.Errorf("no address on a listener for tokens: got %v", err)
	}
}

func TestATokenThatIsTooLarge(t *testing.T) {
	h := serveHono(t, router.Options{Tokens: names{}})
	r, err := h.all.session(t, "links").NewReceiver(t.Context(), "cbs", &goamqp.ReceiverOptions{MaxMessageSize: 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Receive(t.Context(), nil); condition(err) != "amqp:link:message-size-exceeded" {
		t.Errorf("got %v", err)
	}
}

func TestConnectionsForTokensEnd(t *testing.T) {
	h := serveHono(t, router.Options{Tokens: names{}})
	h.TokenWait(20 * time.Millisecond)
	c := h.tokens.dial(t, "http-adapter@HONO")
	<-c.Done()
	if got := condition(c.Err()); got != "hono:inactivity" {
		t.Errorf("got %q (%v), want hono:inactivity", got, c.Err())
	}
	if x := h.all.session(t, "nobody"); x == nil {
		t.Error("the others end too")
	}
}

// opener keeps the router's open.
type opener struct{ open chan *amqp.Open }

func (o *opener) Handle(_ *peer.Batch, _ *peer.Conn, events []peer.Event) {
	for i := range events {
		if events[i].Kind == peer.EventOpen {
			o.open <- events[i].Open
		}
	}
}

func (*opener) Writable(*peer.Batch, *peer.Conn)      {}
func (*opener) Closed(*peer.Batch, *peer.Conn, error) {}

// TestAuthorities logs in with an authorization identity, as a message router does
// that leaves the decision to us, and reads who it is and what it may do.
func TestAuthorities(t *testing.T) {
	h := serveHono(t, router.Options{Tokens: names{}})
	for _, tt := range []struct{ authzid, authcid, want string }{
		{"hono-client", "http-adapter@HONO", "hono-client"},
		{"unknown", "http-adapter@HONO", "http-adapter@HONO"},
		{"", "http-adapter@HONO", "http-adapter@HONO"},
		{"http-adapter@HONO", "hono-client", "hono-client"}, // which is no component
	} {
		for listener, s := range map[string]*served{"auth": &h.tokens, "northbound": &h.all, "registry": &h.services} {
			t.Run(fmt.Sprintf("%s: %s as %q", listener, tt.authcid, tt.authzid), func(t *testing.T) {
				nc, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Fatal(err)
				}
				o := &opener{make(chan *amqp.Open, 1)}
				c, err := peer.Connect(t.Context(), nc, peer.Options{
					Config:  peer.Config{ContainerID: "proxy", DesiredCapabilities: []amqp.Symbol{"ADDRESS-AUTHZ"}},
					Handler: o, Wheel: peer.NewWheel(),
					Login: peer.Login{Mechanism: "PLAIN", InitialResponse: []byte(tt.authzid + "\x00" + tt.authcid + "\x00" + secret)},
				})
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				wg.Go(func() { c.Serve(t.Context()) })
				open := <-o.open
				c.Close(nil)
				wg.Wait()
				properties, _, err := amqp.DecodeValue(open.Properties)
				m, _ := properties.(amqp.Map)
				if listener == "registry" {
					if slices.Contains(open.OfferedCapabilities, "ADDRESS-AUTHZ") || m != nil {
						t.Errorf("got %v %v", open.OfferedCapabilities, m)
					}
					return
				}
				id, _ := m.Get("authenticated-identity").(amqp.Map)
				if err != nil || id.Get("sub") != tt.want || !slices.Contains(open.OfferedCapabilities, "ADDRESS-AUTHZ") {
					t.Errorf("got %v, %v, %v, want sub %s", m, open.OfferedCapabilities, err, tt.want)
				}
				authz, _ := m.Get("address-authz").(amqp.Map)
				if words, _ := authz.Get("tenant").(amqp.Array); fmt.Sprint(words.Values) != "[recv send]" {
					t.Errorf("address-authz: %v", authz)
				}
			})
		}
	}
}
