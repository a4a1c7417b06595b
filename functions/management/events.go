package management

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// maxBrowse is how many events a page of a partition has at most.
const maxBrowse = 1000

// storing returns whoever answers about stored events.
func (s *server) storing() (events.Invoker, error) {
	if s.options.Events == nil {
		return nil, iot.Errorf(iot.ErrNotFound, "this installation stores no events")
	}
	return s.options.Events, nil
}

func (s *server) ReadEventStats(ctx context.Context, r api.ReadEventStatsRequestObject) (api.ReadEventStatsResponseObject, error) {
	stats, err := s.eventStats(ctx, r.TenantID)
	if err != nil {
		return nil, err
	}
	return api.ReadEventStats200Response{Body: stats.Stats}, nil
}

func (s *server) eventStats(ctx context.Context, tenant string) (*events.EventStatsResult, error) {
	inv, err := s.storing()
	if err != nil {
		return nil, err
	}
	return events.Call(ctx, inv, events.EventStats{TenantID: iot.TenantID(tenant)})
}

func (s *server) BrowseEvents(ctx context.Context, r api.BrowseEventsRequestObject) (api.BrowseEventsResponseObject, error) {
	inv, err := s.storing()
	if err != nil {
		return nil, err
	}
	q := eventstore.BrowseRequest{Tenant: iot.TenantID(r.TenantID)}
	if err := q.Partition.UnmarshalText([]byte(r.Partition)); err != nil {
		return nil, err
	}
	if q.Dead, err = boolean("dead", r.Params.Dead); err != nil {
		return nil, err
	}
	if q.Max, err = number("max", r.Params.Max, 100, 1, maxBrowse); err != nil {
		return nil, err
	}
	if text := r.Params.From; text != "" {
		if q.From, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, iot.Errorf(iot.ErrInvalid, "parameter from: %.30q is not a position", text)
		}
	}
	found, err := events.Call(ctx, inv, events.EventBrowse{BrowseRequest: q})
	if err != nil {
		return nil, err
	}
	page := api.EventsRead{Events: make([]api.EventRead, len(found.Events)), Next: found.Next}
	for i := range found.Events {
		page.Events[i] = shown(&found.Events[i])
	}
	return api.BrowseEvents200Response{Body: page}, nil
}

// shown is an event as an operator sees it.
func shown(e *events.BrowsedEvent) api.EventRead {
	out := api.EventRead{Position: e.Position, DeviceID: e.DeviceID, At: e.At, Expires: e.Expires, Attempts: e.Attempts, Reason: e.Reason}
	var ok bool
	if out.Payload, out.ContentType, ok = payload(e.Message); !ok {
		out.Message = e.Message
	}
	return out
}

func (s *server) PurgeEvents(ctx context.Context, r api.PurgeEventsRequestObject) (api.PurgeEventsResponseObject, error) {
	if r.Params.Dead == "" {
		return nil, iot.Errorf(iot.ErrInvalid, "parameter dead is missing: true for dead letters, false for what waits")
	}
	dead, err := boolean("dead", r.Params.Dead)
	if err != nil {
		return nil, err
	}
	ids, err := s.usedPartitions(ctx, r.TenantID)
	if err != nil {
		return nil, err
	}
	done, err := inPartitions(ctx, ids, func(id eventstore.PartitionID) (int64, bool, error) {
		out, err := events.Call(ctx, s.options.Events, events.EventPurge{PurgeRequest: eventstore.PurgeRequest{Tenant: iot.TenantID(r.TenantID), Partition: id, Dead: dead}})
		if err != nil {
			return 0, false, err
		}
		return out.Purged, out.More, nil
	})
	return api.PurgeEvents200Response{Body: done}, err
}

// usedPartitions are those of a tenant in which anything ever was.
func (s *server) usedPartitions(ctx context.Context, tenant string) ([]eventstore.PartitionID, error) {
	stats, err := s.eventStats(ctx, tenant)
	if err != nil {
		return nil, err
	}
	ids := make([]eventstore.PartitionID, len(stats.Partitions))
	for i := range stats.Partitions {
		ids[i] = stats.Partitions[i].Partition
	}
	return ids, nil
}

// inPartitions does something in each partition until there is nothing left to do. Where
// the time is used up, it tells what was done, and that there is more.
func inPartitions(ctx context.Context, ids []eventstore.PartitionID, do func(eventstore.PartitionID) (n int64, more bool, err error)) (done api.EventsDone, err error) {
	for _, id := range ids {
		for more := true; more; {
			var n int64
			n, more, err = do(id)
			done.Events += n
			switch {
			case err == nil:
			case done.Events > 0 && (ctx.Err() != nil || errors.Is(err, iot.ErrTimeout)):
				done.More = true
				return done, nil
			default:
				return done, err
			}
		}
	}
	return done, nil
}

func (s *server) RequeueEvents(ctx context.Context, r api.RequeueEventsRequestObject) (api.RequeueEventsResponseObject, error) {
	if _, err := s.storing(); err != nil {
		return nil, err
	}
	ids, positions, err := requeued(r.Body)
	if err == nil && ids == nil {
		ids, err = s.usedPartitions(ctx, r.TenantID)
	}
	if err != nil {
		return nil, err
	}
	done, err := inPartitions(ctx, ids, func(id eventstore.PartitionID) (int64, bool, error) {
		out, err := events.Call(ctx, s.options.Events, events.EventRequeue{RequeueRequest: eventstore.RequeueRequest{Tenant: iot.TenantID(r.TenantID), Partition: id, Positions: positions}})
		if err != nil {
			return 0, false, err
		}
		return out.Requeued, out.More, nil
	})
	return api.RequeueEvents200Response{Body: done}, err
}

// requeued reads which dead letters are meant; no partition = all.
func requeued(body []byte) ([]eventstore.PartitionID, []uint64, error) {
	if body == nil {
		return nil, nil, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return nil, nil, iot.Errorf(iot.ErrInvalid, "the body is not an object with partition and positions")
	}
	var id eventstore.PartitionID
	var positions []uint64
	for name, v := range members {
		var err error
		switch name {
		case "partition":
			err = json.Unmarshal(v, &id)
		case "positions":
			if err = json.Unmarshal(v, &positions); err == nil && (len(positions) == 0 || len(positions) > eventstore.MaxRecords) {
				err = errors.New("their number")
			}
		default:
			return nil, nil, iot.Errorf(iot.ErrInvalid, "unknown member %.40q", name)
		}
		if err != nil {
			return nil, nil, iot.Errorf(iot.ErrInvalid, "member %s: want a partition such as \"0-5\", and 1 to %d positions", name, eventstore.MaxRecords)
		}
	}
	if string(members["partition"]) == "" || string(members["partition"]) == "null" {
		return nil, nil, iot.Errorf(iot.ErrInvalid, "member partition is missing")
	}
	return []eventstore.PartitionID{id}, positions, nil
}

func boolean(name, text string) (bool, error) {
	switch text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, iot.Errorf(iot.ErrInvalid, "parameter %s: %.20q is neither true nor false", name, text)
}
