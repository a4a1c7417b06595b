package peer_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

func dial(t *testing.T, addr string, o *goamqp.ConnOptions) *goamqp.Conn {
	t.Helper()
	if o == nil {
		o = &goamqp.ConnOptions{}
	}
	if o.SASLType == nil {
		o.SASLType = goamqp.SASLTypePlain("u", "p")
	}
	scheme := "amqp://"
	if o.TLSConfig != nil {
		scheme = "amqps://"
	}
	c, err := goamqp.Dial(t.Context(), scheme+addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func session(t *testing.T, c *goamqp.Conn) *goamqp.Session {
	t.Helper()
	s, err := c.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSettleModes drives every settle mode that a client can ask for, and
// every outcome, from sender to receiver and back.
func TestSettleModes(t *testing.T) {
	srv := startServer(t, peer.Options{Handler: newRelay()})
	c := dial(t, srv.addr, nil)
	for _, snd := range []goamqp.SenderSettleMode{goamqp.SenderSettleModeUnsettled, goamqp.SenderSettleModeSettled, goamqp.SenderSettleModeMixed} {
		for _, rcv := range []goamqp.ReceiverSettleMode{goamqp.ReceiverSettleModeFirst, goamqp.ReceiverSettleModeSecond} {
			t.Run(fmt.Sprintf("%v-%v", snd, rcv), func(t *testing.T) {
				address := "a" + t.Name()
				ctx := t.Context()
				send, err := session(t, c).NewSender(ctx, address, &goamqp.SenderOptions{SettlementMode: &snd})
				if err != nil {
					t.Fatal(err)
				}
				receive, err := session(t, c).NewReceiver(ctx, address, &goamqp.ReceiverOptions{
					Credit: 5, SettlementMode: &rcv, RequestedSenderSettleMode: &snd})
				if err != nil {
					t.Fatal(err)
				}
				outcomes := []func(*goamqp.Message) error{
					func(m *goamqp.Message) error { return receive.AcceptMessage(ctx, m) },
					func(m *goamqp.Message) error {
						return receive.RejectMessage(ctx, m, &goamqp.Error{Condition: "hono:bad-request"})
					},
					func(m *goamqp.Message) error { return receive.ReleaseMessage(ctx, m) },
					func(m *goamqp.Message) error {
						return receive.ModifyMessage(ctx, m, &goamqp.ModifyMessageOptions{DeliveryFailed: true})
					},
				}
				if snd == goamqp.SenderSettleModeSettled {
					settledOnly(t, send, receive)
					return
				}
				for i, settle := range outcomes {
					r, err := send.SendWithReceipt(ctx, goamqp.NewMessage([]byte(fmt.Sprint(i))), nil)
					if err != nil {
						t.Fatal(err)
					}
					m, err := receive.Receive(ctx, nil)
					if err != nil {
						t.Fatal(err)
					}
					if got := string(m.GetData()); got != fmt.Sprint(i) {
						t.Errorf("got %q", got)
					}
					// In mode second go-amqp gives back what it was rejected with.
					if err := settle(m); err != nil && !errors.As(err, new(*goamqp.Error)) {
						t.Fatal(err)
					}
					state, err := r.Wait(ctx)
					if err != nil {
						t.Fatal(err)
					}
					want := []string{"*encoding.StateAccepted", "*encoding.StateRejected", "*encoding.StateReleased", "*encoding.StateModified"}[i]
					if got := fmt.Sprintf("%T", state); got != want {
						t.Errorf("state %s, want %s", got, want)
					}
				}
				if err := send.Close(ctx); err != nil {
					t.Error(err)
				}
				if err := receive.Close(ctx); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func settledOnly(t *testing.T, send *goamqp.Sender, receive *goamqp.Receiver) {
	for i := range 20 {
		if err := send.Send(t.Context(), goamqp.NewMessage([]byte{byte(i)}), nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		m, err := receive.Receive(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if m.GetData()[0] != byte(i) {
			t.Errorf("message %d: got %v", i, m.GetData())
		}
	}
}

// TestMessageSizes sends messages of many frames through small and usual ones.
func TestMessageSizes(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	plainServer := startServer(t, peer.Options{Handler: newRelay()})
	tlsServer := startServer(t, peer.Options{Handler: newRelay(), TLS: serverTLS})
	for _, tt := range []struct {
		name  string
		addr  string
		frame uint32
		tls   bool
	}{
		{"512", plainServer.addr, 512, false},
		{"16384", plainServer.addr, 16384, false},
		{"1MiB", plainServer.addr, 1 << 20, false},
		{"TLS-512", tlsServer.addr, 512, true},
		{"TLS-16384", tlsServer.addr, 16384, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := &goamqp.ConnOptions{MaxFrameSize: tt.frame}
			if tt.tls {
				o.TLSConfig = clientTLS
			}
			s := session(t, dial(t, tt.addr, o))
			send, err := s.NewSender(t.Context(), tt.name, nil)
			if err != nil {
				t.Fatal(err)
			}
			receive, err := s.NewReceiver(t.Context(), tt.name, &goamqp.ReceiverOptions{Credit: 3})
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int{0, 1, 400, 1 << 10, 1<<14 - 100, 1 << 16, 300 << 10, 900 << 10} {
				body := bytes.Repeat([]byte{'a', 'b', 'c', 'd', 'e', 'f', 'g'}, size/7+1)[:size]
				done := make(chan error, 1)
				go func() { done <- send.Send(t.Context(), goamqp.NewMessage(body), nil) }()
				m, err := receive.Receive(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(m.GetData(), body) {
					t.Errorf("%d bytes differ", size)
				}
				if err := receive.AcceptMessage(t.Context(), m); err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestTooLarge: a message above the limit detaches its link and nothing else.
func TestTooLarge(t *testing.T) {
	srv := startServer(t, peer.Options{Handler: newRelay(), Config: peer.Config{MaxMessageSize: 1000}})
	c := dial(t, srv.addr, nil)
	s := session(t, c)
	send, err := s.NewSender(t.Context(), "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if send.MaxMessageSize() != 1000 {
		t.Errorf("announced %d", send.MaxMessageSize())
	}
	if _, err := s.NewSender(t.Context(), "forbidden", nil); err == nil || !strings.Contains(err.Error(), "not for you") {
		t.Errorf("refused link: %v", err)
	}
	if _, err := s.NewSender(t.Context(), "b", nil); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
}

func TestDrain(t *testing.T) {
	srv := startServer(t, peer.Options{Handler: newRelay()})
	s := session(t, dial(t, srv.addr, nil))
	receive, err := s.NewReceiver(t.Context(), "d", &goamqp.ReceiverOptions{Credit: -1})
	if err != nil {
		t.Fatal(err)
	}
	send, err := s.NewSender(t.Context(), "d", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := receive.IssueCredit(10); err != nil {
			t.Fatal(err)
		}
		r, err := send.SendWithReceipt(t.Context(), goamqp.NewMessage([]byte("m")), nil)
		if err != nil {
			t.Fatal(err)
		}
		m, err := receive.Receive(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := receive.AcceptMessage(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := receive.DrainCredit(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLogins(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	srv := startServer(t, peer.Options{Handler: newRelay()})
	tlsSrv := startServer(t, peer.Options{Handler: newRelay(), TLS: serverTLS})
	for _, tt := range []struct {
		name string
		addr string
		o    goamqp.ConnOptions
		ok   bool
		code string
	}{
		{"plain", "amqp://" + srv.addr, goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain("u", "p")}, true, ""},
		{"wrong password", "amqp://" + srv.addr, goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain("u", "q")}, false, "authentication failed"},
		{"backend away", "amqp://" + srv.addr, goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain("u", "away")}, false, "the database is away"},
		{"anonymous", "amqp://" + srv.addr, goamqp.ConnOptions{SASLType: goamqp.SASLTypeAnonymous()}, false, ""},
		{"none", "amqp://" + srv.addr, goamqp.ConnOptions{}, false, ""},
		{"external", "amqps://" + tlsSrv.addr, goamqp.ConnOptions{SASLType: goamqp.SASLTypeExternal(""), TLSConfig: clientTLS}, true, ""},
		{"plain over TLS", "amqps://" + tlsSrv.addr, goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain("u", "p"), TLSConfig: clientTLS}, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := goamqp.Dial(t.Context(), tt.addr, &tt.o)
			if (err == nil) != tt.ok {
				t.Fatalf("got %v", err)
			}
			if err == nil {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
			s := srv
			if tt.o.TLSConfig != nil {
				s = tlsSrv
			}
			err = <-s.errs
			if (err == nil) != tt.ok || tt.code != "" && !strings.Contains(fmt.Sprint(err), tt.code) {
				t.Errorf("server: %v", err)
			}
		})
	}
	id := tlsSrv.all[0].Identity()
	if id != "adapter-1" {
		t.Errorf("identity %v", id)
	}
}
