package events

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// The facts about stored events (contract: events, section 4.4).
const (
	TypeEventsAppended    = "io.sluice.eventstore.appended"
	TypeEventDeadLettered = "io.sluice.eventstore.deadlettered"
)

// EventsAppended wakes the holder of a partition that another router appended to.
type EventsAppended struct {
	TenantID  iot.TenantID           `json:"tenant-id"`
	Partition eventstore.PartitionID `json:"partition"`
	End       uint64                 `json:"end"` // the next position to be given
	At        time.Time              `json:"-"`
}

// FactType implements [Fact].
func (EventsAppended) FactType() string { return TypeEventsAppended }

// Tenant implements [Fact].
func (a EventsAppended) Tenant() iot.TenantID { return a.TenantID }

// Time implements [Fact].
func (a EventsAppended) Time() time.Time { return a.At }

func (a EventsAppended) key() []string {
	return []string{string(a.TenantID), a.Partition.String(), strconv.FormatUint(a.End, 10)}
}

func (a EventsAppended) check() error {
	switch {
	case a.TenantID == "":
		return errors.New("tenant-id is missing")
	case a.Partition == noPartition:
		return errors.New("partition is missing")
	case a.End == 0:
		return errors.New("end is missing")
	}
	return nil
}

// EventDeadLettered says that nobody takes an event any more.
type EventDeadLettered struct {
	TenantID  iot.TenantID           `json:"-"` // attribute tenantid
	Partition eventstore.PartitionID `json:"partition"`
	Position  uint64                 `json:"position"`
	Attempts  uint16                 `json:"attempts"` // deliveries
	Reason    string                 `json:"reason"`
	At        time.Time              `json:"-"`
}

// FactType implements [Fact].
func (EventDeadLettered) FactType() string { return TypeEventDeadLettered }

// Tenant implements [Fact].
func (d EventDeadLettered) Tenant() iot.TenantID { return d.TenantID }

// Time implements [Fact].
func (d EventDeadLettered) Time() time.Time { return d.At }

func (d EventDeadLettered) key() []string {
	return []string{string(d.TenantID), d.Partition.String(), strconv.FormatUint(d.Position, 10)}
}

func (d EventDeadLettered) check() error {
	switch {
	case d.TenantID == "":
		return errors.New("attribute tenantid is missing")
	case d.Partition == noPartition:
		return errors.New("partition is missing")
	case d.Position == 0:
		return errors.New("position is missing")
	case d.Attempts == 0:
		return errors.New("attempts is missing")
	case d.Reason == "":
		return errors.New("reason is missing")
	}
	return nil
}

func decodeAppended(e *event.Event) (Fact, error) {
	a := EventsAppended{Partition: noPartition}
	if err := json.Unmarshal(e.Data(), &a); err != nil {
		return nil, err
	}
	a.At = wireTime(e.Time())
	return a, a.check()
}

func decodeDeadLettered(e *event.Event) (Fact, error) {
	d := EventDeadLettered{Partition: noPartition}
	if err := json.Unmarshal(e.Data(), &d); err != nil {
		return nil, err
	}
	tenant, err := extension(e, AttrTenantID)
	if err != nil {
		return nil, errors.New("attribute tenantid is no string")
	}
	d.TenantID, d.At = iot.TenantID(tenant), wireTime(e.Time())
	return d, d.check()
}
