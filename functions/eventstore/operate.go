package eventstore

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// clockSkew is how far ahead a schedule's clock may be.
const clockSkew = time.Minute

// Expire forgets events that have expired by now: what has not is never forgotten, so a
// later Until is refused, and an earlier one bounds nothing.
func (f *Functions) Expire(ctx context.Context, q events.EventExpire) (*events.EventExpireResult, error) {
	switch {
	case q.Until.After(f.o.Now().Add(clockSkew)):
		return nil, iot.Errorf(iot.ErrInvalid, "until lies in the future")
	case q.MaxRecords < 0 || q.MaxRecords > eventstore.MaxRecords:
		return nil, iot.Errorf(iot.ErrInvalid, "max-records is %d, want 0 to %d", q.MaxRecords, eventstore.MaxRecords)
	}
	n, more, err := f.store.Expire(ctx, q.MaxRecords)
	if err != nil {
		return nil, err
	}
	return &events.EventExpireResult{Expired: n, More: more}, nil
}

// Stats counts a tenant's events.
func (f *Functions) Stats(ctx context.Context, q events.EventStats) (*events.EventStatsResult, error) {
	if err := named(q.TenantID); err != nil {
		return nil, err
	}
	out, err := f.store.Stats(ctx, q.TenantID)
	if err != nil {
		return nil, err
	}
	return &events.EventStatsResult{Stats: *out}, nil
}

// Browse returns events of a partition without taking them.
func (f *Functions) Browse(ctx context.Context, q events.EventBrowse) (*events.EventBrowseResult, error) {
	if err := named(q.Tenant()); err != nil {
		return nil, err
	}
	list, next, err := f.store.Browse(ctx, q.BrowseRequest)
	if err != nil {
		return nil, err
	}
	out := &events.EventBrowseResult{Events: make([]events.BrowsedEvent, len(list)), Next: next}
	for i := range list {
		b := &list[i]
		out.Events[i] = events.BrowsedEvent{
			Position: b.Record.Position, DeviceID: b.Record.Device, At: time.UnixMilli(b.At).UTC(),
			Attempts: b.Attempts, Reason: b.Reason, Message: b.Record.Message,
		}
		if b.Record.Expires != 0 {
			out.Events[i].Expires = time.UnixMilli(b.Record.Expires).UTC()
		}
	}
	return out, nil
}

// Requeue brings dead letters back as new events; iot.ErrNotFound for a position
// at which there is none.
func (f *Functions) Requeue(ctx context.Context, q events.EventRequeue) (*events.EventRequeueResult, error) {
	if err := named(q.Tenant()); err != nil {
		return nil, err
	}
	n, more, err := f.store.Requeue(ctx, q.RequeueRequest)
	if err != nil {
		return nil, err
	}
	if n > 0 {
		f.grown(ctx, q.Tenant(), q.Partition)
	}
	return &events.EventRequeueResult{Requeued: n, More: more}, nil
}

// grown wakes whoever holds a partition to which events were added that no router appended.
func (f *Functions) grown(ctx context.Context, tenant iot.TenantID, partition eventstore.PartitionID) {
	if f.o.Facts == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), factWait)
	defer cancel()
	end, err := f.store.End(ctx, eventstore.Key{Tenant: tenant, Partition: partition})
	if err == nil {
		err = f.o.Facts.Post(ctx, []events.Fact{events.EventsAppended{TenantID: tenant, Partition: partition, End: end, At: f.o.Now().UTC()}})
	}
	if err != nil {
		f.o.Log.WarnContext(ctx, "nobody may know yet that events wait again", "tenant", string(tenant), "partition", partition.String(), "err", err)
	}
}

// Purge throws events of a partition away.
func (f *Functions) Purge(ctx context.Context, q events.EventPurge) (*events.EventPurgeResult, error) {
	if err := named(q.Tenant()); err != nil {
		return nil, err
	}
	n, more, err := f.store.Purge(ctx, q.PurgeRequest)
	if err != nil {
		return nil, err
	}
	return &events.EventPurgeResult{Purged: n, More: more}, nil
}
