package command

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// MaxForeign is how many rows the adapters of others may have for the devices of a
	// tenant while they have none for those of others.
	MaxForeign = 100_000
	// foreignRoom is how many they may have together. A tenant may have so many as its share
	// of what is left, as with [waitingShare]: else the adapter of one, by naming devices
	// that do not exist, kept those of all others out.
	foreignRoom = MaxForeign + MaxForeign/waitingShare
	// maxGateways is how many last known gateways are remembered.
	maxGateways = 100_000
	// internal begins the address of an adapter process.
	internal = "command_internal/"
)

// Options of a directory. Invoker and Send are required.
type Options struct {
	Invoker events.Invoker // answers registration.assert
	// Send sends an encoded message to an address as [forward.Router.Publish] does.
	Send func(address string, message []byte, done func(state amqp.Raw))
	// Offer does that for commands as [forward.Router.TryPublish] does; nil = Send.
	Offer func(address string, message []byte, done func(state amqp.Raw)) (taken bool)
	// Present reports whether somebody receives at an address; nil = always.
	Present func(address string) bool
	Logger  *slog.Logger // nil = discard
}

// Row says that an adapter process can reach a device.
type Row struct {
	Tenant  iot.TenantID
	Device  iot.DeviceID
	At      int64  // Unix time in ms since when; of several processes' rows the latest counts
	Until   int64  // Unix time in ms from which on the row is as good as absent; 0 = never
	Adapter string // adapter type, "" = unknown
	All     bool   // Device is a gateway that takes the commands of all devices it may act for
}

// Entry is a row with the process that it leads to.
type Entry struct {
	Row
	Instance string // commands go to command_internal/Instance
	Foreign  bool   // entered over the Command Router API
}

// Directory holds which adapter process reaches which device. Safe for
// concurrent use.
type Directory struct {
	o     Options
	regs  *registrations
	words words

	mu       sync.Mutex
	tenants  map[iot.TenantID]*tenantRows
	rows     int // entries, those behind others included
	expiry   expiries
	timer    *time.Timer
	due      int64 // when the timer fires, Unix ms; 0 = not set
	foreign  map[string]*source
	foreigns int                             // rows in foreign
	gateways recent[key, iot.DeviceID]       // last known
	told     map[string]*outbox              // by instance: what its processes are yet to hear
	sources  map[string]map[*source]struct{} // by instance; those that announce
	closed   bool
}

// key is a device.
type key struct {
	tenant iot.TenantID
	device iot.DeviceID
}

// NewDirectory returns an empty directory; [Directory.Close] ends it.
func NewDirectory(o Options) *Directory {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Offer == nil {
		o.Offer = func(address string, message []byte, done func(state amqp.Raw)) bool {
			o.Send(address, message, done)
			return true
		}
	}
	return &Directory{o: o, regs: newRegistrations(o.Invoker, o.Logger), tenants: map[iot.TenantID]*tenantRows{},
		foreign: map[string]*source{}, gateways: recent[key, iot.DeviceID]{max: maxGateways},
		told: map[string]*outbox{}, sources: map[string]map[*source]struct{}{}}
}

// Close ends look-ups that are under way, and timers. The directory is not used after it.
func (d *Directory) Close() {
	d.mu.Lock()
	d.closed = true
	if d.timer != nil {
		d.timer.Stop()
	}
	for _, b := range d.told {
		b.stop()
	}
	clear(d.told)
	d.mu.Unlock()
	d.regs.close()
}

// SetForeign enters rows of a foreign adapter process. A row replaces what the
// process had for the device, and the latest of several processes' counts. iot.ErrQuota
// when the adapters of others have as many rows as they may; rows before that one are entered.
// All is set.
func (d *Directory) SetForeign(instance string, rows ...Row) error {
	d.mu.Lock()
	defer d.unlock()
	s := d.foreign[instance]
	if s == nil {
		s = &source{instance: instance, foreign: true}
		d.foreign[instance] = s
	}
	defer d.forgetIdle(s)
	for i := range rows {
		if !d.foreignFits(rows[i].Tenant) && d.of(s, rows[i].Tenant, rows[i].Device) == nil {
			return iot.Errorf(iot.ErrQuota, "the adapters of others have %d devices", d.foreigns)
		}
		row := rows[i]
		row.All = true
		d.put(s, &row)
	}
	return nil
}

// foreignFits reports whether there is room for one more row for a device of the tenant. d is locked.
func (d *Directory) foreignFits(tenant iot.TenantID) bool {
	t, left := d.tenants[tenant], foreignRoom-d.foreigns
	return left > 0 && (t == nil || t.foreign < waitingShare*left)
}

// DropForeign drops the row of a foreign process for a device. It reports false, and drops
// nothing, when that row is not the one that counts: there is none, it has
// expired, or another process has the device.
func (d *Directory) DropForeign(instance string, tenant iot.TenantID, device iot.DeviceID) bool {
	d.mu.Lock()
	defer d.unlock()
	s := d.foreign[instance]
	e := d.winner(tenant, device, now())
	if s == nil || e == nil || e.source != s {
		return false
	}
	d.remove(e)
	d.forgetIdle(s)
	return true
}

// ForgetForeign drops all rows of a foreign process and returns how many there were.
func (d *Directory) ForgetForeign(instance string) int {
	d.mu.Lock()
	defer d.unlock()
	s := d.foreign[instance]
	if s == nil {
		return 0
	}
	n := s.count
	d.clear(s)
	d.forgetIdle(s)
	return n
}

// forgetIdle lets go of a foreign process without rows.
func (d *Directory) forgetIdle(s *source) {
	if s.foreign && s.count == 0 {
		delete(d.foreign, s.instance)
	}
}

// Foreigners lists the foreign processes that have rows.
func (d *Directory) Foreigners() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]string, 0, len(d.foreign))
	for instance := range d.foreign {
		out = append(out, instance)
	}
	slices.Sort(out)
	return out
}

// Present reports whether somebody receives the commands for a process now.
func (d *Directory) Present(instance string) bool {
	return d.o.Present == nil || d.o.Present(internal+instance)
}

// SetLastGateway notes the gateway that acted for a device last; one that is the
// device itself, or "", is forgotten.
func (d *Directory) SetLastGateway(tenant iot.TenantID, device, gateway iot.DeviceID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noteGateway(tenant, device, gateway)
}

func (d *Directory) noteGateway(tenant iot.TenantID, device, gateway iot.DeviceID) {
	if gateway == "" || gateway == device {
		d.gateways.drop(key{tenant, device})
		return
	}
	d.gateways.put(key{iot.TenantID(d.words.one(string(tenant))), device}, gateway)
}

// Len returns how many entries there are, superseded ones included.
func (d *Directory) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rows
}

func now() int64 { return time.Now().UnixMilli() }
