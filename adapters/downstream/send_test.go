package downstream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/downstream"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
)

// start runs a set over the scripted routers; stop ends it and waits.
func start(t testing.TB, o downstream.Options, routers ...*scripted) (s *downstream.Set, stop func()) {
	t.Helper()
	for _, r := range routers {
		o.Routers = append(o.Routers, downstream.Router{Dial: r.dial})
	}
	o.Instance = "http-0"
	o.OnPanic = func(v any, stack []byte) { panic(fmt.Sprintf("%v\n%s", v, stack)) }
	s, err := downstream.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s, run(t, s)
}

func run(t testing.TB, s *downstream.Set) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func telemetry(qos iot.QoS) *iot.Message {
	return &iot.Message{Endpoint: iot.Telemetry, Tenant: "T", Device: "D", QoS: qos, ID: "id", Payload: []byte("x")}
}

func wantErr(t *testing.T, err, sentinel error, text string) {
	t.Helper()
	if sentinel == nil {
		if err != nil {
			t.Errorf("Send = %v, want nil", err)
		}
		return
	}
	var shown *iot.Error
	if !errors.Is(err, sentinel) || !errors.As(err, &shown) {
		t.Fatalf("Send = %v, want %v", err, sentinel)
	}
	if shown.Text != text {
		t.Errorf("text = %q, want %q", shown.Text, text)
	}
}

func TestOutcomes(t *testing.T) {
	rejected := func(condition amqp.Symbol, text string) amqp.Raw {
		return amqp.AppendRejected(nil, &amqp.Error{Condition: condition, Description: text})
	}
	modified := &amqp.Modified{UndeliverableHere: true}
	for _, tt := range []struct {
		name     string
		state    amqp.Raw
		sentinel error
		text     string
	}{
		{"accepted", amqp.StateAccepted, nil, ""},
		{"released", amqp.StateReleased, iot.ErrUnavailable, adapters.TextNotProcessed},
		{"delivery failed", amqp.StateDeliveryFailed, iot.ErrUnavailable, adapters.TextNotProcessed},
		{"modified", modified.Append(nil), iot.ErrUnavailable, adapters.TextNotProcessed},
		{"rejected", rejected("hono:bad-request", "no such unit"), iot.ErrInvalid, "no such unit"},
		{"rejected without words", amqp.AppendRejected(nil, nil), iot.ErrInvalid, "message was rejected"},
		{"rejected with many words", rejected("x", "a\x00\r\n"+strings.Repeat("é", 1000)), iot.ErrInvalid, "a   " + strings.Repeat("é", 126)},
		{"void assertion", rejected(amqp.CondPreconditionFailed, "device non-existent/disabled"), iot.ErrForbidden, "device non-existent/disabled"},
		{"other precondition", rejected(amqp.CondPreconditionFailed, "too early"), iot.ErrInvalid, "too early"},
		{"too large", rejected(amqp.CondMessageSizeExceeded, "10 bytes"), iot.ErrTooLarge, "message is too large"},
		{"limit", rejected(amqp.CondResourceLimitExceeded, "internals"), iot.ErrUnavailable, adapters.TextUnavailable},
		{"internal error", rejected(amqp.CondInternalError, "internals"), iot.ErrUnavailable, adapters.TextUnavailable},
		{"unauthorized", rejected(amqp.CondUnauthorizedAccess, "internals"), iot.ErrUnavailable, adapters.TextUnavailable},
	} {
		for _, second := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, unsettled=%v", tt.name, second), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newScripted(t, "r")
					r.answer = func(*received) amqp.Raw { return tt.state }
					r.second = second
					s, _ := start(t, downstream.Options{}, r)
					synctest.Wait()
					for range 3 {
						wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), tt.sentinel, tt.text)
					}
					synctest.Wait()
					states := r.senderStates()
					if !second {
						if len(states) != 0 {
							t.Errorf("the router heard %v, want nothing", states)
						}
						return
					}
					if len(states) != 3 || !states[0].settled || states[0].kind != tt.state.StateKind() {
						t.Errorf("the router heard %v, want 3 settlements with %v", states, tt.state.StateKind())
					}
				})
			})
		}
	}
}

func TestAtMostOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.answer = func(*received) amqp.Raw { return amqp.StateReleased }
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		for range 3 {
			if err := s.Send(t.Context(), telemetry(iot.AtMostOnce)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if len(r.got) != 3 || !r.got[0].settled || !r.got[2].settled {
			t.Errorf("got %d deliveries, want 3 settled ones", len(r.got))
		}
	})
}

func TestNoConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.credit = 0
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		for _, qos := range []iot.QoS{iot.AtMostOnce, iot.AtLeastOnce} {
			began := time.Now()
			wantErr(t, s.Send(t.Context(), telemetry(qos)), iot.ErrNoCredit, adapters.TextNoConsumer)
			if took := time.Since(began); took != downstream.DefaultCreditWait {
				t.Errorf("took %v, want %v", took, downstream.DefaultCreditWait)
			}
		}
		if n, _ := r.attaches(); n != 1 {
			t.Errorf("%d links, want 1", n)
		}
	})
}

func TestCreditComesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.credit = 0
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		const n = 5
		var order []string
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				m := telemetry(iot.QoS(i % 2))
				m.ID = fmt.Sprint(i)
				if err := s.Send(t.Context(), m); err != nil {
					t.Errorf("message %d: %v", i, err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, m.ID)
			})
			synctest.Wait() // one after the other
		}
		time.Sleep(100 * time.Millisecond)
		r.give("telemetry/T", 2)
		synctest.Wait()
		if got := r.count(); got != 2 {
			t.Errorf("%d messages after 2 credits, want 2", got)
		}
		r.give("telemetry/T", 10)
		wg.Wait()
		for i, d := range r.got {
			if m := decode(t, d.payload); m.Properties.MessageID != fmt.Sprint(i) {
				t.Errorf("message %d came as number %d", m.Properties.MessageID, i)
			}
		}
	})
}

func TestTimeoutSettlesReleased(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		t.Run(fmt.Sprintf("cancelled=%v", cancelled), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newScripted(t, "r")
				r.answer = func(*received) amqp.Raw { return nil }
				s, _ := start(t, downstream.Options{}, r)
				synctest.Wait()
				ctx, want := t.Context(), time.Second
				if cancelled {
					want = 300 * time.Millisecond
					c, cancel := context.WithTimeout(ctx, want)
					defer cancel()
					ctx = c
				}
				began := time.Now()
				wantErr(t, s.Send(ctx, telemetry(iot.AtLeastOnce)), iot.ErrTimeout, adapters.TextNoOutcome)
				if took := time.Since(began); took != want {
					t.Errorf("took %v, want %v", took, want)
				}
				synctest.Wait()
				if got := r.senderStates(); len(got) != 1 || !got[0].settled || got[0].kind != amqp.DescReleased {
					t.Errorf("the router heard %v, want one settlement with released", got)
				}
			})
		})
	}
}

// A caller that gives up while the outcome comes gets either, and what it
// leaves behind disturbs no other message.
func TestGivingUpMeetsOutcome(t *testing.T) {
	r := newScripted(t, "r")
	var giveUp atomic.Pointer[context.CancelFunc]
	r.answer = func(*received) amqp.Raw {
		(*giveUp.Load())()
		return amqp.StateAccepted
	}
	s, _ := start(t, downstream.Options{}, r)
	eventually(t, s.Ready)
	for range 2000 {
		ctx, cancel := context.WithCancel(t.Context())
		giveUp.Store(&cancel)
		if err := s.Send(ctx, telemetry(iot.AtLeastOnce)); err != nil && !errors.Is(err, iot.ErrTimeout) {
			t.Fatalf("Send = %v, want nil or %v", err, iot.ErrTimeout)
		}
	}
}

// The time of a message that waited for credit counts from its sending.
func TestTimeoutAfterWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.credit = 0
		r.answer = func(*received) amqp.Raw { return nil }
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		began := time.Now()
		time.AfterFunc(150*time.Millisecond, func() { r.give("telemetry/T", 1) })
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), iot.ErrTimeout, adapters.TextNoOutcome)
		if took := time.Since(began); took != 1150*time.Millisecond {
			t.Errorf("took %v, want 1.15s", took)
		}
	})
}

func TestConnectionLostInFlightAndMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		var silent atomic.Bool
		silent.Store(true)
		r.answer = func(*received) amqp.Raw {
			if silent.Load() {
				return nil
			}
			return amqp.StateAccepted
		}
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		time.AfterFunc(100*time.Millisecond, r.kill)
		began := time.Now()
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), iot.ErrUnavailable, adapters.TextNotProcessed)
		if took := time.Since(began); took != 100*time.Millisecond {
			t.Errorf("took %v, want 100ms", took)
		}
		synctest.Wait()
		if s.Ready() {
			t.Fatal("Ready without a connection")
		}
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), iot.ErrUnavailable, adapters.TextUnavailable)
		silent.Store(false)
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		if !s.Ready() {
			t.Fatal("not Ready after the back-off")
		}
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
	})
}

func TestTwoRouters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		with, without := newScripted(t, "with"), newScripted(t, "without")
		without.credit = 0
		s, _ := start(t, downstream.Options{}, without, with)
		synctest.Wait()
		if got := s.Connected(); got != 2 {
			t.Fatalf("Connected = %d, want 2", got)
		}
		for range 10 {
			wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
		}
		if with.count() != 10 || without.count() != 0 {
			t.Errorf("messages: %d and %d, want 10 and 0", with.count(), without.count())
		}
		synctest.Wait() // the other router has the link, too
		without.give("telemetry/T", 100)
		synctest.Wait()
		for range 10 {
			wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
		}
		if with.count() != 15 || without.count() != 5 {
			t.Errorf("messages: %d and %d, want 15 and 5: they take turns", with.count(), without.count())
		}
		with.setDown(true)
		with.kill()
		synctest.Wait()
		if got := s.Connected(); got != 1 {
			t.Fatalf("Connected = %d, want 1", got)
		}
		for range 10 {
			wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
		}
		with.setDown(false)
		time.Sleep(10 * time.Second)
		if got := s.Connected(); got != 2 {
			t.Fatalf("Connected = %d, want 2 again", got)
		}
	})
}

// A message that waits at a router without credit is taken by one that comes.
func TestRouterComesWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dry, late := newScripted(t, "dry"), newScripted(t, "late")
		dry.credit = 0
		late.setDown(true)
		s, _ := start(t, downstream.Options{CreditWait: 20 * time.Second}, dry, late)
		synctest.Wait()
		time.AfterFunc(time.Second, func() { late.setDown(false) })
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
		if late.count() != 1 {
			t.Error("the message went elsewhere")
		}
	})
}

func TestMaxWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.credit = 0
		s, _ := start(t, downstream.Options{MaxWaiting: 3}, r)
		synctest.Wait()
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				m := telemetry(iot.AtLeastOnce)
				m.Tenant = iot.TenantID(fmt.Sprint(i))
				wantErr(t, s.Send(t.Context(), m), iot.ErrNoCredit, adapters.TextNoConsumer)
			})
		}
		synctest.Wait()
		err := s.Send(t.Context(), telemetry(iot.AtLeastOnce))
		wantErr(t, err, iot.ErrUnavailable, adapters.TextUnavailable)
		if iot.RetryAfter(err) == 0 {
			t.Error("no retry-after")
		}
		wg.Wait()
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), iot.ErrNoCredit, adapters.TextNoConsumer)
	})
}

// A tenant whose messages find no credit leaves others room to wait.
func TestMaxWaitingLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.credit, r.refill = 0, false
		s, _ := start(t, downstream.Options{MaxWaiting: 100}, r)
		synctest.Wait()
		flood, others := newTold(t), newTold(t)
		for i := range 150 {
			s.Start(numbered(i, iot.AtLeastOnce), flood.done(i))
		}
		if got := flood.count(); got != 50 {
			t.Errorf("%d ended at once, want the 50 that are too many", got)
		}
		for i := range 3 {
			m := numbered(i, iot.AtLeastOnce)
			m.Tenant = "other"
			s.Start(m, others.done(i))
		}
		if got := others.count(); got != 1 {
			t.Errorf("%d of another tenant ended at once, want 1: two may wait", got)
		}
		synctest.Wait()
		r.give("telemetry/other", 2)
		synctest.Wait()
		errs := others.once(3)
		wantErr(t, errs[0], nil, "")
		wantErr(t, errs[1], nil, "")
		wantErr(t, errs[2], iot.ErrUnavailable, adapters.TextUnavailable)
		time.Sleep(time.Second)
		synctest.Wait()
		flood.once(150)
	})
}

func TestRefusedLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.refuse = &amqp.Error{Condition: amqp.CondUnauthorizedAccess, Description: "not yours"}
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		began := time.Now()
		for range 5 {
			err := s.Send(t.Context(), telemetry(iot.AtLeastOnce))
			wantErr(t, err, iot.ErrUnavailable, adapters.TextUnavailable)
			if !strings.Contains(err.Error(), "not yours") {
				t.Errorf("cause %q does not name the reason", err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v, want no time", took)
		}
		if _, n := r.attaches(); n != 0 {
			t.Errorf("%d detaches", n)
		}
		r.mu.Lock()
		r.refuse = nil
		r.mu.Unlock()
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), iot.ErrUnavailable, adapters.TextUnavailable)
		time.Sleep(time.Second)
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
	})
}

func TestRefusedByOneOfTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		no, yes := newScripted(t, "no"), newScripted(t, "yes")
		no.refuse = &amqp.Error{Condition: amqp.CondUnauthorizedAccess}
		s, _ := start(t, downstream.Options{}, no, yes)
		synctest.Wait()
		for range 5 {
			wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
		}
	})
}

// A link that the router detaches takes its deliveries along, and is attached
// again for the next message.
func TestLinkDetachedByRouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.answer = func(d *received) amqp.Raw { return nil }
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		time.AfterFunc(10*time.Millisecond, func() {
			r.each("telemetry/T", func(l *peer.Link) { l.Detach(nil) })
		})
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), iot.ErrUnavailable, adapters.TextNotProcessed)
		r.mu.Lock()
		r.answer = nil
		r.mu.Unlock()
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
		if n, _ := r.attaches(); n != 2 {
			t.Errorf("%d links, want 2", n)
		}
	})
}

func TestTooLargeForTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.maxSize = 1000
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		m := telemetry(iot.AtLeastOnce)
		m.Payload = make([]byte, 1000)
		wantErr(t, s.Send(t.Context(), m), iot.ErrTooLarge, "message is too large")
		m.Payload = make([]byte, 500)
		wantErr(t, s.Send(t.Context(), m), nil, "")
	})
}

func TestIdleLinkIsDetached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		steady := telemetry(iot.AtLeastOnce)
		steady.Tenant = "steady"
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
		for range 8 {
			wantErr(t, s.Send(t.Context(), steady), nil, "")
			time.Sleep(time.Minute)
		}
		if attached, detached := r.attaches(); attached != 2 || detached != 1 {
			t.Errorf("%d attached, %d detached, want 2 and 1", attached, detached)
		}
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
		if attached, _ := r.attaches(); attached != 3 {
			t.Errorf("%d attached, want 3", attached)
		}
	})
}

// A router that ends the session gets a new connection.
func TestSessionEndedByRouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
		r.each("telemetry/T", func(l *peer.Link) {
			l.Session().End(&amqp.Error{Condition: amqp.CondWindowViolation})
		})
		synctest.Wait()
		if s.Ready() {
			t.Error("Ready without a session")
		}
		time.Sleep(2 * time.Second)
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
	})
}

// An adapter receives nothing here: links that the router attaches are refused.
func TestRouterAttaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
		r.each("telemetry/T", func(l *peer.Link) {
			l.Session().Attach(peer.Attachment{Name: "x", Role: amqp.RoleSender, Source: &amqp.Source{}, Target: &amqp.Target{}})
		})
		synctest.Wait()
		if _, n := r.attaches(); n != 1 {
			t.Errorf("%d detached, want 1", n)
		}
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
		r.each("telemetry/T", func(l *peer.Link) { l.SetDrain() })
		synctest.Wait()
		r.each("telemetry/T", func(l *peer.Link) {
			if l.Credit() != 0 {
				t.Errorf("credit %d after drain, want 0", l.Credit())
			}
		})
	})
}

func TestStopLetsInFlightFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.answer = func(d *received) amqp.Raw { return nil }
		s, stop := start(t, downstream.Options{}, r)
		synctest.Wait()
		slow := make(chan error, 1)
		go func() { slow <- s.Send(t.Context(), telemetry(iot.AtLeastOnce)) }()
		synctest.Wait()
		time.AfterFunc(500*time.Millisecond, func() {
			r.each("telemetry/T", func(l *peer.Link) { l.Settle(r.got[0].id, amqp.StateAccepted, true) })
		})
		began := time.Now()
		stopped := make(chan struct{})
		go func() { stop(); close(stopped) }()
		synctest.Wait()
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), iot.ErrUnavailable, adapters.TextUnavailable)
		if s.Ready() {
			t.Error("Ready while stopping")
		}
		wantErr(t, <-slow, nil, "")
		<-stopped
		if took := time.Since(began); took != 500*time.Millisecond {
			t.Errorf("stopping took %v, want 500ms", took)
		}
	})
}

// A router that neither settles nor answers the close does not hold the stop up.
func TestStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.answer = func(d *received) amqp.Raw { return nil }
		s, stop := start(t, downstream.Options{}, r)
		synctest.Wait()
		slow := make(chan error, 1)
		go func() { slow <- s.Send(t.Context(), telemetry(iot.AtLeastOnce)) }()
		synctest.Wait()
		began := time.Now()
		stop()
		wantErr(t, <-slow, iot.ErrTimeout, adapters.TextNoOutcome)
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("stopping took %v", took)
		}
	})
}

func TestStopEndsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.credit = 0
		s, stop := start(t, downstream.Options{CreditWait: time.Hour}, r)
		synctest.Wait()
		waits := make(chan error, 1)
		go func() { waits <- s.Send(t.Context(), telemetry(iot.AtLeastOnce)) }()
		synctest.Wait()
		began := time.Now()
		stop()
		wantErr(t, <-waits, iot.ErrUnavailable, adapters.TextUnavailable)
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("stopping took %v", took)
		}
	})
}

// A burst meets a session window of two frames.
func TestWindowHoldsSendsBack(t *testing.T) {
	r := newScripted(t, "r")
	r.window, r.credit = 2, 1000
	s, _ := start(t, downstream.Options{CreditWait: time.Hour, SendTimeout: time.Hour}, r)
	eventually(t, s.Ready)
	burst(t, s, 1, 1)
	r.mu.Lock() // its reader stops here
	time.AfterFunc(100*time.Millisecond, r.mu.Unlock)
	burst(t, s, 500, 100)
	if r.count() != 501 {
		t.Errorf("%d arrived, want 501", r.count())
	}
}

// A router that reads nothing for a while: what does not fit waits, and goes
// when it reads again.
func TestUnreadOutputHoldsSendsBack(t *testing.T) {
	r := newScripted(t, "r")
	r.credit = 2000
	s, _ := start(t, downstream.Options{CreditWait: time.Hour, SendTimeout: time.Hour}, r)
	eventually(t, s.Ready)
	burst(t, s, 1, 1)
	r.mu.Lock() // its reader stops here
	time.AfterFunc(100*time.Millisecond, r.mu.Unlock)
	burst(t, s, 900, 1000)
	if r.count() != 901 {
		t.Errorf("%d arrived, want 901", r.count())
	}
}

// burst sends n messages of size bytes at once and waits for them.
func burst(t *testing.T, s *downstream.Set, n, size int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			m := telemetry(iot.AtLeastOnce)
			m.Payload = make([]byte, size)
			if err := s.Send(t.Context(), m); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestCancelledBeforehand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wantErr(t, s.Send(ctx, telemetry(iot.AtLeastOnce)), iot.ErrTimeout, adapters.TextNoOutcome)
		synctest.Wait()
		if r.count() != 0 {
			t.Error("it was sent")
		}
	})
}

func TestStoppedSetRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		s, stop := start(t, downstream.Options{}, r)
		stop()
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtMostOnce)), iot.ErrUnavailable, adapters.TextUnavailable)
		if err := s.Run(t.Context()); err == nil {
			t.Error("second Run = nil, want an error")
		}
	})
}

// Many goroutines, tenants, both guarantees, two routers of which one comes
// and goes: every accepted at-least-once message has arrived, and nothing hangs.
func TestConcurrentSends(t *testing.T) {
	a, b := newScripted(t, "a"), newScripted(t, "b")
	a.credit, b.credit = 10, 20
	s, stop := start(t, downstream.Options{}, a, b)
	eventually(t, func() bool { return s.Connected() == 2 })
	const workers, each = 16, 300
	var accepted, failed atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				m := telemetry(iot.QoS(i % 2))
				m.Tenant = iot.TenantID(fmt.Sprint("tenant", (w+i)%7))
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				if i%50 == 49 {
					time.AfterFunc(time.Duration(w)*10*time.Microsecond, cancel) // some give up soon
				}
				switch err := s.Send(ctx, m); {
				case err == nil && m.QoS == iot.AtLeastOnce:
					accepted.Add(1)
				case err != nil:
					failed.Add(1)
				}
				cancel()
				if w == 0 && i%100 == 50 {
					b.kill()
				}
			}
		})
	}
	wg.Wait()
	stop()
	settled := 0
	for _, r := range []*scripted{a, b} {
		for _, d := range r.got {
			if !d.settled {
				settled++
			}
		}
	}
	if int64(settled) < accepted.Load() || accepted.Load() < workers*each/4 {
		t.Errorf("%d accepted of %d (%d failed), %d arrived", accepted.Load(), workers*each, failed.Load(), settled)
	}
	t.Logf("%d accepted, %d failed, %d arrived", accepted.Load(), failed.Load(), settled)
}

// Ten thousand tenants have a link each on one session.
func TestManyTenants(t *testing.T) {
	r := newScripted(t, "r")
	s, _ := start(t, downstream.Options{CreditWait: time.Minute}, r)
	eventually(t, s.Ready)
	for i := range 10_000 {
		m := telemetry(iot.AtLeastOnce)
		m.Tenant = iot.TenantID(fmt.Sprint(i))
		if err := s.Send(t.Context(), m); err != nil {
			t.Fatalf("tenant %d: %v", i, err)
		}
	}
	if n, _ := r.attaches(); n != 10_000 {
		t.Errorf("%d links", n)
	}
}

func TestOtherEndpointsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, downstream.Options{}, newScripted(t, "r"))
		m := telemetry(iot.AtLeastOnce)
		m.Endpoint = "command"
		if err := s.Send(t.Context(), m); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("Send = %v, want %v", err, iot.ErrInvalid)
		}
	})
}

// eventually waits for what happens on sockets.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for !ok() {
		if t.Context().Err() != nil {
			t.Fatal("did not happen")
		}
		time.Sleep(time.Millisecond)
	}
}
