package stored_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/router/stored"
)

// TestConsumerLeaves: what one router gives back the other that waits has at once, in
// either way: its consumer has gone, or the process ends.
func TestConsumerLeaves(t *testing.T) {
	for name, leave := range map[string]func(*site, *consumer){
		"the consumer": func(_ *site, c *consumer) { c.kill() },
		"its credit":   func(_ *site, c *consumer) { c.credit(0) },
		"the router":   func(s *site, _ *consumer) { s.stop(time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, log := newLog()
				r := &routers{t: t, log: log}
				a, b, other := r.start("a"), r.start("b"), r.start("c")
				ca := a.consumer("event/T", 100, accept)
				time.Sleep(time.Second)
				cb := b.consumer("event/T", 100, accept)
				time.Sleep(time.Minute)
				ca.keep = 0
				leave(a, ca)
				time.Sleep(5 * time.Second)
				n := len(cb.list())
				p := other.producer("event/T")
				for i := range 16 {
					p.send(numbered("d"+string(rune('a'+i)), 1, 2)...)
				}
				time.Sleep(time.Second)
				if got := len(cb.list()) - n; got != 32 {
					t.Errorf("%d of 32 are delivered", got)
				}
			})
		})
	}
}

// TestWaiterLeaves: what was being given to a router keeps nobody waiting once the router needs it no
// longer: consumers of two routers that leave together while the second one gets its share.
func TestWaiterLeaves(t *testing.T) {
	for _, after := range []time.Duration{0, 10 * time.Millisecond, time.Second, 2 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, log := newLog()
				r := &routers{t: t, log: log}
				a, b, other := r.start("a"), r.start("b"), r.start("c")
				ca := a.consumer("event/T", 100, accept)
				cb := b.consumer("event/T", 100, accept)
				time.Sleep(after)
				ca.kill()
				cb.kill()
				time.Sleep(5 * time.Second)
				p := other.producer("event/T")
				for i := range 16 {
					p.send(numbered("d"+string(rune('a'+i)), 1, 2)...)
				}
				cc := other.consumer("event/T", 100, accept)
				time.Sleep(time.Second)
				if got := len(cc.list()); got != 32 {
					t.Errorf("%d of 32 are delivered", got)
				}
			})
		})
	}
}

// TestShareOfTheIdle: a router that has nothing to do gives a second one its share all the same, so that
// a consumer that is slow later does not have all.
func TestShareOfTheIdle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		a, b, _ := pair(t, log)
		a.consumer("event/T", 100, nothing)
		time.Sleep(time.Minute)
		cb := b.consumer("event/T", 100, accept)
		time.Sleep(2 * time.Second)
		if n := a.log.count("release"); n != eventstore.Partitions/2 {
			t.Errorf("%d partitions are given back", n)
		}
		p := a.producer("event/T")
		for i := range 40 {
			p.send(fmt.Sprintf("d%d/1", i))
		}
		time.Sleep(time.Second)
		if n := len(cb.list()); n < 10 {
			t.Errorf("%d of 40 are the other's", n)
		}
	})
}

// TestWaitingCostsNothing: of two routers with nothing to deliver neither asks, whoever has the partitions.
func TestWaitingCostsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		a, b, _ := pair(t, log)
		a.consumer("event/T", 100, accept)
		time.Sleep(time.Second)
		b.consumer("event/T", 100, accept)
		time.Sleep(time.Hour) // they have shared by then
		calls := a.log.all() + b.log.all()
		time.Sleep(time.Hour)
		if n := a.log.all() + b.log.all() - calls; n > 2*13 {
			t.Errorf("%d calls within an hour", n)
		}
	})
}

// TestKilledIsReplacedAsSoonAsItMay: what a router that is no more had is taken when its claim ends.
func TestKilledIsReplacedAsSoonAsItMay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		a, b, _ := pair(t, log)
		a.consumer("event/T", 10, nothing)
		b.producer("event/T").send(numbered("d", 1, 5)...)
		time.Sleep(7500 * time.Millisecond)
		a.kill()
		dead := time.Now()
		time.Sleep(1300 * time.Millisecond)
		cb := b.consumer("event/T", 10, accept)
		time.Sleep(30 * time.Second)
		list := cb.list()
		if len(list) != 5 {
			t.Fatalf("%d deliveries", len(list))
		}
		if d := list[0].at.Sub(dead); d > 10*time.Second+100*time.Millisecond {
			t.Errorf("the first after %s", d)
		}
	})
}

// TestPoll: a router that no fact reaches asks.
func TestPoll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{Poll: 10 * time.Second})
		c := s.consumer("event/T", 10, accept)
		other := newSite(t, log, stored.Options{Tell: func(context.Context, string, eventstore.Holding) error { return nil }})
		p := other.producer("event/T")
		time.Sleep(time.Minute)
		p.send("d/1")
		time.Sleep(11 * time.Second)
		equal(t, "delivered", c.names(), []string{"d/1"})
	})
}

// counted counts what reads bring.
type counted struct {
	*eventstore.Log
	records atomic.Int64
}

func (c *counted) Read(ctx context.Context, r eventstore.ReadRequest) (*eventstore.ReadResult, error) {
	out, err := c.Log.Read(ctx, r)
	if err == nil {
		c.records.Add(int64(len(out.Records)))
	}
	return out, err
}

// TestReadsWhatIsTaken: a backlog is not read for a receiver that takes little of it.
func TestReadsWhatIsTaken(t *testing.T) {
	for _, test := range []struct {
		credit uint32
		most   int64
	}{{1, 64}, {10, 64}, {300, 900}} {
		bubble(t, func(t *testing.T) {
			_, log := newLog()
			c := &counted{Log: log}
			s := newSite(t, c, stored.Options{})
			p := s.producer("event/T")
			for i := range 40 {
				p.send(numbered("d"+strconv.Itoa(i), 1, 100)...)
			}
			time.Sleep(time.Second)
			rx := s.taker("event/T", test.credit, nothing)
			time.Sleep(time.Second)
			if n := len(rx.list()); n != int(test.credit) {
				t.Errorf("%d deliveries with the credit %d", n, test.credit)
			}
			if n := c.records.Load(); n > test.most {
				t.Errorf("%d records are read for the credit %d", n, test.credit)
			}
			// Those that come back, and all others, are read with more credit.
			rx.do1 = accept
			rx.do(func() {
				for _, g := range rx.got {
					rx.link.Settle(g.id, amqp.StateReleased, true)
				}
			})
			for range 60 {
				rx.credit(100)
				time.Sleep(time.Second)
			}
			if n := len(rx.list()) - int(test.credit); n != 4000 {
				t.Errorf("%d of 4000 are delivered", n)
			}
		})
	}
}

// TestOneOfEach: few events in many partitions are read at the same time.
func TestOneOfEach(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		for i := range 40 {
			p.send("d" + strconv.Itoa(i) + "/1")
		}
		time.Sleep(time.Second)
		s.log.script(func(_ context.Context, call string) error {
			if call == "read" {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}, nil)
		c := s.consumer("event/T", 100, accept)
		time.Sleep(150 * time.Millisecond)
		if n := len(c.list()); n != 40 {
			t.Errorf("%d of 40 after one read of each", n)
		}
	})
}
