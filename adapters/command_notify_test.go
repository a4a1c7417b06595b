package adapters_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// ttds are those of the notifications that left, once all is quiet.
func (w *commandWorld) ttds() (all []int) {
	synctest.Wait()
	for _, m := range w.down.Sent() {
		if m.Endpoint == iot.Event && m.ContentType == adapters.EmptyNotification {
			all = append(all, *m.TTD)
		}
	}
	return all
}

// TestNotifications: applications hear once that a device can be reached, and once that
// it no longer can, if that is so.
func TestNotifications(t *testing.T) {
	superseded := func(w *commandWorld, d *device, is bool) {
		now, _ := w.announcer.Now(adaptertest.Tenant, adaptertest.Device)
		w.commands.Superseded(adaptertest.Tenant, adaptertest.Device, now.At, is)
	}
	for _, tt := range []struct {
		name string
		then func(t *testing.T, w *commandWorld, d *device) // after -1 was told
		want []int
	}{
		{"open", func(*testing.T, *commandWorld, *device) {}, []int{-1}},
		{"closed", func(_ *testing.T, _ *commandWorld, d *device) { d.Close(false); d.Close(false) }, []int{-1, 0}},
		{"closed quietly", func(_ *testing.T, _ *commandWorld, d *device) { d.Close(true); d.Close(false) }, []int{-1}},
		{"superseded", func(_ *testing.T, w *commandWorld, d *device) {
			superseded(w, d, true)
			superseded(w, d, true)
			d.Close(false)
		}, []int{-1}},
		{"superseded and restored", func(_ *testing.T, w *commandWorld, d *device) {
			superseded(w, d, true)
			superseded(w, d, true)
			superseded(w, d, false)
			d.Close(false)
		}, []int{-1, 0}},
		{"another was superseded", func(_ *testing.T, w *commandWorld, d *device) {
			w.commands.Superseded(adaptertest.Tenant, adaptertest.Device, 1, true)
			w.commands.Superseded(adaptertest.Tenant, adaptertest.Device2, 1, true)
			d.Close(false)
		}, []int{-1, 0}},
		{"superseded before routers began anew", func(_ *testing.T, w *commandWorld, d *device) {
			superseded(w, d, true)
			w.commands.Subscribed()
			d.Close(false)
		}, []int{-1, 0}},
		{"a later one took its place", func(t *testing.T, w *commandWorld, d *device) {
			w.subscribe(t, adaptertest.Device, notifying)
			d.Close(false)
		}, []int{-1, -1}},
		{"a later one without notifications took its place", func(t *testing.T, w *commandWorld, d *device) {
			w.subscribe(t, adaptertest.Device, nil)
			d.Close(false)
		}, []int{-1}},
		{"a later one was closed", func(t *testing.T, w *commandWorld, d *device) {
			w.subscribe(t, adaptertest.Device, notifying).Close(false)
		}, []int{-1, -1}},
		{"a later one was closed, and then it", func(t *testing.T, w *commandWorld, d *device) {
			w.subscribe(t, adaptertest.Device, notifying).Close(false)
			d.Close(false)
		}, []int{-1, -1, 0}},
		{"one without notifications came and went", func(t *testing.T, w *commandWorld, d *device) {
			w.subscribe(t, adaptertest.Device, nil).Close(false)
			d.Close(false)
		}, []int{-1, 0}},
		{"of other devices", func(t *testing.T, w *commandWorld, d *device) {
			w.subscribe(t, adaptertest.Device2, nil).Close(false)
		}, []int{-1}},
		{"announced to more routers", func(t *testing.T, w *commandWorld, d *device) {
			w.commands.Subscribed()
			w.commands.Subscribed()
		}, []int{-1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newCommandWorld(t, adapters.CommandsOptions{}).withPresence(t)
				d := w.subscribe(t, adaptertest.Device, notifying)
				tt.then(t, w, d)
				if got := w.ttds(); !slices.Equal(got, tt.want) {
					t.Errorf("got notifications with ttd %v, want %v", got, tt.want)
				}
				for _, m := range w.down.Sent() {
					if m.Tenant != adaptertest.Tenant || m.Device != adaptertest.Device || m.Address != "c///q/#" || m.Adapter != "hono-http" {
						t.Errorf("got a notification of %q %q at %q by %q, want of the subscription", m.Tenant, m.Device, m.Address, m.Adapter)
					}
				}
			})
		})
	}
}

// TestNotificationsThatNobodyTakes do not keep a device from its commands.
func TestNotificationsThatNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCommandWorld(t, adapters.CommandsOptions{}).withPresence(t)
		_, release := w.down.Block()
		start := time.Now()
		d := w.subscribe(t, adaptertest.Device, notifying)
		if took := time.Since(start); took != time.Second {
			t.Errorf("waited %v for a notification that does not leave, want 1s", took)
		}
		if w.released(command(adaptertest.Device, "")) || len(d.got) != 1 {
			t.Error("the command was released")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		s := adapters.Subscribe{Who: w.admit(t, adaptertest.Device2), Notify: true, Deliver: func(*adapters.Command, func(error)) {}}
		if _, err := w.p.Subscribe(ctx, s); err == nil {
			t.Error("a subscription whose context has ended: want an error")
		}
		release()
		if got := w.ttds(); !slices.Equal(got, []int{-1, -1, 0}) {
			t.Errorf("got notifications with ttd %v, want each -1, and a 0 of the one whose context ended", got)
		}
	})
}

// TestNotificationAfterRenewal: what leaves when a device goes is let in by what is known
// then, not by what was known when it came.
func TestNotificationAfterRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCommandWorld(t, adapters.CommandsOptions{}).withPresence(t)
		ss := adapters.NewSessions(w.p, adapters.SessionOptions{})
		t.Cleanup(ss.Close)
		s, err := ss.Open(t.Context(), passwordLogin(t, adaptertest.Device, adaptertest.Password), home, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		who, err := s.Admit(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		d := w.subscribe(t, adaptertest.Device, func(s *adapters.Subscribe) { s.Who, s.Notify = who, true })
		ss.Notice(adapters.Notice{Type: adapters.NoticeCredentials, Tenant: adaptertest.Tenant, Device: adaptertest.Device})
		synctest.Wait()
		d.Close(false)
		if got := w.ttds(); !slices.Equal(got, []int{-1, 0}) {
			t.Fatalf("got notifications with ttd %v, want -1 and 0", got)
		}
		sent := w.down.Sent()
		if sent[0].Assertion == sent[1].Assertion {
			t.Errorf("both carry the assertion %q, want the later one a renewed one", sent[0].Assertion)
		}
	})
}

// TestNotificationAfterTheSession: what is told of a device that was silent for long, and
// says farewell, is let in anew, and keeps nothing back that comes after it.
func TestNotificationAfterTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCommandWorld(t, adapters.CommandsOptions{}).withPresence(t)
		ss := adapters.NewSessions(w.p, adapters.SessionOptions{})
		t.Cleanup(ss.Close)
		subscribed := func() (*adapters.Session, *device) {
			s, err := ss.Open(t.Context(), passwordLogin(t, adaptertest.Device, adaptertest.Password), home, func(error) {})
			if err != nil {
				t.Fatal(err)
			}
			who, err := s.Admit(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			return s, w.subscribe(t, adaptertest.Device, func(s *adapters.Subscribe) { s.Who, s.Notify = who, true })
		}
		s, d := subscribed()
		old := w.down.Sent()[0].Assertion
		w.down.Outcome(func(m *iot.Message) error {
			if m.Assertion == old {
				return iot.Errorf(iot.ErrForbidden, "the assertion has expired")
			}
			return nil
		})
		time.Sleep(48 * time.Hour)
		d.Close(false)
		s.Close()
		subscribed()
		var taken []int
		synctest.Wait()
		for _, m := range w.down.Sent()[1:] {
			if m.Assertion != old {
				taken = append(taken, *m.TTD)
			}
		}
		if !slices.Equal(taken, []int{0, -1}) {
			t.Errorf("routers took notifications with ttd %v, want 0 and -1", taken)
		}
	})
}

// TestRefusedWhileSubscribing: a subscription that a command found to be without right is
// not told of as one that can be reached.
func TestRefusedWhileSubscribing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCommandWorld(t, adapters.CommandsOptions{})
		presence := adapters.NewPresence(adapters.PresenceOptions{Invoker: w.inv})
		t.Cleanup(presence.Close)
		adm, inv := newAdmissions(t, adapters.AdmissionOptions{})
		w.p = adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: adm, Downstream: w.down, Commands: w.commands, Presence: presence})
		r := request(string(adaptertest.Gateway), adaptertest.Password, home)
		r.Admit.DeviceID = adaptertest.Device2
		who, err := w.p.Admit(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		release := w.announcer.Hold()
		go w.p.Subscribe(t.Context(), adapters.Subscribe{Who: who, Notify: true, Deliver: func(_ *adapters.Command, done func(error)) { done(nil) }})
		synctest.Wait()
		inv.Fail(iot.ErrForbidden)
		adm.Notice(adapters.Notice{Type: adapters.NoticeDevice, Change: "UPDATE", Enabled: true, Tenant: adaptertest.Tenant, Device: adaptertest.Device2})
		var o outcome
		w.commands.Command(command(adaptertest.Device2, ""), o.done)
		synctest.Wait()
		release()
		if got := w.ttds(); len(got) != 0 || len(o) != 1 {
			t.Errorf("got notifications with ttd %v and outcomes %v, want none and one", got, o)
		}
	})
}

// TestSubscribingAgainAndAgain: a device that does so in a loop waits for its turn, and
// applications are told of each subscription and of its end; one that reconnects now and
// then does not wait, nor do others.
func TestSubscribingAgainAndAgain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pause time.Duration // after each
		most  time.Duration // that the last one may wait
		least time.Duration
	}{
		{"in a loop", 0, time.Second, time.Second},
		{"twice a second", 500 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond},
		{"once a second", time.Second, 0, 0},
		{"twelve times a minute", 5 * time.Second, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newCommandWorld(t, adapters.CommandsOptions{}).withPresence(t)
				var want []int
				var took time.Duration
				for i := range 200 {
					start := time.Now()
					d := w.subscribe(t, adaptertest.Device, notifying)
					if took = time.Since(start); i < 30 && took > 0 {
						t.Fatalf("the %d. time it waits %v, want not at all", i+1, took)
					}
					d.Close(false)
					want = append(want, -1, 0)
					time.Sleep(tt.pause)
				}
				if took < tt.least || took > tt.most {
					t.Errorf("in the end it waits %v, want %v", took, tt.most)
				}
				if got := w.ttds(); !slices.Equal(got, want) {
					t.Errorf("got notifications with ttd %v, want -1 and 0 of each", got)
				}
				start := time.Now()
				w.subscribe(t, adaptertest.Device2, notifying)
				w.subscribe(t, adaptertest.Device, nil)
				if took := time.Since(start); took > 0 {
					t.Errorf("another device, or one that tells nobody, waits %v", took)
				}
			})
		})
	}
}

// TestSubscribingTogether: more than can have their turn soon are refused, and neither
// known to routers nor told to applications.
func TestSubscribingTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCommandWorld(t, adapters.CommandsOptions{}).withPresence(t)
		who := w.admit(t, adaptertest.Device)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var refused, ended int
		for i := range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i%2 == 0 {
					time.AfterFunc(1500*time.Millisecond, cancel)
				}
				_, err := w.p.Subscribe(ctx, adapters.Subscribe{Who: who, Notify: true, Deliver: func(*adapters.Command, func(error)) {}})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, iot.ErrQuota):
					refused++
				case errors.Is(err, context.Canceled):
					ended++
				case err != nil:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if refused != 61 || w.commands.Len() != 39-ended {
			t.Errorf("%d refused, %d ended while they waited, %d open; want 61 refused and the others open", refused, ended, w.commands.Len())
		}
		if got := len(w.ttds()); got != 39-ended {
			t.Errorf("%d notifications, want one of each that is open", got)
		}
	})
}

// posted keeps facts.
type posted struct {
	mu    sync.Mutex
	facts []events.Fact
}

func (p *posted) Post(_ context.Context, facts []events.Fact) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.facts = append(p.facts, facts...)
	return nil
}

// TestUplinkIsTold: subscribers to facts hear how long a device listens that sent
// something, once it was sent; applications see it in what was sent.
func TestUplinkIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCommandWorld(t, adapters.CommandsOptions{})
		subscriber := &posted{}
		presence := adapters.NewPresence(adapters.PresenceOptions{Invoker: w.inv, Poster: subscriber})
		t.Cleanup(presence.Close)
		w.world = newWorld(t, adapters.Options{Presence: presence})
		send := func(ttd int, outcome error) {
			w.down.Outcome(func(*iot.Message) error { return outcome })
			up := telemetry("x")
			if up.TTD = &ttd; ttd == 0 {
				up.TTD = nil
			}
			w.publish(t, up)
			w.p.Submit(w.admit(t, adaptertest.Device2), &up, func(error) {})
		}
		send(7, nil)
		time.Sleep(time.Millisecond) // what is sent later is another fact
		send(-1, nil)
		send(0, nil)
		send(8, iot.ErrNoCredit)
		synctest.Wait()
		var got []int
		for _, f := range subscriber.facts {
			got = append(got, f.(events.DeviceTTD).TTDSeconds)
		}
		if !slices.Equal(got, []int{7, 7}) {
			t.Errorf("subscribers were told of %v seconds, want 7 of each device", got)
		}
		if n := len(w.down.Sent()); n != 8 {
			t.Errorf("%d messages left, want the 8 uploads alone", n)
		}
	})
}
