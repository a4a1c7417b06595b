package adapters_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// deriver is a function of notifications. before is called with the number of each call.
type deriver struct {
	mu     sync.Mutex
	calls  [][]events.PresenceChange
	before func(ctx context.Context, n int, changes []events.PresenceChange) error
}

func (d *deriver) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	changes := req.(events.NotificationDerive).Changes
	d.mu.Lock()
	d.calls = append(d.calls, changes)
	n, before := len(d.calls), d.before
	d.mu.Unlock()
	if before != nil {
		if err := before(ctx, n, changes); err != nil {
			return nil, err
		}
	}
	rep := &events.NotificationDerived{}
	for i := range changes {
		rep.Events = append(rep.Events, follows(&changes[i]))
	}
	slices.Reverse(rep.Events) // the order is that of the changes for people only
	return rep, nil
}

// on sets what happens before each call.
func (d *deriver) on(before func(ctx context.Context, n int, changes []events.PresenceChange) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = before
}

// sizes are the changes of each call.
func (d *deriver) sizes() (list []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.calls {
		list = append(list, len(c))
	}
	return list
}

func follows(c *events.PresenceChange) events.PresenceFact {
	connection := events.Connection{TenantID: c.TenantID, DeviceID: c.DeviceID, GatewayID: c.GatewayID, RemoteID: c.RemoteID, Source: c.Adapter, Data: c.Data, At: c.At}
	ttd := events.DeviceTTD{TenantID: c.TenantID, DeviceID: c.DeviceID, GatewayID: c.GatewayID, TTDSeconds: c.TTDSeconds, At: c.At}
	switch c.Kind {
	case events.Connected:
		return events.DeviceConnected{Connection: connection}
	case events.Disconnected:
		return events.DeviceDisconnected{Connection: connection}
	case events.Subscribed:
		ttd.TTDSeconds = -1
	}
	return ttd
}

// ways is a Downstream that may have no router.
type ways struct {
	adaptertest.Downstream
	away atomic.Bool
}

func (w *ways) Ready() bool { return !w.away.Load() }

// presenceWorld is a Presence with all that is around it.
type presenceWorld struct {
	*adapters.Presence
	t    *testing.T
	p    *adapters.Pipeline
	fn   *deriver
	inv  *adaptertest.Invoker
	down *ways

	mu    sync.Mutex
	taken []*iot.Message // events, in the order in which they were
}

func newPresence(t *testing.T, poster events.Poster) *presenceWorld {
	adm, inv := newAdmissions(t, adapters.AdmissionOptions{})
	adm.Following(true)
	w := &presenceWorld{t: t, fn: &deriver{}, inv: inv, down: &ways{}}
	w.p = adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: adm, Downstream: w.down, MaxPayload: 10})
	w.Presence = adapters.NewPresence(adapters.PresenceOptions{Invoker: w.fn, Poster: poster})
	t.Cleanup(w.Presence.Close)
	w.outcome(func(*iot.Message, int) error { return nil })
	return w
}

// outcome has f decide about each message, with the number of its tries; those without an error are taken.
func (w *presenceWorld) outcome(f func(m *iot.Message, try int) error) {
	tries := make(map[string]int)
	w.down.Outcome(func(m *iot.Message) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		tries[m.ID]++
		err := f(m, tries[m.ID])
		if err == nil {
			w.taken = append(w.taken, m)
		}
		return err
	})
}

// seen are the events that were taken, each as device and ttd.
func (w *presenceWorld) seen() (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.taken {
		what := string(m.ContentType)
		if m.TTD != nil {
			what = fmt.Sprint(*m.TTD)
		}
		list = append(list, fmt.Sprintf("%s %s", m.Device, what))
	}
	return list
}

// nth admits one of many devices.
func (w *presenceWorld) nth(i int) adapters.Admission {
	w.t.Helper()
	r := request(string(adaptertest.ProvisioningGateway), adaptertest.Password, home)
	r.Admit.DeviceID = iot.DeviceID(fmt.Sprintf("%s%d", adaptertest.Provisioned, i))
	return w.admit(r)
}

func (w *presenceWorld) admit(r *adapters.Request) adapters.Admission {
	w.t.Helper()
	who, err := w.p.Admit(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return who
}

// that is a change of kind, now.
func (w *presenceWorld) that(kind events.PresenceKind, who adapters.Admission) adapters.Notification {
	return adapters.Notification{Change: events.PresenceChange{Kind: kind, At: time.Now()}, Who: who, Pipeline: w.p, Address: "command///req/#"}
}

// facts is a poster that notes what it is brought.
type facts struct {
	mu    sync.Mutex
	list  []events.Fact
	posts int
	err   error
	wait  bool // for the end of the context
}

func (f *facts) Post(ctx context.Context, list []events.Fact) error {
	f.mu.Lock()
	f.posts++
	err, wait := f.err, f.wait
	if err == nil && !wait {
		f.list = append(f.list, list...)
	}
	f.mu.Unlock()
	if wait {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}
