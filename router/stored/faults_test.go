package stored_test

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/stored"
)

// TestStoreDown: devices are refused, senders get no more credit than there is memory, and all
// that was accepted is delivered when the store is back.
func TestStoreDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		c := s.consumer("event/T", 100, accept)
		p := s.producer("event/T")
		p.send(numbered("d", 1, 100)...)
		time.Sleep(time.Second)
		s.log.script(func(context.Context, string) error { return errDown }, nil)
		began := time.Now()
		p.send(numbered("d", 101, 1000)...)
		time.Sleep(30 * time.Second)
		if n := p.tally(); n["released"] != 900 || n["accepted"] != 100 {
			t.Fatalf("outcomes with the store down: %v after %v", n, time.Since(began))
		}
		calls := s.log.all()
		time.Sleep(time.Minute)
		if n := s.log.all() - calls; n > 60 {
			t.Errorf("%d calls in a minute of a store that is down", n)
		}
		s.log.script(nil, nil)
		p.send(numbered("d", 1001, 1300)...)
		time.Sleep(time.Minute)
		if n := p.tally(); n["accepted"] != 400 {
			t.Errorf("outcomes when it is back: %v", n)
		}
		equal(t, "delivered", c.names(), append(numbered("d", 1, 100), numbered("d", 1001, 1300)...))
	})
}

// TestMemoryBounded: what waits for a store that hangs is bounded, and nobody starves afterwards.
func TestMemoryBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		block := make(chan struct{})
		s.log.script(func(ctx context.Context, call string) error {
			select {
			case <-ctx.Done():
				return iot.Errorf(iot.ErrTimeout, "the store hangs")
			case <-block:
				return nil
			}
		}, nil)
		body := string(make([]byte, 200<<10))
		var list []*producer
		for i := range 20 {
			p := s.producer(fmt.Sprintf("event/T%d", i%5))
			list = append(list, p)
			for n := range 30 {
				p.post(sent{fmt.Sprintf("%d/%d", i, n), message(fmt.Sprintf("%d/%d/%s", i, n, body), 0)})
			}
		}
		synctest.Wait()
		if q := s.server.Figures().Queued; q > 64<<20 || q < 32<<20 {
			t.Errorf("%d MB are queued", q>>20)
		}
		time.Sleep(time.Second)
		close(block)
		time.Sleep(time.Minute)
		accepted := 0
		for _, p := range list {
			n := p.tally()
			accepted += n["accepted"]
			if n["accepted"]+n["released"] != 30 || p.waiting() != 0 {
				t.Errorf("outcomes %v, %d are missing", n, p.waiting())
			}
			p.conn.Lock()
			if p.link.Credit() < 100 {
				t.Errorf("a sender is left with credit %d", p.link.Credit())
			}
			p.conn.Unlock()
		}
		if accepted < 100 {
			t.Errorf("%d were accepted", accepted)
		}
	})
}

// TestLostAnswers: whatever the store did and could not say, nothing is lost, and nothing stored twice.
func TestLostAnswers(t *testing.T) {
	for _, call := range []string{"append", "claim", "read", "settle", "release"} {
		t.Run(call, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, log := newLog()
				s := newSite(t, log, stored.Options{})
				var n atomic.Int64
				lose := func(c string) error {
					if c == call && n.Add(1)%2 == 1 {
						return errDown
					}
					return nil
				}
				s.log.script(nil, lose)
				p := s.producer("event/T")
				want := []string{}
				for i := range 10 {
					want = append(want, numbered("d", 10*i+1, 10*i+10)...)
					p.send(numbered("d", 10*i+1, 10*i+5)...)
					time.Sleep(time.Second)
					c := s.taker("event/T", 5, accept)
					time.Sleep(time.Second)
					p.send(numbered("d", 10*i+6, 10*i+10)...)
					time.Sleep(2 * time.Second)
					c.credit(100)
					time.Sleep(5 * time.Second)
					if call == "read" {
						time.Sleep(2 * time.Minute) // what was handed out again, to nobody, rests for a minute
					}
					equal(t, fmt.Sprint("round ", i), c.names(), numbered("d", 10*i+1, 10*i+10))
					c.kill()
					time.Sleep(time.Second)
				}
				if got := p.tally()["accepted"]; got != len(want) {
					t.Errorf("%d of %d are accepted", got, len(want))
				}
				time.Sleep(time.Minute)
				if st, err := log.Stats(t.Context(), "T"); err != nil || st.Waiting != 0 {
					t.Errorf("%+v, %v", st, err)
				}
			})
		})
	}
}

// TestReadAfterLive: the answer of a read comes after later events were appended.
func TestReadAfterLive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		p.send(numbered("d", 1, 10)...)
		synctest.Wait()
		s.log.script(nil, func(call string) error {
			if call == "read" || call == "claim" {
				time.Sleep(time.Second)
			}
			return nil
		})
		c := s.consumer("event/T", 100, accept)
		for i := range 40 {
			time.Sleep(100 * time.Millisecond)
			p.send(fmt.Sprintf("d/%d", 11+i))
		}
		time.Sleep(5 * time.Second)
		equal(t, "delivered", c.names(), numbered("d", 1, 50))
	})
}

func TestQuota(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := eventstore.New(&storetest.Memory{}, eventstore.Options{Quota: func(iot.TenantID) eventstore.Quota { return eventstore.Quota{Messages: 10} }})
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		p.send(numbered("d", 1, 12)...)
		time.Sleep(2 * time.Second)
		if n := p.tally(); n["accepted"] != 10 || n["rejected amqp:resource-limit-exceeded"] != 2 {
			t.Errorf("outcomes %v", n)
		}
		c := s.consumer("event/T", 100, accept)
		time.Sleep(2 * time.Second)
		p.send("d/13")
		time.Sleep(time.Second)
		equal(t, "delivered", c.names(), append(numbered("d", 1, 10), "d/13"))
	})
}

// routers are several on one log that tell each other.
type routers struct {
	t   *testing.T
	log *eventstore.Log

	mu    sync.Mutex
	told  int
	sites map[string]*site // by ingress
}

// start starts one, in the place of the one that had the name before.
func (r *routers) start(name string) *site {
	ingress := "http://" + name
	s := newSite(r.t, r.log, stored.Options{Instance: name, Ingress: ingress, Tell: r.tell})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sites == nil {
		r.sites = map[string]*site{}
	}
	r.sites[ingress] = s
	return s
}

func (r *routers) tell(_ context.Context, ingress string, h eventstore.Holding) error {
	r.mu.Lock()
	r.told++
	to, all := r.sites[ingress], maps.Clone(r.sites)
	r.mu.Unlock()
	if ingress == "" {
		for _, s := range all {
			if !s.over.Load() {
				s.server.Appended(h.Tenant, h.Partition, h.End)
			}
		}
		return nil
	}
	if to == nil || to.over.Load() {
		return errDown
	}
	to.server.Appended(h.Tenant, h.Partition, h.End)
	return nil
}

// pair are two of them.
func pair(t *testing.T, log *eventstore.Log) (a, b *site, told func() int) {
	r := &routers{t: t, log: log}
	return r.start("a"), r.start("b"), func() int { r.mu.Lock(); defer r.mu.Unlock(); return r.told }
}

func TestTwoRouters(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		a, b, told := pair(t, log)
		ca := a.consumer("event/T", 100, accept)
		time.Sleep(time.Second)
		pa, pb := a.producer("event/T"), b.producer("event/T")
		pb.send("x/1") // held by a
		synctest.Wait()
		time.Sleep(10 * time.Millisecond)
		equal(t, "told", ca.names(), []string{"x/1"})
		if told() != 1 {
			t.Errorf("told %d times", told())
		}
		// A second consumer, while there is traffic, gets a share.
		cb := b.consumer("event/T", 100, accept)
		for i := range 600 {
			pa.send(fmt.Sprintf("d%d/%d", i%40, i))
			pb.send(fmt.Sprintf("e%d/%d", i%40, i))
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(20 * time.Second)
		all := append(ca.names(), cb.names()...)
		if len(all) != 1201 {
			t.Errorf("%d deliveries of 1201", len(all))
		}
		slices.Sort(all)
		if n := len(slices.Compact(all)); n != 1201 {
			t.Errorf("%d different ones of 1201", n)
		}
		if len(cb.list()) < 200 || len(ca.list()) < 200 {
			t.Errorf("%d and %d deliveries", len(ca.list()), len(cb.list()))
		}
		// Idle: one call for each in 5 minutes.
		time.Sleep(10 * time.Minute)
		calls := a.log.all() + b.log.all()
		time.Sleep(50 * time.Minute)
		if n := a.log.all() + b.log.all() - calls; n > 20 {
			t.Errorf("%d calls in 50 idle minutes of two", n)
		}
		// One is shut down: the other has all.
		a.stop(time.Second)
		before := len(cb.list())
		for i := range 100 {
			pb.send(fmt.Sprintf("f%d/%d", i%40, i))
		}
		time.Sleep(15 * time.Second)
		if n := len(cb.list()) - before; n != 100 {
			t.Errorf("%d of 100 after the other was shut down", n)
		}
	})
}

// TestRouterKilled: its claims end after 10 s, and what its consumers had comes again.
func TestRouterKilled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		a, b, _ := pair(t, log)
		n := 0
		ca := a.consumer("event/T", 10, func(got) amqp.Raw {
			if n++; n <= 3 {
				return amqp.StateAccepted
			}
			return nil
		})
		pb := b.producer("event/T")
		pb.send(numbered("d", 1, 20)...)
		time.Sleep(time.Second)
		if len(ca.list()) != 13 && len(ca.list()) != 10 {
			t.Logf("%d at the one that dies", len(ca.list()))
		}
		dead := time.Now()
		a.log.script(func(context.Context, string) error { return errDown }, nil) // it says nothing more
		cb := b.consumer("event/T", 10, accept)
		time.Sleep(time.Minute)
		equal(t, "delivered", sorted(cb.names()), sorted(numbered("d", 4, 20)))
		for _, g := range cb.list() {
			if d := g.at.Sub(dead); d > 25*time.Second || d < 5*time.Second {
				t.Errorf("%s came after %v", g.name, d)
			}
			var k int
			fmt.Sscanf(g.name, "d/%d", &k)
			if again := k <= 3+len(ca.list())-3; again != (g.header.DeliveryCount > 0) || again == g.header.FirstAcquirer {
				t.Errorf("%s has %+v", g.name, g.header)
			}
		}
		// Appends of devices go on meanwhile.
		pb.send("d/21")
		time.Sleep(time.Second)
		if names := cb.names(); names[len(names)-1] != "d/21" {
			t.Errorf("the last is %s", names[len(names)-1])
		}
		a.log.script(nil, nil)
		ca.kill()
		time.Sleep(time.Minute)
		if st, err := log.Stats(t.Context(), "T"); err != nil || st.Waiting != 0 {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// TestSlowConsumerKeepsNothingFromOthers: a partition that another router waits for is served on
// while this one's consumer holds an event of it.
func TestSlowConsumerKeepsNothingFromOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		a, b, _ := pair(t, log)
		held := map[string]bool{}
		ca := a.consumer("event/T", 100, func(g got) amqp.Raw {
			if held[g.name] = len(held) < 8; held[g.name] {
				return nil // for ever
			}
			return amqp.StateAccepted
		})
		pa := a.producer("event/T")
		for i := range 8 {
			pa.send(fmt.Sprintf("d%d/0", i))
		}
		time.Sleep(time.Second)
		cb := b.consumer("event/T", 100, accept)
		total := 8
		for i := range 600 {
			pa.send(fmt.Sprintf("d%d/%d", i%8, i+1))
			total++
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		calls := a.log.all() + b.log.all()
		if n := len(ca.list()) + len(cb.list()); n != total {
			t.Errorf("%d deliveries of %d", n, total)
		}
		time.Sleep(time.Minute)
		if n := a.log.all() + b.log.all() - calls; n > 60 {
			t.Errorf("%d calls in a minute without traffic", n)
		}
	})
}

func TestShutdownInFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		c := s.taker("event/T", 5, nothing)
		p := s.producer("event/T")
		p.send(numbered("d", 1, 10)...)
		time.Sleep(time.Second)
		s.log.script(func(context.Context, string) error { time.Sleep(200 * time.Millisecond); return nil }, nil)
		p.send(numbered("d", 11, 200)...)
		go func() {
			time.Sleep(100 * time.Millisecond)
			for _, g := range c.list()[:3] {
				c.say(g, amqp.StateAccepted)
			}
		}()
		s.stop(2 * time.Second)
		if n := p.tally()["accepted"]; n != 200 {
			t.Errorf("outcomes at the end: %v", p.tally())
		}
		next := newSite(t, log, stored.Options{})
		d := next.consumer("event/T", 300, accept)
		time.Sleep(30 * time.Second)
		equal(t, "delivered", sorted(d.names()), sorted(numbered("d", 4, 200)))
	})
}

// empty is a log of which everything may be claimed, and that has nothing.
type empty struct{ stored.Log }

func (empty) Claim(context.Context, eventstore.ClaimRequest) (*eventstore.ClaimResult, error) {
	r := &eventstore.ClaimResult{}
	for _, id := range eventstore.FirstGeneration() {
		r.Claims = append(r.Claims, eventstore.Claim{Partition: id, Fence: 1, Next: 1, End: 1, New: true})
	}
	return r, nil
}

func (empty) Release(context.Context, eventstore.ReleaseRequest) error { return nil }

// TestManyTenants: ten thousand with a consumer each cost no goroutine and no calls.
func TestManyTenants(t *testing.T) {
	w := &watched{log: empty{}}
	fake := &nobody{}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	const n = 10_000
	s := stored.New(stored.Options{Log: w, Router: fake})
	for i := range n {
		address := fmt.Sprintf("event/T%d", i)
		s.Receivers(address, 1)
		s.Wanted(address, 100, false)
	}
	for w.count("claim") < n {
		runtime.Gosched()
	}
	for runtime.NumGoroutine() > goroutines+2 {
		time.Sleep(time.Millisecond)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%d bytes for each tenant", each)
	if each > 8<<10 {
		t.Errorf("%d bytes for each tenant", each)
	}
	calls := w.all()
	time.Sleep(50 * time.Millisecond)
	if w.all() != calls || calls > 2*n {
		t.Errorf("%d calls, then %d more", calls, w.all()-calls)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s.Close(ctx)
	if f := s.Figures(); f.Tenants != 0 || f.Releases != 8*n {
		t.Errorf("after the end: %+v", f)
	}
}

// TestBackAtOnce: a consumer that comes again within a second finds the claims where they were.
func TestBackAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		for i := range 20 {
			p.send(fmt.Sprintf("d/%d", i))
			c := s.consumer("event/T", 10, accept)
			time.Sleep(300 * time.Millisecond)
			equal(t, fmt.Sprint("round ", i), c.names(), []string{fmt.Sprintf("d/%d", i)})
			c.kill()
			time.Sleep(300 * time.Millisecond)
		}
		if n := s.log.count("claim") + s.log.count("release"); n > 5 {
			t.Errorf("%d claims and releases", n)
		}
		time.Sleep(2 * time.Second)
		if n := s.log.count("release"); n != eventstore.Partitions {
			t.Errorf("%d releases after the last has gone", n)
		}
	})
}

// TestSlowStore: with a second for each write everything is still taken in its turn.
func TestSlowStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		s.log.script(func(ctx context.Context, call string) error { time.Sleep(time.Second); return nil }, nil)
		c := s.consumer("event/T", 500, accept)
		p := s.producer("event/T")
		p.send(numbered("d", 1, 2000)...)
		time.Sleep(time.Minute)
		if n := p.tally(); n["accepted"] != 2000 || p.credit > 250 {
			t.Errorf("outcomes %v, credit %d", n, p.credit)
		}
		equal(t, "delivered", c.names(), numbered("d", 1, 2000))
	})
}

// TestSettledBySender: what a sender settles before it is sent, or before it is
// answered, is kept all the same, and its credit is renewed.
func TestSettledBySender(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		first := s.producer("event/T")
		first.settled = true
		first.send(numbered("d", 1, 700)...)
		time.Sleep(time.Second)
		s.log.script(func(ctx context.Context, call string) error { time.Sleep(time.Second); return nil }, nil)
		early := s.producer("event/T")
		for i := 701; i <= 1400; i++ {
			early.send(fmt.Sprintf("d/%d", i))
			early.do(func() {
				for id := range early.names {
					early.link.SettleSent(id, amqp.StateReleased)
				}
				clear(early.names)
			})
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		c := s.consumer("event/T", 100, accept)
		time.Sleep(2 * time.Minute)
		equal(t, "delivered", c.names(), numbered("d", 1, 1400))
		if n := early.waiting(); n != 0 { // those that were sent by themselves, when credit came
			t.Errorf("%d outcomes are missing", n)
		}
	})
}

// TestShareSoon has a second router's consumer get its share within seconds, while both
// routers store events, and no event wait for long where there are few.
func TestShareSoon(t *testing.T) {
	for _, every := range []time.Duration{10 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second} {
		bubble(t, func(t *testing.T) {
			_, log := newLog()
			a, b, _ := pair(t, log)
			ca := a.consumer("event/T", 100, accept)
			time.Sleep(time.Second)
			from := []*producer{a.producer("event/T"), b.producer("event/T")}
			cb := b.consumer("event/T", 100, accept)
			began := time.Now()
			var worst time.Duration
			for i := range 300 {
				sent := time.Now()
				from[i%2].send(fmt.Sprintf("d%d/%d", i%40, i))
				for time.Sleep(time.Millisecond); len(ca.list())+len(cb.list()) == i; time.Sleep(10 * time.Millisecond) {
				}
				worst = max(worst, time.Since(sent))
				if took := time.Since(began); every < time.Second && took > 3*time.Second && len(cb.list()) == 0 {
					t.Fatalf("no share after %s", took)
				}
				time.Sleep(every)
			}
			// What is kept for a router that does not come is kept for 20 s.
			if worst > 45*time.Second {
				t.Errorf("with one event every %s the slowest took %s", every, worst)
			}
			t.Logf("every %s: the slowest took %s; %d and %d", every, worst, len(ca.list()), len(cb.list()))
		})
	}
}
