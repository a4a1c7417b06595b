package adapters_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// directory is a router that loses what it knows now and then, and asks with its own
// lock held.
type directory struct {
	mu       sync.Mutex
	commands *adapters.Commands
	rows     map[iot.DeviceID]adapters.Announcement
}

func (d *directory) Announce(changes []adapters.Announcement, done func()) {
	d.mu.Lock()
	for _, a := range changes {
		d.set(a)
	}
	d.mu.Unlock()
	if done != nil && rand.N(2) == 0 {
		go done()
	} else if done != nil {
		done()
	}
}

func (d *directory) set(a adapters.Announcement) {
	delete(d.rows, a.Device)
	if !a.Gone {
		d.rows[a.Device] = a
	}
}

func (d *directory) LastGateway(iot.TenantID, iot.DeviceID, iot.DeviceID) {}

// restart begins with what it is told.
func (d *directory) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.rows)
	for _, a := range d.commands.Subscribed() {
		d.set(a)
	}
}

func (d *directory) known() map[iot.DeviceID]adapters.Announcement {
	d.mu.Lock()
	defer d.mu.Unlock()
	rows := make(map[iot.DeviceID]adapters.Announcement)
	for k, a := range d.rows {
		rows[k] = a
	}
	return rows
}

// TestCommandsTogether has devices subscribe and leave while commands come and routers
// begin anew: each command ends once, routers know in the end who is there, and nothing is
// left behind.
func TestCommandsTogether(t *testing.T) {
	w := newCommandWorld(t, adapters.CommandsOptions{MaxInFlight: 20, PerSubscription: 4})
	d := &directory{commands: w.commands, rows: map[iot.DeviceID]adapters.Announcement{}}
	w.commands.AnnounceTo(d)
	w.withPresence(t)
	ids := []iot.DeviceID{adaptertest.Device, adaptertest.Device2, adaptertest.Gateway}
	admitted := map[iot.DeviceID]adapters.Admission{}
	for _, id := range ids {
		admitted[id] = w.admit(t, id)
	}
	var sent, ended, reached atomic.Int64
	var late sync.WaitGroup // outcomes
	deliver := func(_ *adapters.Command, done func(error)) {
		reached.Add(1)
		switch rand.N(3) {
		case 0:
			done(nil)
		case 1:
			late.Go(func() { done(iot.ErrTimeout) })
		default:
			late.Go(func() { done(nil); done(nil) })
		}
	}
	var devices, others sync.WaitGroup
	stop := make(chan struct{})
	during := func(f func()) {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f()
					time.Sleep(rand.N(50 * time.Microsecond))
				}
			}
		})
	}
	for range 3 {
		during(func() {
			var times atomic.Int64
			sent.Add(1)
			c := command(ids[rand.N(len(ids))], []iot.DeviceID{"", "", adaptertest.Gateway}[rand.N(3)])
			w.commands.Command(c, func(error) {
				if times.Add(1) > 1 {
					t.Error("a command has two outcomes")
				}
				ended.Add(1)
			})
		})
	}
	during(d.restart)
	during(func() {
		for _, a := range w.commands.Subscribed() {
			w.commands.Superseded(a.Tenant, a.Device, a.At, rand.N(2) == 0)
		}
	})
	for range 8 {
		devices.Go(func() {
			for range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.N(2_000_000)))
				s := adapters.Subscribe{Who: admitted[ids[rand.N(len(ids))]], All: rand.N(2) == 0, Notify: rand.N(2) == 0, Deliver: deliver}
				if rand.N(3) == 0 {
					s.Until = time.Now().Add(rand.N(3 * time.Millisecond))
				}
				sub, err := w.p.Subscribe(ctx, s)
				cancel()
				if err != nil {
					continue
				}
				time.Sleep(rand.N(200 * time.Microsecond))
				late.Go(func() { sub.Close(rand.N(2) == 0) })
				sub.Close(rand.N(2) == 0)
			}
		})
	}
	devices.Wait()
	close(stop)
	others.Wait()
	late.Wait()
	stays := w.subscribe(t, adaptertest.Device, nil)
	if sent.Load() != ended.Load() || reached.Load() == 0 || w.commands.InFlight() != 0 {
		t.Errorf("%d commands, %d outcomes, %d reached a device, %d under way; want an outcome of each, some that reached one, none under way",
			sent.Load(), ended.Load(), reached.Load(), w.commands.InFlight())
	}
	told := w.commands.Subscribed()
	if w.commands.Len() != 1 || len(told) != 1 {
		t.Fatalf("%d subscriptions are left, %d of them announced to new routers: want 1", w.commands.Len(), len(told))
	}
	if diff := cmp.Diff(map[iot.DeviceID]adapters.Announcement{adaptertest.Device: told[0]}, d.known()); diff != "" {
		t.Errorf("what a router knows (-want +got):\n%s", diff)
	}
	if stays.Close(true); len(d.known()) != 0 {
		t.Errorf("a router knows %v after all have left, want nothing", d.known())
	}
}
