package main

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/router/forward"
)

// fakeRouter forwards between whoever connects: the test is the device.
type fakeRouter struct {
	address string
	stop    func()
}

// everybody may attach to everything but what is named forbidden.
type everybody struct{}

func (everybody) access(address string) (forward.Access, *amqp.Error) {
	if strings.Contains(address, "forbidden") {
		return forward.Access{}, &amqp.Error{Condition: amqp.CondUnauthorizedAccess, Description: address + " is not granted"}
	}
	return forward.Access{Distribution: forward.Balanced}, nil
}
func (e everybody) Sender(_ *peer.Conn, address string) (forward.Access, *amqp.Error) {
	return e.access(address)
}
func (e everybody) Receiver(_ *peer.Conn, address string) (forward.Access, *amqp.Error) {
	return e.access(address)
}
func (everybody) Anonymous(*peer.Conn) *amqp.Error { return nil }

// plainLogin takes any name with the secret pw.
type plainLogin struct{}

func (plainLogin) Mechanisms(*peer.PeerInfo) []amqp.Symbol { return []amqp.Symbol{"PLAIN"} }
func (plainLogin) Begin(*peer.PeerInfo, amqp.Symbol) (peer.Exchange, error) {
	return plainLogin{}, nil
}
func (plainLogin) Step(_ context.Context, response []byte) ([]byte, any, error) {
	if !strings.HasSuffix(string(response), "\x00pw") {
		return nil, nil, &peer.AuthError{Code: amqp.SASLAuth}
	}
	return nil, "somebody", nil
}

// startFakeRouter serves on an address, "" for a free one, until it is stopped or
// the test ends.
func startFakeRouter(t *testing.T, address string) *fakeRouter {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	router, wheel := forward.New(everybody{}), peer.NewWheel()
	var wg sync.WaitGroup
	wg.Go(func() { wheel.Run(ctx) })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				peer.Accept(ctx, c, peer.Options{Config: peer.Config{ContainerID: "router", IdleTimeout: 20 * time.Second},
					Handler: router, Wheel: wheel, Auth: plainLogin{}}, nil)
			})
		}
	})
	r := &fakeRouter{address: ln.Addr().String(), stop: sync.OnceFunc(func() {
		ln.Close()
		cancel()
		wg.Wait()
	})}
	t.Cleanup(r.stop)
	return r
}

// login are the flags of an application.
func (r *fakeRouter) login(args ...string) []string {
	return append(args, "--url", "amqp://"+r.address, "--user", "app", "--password", "pw")
}

func (r *fakeRouter) session(t *testing.T) *goamqp.Session {
	t.Helper()
	c, err := goamqp.Dial(t.Context(), "amqp://"+r.address, &goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain("device", "pw")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := c.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *fakeRouter) sender(t *testing.T, address string) *goamqp.Sender {
	t.Helper()
	s, err := r.session(t).NewSender(t.Context(), address, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// device answers each command to a tenant until the test ends.
func (r *fakeRouter) device(t *testing.T, tenant string, answer func(s *goamqp.Session, in *goamqp.Receiver, m *goamqp.Message)) {
	t.Helper()
	s := r.session(t)
	in, err := s.NewReceiver(t.Context(), "command/"+tenant, &goamqp.ReceiverOptions{Credit: 100})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			m, err := in.Receive(ctx, nil)
			if err != nil {
				return
			}
			answer(s, in, m)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// respond sends an answer with a status.
func respond(t *testing.T, s *goamqp.Session, m *goamqp.Message, id any, status int32, contentType string, payload []byte) {
	out, err := s.NewSender(context.Background(), *m.Properties.ReplyTo, nil)
	if err != nil {
		t.Error(err)
		return
	}
	err = out.Send(context.Background(), &goamqp.Message{
		Properties:            &goamqp.MessageProperties{CorrelationID: id, ContentType: &contentType},
		ApplicationProperties: map[string]any{"status": status, "device_id": "4711", "tenant_id": "T", "site": "Kiel"},
		Data:                  [][]byte{payload},
	}, nil)
	if err != nil {
		t.Error(err)
	}
	out.Close(context.Background())
}
