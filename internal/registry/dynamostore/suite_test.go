package dynamostore_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/dynamostore"
	"github.com/sluice-iot/sluice/internal/registry/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Backend { return open(t, options(t)) })
}

func TestIndexed(t *testing.T) {
	storetest.RunIndexed(t, func(t *testing.T, indexes [][]string) registry.Backend {
		o := options(t)
		o.Indexes = indexes
		return open(t, o)
	})
}

// TestManyProcesses runs the suite's races over several stores on one table,
// which share no lock.
func TestManyProcesses(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Backend {
		o := options(t)
		several := &spread{Store: open(t, o)}
		for range 3 {
			several.all = append(several.all, open(t, o))
		}
		return several
	})
}

// spread hands each change to the next of several stores.
type spread struct {
	*dynamostore.Store // reads, and whatever else
	all                []*dynamostore.Store
	turn               atomic.Int64
}

func (s *spread) next() *dynamostore.Store { return s.all[int(s.turn.Add(1))%len(s.all)] }

func (s *spread) Observe(f func(context.Context, []registry.Change)) {
	s.Store.Observe(f)
	for _, one := range s.all {
		one.Observe(f)
	}
}

func (s *spread) CreateDevice(ctx context.Context, d registry.DeviceRecord, v string, max int64) error {
	return s.next().CreateDevice(ctx, d, v, max)
}

func (s *spread) UpdateDevice(ctx context.Context, d registry.DeviceRecord, v string) error {
	return s.next().UpdateDevice(ctx, d, v)
}

func (s *spread) PutCredentials(ctx context.Context, r registry.CredentialsRecord, v string, now time.Time) error {
	return s.next().PutCredentials(ctx, r, v, now)
}

func (s *spread) CreateTenant(ctx context.Context, r registry.TenantRecord) error {
	return s.next().CreateTenant(ctx, r)
}

func (s *spread) UpdateTenant(ctx context.Context, r registry.TenantRecord, v string) error {
	return s.next().UpdateTenant(ctx, r, v)
}

func (s *spread) DeleteDevices(ctx context.Context, t iot.TenantID, now time.Time) error {
	return s.next().DeleteDevices(ctx, t, now)
}

func (s *spread) ApplyDevices(ctx context.Context, t iot.TenantID, w []registry.DeviceWrite, max int64) ([]error, error) {
	return s.next().ApplyDevices(ctx, t, w, max)
}
