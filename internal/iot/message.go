package iot

import "time"

// Endpoint is the message class a device addresses.
type Endpoint string

// The endpoints devices publish to.
const (
	Telemetry       Endpoint = "telemetry"
	Event           Endpoint = "event"
	CommandResponse Endpoint = "command_response"
)

// QoS is the delivery guarantee a device asked for.
type QoS int

// AtMostOnce is acknowledged once handed over; AtLeastOnce only after the
// application accepted it.
const (
	AtMostOnce  QoS = 0
	AtLeastOnce QoS = 1
)

// Message is one upload on its way from an adapter to the router, after the
// device was admitted (contract: messaging, section 7.1).
type Message struct {
	Endpoint  Endpoint
	Tenant    TenantID
	Device    DeviceID // the originating device, not the gateway
	Gateway   DeviceID // the gateway that acted, or ""
	QoS       QoS
	ID        string    // message-id: UUIDv7
	Created   time.Time // creation-time
	Adapter   string    // orig_adapter, such as hono-http
	Address   string    // orig_address: URI or topic the device used
	Assertion string    // registration assertion (JWT), sent in the delivery annotations

	ContentType     string
	ContentEncoding string
	TTL             time.Duration  // header ttl; 0 = none
	TTD             *int           // ttd in seconds; nil = none
	Retain          bool           // message annotation x-opt-retain
	Properties      map[string]any // further application properties: string, bool, int32, int64, float64
	Payload         []byte         // nil = no body section
	TraceParent     string         // W3C trace context of the origin
	TraceState      string

	// Of a command response alone (contract: messaging 9.4).
	ReplyID       string // R of command_response/T/R
	CorrelationID string // of the command
	Status        int    // 200 to 299 or 400 to 599
}
