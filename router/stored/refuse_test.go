package stored_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events/invoke/inproc"
	functions "github.com/sluice-iot/sluice/functions/eventstore"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/stored"
)

// byFunctions is a log behind the functions that routers call.
func byFunctions(t *testing.T, log *eventstore.Log) stored.Log {
	t.Helper()
	inv, err := inproc.New(slog.New(slog.DiscardHandler), functions.New(log, functions.Options{}).Functions()...)
	if err != nil {
		t.Fatal(err)
	}
	return stored.ByInvoker(inv)
}

// TestRefusedByFunctions: who sends hears why his own events are refused, whatever they were sent with.
func TestRefusedByFunctions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := eventstore.New(&storetest.Memory{}, eventstore.Options{Quota: func(tenant iot.TenantID) eventstore.Quota {
			if tenant == "FULL" {
				return eventstore.Quota{Messages: 1}
			}
			return eventstore.Quota{}
		}})
		var logged bytes.Buffer
		s := newSite(t, byFunctions(t, log), stored.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		full, other := s.producer("event/FULL"), s.producer("event/T")
		full.send("d/1")
		synctest.Wait()
		for range 3 { // alone, and with others in one append
			full.send("d/2", "d/3")
			other.send(numbered("d", 1, 5)...)
			time.Sleep(100 * time.Millisecond)
			if d := cmp.Diff(map[string]int{"accepted": 1, "rejected amqp:resource-limit-exceeded": 2}, full.tally()); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(map[string]int{"accepted": 5}, other.tally()); d != "" {
				t.Error(d)
			}
			full.forget("d/2", "d/3")
			other.forget(numbered("d", 1, 5)...)
		}
		if f := s.server.Figures(); f.OverQuota != 6 || f.Failed != 0 || strings.Contains(logged.String(), "cannot") {
			t.Errorf("%+v, logged %q", f, logged.String())
		}
	})
}

// forget lets names be sent once more.
func (p *producer) forget(names ...string) {
	p.conn.Lock()
	defer p.conn.Unlock()
	for _, name := range names {
		delete(p.outcomes, name)
	}
}

// choosy refuses an append as a whole for one record in it.
type choosy struct {
	*eventstore.Log
	calls atomic.Int64
	hold  chan struct{} // the first waits for it
	bad   func(r *eventstore.Record) error
}

func (c *choosy) Append(ctx context.Context, r eventstore.AppendRequest) (*eventstore.AppendResult, error) {
	if c.calls.Add(1) == 1 {
		<-c.hold
	}
	for i := range r.Records {
		if err := c.bad(&r.Records[i]); err != nil {
			return nil, err
		}
	}
	return c.Log.Append(ctx, r)
}

// TestOneIsToBlame: an append of many that is refused for one of them is refused to the one.
func TestOneIsToBlame(t *testing.T) {
	for _, test := range []struct {
		err   error
		want  string
		calls int64
	}{
		{iot.Errorf(iot.ErrQuota, "full"), "rejected amqp:resource-limit-exceeded", 4},
		{iot.Errorf(iot.ErrTooLarge, "large"), "rejected amqp:link:message-size-exceeded", 30},
		{iot.Errorf(iot.ErrInvalid, "bad"), "rejected amqp:invalid-field", 30},
	} {
		bubble(t, func(t *testing.T) {
			_, log := newLog()
			c := &choosy{Log: log, hold: make(chan struct{}), bad: func(r *eventstore.Record) error {
				if r.Tenant == "BAD" && bytes.Contains(r.Message, []byte("bad/1")) {
					return test.err
				}
				return nil
			}}
			s := newSite(t, c, stored.Options{})
			good, bad := s.producer("event/T"), s.producer("event/BAD")
			good.send("d/0")
			synctest.Wait()
			good.send(numbered("d", 1, 100)...) // all of these wait, for one append
			bad.send("bad/1")
			if test.calls > 4 {
				bad.send(numbered("d", 1, 100)...)
			}
			synctest.Wait()
			close(c.hold)
			time.Sleep(time.Second)
			if n := good.tally(); n["accepted"] != 101 {
				t.Errorf("%v: the others' are %v", test.err, n)
			}
			n := bad.tally()
			if n[test.want] != 1 || n["accepted"] != len(bad.outcomes)-1 {
				t.Errorf("%v: %v", test.err, n)
			}
			if k := c.calls.Load(); k > test.calls {
				t.Errorf("%v: %d appends", test.err, k)
			}
		})
	}
}

// TestSmallReceiver: a receiver that takes no event of that size has not failed at it, and is not
// offered it all the time.
func TestSmallReceiver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := eventstore.New(&storetest.Memory{}, eventstore.Options{MaxAttempts: 2})
		s := newSite(t, log, stored.Options{})
		p := s.producer("event/T")
		small := s.attach(peer.Attachment{Credit: 10, MaxMessageSize: 1000}, "event/T", 10, accept)
		large := "d/" + strings.Repeat("x", 1000)
		p.send(large, "d/1")
		time.Sleep(time.Minute)
		calls := s.log.count("settle")
		time.Sleep(time.Hour)
		if n := s.log.count("settle") - calls; n > 90 {
			t.Errorf("tried %d times within an hour", n)
		}
		equal(t, "delivered", small.names(), []string{"d/1"})
		if dead := deadLetters(t, log); len(dead) > 0 {
			t.Errorf("dead: %+v", dead)
		}
		c := s.consumer("event/T", 10, accept)
		time.Sleep(2 * time.Minute)
		equal(t, "delivered", c.names(), []string{large})
	})
}
