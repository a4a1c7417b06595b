package changes

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Function answers registry.changes.
type Function struct {
	feed registry.Feed
	now  func() time.Time
}

// New returns the function over feed.
func New(feed registry.Feed, now func() time.Time) *Function { return &Function{feed, now} }

// Handle returns the changes asked for. The time in the answer is from before
// the feed was read, so that no change between the two is overlooked.
// iot.ErrInvalid for limits that are out of range.
func (f *Function) Handle(ctx context.Context, req events.RegistryChanges) (*events.ChangesFound, error) {
	if err := req.Check(); err != nil {
		return nil, err
	}
	now := f.now().UTC()
	found, more, err := f.feed.Changes(ctx, registry.Position{Sequences: req.Sequences, Since: req.Since}, req.Max)
	if err != nil {
		return nil, err
	}
	return &events.ChangesFound{Changes: Facts(found), More: more, Now: now}, nil
}

// Facts returns changes in the form in which they are told to others.
func Facts(changes []registry.Change) []events.RegistryChanged {
	facts := make([]events.RegistryChanged, len(changes))
	for i := range changes {
		facts[i] = Fact(&changes[i])
	}
	return facts
}

// Fact returns one change in the form in which it is told to others.
func Fact(c *registry.Change) events.RegistryChanged {
	return events.RegistryChanged{
		Type: factTypes[c.Kind], TenantID: c.Tenant, Sequence: c.Sequence, DeviceID: c.Device,
		Change: c.Change, Enabled: c.Enabled, InvalidateCache: c.InvalidateCache, At: c.At,
	}
}

var factTypes = map[registry.ChangeKind]string{
	registry.TenantChanged:      events.TypeTenantChanged,
	registry.DeviceChanged:      events.TypeDeviceChanged,
	registry.CredentialsChanged: events.TypeCredentialsChanged,
	registry.DevicesDeleted:     events.TypeDevicesDeleted,
}
