package dynamostore

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// sweepAtOnce is how many devices DeleteDevices removes before it returns.
const sweepAtOnce = 100

// DeleteDevices implements registry.Store. It moves the tenant to the next
// epoch, so that all devices and credentials are out of reach at once, however
// many there are. What they leave behind is removed after that: some here, the
// rest by [Store.Sweep].
func (s *Store) DeleteDevices(ctx context.Context, tenant iot.TenantID, at time.Time) error {
	var left *garbage
	err := s.change(ctx, tenant, func(ctx context.Context, st state) (*change, error) {
		c := &change{next: st, changes: []registry.Change{{Tenant: tenant, Kind: registry.DevicesDeleted, At: at}}}
		left = nil
		if st.devices > 0 {
			left = &garbage{tenant: tenant, epoch: st.epoch}
			c.next.devices, c.next.epoch = 0, st.epoch+1
			c.ops = []op{{key: garbageKey(tenant, st.epoch), put: item{}}}
		}
		return c, nil
	})
	if err == nil && left != nil {
		// It is done. An error here leaves work for Sweep, nothing wrong.
		s.sweep(ctx, *left, sweepAtOnce)
	}
	return err
}

// garbage is what an ended epoch of a tenant left.
type garbage struct {
	tenant iot.TenantID
	epoch  int64
}

// Sweep removes items of devices that DeleteDevices made unreachable, of at
// most max devices (>= 1), and reports whether there is more to do. It may be
// called at any time, from any number of processes, and be interrupted.
func (s *Store) Sweep(ctx context.Context, max int) (more bool, err error) {
	var all []garbage
	_, err = s.query(ctx, question{pk: garbagePK, limit: 100}, func(i item) (bool, error) {
		epoch, tenant, _ := strings.Cut(i.str("sk"), "#")
		n, err := strconv.ParseInt(epoch, 10, 64)
		all = append(all, garbage{iot.TenantID(tenant), n})
		return false, err
	})
	for _, g := range all {
		if err != nil || max <= 0 {
			return true, err
		}
		var n int
		n, err = s.sweep(ctx, g, max)
		max -= n
	}
	return len(all) > 0 && max <= 0, err
}

// sweep removes up to max devices of an ended epoch, and the note that there
// is garbage with the last one. A device's item goes after all that only it
// names, so that an interrupted sweep finds the rest.
func (s *Store) sweep(ctx context.Context, g garbage, max int) (int, error) {
	for done := 0; ; {
		var hanging, devices []key
		n, err := s.query(ctx, question{pk: devicesPK(g.tenant, g.epoch), limit: min(max-done, 100)}, func(i item) (bool, error) {
			d, err := decodeDevice(g.tenant, i)
			if err != nil {
				return true, err
			}
			devices = append(devices, i.key())
			hanging = append(hanging, deviceHangers(g.tenant, g.epoch, d)...)
			for _, r := range d.refs {
				hanging = append(hanging, authKey(g.tenant, g.epoch, r.Type, r.AuthID))
			}
			return false, nil
		})
		if err == nil {
			err = s.removeAll(ctx, hanging)
		}
		if err == nil {
			err = s.removeAll(ctx, devices)
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, s.removeAll(ctx, []key{garbageKey(g.tenant, g.epoch)})
		}
		if done += n; done >= max {
			return done, nil
		}
	}
}
