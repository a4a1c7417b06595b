package dynamostore

import (
	"context"
	"errors"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// bulkWindow is how many writes are read for at once; a transaction has room
// for no more than half as many.
const bulkWindow = maxWrites / 2

// ApplyDevices implements registry.Loader: as few transactions as the writes
// fit in, each with one step of the counter.
func (s *Store) ApplyDevices(ctx context.Context, tenant iot.TenantID, writes []registry.DeviceWrite, maxDevices int64) ([]error, error) {
	results := make([]error, len(writes))
	all := make([]mutation, len(writes))
	for i := range writes {
		w := &writes[i]
		all[i] = mutation{op: w.Op, d: w.Device, ifVersion: w.IfVersion, credentials: w.Credentials,
			credentialsVersion: w.CredentialsVersion, at: w.Device.Status.Updated.Time}
		if w.Op == registry.CreateOp {
			all[i].ifVersion = ""
		}
		if err := all[i].encode(); err != nil {
			return nil, err
		}
	}
	for done := 0; ; {
		n, err := s.applySome(ctx, tenant, all[done:], results[done:], maxDevices)
		if err != nil {
			return nil, err
		}
		if done += n; done >= len(all) {
			return results, nil
		}
	}
}

// applySome makes as many writes as fit one transaction, at least one, and
// returns how many; with none left it asks only for the tenant.
func (s *Store) applySome(ctx context.Context, tenant iot.TenantID, all []mutation, results []error, maxDevices int64) (n int, err error) {
	err = s.change(ctx, tenant, func(ctx context.Context, st state) (*change, error) {
		if !st.live {
			return nil, errNoTenant
		}
		n = 0
		some := all[:min(len(all), bulkWindow)]
		f := s.newDraft(tenant, st, maxDevices)
		if err := f.load(ctx, some); err != nil {
			return nil, err
		}
		for i := range some {
			fits, err := f.apply(&some[i])
			var own *iot.Error
			if err != nil && !errors.As(err, &own) {
				return nil, err
			}
			if !fits {
				break
			}
			results[i] = err
			n++
		}
		if len(f.change.changes) == 0 {
			return nil, nil
		}
		return &f.change, nil
	})
	return n, err
}
