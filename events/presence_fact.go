package events

import (
	"encoding/json"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// The facts about presence (contract: events, section 4.3).
const (
	TypeDeviceTTD          = "io.sluice.device.ttd"
	TypeDeviceConnected    = "io.sluice.device.connected"
	TypeDeviceDisconnected = "io.sluice.device.disconnected"
)

// Content types of the events by which applications are told of a device's presence
// (contract: messaging, section 12).
const (
	EmptyNotificationType      = "application/vnd.eclipse-hono-empty-notification"
	ConnectionNotificationType = "application/vnd.eclipse-hono-dc-notification+json"
)

// PresenceKey tells one change from another, and the fact that follows from it from others.
type PresenceKey struct {
	Tenant   iot.TenantID
	Device   iot.DeviceID
	Kind     PresenceKind
	RemoteID string // of connections
	At       int64  // Unix time in ms
}

// Key is the key that the fact which follows from the change has as well.
func (c *PresenceChange) Key() PresenceKey {
	return PresenceKey{c.TenantID, c.DeviceID, c.Kind, knownRemote(c.RemoteID), c.At.UnixMilli()}
}

// PresenceFact is a fact that follows from a [PresenceChange].
type PresenceFact interface {
	Fact
	// Key is that of the change.
	Key() PresenceKey
	// Event is the event of the device, of messaging 11 or 12.2, by which applications
	// learn the fact. Whoever sends it adds adapter, address, ttl and assertion. Its id
	// is the fact's, so that one that is sent again can be told from another; it was
	// created when the change happened.
	Event() *iot.Message
}

// DeviceTTD says for how long a device can be reached.
type DeviceTTD struct {
	TenantID   iot.TenantID // attribute tenantid
	DeviceID   iot.DeviceID // attribute deviceid
	GatewayID  iot.DeviceID // attribute gatewayid; "" = the device acted itself
	TTDSeconds int          // -1 = until further notice, 0 = no longer; member until follows from it
	At         time.Time
}

// FactType implements [Fact].
func (DeviceTTD) FactType() string { return TypeDeviceTTD }

// Tenant implements [Fact].
func (d DeviceTTD) Tenant() iot.TenantID { return d.TenantID }

// Time implements [Fact].
func (d DeviceTTD) Time() time.Time { return d.At }

// Kind is that of the change: every ttd belongs to one.
func (d DeviceTTD) Kind() PresenceKind {
	switch {
	case d.TTDSeconds < 0:
		return Subscribed
	case d.TTDSeconds == 0:
		return Unsubscribed
	}
	return Uplink
}

// Until is when the device is no longer reached; zero where ttd is -1 or 0.
func (d DeviceTTD) Until() time.Time {
	if d.TTDSeconds <= 0 {
		return time.Time{}
	}
	return d.At.Add(time.Duration(d.TTDSeconds) * time.Second)
}

// Key implements [PresenceFact].
func (d DeviceTTD) Key() PresenceKey {
	return PresenceKey{d.TenantID, d.DeviceID, d.Kind(), "", d.At.UnixMilli()}
}

// Event implements [PresenceFact]: the empty notification. That of an uplink
// rides on the uplink already.
func (d DeviceTTD) Event() *iot.Message {
	m := presenceEvent(d, d.DeviceID, d.GatewayID)
	m.ContentType, m.TTD = EmptyNotificationType, &d.TTDSeconds
	return m
}

func presenceEvent(f Fact, d, g iot.DeviceID) *iot.Message {
	return &iot.Message{Endpoint: iot.Event, Tenant: f.Tenant(), Device: d, Gateway: g, QoS: iot.AtLeastOnce, ID: factID(f), Created: f.Time()}
}

func (d DeviceTTD) key() []string {
	return []string{string(d.TenantID), string(d.DeviceID), string(d.Kind()), keyTime(d.At)}
}

// keyTime is how a time is written in a natural key.
func keyTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// Connection is what is known of a device's connection.
type Connection struct {
	TenantID  iot.TenantID    // attribute tenantid
	DeviceID  iot.DeviceID    // attribute deviceid
	GatewayID iot.DeviceID    // attribute gatewayid; "" = the device acted itself
	RemoteID  string          // client or container id, "unknown" where there is none
	Source    string          // adapter type
	Data      json.RawMessage // a JSON object; nil = none
	At        time.Time
}

// Tenant implements [Fact].
func (c Connection) Tenant() iot.TenantID { return c.TenantID }

// Time implements [Fact].
func (c Connection) Time() time.Time { return c.At }

func (c Connection) key() []string {
	return []string{string(c.TenantID), string(c.DeviceID), c.RemoteID, keyTime(c.At)}
}

func (c Connection) presenceKey(kind PresenceKind) PresenceKey {
	return PresenceKey{c.TenantID, c.DeviceID, kind, knownRemote(c.RemoteID), c.At.UnixMilli()}
}

// unknownRemote is the remote id of a client that gave none.
const unknownRemote = "unknown"

func knownRemote(id string) string {
	if id == unknownRemote {
		return ""
	}
	return id
}

func (c Connection) event(f Fact, kind PresenceKind) *iot.Message {
	m := presenceEvent(f, c.DeviceID, c.GatewayID)
	m.ContentType = ConnectionNotificationType
	m.Payload, _ = json.Marshal(c.data(kind)) // checked when the fact was made
	return m
}

// DeviceConnected says that a device connected.
type DeviceConnected struct{ Connection }

// FactType implements [Fact].
func (DeviceConnected) FactType() string { return TypeDeviceConnected }

// Key implements [PresenceFact].
func (c DeviceConnected) Key() PresenceKey { return c.presenceKey(Connected) }

// Event implements [PresenceFact]: the connection event.
func (c DeviceConnected) Event() *iot.Message { return c.event(c, Connected) }

// DeviceDisconnected says that a device's connection ended.
type DeviceDisconnected struct{ Connection }

// FactType implements [Fact].
func (DeviceDisconnected) FactType() string { return TypeDeviceDisconnected }

// Key implements [PresenceFact].
func (c DeviceDisconnected) Key() PresenceKey { return c.presenceKey(Disconnected) }

// Event implements [PresenceFact]: the connection event.
func (c DeviceDisconnected) Event() *iot.Message { return c.event(c, Disconnected) }
