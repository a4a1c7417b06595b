package command_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/command"
	"github.com/sluice-iot/sluice/router/service"
)

// others is a directory with adapters of others, and what is asked of functions
// and published.
type others struct {
	*command.Directory
	foreign *command.Foreign

	mu        sync.Mutex
	absent    map[string]bool // addresses without receiver
	asked     []string
	published []*amqp.Message
	outcome   amqp.Raw // of what is published; nil = none yet
	failing   error    // of notification.derive
}

func newOthers(t testing.TB) *others {
	o := &others{absent: map[string]bool{}, outcome: amqp.StateAccepted}
	o.Directory = command.NewDirectory(command.Options{Invoker: o, Send: func(string, []byte, func(amqp.Raw)) {}, Present: func(address string) bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return !o.absent[address]
	}})
	t.Cleanup(o.Directory.Close)
	o.foreign = command.NewForeign(command.ForeignOptions{Directory: o.Directory, Invoker: o, Publish: o.publish})
	return o
}

// Invoke knows the tenant T, which has the alias ALIAS, and its devices but "none".
func (o *others) Invoke(_ context.Context, req events.Request) (events.Reply, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, req.EventType())
	switch req := req.(type) {
	case events.TenantGet:
		if req.ID == "T" || req.ID == "ALIAS" {
			return &events.TenantGot{TenantObject: events.TenantObject{ID: "T", Enabled: true}, CacheFor: time.Minute}, nil
		}
	case events.RegistrationAssert:
		if req.TenantID == "T" && req.DeviceID != "none" {
			return &events.RegistrationAsserted{Registration: events.Registration{DeviceID: req.DeviceID, Via: []iot.DeviceID{"gw1", "gw2"}}, CacheFor: time.Hour}, nil
		}
	case events.NotificationDerive:
		if o.failing != nil {
			return nil, o.failing
		}
		c := req.Changes[0]
		ttd := map[events.PresenceKind]int{events.Subscribed: -1, events.Unsubscribed: 0}[c.Kind]
		return &events.NotificationDerived{Events: []events.PresenceFact{events.DeviceTTD{TenantID: c.TenantID, DeviceID: c.DeviceID, TTDSeconds: ttd, At: c.At}}}, nil
	}
	return nil, iot.Errorf(iot.ErrNotFound, "no such")
}

func (o *others) publish(_ string, message []byte, done func(amqp.Raw)) {
	m, err := amqp.DecodeMessage(message)
	if err != nil {
		panic(err)
	}
	o.mu.Lock()
	o.published = append(o.published, m)
	state := o.outcome
	o.mu.Unlock()
	if state != nil {
		done(state)
	}
}

// instanceOf is where commands to a device of T go, "" for nowhere.
func (o *others) instanceOf(t *testing.T, device iot.DeviceID) string {
	t.Helper()
	r, err := o.Find(t.Context(), "T", device)
	if err != nil {
		t.Fatal(err)
	}
	return r.Instance
}

func consumer(device iot.DeviceID, instance string) service.Consumer {
	return service.Consumer{Tenant: "T", Device: device, Instance: instance, Lifespan: -1}
}

func (o *others) register(t *testing.T, c service.Consumer) {
	t.Helper()
	if err := o.foreign.Register(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func TestForeignConsumers(t *testing.T) {
	o := newOthers(t)
	if got := o.instanceOf(t, "d"); got != "" {
		t.Fatalf("reached by %s at first", got)
	}
	if err := o.foreign.Unregister(t.Context(), consumer("d", "a-1")); !errors.Is(err, iot.ErrVersion) {
		t.Errorf("unregister of what is not there: %v", err)
	}
	o.register(t, consumer("d", "a-1"))
	if got := o.instanceOf(t, "d"); got != "a-1" {
		t.Errorf("registered: %q", got)
	}
	o.register(t, consumer("d", "a-2"))
	if got := o.instanceOf(t, "d"); got != "a-2" {
		t.Errorf("the last that registers has it: %q", got)
	}
	if err := o.foreign.Unregister(t.Context(), consumer("d", "a-1")); !errors.Is(err, iot.ErrVersion) {
		t.Errorf("unregister by another: %v", err)
	}
	if err := o.foreign.Unregister(t.Context(), consumer("d", "a-2")); err != nil {
		t.Error(err)
	}
	if got := o.instanceOf(t, "d"); got != "" {
		t.Errorf("%s comes back when the last has gone", got)
	}
	if n := o.Len(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if len(o.published) != 0 {
		t.Errorf("events that nobody asked for: %v", o.published)
	}
}

// TestForeignAbsent shows that a process of others that receives nothing does not keep commands
// from who does.
func TestForeignAbsent(t *testing.T) {
	o := newOthers(t)
	o.register(t, consumer("gw1", "a-1"))
	o.register(t, consumer("gw2", "a-2"))
	o.register(t, consumer("d", "a-3"))
	step := func(what, want string) {
		t.Helper()
		if got := o.instanceOf(t, "d"); got != want {
			t.Errorf("%s: reached by %q, want %q", what, got, want)
		}
	}
	absent := func(instance string, is bool) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.absent["command_internal/"+instance] = is
	}
	step("all are there", "a-3")
	absent("a-3", true)
	step("a gateway", "a-1")
	absent("a-1", true)
	step("the other", "a-2")
	absent("a-2", true)
	step("nobody", "")
	absent("a-3", false)
	step("back again", "a-3")
}

func TestForeignTenants(t *testing.T) {
	o := newOthers(t)
	for tenant, want := range map[iot.TenantID]string{
		"UNKNOWN": "no such", "ALIAS": `no tenant has the id "ALIAS": expected "T", whose alias it is`,
	} {
		c := consumer("d", "a")
		c.Tenant = tenant
		if err := o.foreign.Register(t.Context(), c); !errors.Is(err, iot.ErrNotFound) || err.Error() != want {
			t.Errorf("%s: got %v", tenant, err)
		}
	}
	for range 3 {
		o.register(t, consumer("d", "a"))
	}
	if len(o.asked) != 3 {
		t.Errorf("asked %v: the tenant is known after the first time", o.asked)
	}
}

func TestForeignLifespan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOthers(t)
		c := consumer("d", "a")
		c.Lifespan = 20 * time.Second
		o.register(t, c)
		time.Sleep(19 * time.Second)
		if got := o.instanceOf(t, "d"); got != "a" {
			t.Errorf("before the end: %q", got)
		}
		time.Sleep(time.Second)
		if got := o.instanceOf(t, "d"); got != "" {
			t.Errorf("at the end: %q", got)
		}
		if err := o.foreign.Unregister(t.Context(), c); !errors.Is(err, iot.ErrVersion) {
			t.Errorf("unregister after the end: %v", err)
		}
		o.register(t, c)
		c.Lifespan = 0
		o.register(t, c)
		if got := o.instanceOf(t, "d"); got != "" {
			t.Errorf("no time: %q", got)
		}
		time.Sleep(time.Minute)
		if n := o.Len(); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		o.Directory.Close()
	})
}

func TestForeignEvents(t *testing.T) {
	o := newOthers(t)
	c := consumer("d", "hono-mqtt-1")
	c.SendEvent = true
	o.register(t, c)
	if err := o.foreign.Unregister(t.Context(), consumer("d", "other")); !errors.Is(err, iot.ErrVersion) {
		t.Error(err)
	}
	if err := o.foreign.Unregister(t.Context(), c); err != nil {
		t.Error(err)
	}
	if err := o.foreign.Unregister(t.Context(), c); !errors.Is(err, iot.ErrVersion) {
		t.Error(err)
	}
	if len(o.published) != 2 {
		t.Fatalf("%d events, want 2", len(o.published))
	}
	for i, ttd := range []int32{-1, 0} {
		m := o.published[i]
		want := amqp.Map{{Key: "device_id", Value: "d"}, {Key: "qos", Value: int32(1)}, {Key: "orig_adapter", Value: "hono-mqtt-1"}, {Key: "ttd", Value: ttd}}
		if diff := cmp.Diff(want, m.ApplicationProperties); diff != "" {
			t.Errorf("application properties (-want +got):\n%s", diff)
		}
		if p := m.Properties; p.To != "event/T" || p.ContentType != "application/vnd.eclipse-hono-empty-notification" || p.MessageID == nil || p.CreationTime == 0 {
			t.Errorf("properties %+v", p)
		}
		if !m.Header.Durable || m.Data != nil || m.HasValue {
			t.Errorf("got %+v", m)
		}
		if got := m.MessageAnnotations.Get("resource"); got != "event/T/d" {
			t.Errorf("resource %v", got)
		}
	}
}

// TestForeignEventsThatFail has the device registered nevertheless.
func TestForeignEventsThatFail(t *testing.T) {
	for name, set := range map[string]func(*others){
		"function": func(o *others) { o.failing = iot.Errorf(iot.ErrUnavailable, "away") },
		"released": func(o *others) { o.outcome = amqp.StateReleased },
		"stuck":    func(o *others) { o.outcome = nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOthers(t)
				set(o)
				c := consumer("d", "a")
				c.SendEvent = true
				began := time.Now()
				o.register(t, c)
				if took := time.Since(began); took > time.Second {
					t.Errorf("took %s", took)
				}
				if got := o.instanceOf(t, "d"); got != "a" {
					t.Errorf("got %q", got)
				}
				o.Directory.Close()
			})
		})
	}
}

func TestForeignGateways(t *testing.T) {
	o := newOthers(t)
	o.register(t, consumer("gw1", "a-1"))
	o.register(t, consumer("gw2", "a-2"))
	if r, _ := o.Find(t.Context(), "T", "d"); r.Gateway != "gw1" || r.Instance != "a-1" || !r.Foreign {
		t.Errorf("first: %+v", r)
	}
	o.foreign.LastGateways("T", map[iot.DeviceID]iot.DeviceID{"d": "gw2"})
	if r, _ := o.Find(t.Context(), "T", "d"); r.Gateway != "gw2" || r.Instance != "a-2" {
		t.Errorf("last known: %+v", r)
	}
	o.foreign.LastGateways("T", map[iot.DeviceID]iot.DeviceID{"d": "d"})
	if r, _ := o.Find(t.Context(), "T", "d"); r.Gateway != "gw1" {
		t.Errorf("without one: %+v", r)
	}
}

// TestForeignProcessesThatAreGone has one process whose receiver is away for a
// while, and one whose receiver does not come back.
func TestForeignProcessesThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOthers(t)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { o.foreign.Run(ctx) })
		o.register(t, consumer("d1", "back"))
		o.register(t, consumer("d2", "gone"))
		away := func(address string, is bool) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.absent[address] = is
		}
		away("command_internal/back", true)
		away("command_internal/gone", true)
		time.Sleep(9 * time.Minute)
		away("command_internal/back", false)
		time.Sleep(31 * time.Second)
		away("command_internal/back", true)
		if diff := cmp.Diff([]string{"back", "gone"}, o.Foreigners()); diff != "" {
			t.Error(diff)
		}
		time.Sleep(90 * time.Second)
		if diff := cmp.Diff([]string{"back"}, o.Foreigners()); diff != "" {
			t.Error(diff)
		}
		away("command_internal/back", false)
		if got := o.instanceOf(t, "d1"); got != "back" {
			t.Errorf("got %q", got)
		}
		cancel()
		running.Wait()
		o.Directory.Close()
	})
}

func TestTooManyForeignDevices(t *testing.T) {
	o := newOthers(t)
	rows := make([]command.Row, command.MaxForeign)
	for i := range rows {
		rows[i] = command.Row{Tenant: "T", Device: iot.DeviceID(fmt.Sprint("d", i)), At: 1}
	}
	if err := o.SetForeign("a", rows...); err != nil {
		t.Fatal(err)
	}
	if err := o.foreign.Register(t.Context(), consumer("one-more", "b")); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("one more: %v", err)
	}
	o.register(t, consumer(rows[0].Device, "a"))
	if err := o.foreign.Unregister(t.Context(), consumer(rows[1].Device, "a")); err != nil {
		t.Error(err)
	}
	o.register(t, consumer("one-more", "b"))
}
