package invoke_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

var (
	request = events.TenantGet{ID: "T"}
	answer  = &events.TenantGot{TenantObject: events.TenantObject{ID: "T"}}
	down    = iot.Errorf(iot.ErrUnavailable, "temporarily unavailable")
)

// step is how one try goes.
type step struct {
	outcome invoke.Outcome
	err     error
}

// script plays steps, the last of which repeats, and counts.
type script struct {
	steps []step
	ids   map[string]bool
	n     int
}

func (s *script) try(_ context.Context, env events.Envelope) (events.Reply, invoke.Outcome, error) {
	if s.ids == nil {
		s.ids = map[string]bool{}
	}
	s.ids[env.ID] = true
	st := s.steps[min(s.n, len(s.steps)-1)]
	s.n++
	if st.err != nil {
		return nil, st.outcome, st.err
	}
	return answer, st.outcome, nil
}

func TestTries(t *testing.T) {
	good := step{}
	fails := func(err error) step { return step{invoke.Answered, err} }
	for _, tt := range []struct {
		name  string
		steps []step
		tries int
		want  error
	}{
		{"at once", []step{good}, 1, nil},
		{"second try", []step{{invoke.Lost, down}, good}, 2, nil},
		{"third try", []step{fails(down), {invoke.Lost, down}, good}, 3, nil},
		{"never", []step{fails(down)}, 3, iot.ErrUnavailable},
		{"internal once more", []step{fails(errors.New("x"))}, 2, status.ErrInternal},
		{"quota without a time", []step{fails(iot.Errorf(iot.ErrQuota, "x"))}, 1, iot.ErrQuota},
		{"quota with a time", []step{fails(&iot.Error{Sentinel: iot.ErrQuota, RetryAfter: time.Second}), good}, 2, nil},
		{"after the deadline", []step{fails(&iot.Error{Sentinel: iot.ErrUnavailable, RetryAfter: time.Hour})}, 1, iot.ErrUnavailable},
		{"not found", []step{fails(iot.Errorf(iot.ErrNotFound, "x"))}, 1, iot.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: tt.steps}
				g := invoke.NewGuard(invoke.Options{Source: "//x"})
				_, err := g.Do(t.Context(), request, s.try)
				if tt.want == nil && err != nil || tt.want != nil && !errors.Is(events.ErrorOf(err), tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if s.n != tt.tries || len(s.ids) != 1 {
					t.Errorf("%d tries with %d ids, want %d with one", s.n, len(s.ids), tt.tries)
				}
			})
		})
	}
}

// call makes one try through a guard whose calls are not repeated.
func call(t *testing.T, g *invoke.Guard, s step) (asked bool, err error) {
	t.Helper()
	_, err = g.Do(t.Context(), request, func(context.Context, events.Envelope) (events.Reply, invoke.Outcome, error) {
		asked = true
		if s.err != nil {
			return nil, s.outcome, s.err
		}
		return answer, s.outcome, nil
	})
	return asked, err
}

func TestTheCircuitOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := invoke.NewGuard(invoke.Options{Source: "//x", Breaker: invoke.BreakerOptions{Failures: 3, Open: 10 * time.Second, MaxOpen: 25 * time.Second}})
		final := step{invoke.Lost, iot.Errorf(iot.ErrNotFound, "so that it is not repeated")}
		application := step{invoke.Answered, iot.Errorf(iot.ErrNotFound, "no such tenant")}
		// Answers, errors included, keep it closed; two lost ones in a row do, too.
		for _, s := range []step{final, final, application, final, final, {}, application, application, application, application} {
			if asked, _ := call(t, g, s); !asked {
				t.Fatal("the circuit is open")
			}
		}
		for range 3 {
			call(t, g, final)
		}
		refused := func(when string, atMost time.Duration) time.Duration {
			t.Helper()
			asked, err := call(t, g, step{})
			after := iot.RetryAfter(err)
			if asked || !errors.Is(err, iot.ErrUnavailable) || after <= 0 || after > atMost || after%time.Second != 0 {
				t.Fatalf("%s: asked %t, %v, retry after %s", when, asked, err, after)
			}
			return after
		}
		if after := refused("open", 10*time.Second); after < 5*time.Second {
			t.Errorf("open for %s, want 5 to 10 s", after)
		}
		time.Sleep(10 * time.Second)
		if asked, _ := call(t, g, final); !asked {
			t.Fatal("no probe was let through")
		}
		after := refused("open again", 20*time.Second)
		if after < 10*time.Second {
			t.Errorf("open for %s, want 10 to 20 s", after)
		}
		time.Sleep(20 * time.Second)
		call(t, g, final)
		if after := refused("at its longest", 25*time.Second); after < 12*time.Second {
			t.Errorf("open for %s, want 12.5 to 25 s", after)
		}
		time.Sleep(25 * time.Second)
		// A probe that its caller gives up tells nothing, and the next one probes.
		if asked, _ := call(t, g, step{invoke.Aborted, context.Canceled}); !asked {
			t.Fatal("no probe was let through")
		}
		if asked, err := call(t, g, step{}); !asked || err != nil {
			t.Fatalf("asked %t, %v", asked, err)
		}
		for range 2 { // closed, and it counts anew
			if asked, _ := call(t, g, final); !asked {
				t.Fatal("not closed")
			}
		}
	})
}

func TestOneProbeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := invoke.NewBreaker(invoke.BreakerOptions{Failures: 1}, nil)
		late, err := b.Enter()
		if err != nil {
			t.Fatal(err)
		}
		p, _ := b.Enter()
		b.Leave(p, invoke.Lost)
		b.Leave(late, invoke.Lost) // from before: it neither opens it again nor counts
		time.Sleep(time.Second)
		probe, err := b.Enter()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Enter(); !errors.Is(err, iot.ErrUnavailable) || iot.RetryAfter(err) != time.Second {
			t.Errorf("a second probe: %v", err)
		}
		b.Leave(probe, invoke.Answered)
		if _, err := b.Enter(); err != nil {
			t.Errorf("closed: %v", err)
		}
	})
}

func TestAHostThatIsSilent(t *testing.T) {
	for name, tt := range map[string]struct {
		budget time.Duration
		open   bool
	}{"long": {5 * time.Second, true}, "callers in a hurry": {100 * time.Millisecond, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := invoke.NewGuard(invoke.Options{Source: "//x", Breaker: invoke.BreakerOptions{Failures: 2}})
				silent := func(ctx context.Context, _ events.Envelope) (events.Reply, invoke.Outcome, error) {
					<-ctx.Done()
					o, err := invoke.Gone(ctx)
					return nil, o, err
				}
				for range 2 {
					ctx, cancel := context.WithTimeout(t.Context(), tt.budget)
					if _, err := g.Do(ctx, request, silent); !errors.Is(err, iot.ErrTimeout) {
						t.Errorf("got %v, want ErrTimeout", err)
					}
					cancel()
				}
				if asked, _ := call(t, g, step{}); asked == tt.open {
					t.Errorf("asked: %t", asked)
				}
			})
		})
	}
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := invoke.NewGuard(invoke.Options{Source: "//x", InFlight: 2, Waiting: 3})
		var now, most atomic.Int32
		leave := make(chan struct{})
		try := func(context.Context, events.Envelope) (events.Reply, invoke.Outcome, error) {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-leave
			now.Add(-1)
			return answer, invoke.Answered, nil
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := g.Do(t.Context(), request, try); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wg.Go(func() {
			if _, err := g.Do(ctx, request, try); !errors.Is(err, iot.ErrTimeout) {
				t.Errorf("waited past its deadline: %v", err)
			}
		})
		synctest.Wait()
		if _, err := g.Do(t.Context(), request, try); !errors.Is(err, iot.ErrUnavailable) || iot.RetryAfter(err) != time.Second {
			t.Errorf("one too many: %v", err)
		}
		time.Sleep(2 * time.Second)
		close(leave)
		wg.Wait()
		if most.Load() != 2 {
			t.Errorf("%d at once, want 2", most.Load())
		}
	})
}
