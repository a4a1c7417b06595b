package service

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Subjects of the Command Router API as Hono's clients send them (contract:
// messaging 6).
const (
	registerConsumer   = "register-command-consumer"
	unregisterConsumer = "unregister-command-consumer"
	setLastGateway     = "set-last-known-gw"
	enableRouting      = "enable-command-routing"
)

// specified are the names that the specification has for them.
var specified = map[string]string{
	"register-cmd-consumer":   registerConsumer,
	"unregister-cmd-consumer": unregisterConsumer,
	"set-last-gw":             setLastGateway,
}

// canonical is an operation as Hono's clients spell it.
func canonical(endpoint, operation string) string {
	if wire, ok := specified[operation]; ok && endpoint == Commands {
		return wire
	}
	return operation
}

// CommandRouter keeps what adapters that are not ours say by the Command Router
// API. The errors of its methods are answered with their HTTP status.
type CommandRouter interface {
	// Register says that the commands to a device go to an adapter instance;
	// iot.ErrNotFound when there is no such tenant.
	Register(ctx context.Context, c Consumer) error
	// Unregister takes that back; iot.ErrVersion when they do not go there now.
	// The Lifespan of c is not looked at.
	Unregister(ctx context.Context, c Consumer) error
	// LastGateways says through which gateway each device, a key, was heard of
	// last: the device itself for one that needed none.
	LastGateways(tenant iot.TenantID, gateways map[iot.DeviceID]iot.DeviceID)
}

// Consumer is an adapter instance as the one that takes a device's commands.
type Consumer struct {
	Tenant    iot.TenantID
	Device    iot.DeviceID
	Instance  string        // its commands go to command_internal/Instance
	Lifespan  time.Duration // in seconds on the wire; < 0 = until it is unregistered
	SendEvent bool          // applications are told, by an empty notification
}

// Bounds of what a consumer may be called, in bytes: an instance becomes part of an
// address.
const (
	maxDevice   = 256
	maxInstance = 512
)

// registerCommandConsumer is the first operation of messaging 6.
func (s *Server) registerCommandConsumer(ctx context.Context, _ *peer.Conn, q *request) answer {
	c, err := consumerOf(q)
	if err != nil {
		return failure(err)
	}
	return s.done(q, c.Device, func() error { return s.o.Commands.Register(ctx, c) })
}

func (s *Server) unregisterCommandConsumer(ctx context.Context, _ *peer.Conn, q *request) answer {
	c, err := consumerOf(q)
	if err != nil {
		return failure(err)
	}
	return s.done(q, c.Device, func() error { return s.o.Commands.Unregister(ctx, c) })
}

// setLastKnownGateway is for one device by application properties, or for several
// by the body.
func (s *Server) setLastKnownGateway(_ context.Context, _ *peer.Conn, q *request) answer {
	p := properties{of: q.properties}
	device, gateway := p.text("device_id"), p.text("gateway_id")
	if p.err != nil {
		return failure(p.err)
	}
	gateways := map[iot.DeviceID]iot.DeviceID{}
	if device == "" && gateway == "" {
		var err error
		if gateways, err = lastGateways(q); err != nil {
			return failure(err)
		}
	} else {
		p.required("device_id", device, maxDevice)
		p.required("gateway_id", gateway, maxDevice)
		if p.err != nil {
			return failure(p.err)
		}
		gateways[iot.DeviceID(device)] = iot.DeviceID(gateway)
	}
	return s.done(q, iot.DeviceID(device), func() error {
		s.o.Commands.LastGateways(iot.TenantID(tenantOf(q.address)), gateways)
		return nil
	})
}

// lastGateways reads a batch. Members that are no names of gateways say nothing.
func lastGateways(q *request) (map[iot.DeviceID]iot.DeviceID, error) {
	if q.bare() {
		return nil, iot.Errorf(iot.ErrInvalid, "expected the application properties device_id and gateway_id, or a body with a gateway for each device")
	}
	body, err := q.object()
	if err != nil {
		return nil, err
	}
	var members map[string]any
	if json.Unmarshal(body, &members) != nil {
		return nil, iot.Errorf(iot.ErrInvalid, "the body is no JSON object")
	}
	gateways := make(map[iot.DeviceID]iot.DeviceID, len(members))
	for device, value := range members {
		gateway, ok := value.(string)
		if ok && checkName(device, maxDevice) == "" && checkName(gateway, maxDevice) == "" {
			gateways[iot.DeviceID(device)] = iot.DeviceID(gateway)
		}
	}
	return gateways, nil
}

// enableCommandRouting has nothing to begin: commands are taken of every tenant,
// always.
func (s *Server) enableCommandRouting(_ context.Context, _ *peer.Conn, q *request) answer {
	var tenants []string
	if q.unsupported || !utf8.Valid(q.body) || !bytes.HasPrefix(bytes.TrimLeft(q.body, " \t\r\n"), []byte("[")) || json.Unmarshal(q.body, &tenants) != nil {
		return failed(400, "the body is no JSON array of strings: expected the ids of tenants")
	}
	return s.done(q, "", func() error { return nil })
}

// done is the answer of an operation that says no more than that it was done.
func (s *Server) done(q *request, device iot.DeviceID, do func() error) answer {
	if s.o.Commands == nil {
		return failed(503, "commands are not routed here")
	}
	if err := do(); err != nil {
		return failure(err)
	}
	return answer{status: 204, tenant: tenantOf(q.address), device: string(device)}
}

// consumerOf reads the application properties of the first two operations.
func consumerOf(q *request) (Consumer, error) {
	p := properties{of: q.properties}
	c := Consumer{Tenant: iot.TenantID(tenantOf(q.address)), Device: iot.DeviceID(p.text("device_id")),
		Instance: p.text("adapter_instance_id"), Lifespan: -1, SendEvent: p.flag("send_event")}
	if seconds, ok := p.number("lifespan"); ok && seconds >= 0 {
		c.Lifespan = time.Duration(seconds) * time.Second
	}
	p.required("device_id", string(c.Device), maxDevice)
	p.required("adapter_instance_id", c.Instance, maxInstance)
	return c, p.err
}

// properties reads application properties. One of another type than Hono's is an
// error here, because whoever sent it meant something by it (contract: messaging
// 1.6). err is the first one.
type properties struct {
	of  amqp.Map
	err error
}

func (p *properties) text(name string) string {
	v, _ := property[string](p, name, "a string")
	return v
}
func (p *properties) flag(name string) bool { v, _ := property[bool](p, name, "a boolean"); return v }
func (p *properties) number(name string) (int32, bool) {
	return property[int32](p, name, "an int (signed, 32 bits)")
}

func property[T any](p *properties, name, kind string) (T, bool) {
	value := p.of.Get(name)
	v, ok := value.(T)
	if !ok && value != nil {
		p.fail("application property %s is of AMQP type %s: expected %s", name, typeName(value), kind)
	}
	return v, ok
}

func (p *properties) required(name, value string, most int) {
	switch wrong := checkName(value, most); {
	case value == "":
		p.fail("application property %s is missing: expected a string", name)
	case wrong != "":
		p.fail("application property %s %s", name, wrong)
	}
}

func (p *properties) fail(format string, args ...any) {
	if p.err == nil {
		p.err = iot.Errorf(iot.ErrInvalid, format, args...)
	}
}

// checkName says what is wrong with a name, "" = nothing.
func checkName(name string, most int) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > most:
		return "is too long"
	case !utf8.ValidString(name), strings.ContainsFunc(name, unicode.IsControl):
		return "has control characters"
	}
	return ""
}

// typeName is the AMQP type of a value, for people who have sent another than they meant.
func typeName(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case amqp.Symbol:
		return "symbol"
	case bool:
		return "boolean"
	case int8:
		return "byte"
	case int16:
		return "short"
	case int32:
		return "int"
	case int64:
		return "long"
	case uint8:
		return "ubyte"
	case uint16:
		return "ushort"
	case uint32:
		return "uint"
	case uint64:
		return "ulong"
	case float32:
		return "float"
	case float64:
		return "double"
	case []byte:
		return "binary"
	}
	return "another kind"
}
