package stored_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/router/stored"
)

func TestAcceptedWithoutConsumer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		want := numbered("d", 1, 600)
		p.send(want...)
		synctest.Wait()
		if n := p.tally()["accepted"]; n != 600 {
			t.Fatalf("outcomes: %v", p.tally())
		}
		time.Sleep(time.Hour)
		if n := s.log.all() - s.log.count("append"); n != 0 {
			t.Errorf("%d calls while nobody listens", n)
		}
		c := s.consumer("event/T", 100, accept)
		time.Sleep(time.Second)
		equal(t, "delivered", c.names(), want)
		for _, g := range c.list() {
			if !g.header.Durable || !g.header.FirstAcquirer || g.header.DeliveryCount != 0 || g.header.HasTTL {
				t.Fatalf("%s has the header %+v", g.name, g.header)
			}
		}
		calls := s.log.all()
		time.Sleep(24 * time.Hour)
		if n := s.log.all() - calls; n != 0 {
			t.Errorf("%d calls with a consumer and no traffic", n)
		}
		stats, err := log.Stats(t.Context(), "T")
		if err != nil || stats.Waiting != 0 {
			t.Errorf("%+v, %v after all was accepted", stats, err)
		}
	})
}

func TestLive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		c := s.consumer("event/T", 100, accept)
		p := s.producer("event/T")
		synctest.Wait()
		reads := s.log.count("read")
		for _, name := range numbered("d", 1, 50) {
			p.send(name)
			synctest.Wait()
		}
		equal(t, "delivered", c.names(), numbered("d", 1, 50))
		if n := s.log.count("read") - reads; n != 0 {
			t.Errorf("%d reads for what was in memory", n)
		}
		if f := s.server.Figures(); f.Live != 50 || f.Delivered != 50 {
			t.Errorf("%+v", f)
		}
	})
}

func TestUntouched(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		// An encoding that ours would not choose: a map32, a long ulong, a str32.
		tail := []byte{0, 0x53, 0x72, 0xd1, 0, 0, 0, 20, 0, 0, 0, 2, 0xb3, 0, 0, 0, 2, 'x', 'y', 0x80, 0, 0, 0, 0, 0, 0, 0, 1,
			0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x75, 0xb0, 0, 0, 0, 2, 'h', 'i'}
		head := (&amqp.Header{Priority: 7, HasPriority: true, HasTTL: true, TTL: 60_000}).Append(nil)
		annotations, err := (&amqp.Message{DeliveryAnnotations: amqp.Map{{Key: amqp.Symbol("x-opt-hop"), Value: "1"}}}).Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		p.post(sent{"a", slices.Concat(head, annotations, tail)})
		synctest.Wait()
		time.Sleep(10 * time.Second)
		c := s.consumer("event/T", 1, accept)
		time.Sleep(time.Second)
		list := c.list()
		if len(list) != 1 {
			t.Fatalf("%d deliveries, %v", len(list), p.tally())
		}
		h, rest, err := amqp.SplitHeader(list[0].payload)
		if err != nil || string(rest) != string(tail) {
			t.Errorf("%x, want %x: %v", rest, tail, err)
		}
		if h.Priority != 7 || !h.HasTTL || h.TTL > 50_000 || h.TTL < 49_000 {
			t.Errorf("header %+v", h)
		}
	})
}

func TestTTL(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		p.post(sent{"d/1", message("d/1", time.Second)})
		p.post(sent{"d/2", message("d/2", time.Minute)})
		time.Sleep(2 * time.Second)
		c := s.taker("event/T", 1, nothing)
		time.Sleep(time.Second)
		equal(t, "delivered", c.names(), []string{"d/2"})
		// What waits in memory expires there.
		p.post(sent{"d/3", message("d/3", 500*time.Millisecond)})
		time.Sleep(600 * time.Millisecond)
		c.credit(10)
		time.Sleep(time.Second)
		equal(t, "delivered", c.names(), []string{"d/2"})
	})
}

func TestOutcomes(t *testing.T) {
	modified := (&amqp.Modified{DeliveryFailed: true}).Append(nil)
	for name, test := range map[string]struct {
		state  amqp.Raw
		after  time.Duration // until it comes again; 0 = it does not
		dead   int
		reason string
	}{
		"released": {amqp.StateReleased, time.Second, 0, ""},
		"modified": {modified, time.Second, 0, ""},
		"rejected": {amqp.AppendRejected(nil, &amqp.Error{Condition: "hono:bad-request", Description: strings.Repeat("é", 600)}), 0, 1, "hono:bad-request: é"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, log := newLog()
				s := newSite(t, log, stored.Options{})
				first := true
				c := s.consumer("event/T", 10, func(got) amqp.Raw {
					if first {
						first = false
						return test.state
					}
					return amqp.StateAccepted
				})
				p := s.producer("event/T")
				p.send("d/1")
				time.Sleep(5 * time.Second)
				list := c.list()
				if test.after > 0 {
					if len(list) != 2 {
						t.Fatalf("%d deliveries", len(list))
					}
					if d := list[1].at.Sub(list[0].at); d > test.after {
						t.Errorf("it came again after %v", d)
					}
					if h := list[1].header; h.DeliveryCount != 1 || h.FirstAcquirer {
						t.Errorf("header %+v", h)
					}
				} else if len(list) != 1 {
					t.Errorf("%d deliveries", len(list))
				}
				letters := deadLetters(t, log)
				if len(letters) != test.dead || test.dead > 0 && !strings.HasPrefix(letters[0].Reason, test.reason) {
					t.Errorf("dead letters %+v", letters)
				}
			})
		})
	}
}

func deadLetters(t *testing.T, log *eventstore.Log) (all []eventstore.Browsed) {
	t.Helper()
	for _, id := range eventstore.FirstGeneration() {
		list, _, err := log.Browse(t.Context(), eventstore.BrowseRequest{Tenant: "T", Partition: id, Dead: true})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	return all
}

func TestConsumerKilled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		a := s.consumer("event/T", 10, nothing)
		p := s.producer("event/T")
		p.send(numbered("d", 1, 5)...)
		time.Sleep(time.Second)
		b := s.consumer("event/T", 10, accept)
		time.Sleep(time.Minute)
		if n := len(b.list()); n != 0 {
			t.Fatalf("%d deliveries of what another has", n)
		}
		killed := time.Now()
		a.kill()
		time.Sleep(time.Second)
		equal(t, "delivered", b.names(), numbered("d", 1, 5))
		for _, g := range b.list() {
			if g.header.DeliveryCount != 1 || g.header.FirstAcquirer || g.at.Sub(killed) > 200*time.Millisecond {
				t.Errorf("%s came after %v with %+v", g.name, g.at.Sub(killed), g.header)
			}
		}
	})
}

// TestHeldForLong: a consumer that takes its time does not make the event come again.
func TestHeldForLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		n := 0
		c := s.consumer("event/T", 10, func(got) amqp.Raw {
			if n++; n == 1 {
				return amqp.StateReleased
			}
			return nil
		})
		p := s.producer("event/T")
		p.send("d/1")
		time.Sleep(10 * time.Minute)
		list := c.list()
		if len(list) != 2 {
			t.Fatalf("%d deliveries", len(list))
		}
		c.say(list[1], amqp.StateAccepted)
		time.Sleep(10 * time.Minute)
		if len(c.list()) != 2 || s.server.Figures().LostClaims != 0 {
			t.Errorf("%d deliveries, %+v", len(c.list()), s.server.Figures())
		}
	})
}

func TestCompeting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		a, b := s.taker("event/T", 200, accept), s.taker("event/T", 200, accept)
		p := s.producer("event/T")
		for i := range 20 {
			p.send(numbered("d"+string(rune('a'+i)), 1, 20)...)
		}
		time.Sleep(time.Second)
		all := append(a.names(), b.names()...)
		slices.Sort(all)
		if len(all) != 400 || len(slices.Compact(all)) != 400 || len(a.list()) != 200 {
			t.Errorf("%d and %d deliveries", len(a.list()), len(b.list()))
		}
	})
}

func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		c := s.taker("event/T", 0, accept)
		drain := func(what string, credit uint32, deliveries int) {
			t.Helper()
			before := len(c.list())
			c.do(func() {
				c.link.SetCredit(credit)
				c.link.SetDrain()
			})
			time.Sleep(time.Second)
			c.conn.Lock()
			defer c.conn.Unlock()
			if c.link.Credit() != 0 {
				t.Errorf("%s: credit %d is not drained", what, c.link.Credit())
			}
			if n := len(c.got) - before; n != deliveries {
				t.Errorf("%s: %d deliveries, want %d", what, n, deliveries)
			}
		}
		drain("nothing there", 10, 0)
		drain("no credit", 0, 0)
		p.send(numbered("d", 1, 30)...)
		time.Sleep(time.Second)
		drain("more than credit", 10, 10)
		drain("more credit", 100, 20)
		s.log.script(func(context.Context, string) error { return errDown }, nil)
		drain("store down", 10, 0)
		s.log.script(nil, nil)
		// With another holder there is nothing for this one.
		other := newSite(t, log, stored.Options{})
		time.Sleep(5 * time.Second)
		other.consumer("event/T", 10, accept)
		time.Sleep(time.Second)
		drain("held by another", 10, 0)
	})
}

func TestCreditGivesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		c := s.taker("event/T", 5, accept)
		p.send(numbered("d", 1, 9)...)
		time.Sleep(time.Second / 2)
		if s.log.count("release") != 0 {
			t.Error("claims are given back at once")
		}
		time.Sleep(2 * time.Second)
		if n := s.log.count("release"); n != eventstore.Partitions {
			t.Errorf("%d claims given back without credit", n)
		}
		calls := s.log.all()
		time.Sleep(time.Hour)
		if n := s.log.all() - calls; n != 0 {
			t.Errorf("%d calls without credit", n)
		}
		c.credit(100)
		time.Sleep(time.Second)
		equal(t, "delivered", c.names(), numbered("d", 1, 9))
		if h := c.list()[8].header; !h.FirstAcquirer {
			t.Errorf("what was read and not delivered has %+v", h)
		}
	})
}

func TestDetachAndAttach(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		for i := 1; i <= 20; i++ {
			p.send(numbered("d", i*10-9, i*10)...)
			c := s.consumer("event/T", 4, accept)
			time.Sleep(time.Duration(i) * 7 * time.Millisecond)
			c.do(func() { c.link.Detach(nil) })
			if i%2 == 0 {
				synctest.Wait()
			}
			c.kill()
		}
		c := s.consumer("event/T", 100, accept)
		time.Sleep(5 * time.Second)
		stats, err := log.Stats(t.Context(), "T")
		if err != nil || stats.Waiting != 0 {
			t.Errorf("%+v, %v", stats, err)
		}
		c.kill()
		time.Sleep(2 * time.Second)
		if f := s.server.Figures(); f.Tenants != 0 || f.Prefetched != 0 {
			t.Errorf("%+v after the last consumer has gone", f)
		}
	})
}

func TestAnonymousSender(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		states := map[string]int{}
		a := peer.Attachment{Name: "s", Role: amqp.RoleSender, Source: &amqp.Source{}, Target: &amqp.Target{}}
		e := s.connect(a, func(ev *peer.Event) {
			if ev.Kind == peer.EventOutcome {
				states[kind(ev.State)]++
			}
		}, nil)
		// The store is slow, so that the link lets go of addresses before they answer.
		s.log.script(func(ctx context.Context, call string) error { time.Sleep(time.Second); return nil }, nil)
		for i := range 300 {
			m := amqp.Message{Properties: &amqp.Properties{To: "event/T" + string(rune('a'+i%26)) + strings.Repeat("x", i/26)}, Data: [][]byte{[]byte("x")}}
			b, err := m.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			e.do(func() {
				if r := e.link.Send(&peer.Outgoing{Tail: b}); r != peer.Sent {
					t.Fatalf("message %d: %v", i, r)
				}
			})
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		e.conn.Lock()
		if states["accepted"] != 300 {
			t.Errorf("outcomes %v", states)
		}
		e.conn.Unlock()
		m := amqp.Message{Properties: &amqp.Properties{To: "event/T"}, Data: [][]byte{make([]byte, eventstore.MaxMessageBytes)}}
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		e.do(func() { e.link.Send(&peer.Outgoing{Tail: b}) })
		time.Sleep(time.Minute)
		e.conn.Lock()
		defer e.conn.Unlock()
		if states["rejected amqp:link:message-size-exceeded"] != 1 {
			t.Errorf("outcomes %v of one that is too large", states)
		}
	})
}

func TestRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		p.post(sent{"broken", []byte{0, 0x53, 0xff, 0x40}})
		p.send(strings.Repeat("d", 70_000) + "/1")
		p.send("d/1")
		time.Sleep(time.Second)
		p.conn.Lock()
		defer p.conn.Unlock()
		want := map[string]string{"broken": "rejected amqp:decode-error", strings.Repeat("d", 70_000) + "/1": "rejected amqp:invalid-field", "d/1": "accepted"}
		for name, o := range want {
			if p.outcomes[name] != o {
				t.Errorf("%.20s is %s, want %s", name, p.outcomes[name], o)
			}
		}
	})
}
