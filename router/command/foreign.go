package command

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/service"
)

const (
	// foreignAbsence is how long the rows of a foreign process are kept while nobody
	// receives its commands: a connection that is lost is soon there again.
	foreignAbsence = 10 * time.Minute
	// foreignLook is how often that is looked at.
	foreignLook = 30 * time.Second
	// maxTenants is how many tenants are known to be there, and maxTenantAge how long.
	maxTenants   = 1000
	maxTenantAge = time.Minute
)

// ForeignOptions say who hears what adapters that are not ours say. Directory, Invoker and
// Publish are required.
type ForeignOptions struct {
	Directory *Directory
	Invoker   events.Invoker // answers tenant.get and notification.derive
	// Publish sends an encoded message to an address, as the router's Publish does.
	Publish func(address string, message []byte, done func(state amqp.Raw))
	Logger  *slog.Logger // nil = discard
}

// Foreign enters in a [Directory] what adapters that are not ours say by Hono's
// Command Router API, and tells applications where they are asked to (contract:
// messaging 6, 11). As with Hono, the last of them that says so has a device.
// Safe for concurrent use.
type Foreign struct {
	o ForeignOptions

	mu      sync.Mutex
	last    int64 // At of the latest row
	tenants recent[iot.TenantID, time.Time]
}

var _ service.CommandRouter = (*Foreign)(nil)

// NewForeign returns a Foreign; [Foreign.Run] forgets processes that are gone.
func NewForeign(o ForeignOptions) *Foreign {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Foreign{o: o, tenants: recent[iot.TenantID, time.Time]{max: maxTenants}}
}

// Register implements [service.CommandRouter].
func (f *Foreign) Register(ctx context.Context, c service.Consumer) error {
	if err := f.known(ctx, c.Tenant); err != nil {
		return err
	}
	at := time.Now()
	row := Row{Tenant: c.Tenant, Device: c.Device, At: f.stamp(at.UnixMilli())}
	if c.Lifespan >= 0 {
		row.Until = at.Add(c.Lifespan).UnixMilli()
	}
	if err := f.o.Directory.SetForeign(c.Instance, row); err != nil {
		f.o.Logger.Warn("a device of another's adapter is not taken", "adapter", c.Instance, "err", err)
		return iot.Errorf(iot.ErrUnavailable, "%s", err)
	}
	f.o.Directory.dropForeignBehind(c.Instance, c.Tenant, c.Device)
	if c.SendEvent {
		f.tell(ctx, events.Subscribed, &c, at)
	}
	return nil
}

// stamp is now, or a moment later than the last row: the later of two rows counts.
func (f *Foreign) stamp(now int64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = max(now, f.last+1)
	return f.last
}

// known returns iot.ErrNotFound when there is no such tenant.
func (f *Foreign) known(ctx context.Context, tenant iot.TenantID) error {
	f.mu.Lock()
	until, ok := f.tenants.get(tenant)
	f.mu.Unlock()
	if ok && time.Now().Before(until) {
		return nil
	}
	got, err := events.Call(ctx, f.o.Invoker, events.TenantGet{ID: tenant})
	if err != nil {
		return err
	}
	if got.ID != tenant {
		return iot.Errorf(iot.ErrNotFound, "no tenant has the id %.80q: expected %.80q, whose alias it is", string(tenant), string(got.ID))
	}
	if age := min(got.MaxAge(), maxTenantAge); age > 0 {
		f.mu.Lock()
		f.tenants.put(tenant, time.Now().Add(age))
		f.mu.Unlock()
	}
	return nil
}

// Unregister implements [service.CommandRouter].
func (f *Foreign) Unregister(ctx context.Context, c service.Consumer) error {
	if !f.o.Directory.DropForeign(c.Instance, c.Tenant, c.Device) {
		f.o.Directory.dropForeignRow(c.Instance, c.Tenant, c.Device)
		return iot.Errorf(iot.ErrVersion, "the commands to the device do not go to this adapter instance")
	}
	if c.SendEvent {
		f.tell(ctx, events.Unsubscribed, &c, time.Now())
	}
	return nil
}

// LastGateways implements [service.CommandRouter].
func (f *Foreign) LastGateways(tenant iot.TenantID, gateways map[iot.DeviceID]iot.DeviceID) {
	for device, gateway := range gateways {
		f.o.Directory.SetLastGateway(tenant, device, gateway)
	}
}

// Run forgets foreign processes whose commands nobody receives any more, until ctx
// ends.
func (f *Foreign) Run(ctx context.Context) {
	look := time.NewTicker(foreignLook)
	defer look.Stop()
	absent := map[string]time.Time{} // since when, as far as was seen
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-look.C:
			absent = f.look(absent, now)
		}
	}
}

// look returns which foreign processes are absent now, and since when.
func (f *Foreign) look(before map[string]time.Time, now time.Time) map[string]time.Time {
	absent := map[string]time.Time{}
	for _, instance := range f.o.Directory.Foreigners() {
		if f.o.Directory.Present(instance) {
			continue
		}
		since, ok := before[instance]
		switch {
		case !ok:
			absent[instance] = now
		case now.Sub(since) < foreignAbsence:
			absent[instance] = since
		default:
			n := f.o.Directory.ForgetForeign(instance)
			f.o.Logger.Info("an adapter of another is gone", "adapter", instance, "devices", n)
		}
	}
	return absent
}

// dropForeignBehind drops the rows that other foreign processes have for a device:
// its last word is the only one.
func (d *Directory) dropForeignBehind(instance string, tenant iot.TenantID, device iot.DeviceID) {
	d.dropForeignIf(tenant, device, func(s *source) bool { return s.instance != instance })
}

// dropForeignRow drops the row that a foreign process has for a device, whether it
// counts or not.
func (d *Directory) dropForeignRow(instance string, tenant iot.TenantID, device iot.DeviceID) {
	d.dropForeignIf(tenant, device, func(s *source) bool { return s.instance == instance })
}

func (d *Directory) dropForeignIf(tenant iot.TenantID, device iot.DeviceID, gone func(*source) bool) {
	d.mu.Lock()
	defer d.unlock()
	t := d.tenants[tenant]
	if t == nil {
		return
	}
	for e := t.devices[device]; e != nil; {
		next := e.behind
		if s := e.source; s.foreign && gone(s) {
			d.remove(e)
			d.forgetIdle(s)
		}
		e = next
	}
}
