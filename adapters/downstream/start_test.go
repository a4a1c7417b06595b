package downstream_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
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

// told collects what done is called with, by the number of the message.
type told struct {
	t     testing.TB
	mu    sync.Mutex
	ends  map[int][]error
	order []int
	then  func(i int, err error) // called after it was noted, on done's goroutine
}

func newTold(t testing.TB) *told { return &told{t: t, ends: map[int][]error{}} }

func (c *told) done(i int) func(error) {
	return func(err error) {
		c.mu.Lock()
		c.ends[i] = append(c.ends[i], err)
		c.order = append(c.order, i)
		then := c.then
		c.mu.Unlock()
		if then != nil {
			then(i, err)
		}
	}
}

func (c *told) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.order)
}

// once checks that the messages 0 to n-1 were told of once each, and returns how.
func (c *told) once(n int) []error {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	errs := make([]error, n)
	for i := range n {
		if len(c.ends[i]) != 1 {
			c.t.Fatalf("message %d ended %d times (%v), want once", i, len(c.ends[i]), c.ends[i])
		}
		errs[i] = c.ends[i][0]
	}
	if len(c.order) != n {
		c.t.Errorf("%d ends, want %d", len(c.order), n)
	}
	return errs
}

func numbered(i int, qos iot.QoS) *iot.Message {
	m := telemetry(qos)
	m.ID = strconv.Itoa(i)
	return m
}

// arrived lists the numbers of the messages in the order in which they came.
func (r *scripted) arrived(t testing.TB) (ids []int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.got {
		ids = append(ids, d.number(t))
	}
	return ids
}

func (d *received) number(t testing.TB) int {
	m, err := amqp.DecodeMessage(d.payload)
	if err != nil {
		t.Error(err)
		return -1
	}
	id, err := strconv.Atoi(m.Properties.MessageID.(string))
	if err != nil {
		t.Error(err)
	}
	return id
}

// connections counts those that were ever made.
func (r *scripted) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

func upTo(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// Started messages end as sent ones do, and when those do.
func TestStartEnds(t *testing.T) {
	never := func(*received) amqp.Raw { return nil }
	rejects := func(*received) amqp.Raw {
		return amqp.AppendRejected(nil, &amqp.Error{Condition: "hono:bad-request", Description: "no such unit"})
	}
	for _, tt := range []struct {
		name     string
		router   func(r *scripted)
		message  func(m *iot.Message)
		sentinel error
		text     string
		after    time.Duration
	}{
		{name: "accepted"},
		{name: "at most once", router: func(r *scripted) { r.answer = rejects }, message: func(m *iot.Message) { m.QoS = iot.AtMostOnce }},
		{name: "rejected", router: func(r *scripted) { r.answer = rejects }, sentinel: iot.ErrInvalid, text: "no such unit"},
		{name: "left for us to settle", router: func(r *scripted) { r.answer, r.second = rejects, true }, sentinel: iot.ErrInvalid, text: "no such unit"},
		{name: "no outcome", router: func(r *scripted) { r.answer = never }, sentinel: iot.ErrTimeout, text: adapters.TextNoOutcome, after: time.Second},
		{name: "no credit", router: func(r *scripted) { r.credit = 0 }, sentinel: iot.ErrNoCredit, text: adapters.TextNoConsumer, after: 200 * time.Millisecond},
		{name: "connection lost", router: func(r *scripted) {
			r.answer = never
			time.AfterFunc(300*time.Millisecond, r.kill)
		}, sentinel: iot.ErrUnavailable, text: adapters.TextNotProcessed, after: 300 * time.Millisecond},
		{name: "link lost", router: func(r *scripted) {
			r.answer = never
			time.AfterFunc(300*time.Millisecond, func() { r.each("telemetry/T", func(l *peer.Link) { l.Detach(nil) }) })
		}, sentinel: iot.ErrUnavailable, text: adapters.TextNotProcessed, after: 300 * time.Millisecond},
		{name: "router gone", router: func(r *scripted) { r.setDown(true); r.kill(); synctest.Wait() },
			sentinel: iot.ErrUnavailable, text: adapters.TextUnavailable},
		{name: "link refused", router: func(r *scripted) { r.refuse = &amqp.Error{Condition: amqp.CondUnauthorizedAccess} },
			sentinel: iot.ErrUnavailable, text: adapters.TextUnavailable},
		{name: "too large", router: func(r *scripted) { r.maxSize = 1000; r.kill(); time.Sleep(time.Second) },
			message: func(m *iot.Message) { m.Payload = make([]byte, 1000) }, sentinel: iot.ErrTooLarge, text: "message is too large"},
		{name: "other endpoint", message: func(m *iot.Message) { m.Endpoint = "control" },
			sentinel: iot.ErrInvalid, text: `endpoint "control": want telemetry, event or command_response`},
		{name: "unencodable", message: func(m *iot.Message) { m.ContentType = "é" },
			sentinel: iot.ErrInvalid, text: "content type and encoding: want ASCII characters only"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newScripted(t, "r")
				s, stop := start(t, downstream.Options{}, r)
				synctest.Wait()
				if tt.router != nil {
					tt.router(r)
				}
				m := telemetry(iot.AtLeastOnce)
				if tt.message != nil {
					tt.message(m)
				}
				end := make(chan error, 2)
				began := time.Now()
				s.Start(m, func(err error) { end <- err })
				clear(m.Payload) // it was taken
				wantErr(t, <-end, tt.sentinel, tt.text)
				if took := time.Since(began); took != tt.after {
					t.Errorf("took %v, want %v", took, tt.after)
				}
				synctest.Wait()
				if got := r.senderStates(); tt.name == "no outcome" && (len(got) != 1 || !got[0].settled || got[0].kind != amqp.DescReleased) {
					t.Errorf("the router heard %v, want one settlement with released", got)
				}
				stop()
				if len(end) != 0 {
					t.Error("done was called twice")
				}
				s.Start(telemetry(iot.AtLeastOnce), func(err error) { end <- err })
				wantErr(t, <-end, iot.ErrUnavailable, adapters.TextUnavailable)
			})
		})
	}
}

// What one goroutine starts leaves in order, whether it waits for credit or not.
func TestStartKeepsOrder(t *testing.T) {
	r := newScripted(t, "r")
	r.credit, r.window = 7, 5
	const n = 3000
	s, _ := start(t, downstream.Options{CreditWait: time.Hour, SendTimeout: time.Hour, MaxWaiting: n}, r)
	eventually(t, s.Ready)
	c := newTold(t)
	for i := range n {
		s.Start(numbered(i, iot.QoS(i%2)), c.done(i))
	}
	eventually(t, func() bool { return c.count() == n && r.count() == n })
	for i, err := range c.once(n) {
		if err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if got := r.arrived(t); !slices.Equal(got, upTo(n)) {
		t.Errorf("arrived in the order %v", got)
	}
}

func TestStartedWaitForCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.credit, r.refill = 0, false
		s, _ := start(t, downstream.Options{MaxWaiting: 6}, r)
		synctest.Wait()
		c := newTold(t)
		for i := range 8 {
			s.Start(numbered(i, iot.QoS(i%2)), c.done(i))
		}
		if got := c.count(); got != 2 {
			t.Errorf("%d ended at once, want the 2 that are too many", got)
		}
		time.Sleep(150 * time.Millisecond)
		r.give("telemetry/T", 4)
		time.Sleep(49 * time.Millisecond)
		if got := c.count(); got != 6 {
			t.Errorf("%d ended, want 6 after 4 credits", got)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		errs := c.once(8)
		for i := range 4 {
			wantErr(t, errs[i], nil, "")
		}
		wantErr(t, errs[4], iot.ErrNoCredit, adapters.TextNoConsumer)
		wantErr(t, errs[5], iot.ErrNoCredit, adapters.TextNoConsumer)
		wantErr(t, errs[6], iot.ErrUnavailable, adapters.TextUnavailable)
		if iot.RetryAfter(errs[7]) == 0 {
			t.Error("no retry-after")
		}
		if got := r.arrived(t); !slices.Equal(got, upTo(4)) {
			t.Errorf("arrived: %v, want 0 to 3", got)
		}
	})
}

// The timer of an address is set once for many: each message has its own time
// nevertheless.
func TestStartedTimeOutEachInItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.answer = func(d *received) amqp.Raw {
			if d.number(t)%3 == 0 {
				return amqp.StateAccepted
			}
			return nil
		}
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		c := newTold(t)
		for i := range 100 {
			began := time.Now()
			done := c.done(i)
			s.Start(numbered(i, iot.AtLeastOnce), func(err error) {
				if took := time.Since(began); err != nil && took != time.Second || err == nil && took != 0 {
					t.Errorf("message %d: %v after %v", i, err, took)
				}
				done(err)
			})
			time.Sleep(time.Duration(i) * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for i, err := range c.once(100) {
			if (err == nil) != (i%3 == 0) {
				t.Errorf("message %d: %v", i, err)
			}
		}
	})
}

// Outcomes meet time-outs and cancelled calls: every message ends once, and none
// with the outcome of another, although what they are kept in is used again.
func TestStartedEndOnce(t *testing.T) {
	r := newScripted(t, "r")
	refused := amqp.Raw(amqp.AppendRejected(nil, &amqp.Error{Condition: "x"}))
	r.answer = func(d *received) amqp.Raw {
		i := d.number(t)
		state := amqp.StateAccepted
		if i%2 == 1 {
			state = refused
		}
		if i%7 == 0 {
			return state
		}
		r.wg.Go(func() {
			time.Sleep(rand.N(40 * time.Millisecond))
			var b peer.Batch
			pc := d.link.Conn()
			pc.Lock()
			d.link.Settle(d.id, state, i%3 != 0)
			b.Touch(pc)
			pc.Unlock()
			b.Flush()
		})
		return nil
	}
	s, stop := start(t, downstream.Options{SendTimeout: 20 * time.Millisecond, CreditWait: time.Hour, MaxWaiting: 1000}, r)
	eventually(t, s.Ready)
	const n, inFlight = 8000, 100
	c := newTold(t)
	free := make(chan struct{}, inFlight)
	c.then = func(int, error) { <-free }
	for i := range n {
		free <- struct{}{}
		s.Start(numbered(i, iot.AtLeastOnce), c.done(i))
		if i%2000 == 1999 {
			before := r.connections()
			r.kill()
			eventually(t, func() bool { return r.connections() > before && s.Ready() })
		}
	}
	eventually(t, func() bool { return c.count() == n })
	stop()
	var timeouts, outcomes, lost int
	for i, err := range c.once(n) {
		switch {
		case errors.Is(err, iot.ErrTimeout):
			timeouts++
		case errors.Is(err, iot.ErrUnavailable):
			lost++
		case err == nil && i%2 == 0, errors.Is(err, iot.ErrInvalid) && i%2 == 1:
			outcomes++
		default:
			t.Errorf("message %d: %v", i, err)
		}
	}
	t.Logf("%d outcomes, %d time-outs, %d lost", outcomes, timeouts, lost)
}

// done may start the next message: at every way to end, no lock is held.
func TestDoneStartsAgain(t *testing.T) {
	never := func(*received) amqp.Raw { return nil }
	for _, tt := range []struct {
		name   string
		router func(r *scripted)
		qos    iot.QoS
		more   int // messages started after the first
		act    func(r *scripted)
	}{
		{name: "outcome", qos: iot.AtLeastOnce, more: 1000},
		{name: "placed", qos: iot.AtMostOnce, more: 1000},
		{name: "time-out", router: func(r *scripted) { r.answer = never }, qos: iot.AtLeastOnce, more: 3},
		{name: "no credit", router: func(r *scripted) { r.credit = 0 }, qos: iot.AtLeastOnce, more: 3},
		{name: "refused", router: func(r *scripted) { r.refuse = &amqp.Error{Condition: "x"} }, qos: iot.AtLeastOnce, more: 3},
		{name: "late credit", router: func(r *scripted) { r.credit = 0 }, qos: iot.AtMostOnce, more: 50,
			act: func(r *scripted) { r.give("telemetry/T", 100) }},
		{name: "lost", router: func(r *scripted) { r.answer = never }, qos: iot.AtLeastOnce, more: 3,
			act: func(r *scripted) { r.kill() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newScripted(t, "r")
				if tt.router != nil {
					tt.router(r)
				}
				s, _ := start(t, downstream.Options{}, r)
				synctest.Wait()
				c := newTold(t)
				c.then = func(i int, _ error) {
					if i < tt.more {
						s.Start(numbered(i+1, tt.qos), c.done(i+1))
					}
				}
				s.Start(numbered(0, tt.qos), c.done(0))
				if tt.act != nil {
					synctest.Wait()
					tt.act(r)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				c.once(tt.more + 1)
			})
		})
	}
}

// Stopping lets what was started finish, and is not over before it is told of.
func TestStopWithStartedMessages(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprintf("answers=%v", answers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newScripted(t, "r")
				r.answer = func(d *received) amqp.Raw { return nil }
				r.credit, r.refill = 10, false
				s, stop := start(t, downstream.Options{CreditWait: time.Hour}, r)
				synctest.Wait()
				c := newTold(t)
				c.then = func(i int, _ error) {
					if i < 20 { // finds the set stopping
						s.Start(numbered(20+i, iot.AtLeastOnce), c.done(20+i))
					}
				}
				for i := range 20 { // half of them wait for credit
					s.Start(numbered(i, iot.AtLeastOnce), c.done(i))
				}
				synctest.Wait()
				if answers {
					time.AfterFunc(500*time.Millisecond, func() {
						r.each("telemetry/T", func(l *peer.Link) {
							for _, d := range r.got {
								l.Settle(d.id, amqp.StateAccepted, true)
							}
						})
					})
				}
				began := time.Now()
				stop()
				if took := time.Since(began); took > 1500*time.Millisecond {
					t.Errorf("stopping took %v", took)
				}
				for i, err := range c.once(40) {
					switch {
					case i < 10 && answers:
						wantErr(t, err, nil, "")
					case i < 10:
						wantErr(t, err, iot.ErrTimeout, adapters.TextNoOutcome)
					default:
						wantErr(t, err, iot.ErrUnavailable, adapters.TextUnavailable)
					}
				}
			})
		})
	}
}

// A panic in done is told and harms no other message, nor the router's connection.
func TestDonePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		silent := true
		r.answer = func(*received) amqp.Raw {
			if silent {
				return nil
			}
			return amqp.StateAccepted
		}
		var panics atomic.Int64
		s, err := downstream.New(downstream.Options{
			Routers: []downstream.Router{{Dial: r.dial}}, Instance: "i", OnPanic: func(any, []byte) { panics.Add(1) }})
		if err != nil {
			t.Fatal(err)
		}
		run(t, s)
		synctest.Wait()
		c := newTold(t)
		c.then = func(i int, _ error) {
			if i%2 == 0 {
				panic("done")
			}
		}
		for i := range 10 { // time out
			s.Start(numbered(i, iot.AtLeastOnce), c.done(i))
		}
		time.Sleep(2 * time.Second)
		r.mu.Lock()
		silent = false
		r.mu.Unlock()
		for i := range 10 {
			s.Start(numbered(10+i, iot.AtLeastOnce), c.done(10+i))
		}
		synctest.Wait()
		c.once(20)
		if got := panics.Load(); got != 10 {
			t.Errorf("%d panics told, want 10", got)
		}
		if n, _ := r.attaches(); n != 1 || !s.Ready() {
			t.Errorf("%d links were attached, want 1: the connection was lost", n)
		}
	})
}

// Sends and starts of many goroutines share deliveries, links and the queue.
func TestStartBesideSend(t *testing.T) {
	r := newScripted(t, "r")
	r.credit = 5
	s, stop := start(t, downstream.Options{CreditWait: time.Hour, SendTimeout: time.Hour, MaxWaiting: 10_000}, r)
	eventually(t, s.Ready)
	const workers, each = 8, 300
	c := newTold(t)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				n := w*each + i
				m := numbered(n, iot.QoS(i%2))
				m.Tenant = iot.TenantID(fmt.Sprint("T", i%3))
				if i%5 == 0 {
					c.done(n)(s.Send(t.Context(), m))
				} else {
					s.Start(m, c.done(n))
				}
			}
		})
	}
	wg.Wait()
	eventually(t, func() bool { return c.count() == workers*each })
	stop()
	for i, err := range c.once(workers * each) {
		if err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if got := r.count(); got != workers*each {
		t.Errorf("%d arrived, want %d", got, workers*each)
	}
}
