package command

import (
	"context"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Route is the way that a command to a device takes.
type Route struct {
	Device   iot.DeviceID // to whom the command is
	Gateway  iot.DeviceID // that stands in for it; "" = the device is reached itself
	Instance string       // the adapter process; "" = nobody reaches the device now
	Adapter  string       // its adapter type
	At       int64        // since when, Unix ms
	Until    int64        // until when, Unix ms; 0 = until it ends
	Foreign  bool         // the process was entered over the Command Router API
}

// Find looks up the way that a command to the device would take now, as one does:
// the registration first. Errors wrap iot.ErrNotFound where tenant or device are unknown or
// disabled, iot.ErrInvalid where no device may have the id; others mean that it
// could not be found out. A device that nobody reaches has a Route without Instance.
func (d *Directory) Find(ctx context.Context, tenant iot.TenantID, device iot.DeviceID) (Route, error) {
	type result struct {
		via []iot.DeviceID
		err error
	}
	got := make(chan result, 1)
	if !d.regs.with(key{tenant, device}, func(via []iot.DeviceID, err error) { got <- result{via, err} }) {
		return Route{}, errBusy
	}
	select {
	case r := <-got:
		if r.err != nil {
			return Route{}, r.err
		}
		return d.choose(tenant, device, r.via), nil
	case <-ctx.Done():
		return Route{}, iot.Errorf(iot.ErrTimeout, "the registration was not read in time")
	}
}

var errBusy = iot.Errorf(iot.ErrUnavailable, "too many registrations are being read")

// maxAbsent is how many processes of others that are gone are passed over for one command.
const maxAbsent = 8

// choose chooses the way to a device that the gateways via may act for (messaging 9.5).
// The rows of a foreign process that receives nothing are there for its return, and as
// good as absent until then.
func (d *Directory) choose(tenant iot.TenantID, device iot.DeviceID, via []iot.DeviceID) Route {
	var absent []string
	for {
		r := d.chooseOf(tenant, device, via, absent)
		if !r.Foreign || d.Present(r.Instance) {
			return r
		}
		if absent = append(absent, r.Instance); len(absent) > maxAbsent {
			return Route{Device: device}
		}
	}
}

// chooseOf is choose among the processes that are not named.
func (d *Directory) chooseOf(tenant iot.TenantID, device iot.DeviceID, via []iot.DeviceID, absent []string) Route {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := now()
	t := d.tenants[tenant]
	if t == nil {
		return Route{Device: device}
	}
	if e := t.devices[device].liveBeside(at, absent); e != nil {
		return e.route(device, "")
	}
	if last, ok := d.gateways.get(key{tenant, device}); ok && slices.Contains(via, last) {
		if e := t.devices[last].liveBeside(at, absent); e != nil && e.all {
			return e.route(device, last)
		}
	}
	for _, g := range via {
		if e := t.devices[g].liveBeside(at, absent); e != nil && e.all {
			return e.route(device, g)
		}
	}
	return Route{Device: device}
}

// liveBeside is live without the rows of some foreign processes.
func (e *entry) liveBeside(at int64, absent []string) *entry {
	for e = e.live(at); e != nil && e.source.foreign && slices.Contains(absent, e.source.instance); {
		e = e.behind.live(at)
	}
	return e
}

func (e *entry) route(device, gateway iot.DeviceID) Route {
	return Route{Device: device, Gateway: gateway, Instance: e.source.instance, Adapter: e.adapter, At: e.at, Until: e.until, Foreign: e.source.foreign}
}
