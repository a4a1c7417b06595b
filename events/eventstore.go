package events

import (
	"encoding/json"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// The calls about stored events (contract: events, section 4.4). The first five
// are a router's, the last four an operator's.
const (
	TypeEventAppend  = "io.sluice.eventstore.append"
	TypeEventClaim   = "io.sluice.eventstore.claim"
	TypeEventRead    = "io.sluice.eventstore.read"
	TypeEventSettle  = "io.sluice.eventstore.settle"
	TypeEventRelease = "io.sluice.eventstore.release"
	TypeEventExpire  = "io.sluice.eventstore.expire"
	TypeEventStats   = "io.sluice.eventstore.stats"
	TypeEventBrowse  = "io.sluice.eventstore.browse"
	TypeEventRequeue = "io.sluice.eventstore.requeue"
	TypeEventPurge   = "io.sluice.eventstore.purge"
)

// EventAppend stores records of any number of tenants. In one process the records
// are the store's from then on: who may have to ask again keeps them as they are.
type EventAppend struct{ eventstore.AppendRequest }

// EventAppendResult is the reply to [EventAppend], where any record was stored:
// one result for each, in order. Where none was, the call fails.
type EventAppendResult struct{ eventstore.AppendResult }

// EventClaim asks for a tenant's partitions, or renews what the holder has.
type EventClaim struct{ eventstore.ClaimRequest }

// EventClaimResult is the reply to [EventClaim].
type EventClaimResult struct{ eventstore.ClaimResult }

// EventRead asks for events to deliver: iot.ErrExists (409) where the fence is not the
// partition's.
type EventRead struct{ eventstore.ReadRequest }

// EventReadResult is the reply to [EventRead].
type EventReadResult struct{ eventstore.ReadResult }

// EventSettle settles events: iot.ErrExists (409) where the fence is not the partition's.
type EventSettle struct{ eventstore.SettleRequest }

// EventSettleResult is the reply to [EventSettle].
type EventSettleResult struct{ eventstore.SettleResult }

// EventRelease gives a claim back; one that was lost before is no error.
type EventRelease struct{ eventstore.ReleaseRequest }

// EventReleaseResult is the reply to [EventRelease].
type EventReleaseResult struct{}

// EventExpire forgets events that have expired, from a schedule.
type EventExpire struct {
	Until      time.Time `json:"until,omitzero"`        // not after now; zero = now
	MaxRecords int       `json:"max-records,omitempty"` // batches that are looked at; 0 = 1,000, the most
}

// EventExpireResult is the reply to [EventExpire].
type EventExpireResult struct {
	Expired int64 `json:"expired"` // events
	More    bool  `json:"more"`    // ask again
}

// EventStats asks how a tenant's events stand.
type EventStats struct {
	TenantID iot.TenantID `json:"tenant-id"`
}

// EventStatsResult is the reply to [EventStats].
type EventStatsResult struct{ eventstore.Stats }

// EventBrowse asks for events of a partition without taking them.
type EventBrowse struct{ eventstore.BrowseRequest }

// EventBrowseResult is the reply to [EventBrowse].
type EventBrowseResult struct {
	Events []BrowsedEvent `json:"events"`
	Next   uint64         `json:"next,omitempty"` // where to go on; 0 = there is no more
}

// BrowsedEvent is an event as it lies in the store.
type BrowsedEvent struct {
	Position uint64       `json:"position"`
	DeviceID iot.DeviceID `json:"device-id"`
	At       time.Time    `json:"at"` // when it was appended, or given up
	Expires  time.Time    `json:"expires,omitzero"`
	Attempts uint16       `json:"attempts,omitempty"`
	Reason   string       `json:"reason,omitempty"` // of a dead letter
	Message  []byte       `json:"message"`          // encoded AMQP message
}

// EventRequeue brings dead letters of a partition back as new events.
type EventRequeue struct{ eventstore.RequeueRequest }

// EventRequeueResult is the reply to [EventRequeue].
type EventRequeueResult struct {
	Requeued int64 `json:"requeued"` // events that wait again
	More     bool  `json:"more"`     // the partition has more dead letters
}

// EventPurge throws events of a partition away.
type EventPurge struct{ eventstore.PurgeRequest }

// EventPurgeResult is the reply to [EventPurge].
type EventPurgeResult struct {
	Purged int64 `json:"purged"` // events
	More   bool  `json:"more"`   // ask again
}

// EventType implements [Request].
func (EventAppend) EventType() string  { return TypeEventAppend }
func (EventClaim) EventType() string   { return TypeEventClaim }
func (EventRead) EventType() string    { return TypeEventRead }
func (EventSettle) EventType() string  { return TypeEventSettle }
func (EventRelease) EventType() string { return TypeEventRelease }
func (EventExpire) EventType() string  { return TypeEventExpire }
func (EventStats) EventType() string   { return TypeEventStats }
func (EventBrowse) EventType() string  { return TypeEventBrowse }
func (EventRequeue) EventType() string { return TypeEventRequeue }
func (EventPurge) EventType() string   { return TypeEventPurge }

// Tenant implements [Request]: the records are those of any tenants.
func (EventAppend) Tenant() iot.TenantID { return "" }

// Tenant implements [Request].
func (q EventClaim) Tenant() iot.TenantID   { return q.ClaimRequest.Tenant }
func (q EventRead) Tenant() iot.TenantID    { return q.ReadRequest.Tenant }
func (q EventSettle) Tenant() iot.TenantID  { return q.SettleRequest.Tenant }
func (q EventRelease) Tenant() iot.TenantID { return q.ReleaseRequest.Tenant }

// Tenant implements [Request]: what has expired has, whosever it was.
func (EventExpire) Tenant() iot.TenantID { return "" }

// Tenant implements [Request].
func (q EventStats) Tenant() iot.TenantID   { return q.TenantID }
func (q EventBrowse) Tenant() iot.TenantID  { return q.BrowseRequest.Tenant }
func (q EventRequeue) Tenant() iot.TenantID { return q.RequeueRequest.Tenant }
func (q EventPurge) Tenant() iot.TenantID   { return q.PurgeRequest.Tenant }

// ReplyType implements [RequestOf].
func (EventAppend) ReplyType() *EventAppendResult   { return nil }
func (EventClaim) ReplyType() *EventClaimResult     { return nil }
func (EventRead) ReplyType() *EventReadResult       { return nil }
func (EventSettle) ReplyType() *EventSettleResult   { return nil }
func (EventRelease) ReplyType() *EventReleaseResult { return nil }
func (EventExpire) ReplyType() *EventExpireResult   { return nil }
func (EventStats) ReplyType() *EventStatsResult     { return nil }
func (EventBrowse) ReplyType() *EventBrowseResult   { return nil }
func (EventRequeue) ReplyType() *EventRequeueResult { return nil }
func (EventPurge) ReplyType() *EventPurgeResult     { return nil }

// MaxAge implements [Reply].
func (*EventAppendResult) MaxAge() time.Duration  { return 0 }
func (*EventClaimResult) MaxAge() time.Duration   { return 0 }
func (*EventReadResult) MaxAge() time.Duration    { return 0 }
func (*EventSettleResult) MaxAge() time.Duration  { return 0 }
func (*EventReleaseResult) MaxAge() time.Duration { return 0 }
func (*EventExpireResult) MaxAge() time.Duration  { return 0 }
func (*EventStatsResult) MaxAge() time.Duration   { return 0 }
func (*EventBrowseResult) MaxAge() time.Duration  { return 0 }
func (*EventRequeueResult) MaxAge() time.Duration { return 0 }
func (*EventPurgeResult) MaxAge() time.Duration   { return 0 }

func (EventClaim) ofOneTenant()   {}
func (EventRead) ofOneTenant()    {}
func (EventSettle) ofOneTenant()  {}
func (EventRelease) ofOneTenant() {}
func (EventStats) ofOneTenant()   {}
func (EventBrowse) ofOneTenant()  {}
func (EventRequeue) ofOneTenant() {}
func (EventPurge) ofOneTenant()   {}

// The requests about one partition are refused without it: that of the zero value is
// a real one.

// UnmarshalJSON implements [json.Unmarshaler].
func (q *EventRead) UnmarshalJSON(b []byte) error {
	q.Partition = noPartition
	return needPartition(&q.Partition, json.Unmarshal(b, &q.ReadRequest))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (q *EventSettle) UnmarshalJSON(b []byte) error {
	q.Partition = noPartition
	data := struct {
		*eventstore.SettleRequest
		Settlements limited[eventstore.Settlement] `json:"settlements"`
	}{SettleRequest: &q.SettleRequest}
	err := json.Unmarshal(b, &data)
	q.Settlements = data.Settlements
	return needPartition(&q.Partition, err)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (q *EventRelease) UnmarshalJSON(b []byte) error {
	q.Partition = noPartition
	return needPartition(&q.Partition, json.Unmarshal(b, &q.ReleaseRequest))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (q *EventBrowse) UnmarshalJSON(b []byte) error {
	q.Partition = noPartition
	return needPartition(&q.Partition, json.Unmarshal(b, &q.BrowseRequest))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (q *EventRequeue) UnmarshalJSON(b []byte) error {
	q.Partition = noPartition
	data := struct {
		*eventstore.RequeueRequest
		Positions limited[uint64] `json:"positions"`
	}{RequeueRequest: &q.RequeueRequest}
	err := json.Unmarshal(b, &data)
	q.Positions = data.Positions
	return needPartition(&q.Partition, err)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (q *EventPurge) UnmarshalJSON(b []byte) error {
	q.Partition = noPartition
	return needPartition(&q.Partition, json.Unmarshal(b, &q.PurgeRequest))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (q *EventClaim) UnmarshalJSON(b []byte) error {
	data := struct {
		*eventstore.ClaimRequest
		Partitions limited[eventstore.PartitionID] `json:"partitions"`
	}{ClaimRequest: &q.ClaimRequest}
	err := json.Unmarshal(b, &data)
	q.Partitions = data.Partitions
	return err
}
