package forward_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// open lets everybody do everything on telemetry addresses.
type open struct{ gate forward.Gate }

func (o open) Sender(_ *peer.Conn, address string) (forward.Access, *amqp.Error) {
	return forward.Access{Distribution: kindOf(address), Gate: o.gate}, nil
}

func (open) Receiver(_ *peer.Conn, address string) (forward.Access, *amqp.Error) {
	if address == "forbidden" {
		return forward.Access{}, &amqp.Error{Condition: amqp.CondUnauthorizedAccess, Description: "not yours"}
	}
	return forward.Access{Distribution: kindOf(address)}, nil
}

func (open) Anonymous(*peer.Conn) *amqp.Error { return nil }

// kindOf is named by the beginning of the address.
func kindOf(address string) forward.Distribution {
	switch {
	case address == "closed":
		return forward.Closed
	case strings.HasPrefix(address, "closest/"):
		return forward.Closest
	case strings.HasPrefix(address, "multicast/"):
		return forward.Multicast
	}
	return forward.Balanced
}

type anyone struct{}

func (anyone) Mechanisms(*peer.PeerInfo) []amqp.Symbol { return []amqp.Symbol{"ANONYMOUS"} }
func (anyone) Begin(*peer.PeerInfo, amqp.Symbol) (peer.Exchange, error) {
	return anyone{}, nil
}
func (anyone) Step(context.Context, []byte) ([]byte, any, error) { return nil, "anyone", nil }

// start serves a router on a loopback port until the test ends.
func start(t testing.TB, policy forward.Policy) (*forward.Router, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := forward.New(policy)
	wheel := peer.NewWheel()
	var wg sync.WaitGroup
	wg.Go(func() { wheel.Run(ctx) })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				peer.Accept(ctx, c, peer.Options{
					Config:  peer.Config{ContainerID: "router", IdleTimeout: 20 * time.Second},
					Handler: r, Wheel: wheel, Auth: anyone{},
					OnPanic: func(v any, stack []byte) { t.Errorf("panic: %v\n%s", v, stack) },
				}, nil)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		cancel()
		wg.Wait()
	})
	return r, ln.Addr().String()
}

// session dials a go-amqp session.
func session(t testing.TB, addr string) *goamqp.Session {
	t.Helper()
	c, err := goamqp.Dial(t.Context(), "amqp://"+addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypeAnonymous()})
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

func sender(t testing.TB, addr, to string, o *goamqp.SenderOptions) *goamqp.Sender {
	t.Helper()
	s, err := session(t, addr).NewSender(t.Context(), to, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func receiver(t testing.TB, addr, from string, o *goamqp.ReceiverOptions) *goamqp.Receiver {
	t.Helper()
	r, err := session(t, addr).NewReceiver(t.Context(), from, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func message(text string) *goamqp.Message {
	m := goamqp.NewMessage([]byte(text))
	return m
}

func TestOutcomesReachTheSenderUnchanged(t *testing.T) {
	_, addr := start(t, open{})
	recv := receiver(t, addr, "a", nil)
	send := sender(t, addr, "a", nil)
	for _, tt := range []struct {
		name   string
		settle func(*goamqp.Message) error
		want   string
	}{
		{"accepted", func(m *goamqp.Message) error { return recv.AcceptMessage(t.Context(), m) }, "*encoding.StateAccepted"},
		{"released", func(m *goamqp.Message) error { return recv.ReleaseMessage(t.Context(), m) }, "*encoding.StateReleased"},
		{"rejected", func(m *goamqp.Message) error {
			return recv.RejectMessage(t.Context(), m, &goamqp.Error{Condition: "x:y", Description: "why"})
		}, "*encoding.StateRejected"},
		{"modified", func(m *goamqp.Message) error {
			return recv.ModifyMessage(t.Context(), m, &goamqp.ModifyMessageOptions{UndeliverableHere: true})
		}, "*encoding.StateModified"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			receipt, err := send.SendWithReceipt(t.Context(), message(tt.name), nil)
			if err != nil {
				t.Fatal(err)
			}
			m, err := recv.Receive(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(m.GetData()); got != tt.name {
				t.Errorf("got body %q, want %q", got, tt.name)
			}
			if err := tt.settle(m); err != nil {
				t.Fatal(err)
			}
			state, err := receipt.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%T", state); got != tt.want {
				t.Errorf("got outcome %s, want %s", got, tt.want)
			}
			if r, ok := state.(*goamqp.StateRejected); ok && (r.Error == nil || r.Error.Description != "why") {
				t.Errorf("got error %v, want the receiver's", r.Error)
			}
			if m, ok := state.(*goamqp.StateModified); ok && !m.UndeliverableHere {
				t.Error("undeliverable-here got lost")
			}
		})
	}
}

func TestNoReceiverNoCredit(t *testing.T) {
	_, addr := start(t, open{})
	send := sender(t, addr, "a", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	// go-amqp counts credit itself and does not put a message on the wire without.
	err := send.Send(ctx, message("x"), nil)
	var amqpErr *goamqp.Error
	if !errors.Is(err, context.DeadlineExceeded) && (!errors.As(err, &amqpErr) || amqpErr.Condition != goamqp.ErrCondTransferLimitExceeded) {
		t.Fatalf("got %v, want no credit", err)
	}
}

func TestReceiverWithCreditOneGetsOne(t *testing.T) {
	_, addr := start(t, open{})
	recv := receiver(t, addr, "a", &goamqp.ReceiverOptions{Credit: 1})
	send := sender(t, addr, "a", nil)
	first, err := send.SendWithReceipt(t.Context(), message("1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := send.SendWithReceipt(t.Context(), message("2"), nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := recv.Receive(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// The second was surplus and waits no longer than SurplusTime.
	state, err := second.Wait(t.Context())
	if _, ok := state.(*goamqp.StateReleased); !ok || err != nil {
		t.Fatalf("got outcome %T, %v of the surplus delivery, want released", state, err)
	}
	if err := recv.AcceptMessage(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if state, err := first.Wait(t.Context()); err != nil {
		t.Fatalf("got outcome %T, %v, want accepted", state, err)
	}
}

func TestReceiverLostAfterTransfer(t *testing.T) {
	_, addr := start(t, open{})
	c, err := goamqp.Dial(t.Context(), "amqp://"+addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypeAnonymous()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	recv, err := s.NewReceiver(t.Context(), "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	send := sender(t, addr, "a", nil)
	receipt, err := send.SendWithReceipt(t.Context(), message("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := recv.Receive(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	state, err := receipt.Wait(t.Context())
	if m, ok := state.(*goamqp.StateModified); !ok || !m.DeliveryFailed || err != nil {
		t.Fatalf("got outcome %#v, %v, want modified(delivery-failed)", state, err)
	}
}

func TestSettleModes(t *testing.T) {
	_, addr := start(t, open{})
	for _, snd := range []goamqp.SenderSettleMode{goamqp.SenderSettleModeUnsettled, goamqp.SenderSettleModeSettled, goamqp.SenderSettleModeMixed} {
		for _, rcv := range []goamqp.ReceiverSettleMode{goamqp.ReceiverSettleModeFirst, goamqp.ReceiverSettleModeSecond} {
			name := fmt.Sprintf("%d-%d", snd, rcv)
			t.Run(name, func(t *testing.T) {
				recv := receiver(t, addr, name, &goamqp.ReceiverOptions{SettlementMode: rcv.Ptr()})
				send := sender(t, addr, name, &goamqp.SenderOptions{SettlementMode: snd.Ptr()})
				for i := range 50 {
					done := make(chan error, 1)
					go func() { done <- send.Send(t.Context(), message(name), nil) }()
					m, err := recv.Receive(t.Context(), nil)
					if err != nil {
						t.Fatal(i, err)
					}
					if err := recv.AcceptMessage(t.Context(), m); err != nil {
						t.Fatal(i, err)
					}
					if err := <-done; err != nil {
						t.Fatal(i, err)
					}
				}
			})
		}
	}
}

func TestCompetingReceiversShare(t *testing.T) {
	_, addr := start(t, open{})
	const n = 1000
	var got [2]int
	var mu sync.Mutex
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range got {
		recv := receiver(t, addr, "a", &goamqp.ReceiverOptions{Credit: 10})
		wg.Go(func() {
			for {
				m, err := recv.Receive(ctx, nil)
				if err != nil {
					return
				}
				mu.Lock()
				got[i]++
				mu.Unlock()
				recv.AcceptMessage(context.Background(), m)
			}
		})
	}
	send := sender(t, addr, "a", nil)
	for range n {
		if err := send.Send(t.Context(), message("x"), nil); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	if got[0]+got[1] != n || got[0] < n/4 || got[1] < n/4 {
		t.Errorf("got %v of %d, want all of them and about half each", got, n)
	}
}

func TestRefusedLink(t *testing.T) {
	_, addr := start(t, open{})
	_, err := session(t, addr).NewReceiver(t.Context(), "forbidden", nil)
	var amqpErr *goamqp.Error
	if !errors.As(err, &amqpErr) || amqpErr.Condition != goamqp.ErrCondUnauthorizedAccess {
		t.Fatalf("got %v, want amqp:unauthorized-access", err)
	}
}

func TestLargeMessage(t *testing.T) {
	_, addr := start(t, open{})
	recv := receiver(t, addr, "a", nil)
	send := sender(t, addr, "a", nil)
	body := make([]byte, 900*1024)
	for i := range body {
		body[i] = byte(i * 7)
	}
	done := make(chan error, 1)
	go func() { done <- send.Send(t.Context(), goamqp.NewMessage(body), nil) }()
	m, err := recv.Receive(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(m.GetData()) != string(body) {
		t.Error("body changed on its way")
	}
	recv.AcceptMessage(t.Context(), m)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// reject refuses every message.
type reject struct{}

func (reject) Admit(_, scratch []byte) (forward.Parts, []byte, *amqp.Error) {
	return forward.Parts{}, scratch, &amqp.Error{Condition: amqp.CondPreconditionFailed, Description: "no assertion"}
}

func TestGateRejects(t *testing.T) {
	_, addr := start(t, open{gate: reject{}})
	receiver(t, addr, "a", nil)
	err := sender(t, addr, "a", nil).Send(t.Context(), message("x"), nil)
	var amqpErr *goamqp.Error
	if !errors.As(err, &amqpErr) || amqpErr.Condition != "amqp:precondition-failed" {
		t.Fatalf("got %v, want amqp:precondition-failed", err)
	}
}

// A delivery above 64 KiB leaves before it has come whole, in order and unchanged.
func TestCutThrough(t *testing.T) {
	_, addr := start(t, open{})
	recv := receiver(t, addr, "a", nil)
	send := sender(t, addr, "a", nil)
	body := make([]byte, 20<<20)
	for i := range body {
		body[i] = byte(i>>8) ^ byte(i)
	}
	for range 3 {
		done := make(chan error, 1)
		go func() { done <- send.Send(t.Context(), goamqp.NewMessage(body), nil) }()
		m, err := recv.Receive(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.GetData(), body) {
			t.Fatal("body changed on its way")
		}
		if err := recv.AcceptMessage(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

func TestMulticast(t *testing.T) {
	_, addr := start(t, open{})
	a := receiver(t, addr, "multicast/x", nil)
	b := receiver(t, addr, "multicast/x", nil)
	send := sender(t, addr, "multicast/x", nil)
	receipt, err := send.SendWithReceipt(t.Context(), message("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range []*goamqp.Receiver{a, b} {
		m, err := r.Receive(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			err = r.AcceptMessage(t.Context(), m)
		} else {
			err = r.RejectMessage(t.Context(), m, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	state, err := receipt.Wait(t.Context())
	if _, ok := state.(*goamqp.StateRejected); !ok || err != nil {
		t.Errorf("got %T, %v, want rejected: one receiver rejected it", state, err)
	}
}

func TestAnonymousAndDynamic(t *testing.T) {
	_, addr := start(t, open{})
	s := session(t, addr)
	replies, err := s.NewReceiver(t.Context(), "", &goamqp.ReceiverOptions{DynamicAddress: true})
	if err != nil {
		t.Fatal(err)
	}
	requests := receiver(t, addr, "service", nil)
	anon := sender(t, addr, "", nil)
	to, replyTo := "service", replies.Address()
	var answered sync.WaitGroup
	answered.Go(func() {
		m, err := requests.Receive(t.Context(), nil)
		if err != nil {
			t.Error(err)
			return
		}
		requests.AcceptMessage(t.Context(), m)
		if err := anon.Send(t.Context(), &goamqp.Message{Properties: &goamqp.MessageProperties{To: m.Properties.ReplyTo}, Data: [][]byte{[]byte("pong")}}, nil); err != nil {
			t.Error(err)
		}
	})
	if err := anon.Send(t.Context(), &goamqp.Message{Properties: &goamqp.MessageProperties{To: &to, ReplyTo: &replyTo}, Data: [][]byte{[]byte("ping")}}, nil); err != nil {
		t.Fatal(err)
	}
	m, err := replies.Receive(t.Context(), nil)
	if err != nil || string(m.GetData()) != "pong" {
		t.Fatalf("got %v, %v", m, err)
	}
	replies.AcceptMessage(t.Context(), m)
	answered.Wait()
	nobody := "nobody"
	receipt, err := anon.SendWithReceipt(t.Context(), &goamqp.Message{Properties: &goamqp.MessageProperties{To: &nobody}, Data: [][]byte{nil}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if state, err := receipt.Wait(t.Context()); fmt.Sprintf("%T", state) != "*encoding.StateReleased" || err != nil {
		t.Fatalf("got %T, %v for a message to nobody, want released", state, err)
	}
}
