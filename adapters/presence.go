package adapters

import (
	"context"
	"log/slog"

	"github.com/sluice-iot/sluice/events"
)

// PresenceOptions configure [NewPresence].
type PresenceOptions struct {
	Invoker events.Invoker // required
	Poster  events.Poster  // brings the facts to subscribers; nil = there are none
	Logger  *slog.Logger
}

// Notification is a change of a device's presence that applications are to hear of.
type Notification struct {
	// Change says what happened: Kind and At are required, the rest as the kind needs it.
	// Its tenant, device, gateway and adapter are taken from Who and Pipeline.
	Change   events.PresenceChange
	Who      Admission // of the device
	Pipeline *Pipeline // by which the event leaves; required
	Address  string    // orig_address of the event
}

// Presence tells applications, and subscribers to facts, which devices can be reached.
type Presence struct{ o PresenceOptions }

// NewPresence returns a Presence that asks o.Invoker. Close it.
func NewPresence(o PresenceOptions) *Presence {
	if o.Invoker == nil {
		panic("adapters: NewPresence without an Invoker")
	}
	return &Presence{o}
}

// Close stops it; what is under way has a second.
func (p *Presence) Close() {}

// Notify derives what follows from n and sends it through one router. It waits until that
// is done, but at most a second: what takes longer goes on by itself, and nil is returned.
func (p *Presence) Notify(ctx context.Context, n Notification) error { return ctx.Err() }

// Tell is [Presence.Notify] for who does not wait. An uplink is told to subscribers only,
// and to nobody where there are none.
func (p *Presence) Tell(n Notification) {}
