package adapters_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// commandWorld is a pipeline whose devices take commands.
type commandWorld struct {
	world
	commands  *adapters.Commands
	announcer *adaptertest.Announcer
	meter     *adapters.Meter
}

func newCommandWorld(t testing.TB, o adapters.CommandsOptions) *commandWorld {
	w := &commandWorld{commands: adapters.NewCommands(o), announcer: &adaptertest.Announcer{}, meter: adapters.NewMeter("hono-http")}
	w.commands.AnnounceTo(w.announcer)
	w.world = newWorld(t, adapters.Options{Commands: w.commands, Meter: w.meter})
	return w
}

// withPresence has applications told, too.
func (w *commandWorld) withPresence(t testing.TB) *commandWorld {
	presence := adapters.NewPresence(adapters.PresenceOptions{Invoker: w.inv})
	t.Cleanup(presence.Close)
	w.world = newWorld(t, adapters.Options{Commands: w.commands, Meter: w.meter, Presence: presence})
	return w
}

// admit lets a device in.
func (w *commandWorld) admit(t testing.TB, device iot.DeviceID) adapters.Admission {
	t.Helper()
	who, err := w.p.Admit(t.Context(), request(string(device), adaptertest.Password, home))
	if err != nil {
		t.Fatal(err)
	}
	return who
}

// device takes what is delivered to it.
type device struct {
	*adapters.CommandSubscription
	got []received
}

// subscribe opens a subscription of a device, as change says.
func (w *commandWorld) subscribe(t testing.TB, id iot.DeviceID, change func(*adapters.Subscribe)) *device {
	t.Helper()
	d := &device{}
	s := adapters.Subscribe{Who: w.admit(t, id), Address: "c///q/#", Deliver: func(c *adapters.Command, done func(error)) {
		d.got = append(d.got, received{c, done})
	}}
	if change != nil {
		change(&s)
	}
	var err error
	if d.CommandSubscription, err = w.p.Subscribe(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(true) })
	return d
}

func notifying(s *adapters.Subscribe) { s.Notify = true }

// command is one for a device, by a gateway or by none.
func command(device, gateway iot.DeviceID) *adapters.Command {
	return &adapters.Command{Tenant: adaptertest.Tenant, Device: device, Gateway: gateway, Name: "n", CorrelationID: "c", ReplyID: "r", Payload: []byte("12345")}
}

// outcome collects what done is told.
type outcome []error

func (o *outcome) done(err error) { *o = append(*o, err) }

// released reports whether a command was, at once.
func (w *commandWorld) released(c *adapters.Command) bool {
	var o outcome
	w.commands.Command(c, o.done)
	return len(o) == 1 && errors.Is(o[0], iot.ErrUnavailable)
}

func TestCommandReachesWhoSubscribed(t *testing.T) {
	const gateway, other = adaptertest.Gateway, adaptertest.Device2
	for _, tt := range []struct {
		name       string
		subscriber iot.DeviceID
		all        bool
		c          *adapters.Command
		want       bool
	}{
		{"the device", adaptertest.Device, false, command(adaptertest.Device, ""), true},
		{"another device", other, false, command(adaptertest.Device, ""), false},
		{"another tenant", adaptertest.Device, false, &adapters.Command{Tenant: adaptertest.OtherTenant, Device: adaptertest.Device}, false},
		{"gateway for all its devices", gateway, true, command(other, gateway), true},
		{"gateway for itself", gateway, false, command(other, gateway), false},
		{"gateway for all its devices, itself meant", gateway, true, command(gateway, ""), true},
		{"another gateway", adaptertest.ProvisioningGateway, true, command(other, gateway), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newCommandWorld(t, adapters.CommandsOptions{})
			d := w.subscribe(t, tt.subscriber, func(s *adapters.Subscribe) { s.All = tt.all })
			if got := !w.released(tt.c); got != tt.want {
				t.Fatalf("taken: %v, want %v", got, tt.want)
			}
			if tt.want && (len(d.got) != 1 || d.got[0].c != tt.c) {
				t.Errorf("got %d commands, want the one that was sent", len(d.got))
			}
		})
	}
}

// TestCommandOutcome: what the device side says goes back once and as it is.
func TestCommandOutcome(t *testing.T) {
	w := newCommandWorld(t, adapters.CommandsOptions{})
	d := w.subscribe(t, adaptertest.Device, nil)
	for i, want := range []error{nil, iot.ErrInvalid, &adapters.ModifiedError{DeliveryFailed: true}, iot.ErrTimeout} {
		var o outcome
		w.commands.Command(command(adaptertest.Device, ""), o.done)
		if len(o) != 0 || w.commands.InFlight() != 1 {
			t.Fatalf("got outcomes %v with %d under way before there is one, want none and 1", o, w.commands.InFlight())
		}
		d.got[i].done(want)
		d.got[i].done(errors.New("a second one"))
		if len(o) != 1 || o[0] != want || w.commands.InFlight() != 0 {
			t.Errorf("got outcomes %v with %d under way, want %v alone and 0", o, w.commands.InFlight(), want)
		}
	}
}

func TestCommandsInFlightAreBounded(t *testing.T) {
	w := newCommandWorld(t, adapters.CommandsOptions{MaxInFlight: 5, PerSubscription: 3})
	first, second := w.subscribe(t, adaptertest.Device, nil), w.subscribe(t, adaptertest.Device2, nil)
	taken := func(device iot.DeviceID) bool { return !w.released(command(device, "")) }
	for range 3 {
		if !taken(adaptertest.Device) {
			t.Fatal("released within the bounds")
		}
	}
	if taken(adaptertest.Device) {
		t.Error("taken beyond the bound of one subscription")
	}
	for i, want := range []bool{true, true, false} {
		if got := taken(adaptertest.Device2); got != want {
			t.Errorf("command %d of the second device: taken is %v, want %v by the bound of all subscriptions", i+1, got, want)
		}
	}
	first.Close(false)
	if w.commands.InFlight() != 5 {
		t.Errorf("%d under way after the subscription was closed, want the 5 that have no outcome", w.commands.InFlight())
	}
	first.got[0].done(nil)
	for i, want := range []bool{true, false} {
		if got := taken(adaptertest.Device2); got != want {
			t.Errorf("command %d after one outcome: taken is %v, want %v", i+1, got, want)
		}
	}
	for _, r := range slices.Concat(first.got, second.got) {
		r.done(nil)
	}
	if w.commands.InFlight() != 0 {
		t.Errorf("%d under way at the end, want 0", w.commands.InFlight())
	}
}

// TestLatestSubscriptionCounts: of several subscriptions of a device the latest gets
// the commands, and routers hear of each change, once.
func TestLatestSubscriptionCounts(t *testing.T) {
	w := newCommandWorld(t, adapters.CommandsOptions{})
	var ds []*device
	for range 3 {
		ds = append(ds, w.subscribe(t, adaptertest.Device, nil))
	}
	told := w.announcer.Told()
	for i, a := range told {
		if a.Tenant != adaptertest.Tenant || a.Device != adaptertest.Device || a.Adapter != "hono-http" || a.All || a.Gone || a.Until != 0 || i > 0 && a.At <= told[i-1].At {
			t.Errorf("announcement %d is %+v, want one of the device that is later than the one before", i, a)
		}
	}
	reaches := func(want *device) {
		t.Helper()
		before := len(want.got)
		if w.released(command(adaptertest.Device, "")) || len(want.got) != before+1 {
			t.Error("the command did not reach the latest subscription that is left")
		}
	}
	reaches(ds[2])
	ds[1].Close(false)
	ds[1].Close(false)
	reaches(ds[2])
	if n := len(w.announcer.Told()); n != len(told) {
		t.Errorf("%d announcements after one was closed that did not count, want %d", n, len(told))
	}
	ds[2].Close(false)
	reaches(ds[0])
	if now, _ := w.announcer.Now(adaptertest.Tenant, adaptertest.Device); now != told[0] {
		t.Errorf("announced is %+v, want again %+v", now, told[0])
	}
	if got := w.commands.Subscribed(); !slices.Equal(got, told[:1]) {
		t.Errorf("a new router is told %+v, want %+v", got, told[:1])
	}
	ds[0].Close(false)
	want := adapters.Announcement{Tenant: adaptertest.Tenant, Device: adaptertest.Device, Gone: true}
	if now, there := w.announcer.Now(adaptertest.Tenant, adaptertest.Device); there || now != want {
		t.Errorf("announced is %+v, want %+v", now, want)
	}
	if !w.released(command(adaptertest.Device, "")) || w.commands.Len() != 0 || len(w.commands.Subscribed()) != 0 {
		t.Errorf("%d subscriptions are left after each was closed, want none", w.commands.Len())
	}
}

// TestSubscribeWaitsForRouters, but not for long.
func TestSubscribeWaitsForRouters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCommandWorld(t, adapters.CommandsOptions{})
		release := w.announcer.Hold()
		start := time.Now()
		d := w.subscribe(t, adaptertest.Device, nil)
		if took := time.Since(start); took != 500*time.Millisecond {
			t.Errorf("waited %v for routers that do not answer, want 500ms", took)
		}
		d.Close(false)
		time.AfterFunc(100*time.Millisecond, release)
		start = time.Now()
		w.subscribe(t, adaptertest.Device, nil)
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("waited %v for routers that answer after 100ms", took)
		}
	})
}

func TestSubscribeEndsWithItsContext(t *testing.T) {
	w := newCommandWorld(t, adapters.CommandsOptions{})
	w.announcer.Hold()
	ctx, cancel := context.WithCancel(t.Context())
	s := adapters.Subscribe{Who: w.admit(t, adaptertest.Device), Deliver: func(*adapters.Command, func(error)) {}}
	ended := make(chan error)
	go func() {
		_, err := w.p.Subscribe(ctx, s)
		ended <- err
	}()
	for len(w.announcer.Told()) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if _, there := w.announcer.Now(adaptertest.Tenant, adaptertest.Device); there || w.commands.Len() != 0 {
		t.Error("the subscription is still there")
	}
	if _, err := w.p.Subscribe(ctx, s); !errors.Is(err, context.Canceled) || len(w.announcer.Told()) != 2 {
		t.Errorf("with a context that has ended: got error %v and %d announcements, want %v and no third", err, len(w.announcer.Told()), context.Canceled)
	}
}

func TestSubscriptionsAreBounded(t *testing.T) {
	w := newCommandWorld(t, adapters.CommandsOptions{})
	s := adapters.Subscribe{Who: w.admit(t, adaptertest.Device), Deliver: func(*adapters.Command, func(error)) {}}
	w.commands.Pretend(adapters.MaxSubscriptions - 1)
	sub, err := w.p.Subscribe(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.p.Subscribe(t.Context(), s); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("one too many: got error %v, want %v", err, iot.ErrUnavailable)
	}
	sub.Close(false)
	sub.Close(false)
	if got := w.commands.Len(); got != adapters.MaxSubscriptions-1 {
		t.Errorf("%d are left, want %d", got, adapters.MaxSubscriptions-1)
	}
}

func TestWithoutCommands(t *testing.T) {
	w := newWorld(t, adapters.Options{})
	who, err := w.p.Admit(t.Context(), good())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.p.Subscribe(t.Context(), adapters.Subscribe{Who: who}); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("got error %v, want %v", err, iot.ErrUnavailable)
	}
}

// TestSubscriptionEndsByItself: nobody has to close it, and the one before it counts.
func TestSubscriptionEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCommandWorld(t, adapters.CommandsOptions{})
		until := func(d time.Duration) func(*adapters.Subscribe) {
			return func(s *adapters.Subscribe) { s.Until = time.Now().Add(d) }
		}
		stays := w.subscribe(t, adaptertest.Device, nil)
		ends := w.subscribe(t, adaptertest.Device, until(10*time.Second))
		w.subscribe(t, adaptertest.Device2, until(10*time.Second))
		if now, _ := w.announcer.Now(adaptertest.Tenant, adaptertest.Device); now.Until != time.Now().Add(10*time.Second).UnixMilli() {
			t.Errorf("announced until %v, want in 10s", time.UnixMilli(now.Until))
		}
		time.Sleep(9999 * time.Millisecond)
		if w.released(command(adaptertest.Device, "")) || len(ends.got) != 1 {
			t.Error("it ended early")
		}
		time.Sleep(time.Millisecond)
		if w.released(command(adaptertest.Device, "")) || len(stays.got) != 1 || !w.released(command(adaptertest.Device2, "")) {
			t.Error("it did not end, or the one before it does not count")
		}
		first := w.announcer.Told()[0]
		if got := w.commands.Subscribed(); !slices.Equal(got, []adapters.Announcement{first}) {
			t.Errorf("a new router is told %+v, want %+v", got, first)
		}
		time.Sleep(time.Minute)
		for range 200 { // those who come look after what has ended
			w.subscribe(t, adaptertest.Gateway, nil).Close(true)
			w.subscribe(t, adaptertest.Device2, nil).Close(true)
			w.subscribe(t, adaptertest.Device, nil).Close(true)
		}
		if w.commands.Len() != 1 {
			t.Errorf("%d subscriptions are left, want the one that did not end", w.commands.Len())
		}
		if now, _ := w.announcer.Now(adaptertest.Tenant, adaptertest.Device); now != first {
			t.Errorf("announced is %+v, want again %+v", now, first)
		}
		ends.Close(false)
		if w.commands.Len() != 1 {
			t.Errorf("%d subscriptions are left after one was closed that had ended, want 1", w.commands.Len())
		}
	})
}

// TestCommandsOfOneDeviceAreBounded: as many as a device may have are taken, those
// closed make room, and other devices have theirs.
func TestCommandsOfOneDeviceAreBounded(t *testing.T) {
	w := newCommandWorld(t, adapters.CommandsOptions{})
	first := w.subscribe(t, adaptertest.Device, nil)
	for range adapters.MaxPerDevice - 1 {
		w.subscribe(t, adaptertest.Device, nil)
	}
	s := adapters.Subscribe{Who: w.admit(t, adaptertest.Device), Deliver: func(*adapters.Command, func(error)) {}}
	if _, err := w.p.Subscribe(t.Context(), s); !errors.Is(err, iot.ErrUnavailable) || w.commands.Len() != adapters.MaxPerDevice {
		t.Errorf("one more: %v, and there are %d; want it refused at %d", err, w.commands.Len(), adapters.MaxPerDevice)
	}
	w.subscribe(t, adaptertest.Device2, nil)
	first.Close(true)
	w.subscribe(t, adaptertest.Device, nil)
	if w.commands.Len() != adapters.MaxPerDevice+1 {
		t.Errorf("there are %d; want %d", w.commands.Len(), adapters.MaxPerDevice+1)
	}
}
