package adapters

import (
	"github.com/sluice-iot/sluice/internal/iot"
)

// Command is one command on its way to a device (contract: messaging 9.5).
type Command struct {
	Tenant        iot.TenantID
	Device        iot.DeviceID // the target
	Gateway       iot.DeviceID // stands in for the target, by its subscription for all its devices; "" = the subscription is for the target itself
	Name          string       // properties.subject
	CorrelationID string       // of the application; "" only for a one-way command without any id
	ReplyID       string       // R of command_response/T/R; "" = one-way
	ContentType   string
	Payload       []byte         // nil = no body
	Properties    map[string]any // further application properties
	TraceParent   string         // W3C trace context of the application
	TraceState    string
}

// OneWay reports whether no response is wanted.
func (c *Command) OneWay() bool { return c.ReplyID == "" }

// ModifiedError is the outcome of a command that a device gave back as modified
// (AMQP 1.0 part 3, section 3.4.5); it goes to the application with its flags.
type ModifiedError struct{ DeliveryFailed, UndeliverableHere bool }

// Error implements error.
func (e *ModifiedError) Error() string { return "the device gave the command back" }

// CommandHandler is what a [Downstream] needs to know of subscriptions for
// commands; [Commands] is one. Its methods must not block.
type CommandHandler interface {
	// Command takes a command that a router sent. done is called exactly once, on any
	// goroutine, maybe before Command returns: nil = accepted; an error that wraps
	// iot.ErrInvalid, iot.ErrForbidden, iot.ErrTooLarge or iot.ErrQuota = rejected
	// with its text; a *ModifiedError = modified; every other = released. c is the handler's.
	Command(c *Command, done func(error))
	// Subscribed returns what a router that knows nothing is to be told.
	Subscribed() []Announcement
	// Superseded tells that a router prefers a subscription of another process to
	// this one's subscription of at (see [Announcement]), or with false that it
	// no longer does. Several routers may tell the same.
	Superseded(tenant iot.TenantID, device iot.DeviceID, at int64, is bool)
}

// Announcement is the subscription of this process for the commands to one device,
// as routers are told of it.
type Announcement struct {
	Tenant  iot.TenantID
	Device  iot.DeviceID
	At      int64  // Unix time in ms at which it began; of several processes' the latest counts
	Until   int64  // Unix time in ms at which it ends by itself; 0 = it does not
	Adapter string // adapter type
	All     bool   // Device is a gateway that takes the commands of all devices it may act for
	Gone    bool   // there is none any more; only Tenant and Device count
}

// Announcer tells routers which devices can be reached.
type Announcer interface {
	// Announce tells every connected router of changes, which take effect there in
	// the order in which they were announced. done is called once, on any goroutine,
	// when each router has taken them or is gone, or the time for it is over; nil = nobody waits.
	Announce(changes []Announcement, done func())
	// LastGateway tells routers, when there is time, that a gateway acted for a device
	// for which several may.
	LastGateway(tenant iot.TenantID, device, gateway iot.DeviceID)
}
