package events

import (
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// TypeRegistryChanges asks for the registry's change feed (contract: events, 4.2).
const TypeRegistryChanges = "io.sluice.registry.changes"

// RegistryChanges asks for at most Max changes: of the tenants in Sequences those
// with a higher sequence, of every other tenant those at or after Since (zero =
// none). See registry.Feed.
type RegistryChanges struct {
	Sequences map[iot.TenantID]uint64
	Since     time.Time
	Max       int // 1 to MaxChanges
}

// MaxChanges bounds one reply of changes, and MaxPositions the tenants of one question.
const (
	MaxChanges   = 1000
	MaxPositions = 10_000 // who reads on names every tenant that it has read of
)

// EventType implements [Request].
func (RegistryChanges) EventType() string { return TypeRegistryChanges }

// Tenant implements [Request]: the feed is the installation's.
func (RegistryChanges) Tenant() iot.TenantID { return "" }

// ReplyType implements [RequestOf].
func (RegistryChanges) ReplyType() *ChangesFound { return nil }

// ChangesFound is a part of the feed. One tenant's changes come in the order of
// their sequence. On the wire each is a structured CloudEvent.
type ChangesFound struct {
	Changes []RegistryChanged
	More    bool      // some were left out: ask again from where these end
	Now     time.Time // of the function that answered: the next Since is to lie well before
}

// MaxAge implements [Reply].
func (*ChangesFound) MaxAge() time.Duration { return 0 }
