package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/pgstore"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

// taken is what consumers of a tenant took, together.
type taken struct {
	mu   sync.Mutex
	last map[string]uint64 // by device
	left int
	done context.CancelFunc
	by   map[string]int
}

func (x *taken) take(t *testing.T, holder string, records []eventstore.Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range records {
		device := fmt.Sprint(r.ID.Writer, "/", r.Device)
		if r.ID.Counter <= x.last[device] {
			t.Errorf("%s took %d of %s after %d", holder, r.ID.Counter, device, x.last[device])
		}
		x.last[device] = r.ID.Counter
	}
	x.by[holder] += len(records)
	if x.left -= len(records); x.left <= 0 {
		x.done()
	}
}

// Two processes append to the partitions of a tenant, and share what they
// consume: each event comes to one of them, once, in the order of its device.
func TestTwoProcesses(t *testing.T) {
	db := pgtest.Start(t)
	const appends, records = 100, 30
	ctx, cancel := context.WithCancel(t.Context())
	x := &taken{last: map[string]uint64{}, left: 2 * appends * records, done: cancel, by: map[string]int{}}
	var all sync.WaitGroup
	for w := range 2 {
		log := eventstore.New(open(t, db.URL, pgstore.Options{}), eventstore.Options{})
		holder := fmt.Sprint("router-", w)
		all.Go(func() {
			e := &events{writer: uint64(w + 1)}
			for range appends {
				got, err := log.Append(t.Context(), eventstore.AppendRequest{Records: e.next(records, 1, 25)})
				if err != nil || got.Results[0].Status != 200 {
					t.Error(err, got)
					cancel()
					return
				}
			}
		})
		all.Go(func() {
			for ctx.Err() == nil {
				if err := consume(ctx, t, log, holder, x); err != nil && ctx.Err() == nil {
					t.Error(err)
					cancel()
				}
			}
		})
	}
	all.Wait()
	if x.left != 0 || x.by["router-0"] == 0 || x.by["router-1"] == 0 {
		t.Errorf("%d events are left, and they took %v", x.left, x.by)
	}
}

// consume takes what is there of the holder's share, and gives back what another waits for.
func consume(ctx context.Context, t *testing.T, log *eventstore.Log, holder string, x *taken) error {
	const tenant = "tenant-00000"
	claimed, err := log.Claim(ctx, eventstore.ClaimRequest{Tenant: tenant, Holder: holder})
	if err != nil {
		return err
	}
	for _, c := range claimed.Claims {
		if c.Wanted {
			if err := log.Release(ctx, eventstore.ReleaseRequest{Tenant: tenant, Partition: c.Partition, Fence: c.Fence}); err != nil {
				return err
			}
			continue
		}
		got, err := log.Read(ctx, eventstore.ReadRequest{Tenant: tenant, Partition: c.Partition, Fence: c.Fence, From: c.Next, MaxRecords: 50})
		if err != nil {
			return err
		}
		if len(got.Records) == 0 {
			continue
		}
		x.take(t, holder, got.Records)
		first, last := got.Records[0].Position, got.Records[len(got.Records)-1].Position
		_, err = log.Settle(context.WithoutCancel(ctx), eventstore.SettleRequest{Tenant: tenant, Partition: c.Partition, Fence: c.Fence,
			Settlements: []eventstore.Settlement{{From: first, To: last, Outcome: eventstore.Accepted}}})
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}
