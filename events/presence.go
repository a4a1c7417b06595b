package events

import (
	"encoding/json"
	"math"
	"time"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/iot"
)

// TypeNotificationDerive asks what applications are to be told of changes of
// devices' presence (contract: events, 4.3).
const TypeNotificationDerive = "io.sluice.notification.derive"

// PresenceKind is what happened to a device's presence.
type PresenceKind string

// The kinds of [PresenceChange].
const (
	Subscribed   PresenceKind = "subscribed"   // for commands, until further notice
	Unsubscribed PresenceKind = "unsubscribed" // or its connection ended
	Uplink       PresenceKind = "uplink"       // it sent something and listens for a while
	Connected    PresenceKind = "connected"
	Disconnected PresenceKind = "disconnected"
)

// Limits of one [NotificationDerive].
const (
	MaxPresenceChanges = 100
	MaxPresenceText    = 2048 // bytes of an identifier, of a remote id, and of a change's data
)

// PresenceChange is one change of a device's presence. Two with the same tenant,
// device, kind and time (and remote id, where the kind has one) are the same change.
type PresenceChange struct {
	Kind       PresenceKind    `json:"kind"`
	TenantID   iot.TenantID    `json:"tenant-id"`
	DeviceID   iot.DeviceID    `json:"device-id"`
	GatewayID  iot.DeviceID    `json:"gateway-id,omitempty"`  // that acted for the device
	Adapter    string          `json:"adapter"`               // adapter type
	At         time.Time       `json:"at"`                    // milliseconds count
	TTDSeconds int             `json:"ttd-seconds,omitempty"` // of Uplink alone: 1 and more
	Cause      string          `json:"cause,omitempty"`       // of Connected and Disconnected: the kind's name, or absent
	RemoteID   string          `json:"remote-id,omitempty"`   // of Connected and Disconnected: client or container id; absent = unknown
	Data       json.RawMessage `json:"data,omitempty"`        // of Connected and Disconnected: a JSON object for applications
}

// NotificationDerive asks for the facts that follow from at most [MaxPresenceChanges]
// changes, which may be of several tenants. The answer depends on nothing else.
type NotificationDerive struct {
	Changes []PresenceChange `json:"changes"`
}

// EventType implements [Request].
func (NotificationDerive) EventType() string { return TypeNotificationDerive }

// Tenant implements [Request]: the changes may be of several.
func (NotificationDerive) Tenant() iot.TenantID { return "" }

// ReplyType implements [RequestOf].
func (NotificationDerive) ReplyType() *NotificationDerived { return nil }

// NotificationDerived has one fact for each change, in their order: a [DeviceTTD],
// [DeviceConnected] or [DeviceDisconnected]. On the wire each is a structured CloudEvent.
type NotificationDerived struct {
	Events []PresenceFact
}

// MaxAge implements [Reply].
func (*NotificationDerived) MaxAge() time.Duration { return 0 }

// Check returns iot.ErrInvalid for a change that no fact can follow from.
func (c *PresenceChange) Check() error {
	connection := c.Kind == Connected || c.Kind == Disconnected
	switch {
	case !connection && c.Kind != Subscribed && c.Kind != Unsubscribed && c.Kind != Uplink:
		return iot.Errorf(iot.ErrInvalid, "kind is %.40q, want %s, %s, %s, %s or %s", string(c.Kind), Subscribed, Unsubscribed, Uplink, Connected, Disconnected)
	case c.At.IsZero():
		return iot.Errorf(iot.ErrInvalid, "at is missing")
	case !isDate(c.At):
		return iot.Errorf(iot.ErrInvalid, "at is out of range: want a year of four digits")
	case c.Kind == Uplink && (c.TTDSeconds < 1 || c.TTDSeconds > math.MaxInt32):
		return iot.Errorf(iot.ErrInvalid, "ttd-seconds is %d, want 1 to %d", c.TTDSeconds, math.MaxInt32)
	case c.Kind != Uplink && c.TTDSeconds != 0:
		return iot.Errorf(iot.ErrInvalid, "ttd-seconds does not belong to kind %s", c.Kind)
	case c.Cause != "" && (!connection || c.Cause != string(c.Kind)):
		return iot.Errorf(iot.ErrInvalid, "cause is %.40q: want that of a connection, and then its kind", c.Cause)
	case !connection && (c.RemoteID != "" || len(c.Data) > 0):
		return iot.Errorf(iot.ErrInvalid, "remote-id and data do not belong to kind %s", c.Kind)
	}
	if err := checkObject(c.Data); err != nil {
		return err
	}
	return checkTexts(text{"tenant-id", string(c.TenantID), required}, text{"device-id", string(c.DeviceID), required},
		text{"gateway-id", string(c.GatewayID), 0}, text{"adapter", c.Adapter, required}, text{"remote-id", c.RemoteID, free})
}

// Check returns iot.ErrInvalid for a question that is not answered, and says which
// change is wrong. A function asks, because in one process nothing is encoded.
func (n NotificationDerive) Check() error {
	if len(n.Changes) == 0 || len(n.Changes) > MaxPresenceChanges {
		return iot.Errorf(iot.ErrInvalid, "changes holds %d, want 1 to %d", len(n.Changes), MaxPresenceChanges)
	}
	for i := range n.Changes {
		if err := n.Changes[i].Check(); err != nil {
			return iot.Errorf(iot.ErrInvalid, "changes[%d]: %s", i, err)
		}
	}
	return nil
}

// checkObject returns iot.ErrInvalid for data that is there and is no JSON object.
func checkObject(data json.RawMessage) error {
	if len(data) > MaxPresenceText {
		return iot.Errorf(iot.ErrInvalid, "data has %d bytes, at most %d are accepted", len(data), MaxPresenceText)
	}
	if len(data) > 0 && (!json.Valid(data) || data[0] != '{') {
		return iot.Errorf(iot.ErrInvalid, "data is no JSON object")
	}
	return nil
}

// text is a member that is text.
type text struct {
	name, value string
	rule        textRule
}

// textRule says what a text may be besides an attribute's value that may be missing.
type textRule uint8

const (
	required textRule = 1 << iota // it must be there
	free                          // control characters are all right: it is no attribute
)

// checkTexts returns iot.ErrInvalid for the first member that breaks its rule or is too long.
func checkTexts(members ...text) error {
	for _, m := range members {
		switch {
		case m.rule&required != 0 && m.value == "":
			return iot.Errorf(iot.ErrInvalid, "%s is missing", m.name)
		case len(m.value) > MaxPresenceText:
			return iot.Errorf(iot.ErrInvalid, "%s has %d bytes, at most %d are accepted", m.name, len(m.value), MaxPresenceText)
		case m.rule&free == 0 && !isText(m.value), !utf8.ValidString(m.value):
			return iot.Errorf(iot.ErrInvalid, "%s holds control characters or invalid UTF-8", m.name)
		}
	}
	return nil
}

// isDate reports whether RFC 3339 can write t.
func isDate(t time.Time) bool { y := t.UTC().Year(); return y >= 0 && y <= 9999 }
