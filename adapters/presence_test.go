package adapters_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestAnEmptyNotification holds what leaves against contract messaging 11.
func TestAnEmptyNotification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPresence(t, nil)
		w.inv.Defaults(map[string]any{"ttd": 30.0}, nil, `{"max-ttl":7}`)
		for i, kind := range []events.PresenceKind{events.Subscribed, events.Unsubscribed} {
			n := w.that(kind, w.nth(1))
			if err := w.Notify(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			m := w.down.Sent()[i]
			if m.Endpoint != iot.Event || m.QoS != iot.AtLeastOnce || m.Payload != nil || m.ContentType != adapters.EmptyNotification || *m.TTD != i-1 ||
				m.Adapter != "hono-mqtt" || m.Address != "command///req/#" || m.Tenant != adaptertest.Tenant || m.Device != "new-1" || m.Gateway != "gateway-2" ||
				m.Assertion == "" || m.TTL != 7*time.Second || !m.Created.Equal(n.Change.At) {
				t.Errorf("%s: got %+v", kind, m)
			}
		}
		if c := w.Counts(); c.Sent != 2 || c.Calls != 2 || c.Waiting != 0 {
			t.Errorf("got %+v", c)
		}
	})
}

// TestAConnectionEvent holds what leaves against contract adapters 14.
func TestAConnectionEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPresence(t, nil)
		w.inv.Defaults(nil, nil, `{"max-ttl":7}`)
		n := w.that(events.Connected, w.nth(1))
		n.Change.RemoteID, n.Change.Data = "a client\xff"+strings.Repeat("é", 2048), []byte(`{"clean":true}`)
		if err := w.Notify(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		m := w.down.Sent()[0]
		want := `{"cause":"connected","remote-id":"a client` + "\uFFFD" + strings.Repeat("é", 1018) + `","source":"hono-mqtt","data":{"clean":true}}`
		if m.Endpoint != iot.Event || m.QoS != iot.AtLeastOnce || m.ContentType != "application/vnd.eclipse-hono-dc-notification+json" || m.TTD != nil || m.TTL != 7*time.Second {
			t.Errorf("got %+v", m)
		}
		if d := cmp.Diff(want, string(m.Payload)); d != "" {
			t.Error(d)
		}
	})
}

// TestEachIsSentOnceAndInOrder has everything fail that can, for a while.
func TestEachIsSentOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		poster := &facts{}
		w := newPresence(t, poster)
		w.down.away.Store(true)
		w.fn.on(func(_ context.Context, n int, _ []events.PresenceChange) error {
			if n <= 5 {
				return iot.ErrUnavailable
			}
			return nil
		})
		w.outcome(func(m *iot.Message, try int) error {
			switch {
			case try <= 2:
				return iot.ErrNoCredit
			case try == 3:
				return iot.ErrForbidden // the assertion is void
			case try == 5:
				return iot.ErrUnavailable
			}
			if try == 4 && *m.TTD == 0 {
				return iot.ErrForbidden
			}
			return nil
		})
		const devices, rounds = 30, 4
		want := make(map[iot.DeviceID][]int)
		for range rounds {
			for i := range devices {
				who := w.nth(i)
				w.Tell(w.that(events.Subscribed, who))
				w.Tell(w.that(events.Unsubscribed, who))
				want[who.Device()] = append(want[who.Device()], -1, 0)
			}
			time.Sleep(time.Millisecond) // a device subscribes once in a moment
		}
		time.Sleep(time.Minute)
		w.down.away.Store(false)
		time.Sleep(5 * time.Minute)
		synctest.Wait()

		got, ids := make(map[iot.DeviceID][]int), make(map[string]bool)
		for _, m := range w.taken {
			got[m.Device] = append(got[m.Device], *m.TTD)
			ids[m.ID] = true
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("of each device (-want +got):\n%s", d)
		}
		c := w.Counts()
		if len(ids) != devices*rounds*2 || c.Sent != uint64(len(ids)) || c.Failed+c.Dropped != 0 || c.Waiting != 0 || c.CallsLost != 5 {
			t.Errorf("%d ids, %+v", len(ids), c)
		}
		seen := make(map[events.PresenceKey]int)
		for _, f := range poster.list {
			seen[f.(events.PresenceFact).Key()]++
		}
		if len(seen) != len(ids) || len(poster.list) != len(ids) || c.Posted != uint64(len(ids)) {
			t.Errorf("subscribers have %d facts of %d changes, %d counted; want %d", len(poster.list), len(seen), c.Posted, len(ids))
		}
	})
}

// TestWhatGathersGoesInOneCall holds that one call is under way, of at most so many changes.
func TestWhatGathersGoesInOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPresence(t, nil)
		gate := make(chan struct{})
		w.fn.on(func(_ context.Context, n int, _ []events.PresenceChange) error {
			if n == 1 {
				<-gate
			}
			return nil
		})
		for i := range 252 {
			w.Tell(w.that(events.Subscribed, w.nth(i)))
			synctest.Wait()
		}
		if got := w.fn.sizes(); !slices.Equal(got, []int{1}) {
			t.Errorf("while one is under way: calls of %v", got)
		}
		if c := w.Counts(); c.Waiting != 252 {
			t.Errorf("%d wait, want 252", c.Waiting)
		}
		close(gate)
		synctest.Wait()
		if got := w.fn.sizes(); !slices.Equal(got, []int{1, 100, 100, 51}) {
			t.Errorf("calls of %v", got)
		}
		if len(w.taken) != 252 {
			t.Errorf("%d events", len(w.taken))
		}
	})
}

func TestNotifyWaitsASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPresence(t, nil)
		gate := make(chan struct{})
		w.fn.on(func(context.Context, int, []events.PresenceChange) error { <-gate; return nil })
		start := time.Now()
		if err := w.Notify(t.Context(), w.that(events.Subscribed, w.nth(1))); err != nil || time.Since(start) != time.Second {
			t.Errorf("got %v after %v, want nil after a second", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := w.Notify(ctx, w.that(events.Unsubscribed, w.nth(1))); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's", err)
		}
		close(gate)
		synctest.Wait()
		if got := w.seen(); !slices.Equal(got, []string{"new-1 -1", "new-1 0"}) {
			t.Errorf("it goes on by itself: got %v", got)
		}
		// A router that has it not yet is waited for as well.
		_, release := w.down.Block()
		go func() {
			time.Sleep(500 * time.Millisecond)
			release()
		}()
		start = time.Now()
		if err := w.Notify(t.Context(), w.that(events.Subscribed, w.nth(2))); err != nil || time.Since(start) != 500*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

// TestTheOldestMakeRoom has nobody answer while more is told than waits.
func TestTheOldestMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		poster := &facts{}
		w := newPresence(t, poster)
		gate := make(chan struct{})
		w.fn.on(func(context.Context, int, []events.PresenceChange) error { <-gate; return nil })
		who := w.nth(0)
		tell := func(kind events.PresenceKind, i int) {
			n := w.that(kind, who)
			n.Change.At = n.Change.At.Add(time.Duration(i) * time.Millisecond)
			if kind == events.Uplink {
				n.Change.TTDSeconds = 1
			}
			w.Tell(n)
		}
		tell(events.Subscribed, 0)
		synctest.Wait() // it is under way
		const more = 7
		for i := range adapters.PresenceQueue + more {
			tell(events.Subscribed, i+1)
		}
		for i := range adapters.PresenceQueue + 2*more { // have a queue of their own
			tell(events.Uplink, i)
		}
		if c := w.Counts(); c.Dropped != 3*more || c.Waiting != 2*adapters.PresenceQueue+1 {
			t.Errorf("got %+v", c)
		}
		start := time.Now()
		// Subscribers have a bounded queue of their own: between two answers they take what they are given.
		w.fn.on(func(context.Context, int, []events.PresenceChange) error { time.Sleep(time.Millisecond); return nil })
		close(gate)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(w.taken); n != adapters.PresenceQueue+1 {
			t.Fatalf("%d events", n)
		}
		if first := w.taken[1].Created.Sub(start); first != (more+1)*time.Millisecond {
			t.Errorf("after the first comes that of %v, want the oldest to have been dropped", first)
		}
		if n := len(poster.list); n != 2*adapters.PresenceQueue+1 {
			t.Errorf("%d facts", n)
		}
	})
}

// TestDroppedNoticesAreLetGo has those of one device wait for the first, which no router takes.
func TestDroppedNoticesAreLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPresence(t, nil)
		who, other := w.nth(1), w.nth(2)
		w.outcome(func(m *iot.Message, _ int) error {
			if m.Device == who.Device() {
				return iot.ErrNoCredit
			}
			return nil
		})
		at := time.Now()
		for i := range 3 * adapters.PresenceQueue {
			n := w.that(events.Subscribed, who)
			n.Change.At = at.Add(time.Duration(i) * time.Millisecond)
			w.Tell(n)
			if i%1000 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if n := w.Chained(); n > 2*adapters.PresenceQueue+events.MaxPresenceChanges {
			t.Errorf("%d are kept, though the queue has room for %d", n, adapters.PresenceQueue)
		}
		if err := w.Notify(t.Context(), w.that(events.Subscribed, other)); err != nil {
			t.Errorf("another device: %v", err)
		}
		w.outcome(func(*iot.Message, int) error { return nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		if c := w.Counts(); w.Chained() != 0 || c.Waiting != 0 || int(c.Sent+c.Dropped) != 3*adapters.PresenceQueue+1 {
			t.Errorf("%d are left, %+v", w.Chained(), c)
		}
	})
}

// TestOneThatIsRefusedSpoilsNoOther has a function that knows more rules than the adapter.
func TestOneThatIsRefusedSpoilsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPresence(t, nil)
		gate := make(chan struct{})
		w.fn.on(func(_ context.Context, n int, changes []events.PresenceChange) error {
			if n == 1 {
				<-gate
			}
			for _, c := range changes {
				if c.DeviceID == "new-13" || c.DeviceID == "new-14" {
					return iot.Errorf(iot.ErrInvalid, "no such thing")
				}
			}
			return nil
		})
		refused := make(chan error, 1)
		for i := range 60 {
			if i == 14 {
				go func() { refused <- w.Notify(t.Context(), w.that(events.Subscribed, w.nth(14))) }()
				synctest.Wait()
				continue
			}
			w.Tell(w.that(events.Subscribed, w.nth(i)))
		}
		close(gate)
		synctest.Wait()
		if err := <-refused; !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("got %v", err)
		}
		if c := w.Counts(); len(w.taken) != 58 || c.Failed != 2 || c.Sent != 58 || c.Waiting != 0 {
			t.Errorf("%d events, %+v", len(w.taken), c)
		}
	})
}

func TestWhatIsNotSentAgain(t *testing.T) {
	for _, tt := range []struct {
		err   error
		tries int
	}{
		{iot.ErrTimeout, 1}, // it may have been stored
		{iot.ErrInvalid, 1},
		{iot.ErrTooLarge, 1},
		{iot.ErrUnavailable, 0},
		{iot.ErrNoCredit, 0},
		{iot.ErrForbidden, 0}, // a fresh assertion as well: the router may not have its key yet
	} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newPresence(t, nil)
				tries := 0
				w.outcome(func(m *iot.Message, _ int) error {
					if m.Device != "new-1" {
						return nil
					}
					tries++
					return tt.err
				})
				err := w.Notify(t.Context(), w.that(events.Subscribed, w.nth(1)))
				if (err == nil) != (tt.tries == 0) {
					t.Errorf("Notify returns %v", err)
				}
				w.Tell(w.that(events.Unsubscribed, w.nth(1)))
				w.Tell(w.that(events.Subscribed, w.nth(2)))
				synctest.Wait()
				if got := w.seen(); !slices.Equal(got, []string{"new-2 -1"}) {
					t.Errorf("another device hears of it: %v", got)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if tt.tries > 0 && tries != 2*tt.tries || tt.tries == 0 && tries < 100 {
					t.Errorf("sent %d times", tries)
				}
				if c := w.Counts(); c.Waiting != 0 || c.Failed != 2 || c.Sent != 1 {
					t.Errorf("got %+v", c)
				}
			})
		})
	}
}

func TestUplinksAreForSubscribers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		uplink := func(w *presenceWorld) adapters.Notification {
			n := w.that(events.Uplink, w.nth(1))
			n.Change.TTDSeconds = 20
			return n
		}
		w := newPresence(t, nil)
		w.Tell(uplink(w))
		synctest.Wait()
		if len(w.fn.sizes()) != 0 {
			t.Error("the function is asked though nobody subscribes")
		}
		poster := &facts{}
		w = newPresence(t, poster)
		n := uplink(w)
		w.Tell(n)
		synctest.Wait()
		want := []events.Fact{events.DeviceTTD{TenantID: adaptertest.Tenant, DeviceID: "new-1", GatewayID: "gateway-2", TTDSeconds: 20, At: n.Change.At}}
		if d := cmp.Diff(want, poster.list); d != "" || len(w.down.Sent()) != 0 {
			t.Errorf("%d events, facts (-want +got):\n%s", len(w.down.Sent()), d)
		}
	})
}

func TestChangesThatAreWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPresence(t, nil)
		n := w.that("moved", w.nth(1))
		if err := w.Notify(t.Context(), n); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("got %v", err)
		}
		w.Tell(n)
		if c := w.Counts(); len(w.fn.sizes()) != 0 || c.Failed != 1 || c.Waiting != 0 {
			t.Errorf("got %+v", c)
		}
	})
}

// TestCloseLeavesASecond holds that what can leave does, and nothing else is waited for.
func TestCloseLeavesASecond(t *testing.T) {
	for _, tt := range []struct {
		name string
		slow func(w *presenceWorld, poster *facts) (release func())
		took time.Duration
		sent int
	}{
		{"nothing in the way", func(*presenceWorld, *facts) func() { return func() {} }, 0, 20},
		{"no router", func(w *presenceWorld, _ *facts) func() { w.down.away.Store(true); return func() {} }, time.Second, 0},
		{"no outcome", func(w *presenceWorld, _ *facts) func() { _, release := w.down.Block(); return release }, time.Second, 0},
		{"no function", func(w *presenceWorld, _ *facts) func() {
			w.fn.on(func(ctx context.Context, _ int, _ []events.PresenceChange) error { <-ctx.Done(); return ctx.Err() })
			return func() {}
		}, time.Second, 0},
		{"no subscriber", func(_ *presenceWorld, f *facts) func() { f.wait = true; return func() {} }, time.Second, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				poster := &facts{}
				w := newPresence(t, poster)
				release := tt.slow(w, poster)
				errs := make(chan error, 20)
				for i := range 20 {
					go func() { errs <- w.Notify(t.Context(), w.that(events.Subscribed, w.nth(i))) }()
				}
				synctest.Wait()
				start := time.Now()
				w.Close()
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if err := w.Notify(t.Context(), w.that(events.Subscribed, w.nth(99))); !errors.Is(err, iot.ErrUnavailable) {
					t.Errorf("after Close: got %v", err)
				}
				w.Tell(w.that(events.Subscribed, w.nth(99)))
				w.Close()
				release()
				for range 20 {
					<-errs
				}
				synctest.Wait()
				if c := w.Counts(); int(c.Sent) != tt.sent && tt.name != "no outcome" || c.Waiting != 0 {
					t.Errorf("got %+v", c)
				}
			})
		})
	}
}

// TestSubscribersThatAreSlow costs applications nothing.
func TestSubscribersThatAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		poster := &facts{wait: true}
		w := newPresence(t, poster)
		who := w.nth(1)
		n := adapters.PresenceQueue + 200
		for i := range n {
			c := w.that(events.Subscribed, who)
			c.Change.At = c.Change.At.Add(time.Duration(i) * time.Millisecond)
			w.Tell(c)
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if len(w.taken) != n {
			t.Errorf("%d events, want %d", len(w.taken), n)
		}
		if c := w.Counts(); c.Posted != 0 || c.NotPosted == 0 || c.NotPosted > 200 {
			t.Errorf("got %+v", c)
		}
		poster.mu.Lock()
		poster.wait, poster.err = false, fmt.Errorf("no")
		poster.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if c := w.Counts(); c.Posted != 0 || int(c.NotPosted) != n {
			t.Errorf("got %+v", c)
		}
	})
}

// BenchmarkNotify is one device's -1 and 0, from the change to the event.
func BenchmarkNotify(b *testing.B) {
	adm, _ := newAdmissions(b, adapters.AdmissionOptions{})
	adm.Following(true)
	pipeline := adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: adm, Downstream: adaptertest.Discard{}})
	p := adapters.NewPresence(adapters.PresenceOptions{Invoker: invokerFunc(func(_ context.Context, req events.Request) (events.Reply, error) {
		rep := &events.NotificationDerived{}
		for _, c := range req.(events.NotificationDerive).Changes {
			rep.Events = append(rep.Events, follows(&c))
		}
		return rep, nil
	})})
	b.Cleanup(p.Close)
	who, err := pipeline.Admit(b.Context(), good())
	if err != nil {
		b.Fatal(err)
	}
	n := adapters.Notification{Who: who, Pipeline: pipeline, Address: "command///req/#"}
	b.ReportAllocs()
	for b.Loop() {
		for _, n.Change.Kind = range []events.PresenceKind{events.Subscribed, events.Unsubscribed} {
			n.Change.At = time.Now()
			if err := p.Notify(b.Context(), n); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(p.Counts().Calls)/float64(p.Counts().Sent), "calls/event")
}

// TestTheOldestMakeRoomBehindARouterThatIsSlow has what is derived wait, and be dropped.
func TestTheOldestMakeRoomBehindARouterThatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPresence(t, nil)
		_, release := w.down.Block()
		n := adapters.PresenceQueue + 1000
		for i := range n {
			c := w.that(events.Subscribed, w.nth(i%600))
			c.Change.At = c.Change.At.Add(time.Duration(i) * time.Millisecond)
			w.Tell(c)
			if i%50 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		c := w.Counts()
		// What the function is asked about while others come is beside the queue.
		over := c.Waiting - len(w.down.Sent()) - adapters.PresenceQueue
		if int(c.Dropped)+c.Waiting != n || over < 0 || over > events.MaxPresenceChanges {
			t.Errorf("%d more than the queue holds, %+v", over, c)
		}
		release()
		synctest.Wait()
		if c := w.Counts(); c.Waiting != 0 || int(c.Sent+c.Dropped) != n || len(w.taken) != int(c.Sent) {
			t.Errorf("%d events, %+v", len(w.taken), c)
		}
		last := make(map[iot.DeviceID]time.Time)
		for _, m := range w.taken {
			if m.Created.Before(last[m.Device]) {
				t.Fatalf("%s: that of %v comes after that of %v", m.Device, m.Created, last[m.Device])
			}
			last[m.Device] = m.Created
		}
	})
}

// TestConnectedIsToldInTime: that a device has connected is told as long as it waits to be let
// in, and not after that.
func TestConnectedIsToldInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPresence(t, nil)
		w.fn.on(func(context.Context, int, []events.PresenceChange) error { return iot.ErrUnavailable })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start, who := time.Now(), w.nth(1)
		if err := w.Notify(ctx, w.that(events.Connected, who)); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("got %v after %s, want the end of the context", err, time.Since(start))
		}
		w.fn.on(nil)
		time.Sleep(time.Minute)
		if err := w.Notify(t.Context(), w.that(events.Subscribed, who)); err != nil {
			t.Error(err)
		}
		if got := w.seen(); len(got) != 1 || w.Counts().Waiting != 0 {
			t.Errorf("told of %q with %d waiting, want of the subscription alone", got, w.Counts().Waiting)
		}
	})
}
