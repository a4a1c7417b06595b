package command

import (
	"strings"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	endpoint  = "command"
	responses = "command_response"
	// propertyVia names the gateway that stands in for the device.
	propertyVia = "via"
)

// message is a command as an application sent it.
type message struct {
	tenant      iot.TenantID
	device      iot.DeviceID
	properties  *amqp.Properties
	application amqp.Map
	encoded     []byte
	at          amqp.Sections
}

var (
	errTarget  = badRequest("missing or invalid command target address")
	errDevice  = badRequest("command target address names no device: expected command/TENANT/DEVICE")
	errTenant  = &amqp.Error{Condition: amqp.CondUnauthorizedAccess, Description: "command target address is of another tenant or device than the link"}
	errUnknown = badRequest("the device or its tenant does not exist or is disabled")
)

func malformed(why string) *amqp.Error {
	return badRequest("malformed command message: %s", why)
}

// readCommand checks a command that was sent to an address, command/T or command/T/D.
// The error is what it is rejected with (messaging 9.3).
func readCommand(address string, encoded []byte) (*message, *amqp.Error) {
	s, err := amqp.ScanSections(encoded)
	if err != nil {
		return nil, malformed(err.Error())
	}
	// An adapter is not to get what it cannot read, so all of it is read here.
	all, err := amqp.DecodeMessage(encoded)
	if err != nil {
		return nil, malformed(err.Error())
	}
	m := &message{encoded: encoded, at: s, properties: all.Properties, application: all.ApplicationProperties}
	if m.properties == nil {
		m.properties = &amqp.Properties{}
	}
	if refused := m.target(address); refused != nil {
		return nil, refused
	}
	if refused := m.check(); refused != nil {
		return nil, refused
	}
	if !supported(all) {
		return nil, malformed("the body is neither a data section nor an amqp-value of string or binary")
	}
	return m, nil
}

// target reads whom the command is for.
func (m *message) target(address string) *amqp.Error {
	to := m.properties.To
	first, rest, _ := strings.Cut(to, "/")
	tenant, device, _ := strings.Cut(rest, "/")
	switch {
	case to == "", first != endpoint, tenant == "":
		return errTarget
	case !within(address, to, tenant):
		return errTenant
	case device == "":
		return errDevice
	}
	m.tenant, m.device = iot.TenantID(tenant), iot.DeviceID(device)
	return nil
}

// within reports whether a target is one of the link's address.
func within(address, to, tenant string) bool {
	_, granted, _ := strings.Cut(address, "/")
	return granted == tenant || address == to
}

// check looks at the rest of the message.
func (m *message) check() *amqp.Error {
	p := m.properties
	if p.Subject == "" {
		return malformed("subject is missing")
	}
	switch id := m.id(); {
	case id == nil && p.ReplyTo != "":
		return malformed("reply-to without correlation-id and message-id")
	case id != nil && !isString(id):
		return malformed("the correlation-id, or the message-id in its place, is no string")
	}
	if p.ReplyTo != "" && !m.repliable() {
		return malformed("reply-to: expected command_response/TENANT/REPLY-ID, of the tenant of the command")
	}
	return nil
}

// id is what a response refers to.
func (m *message) id() any {
	if m.properties.CorrelationID != nil {
		return m.properties.CorrelationID
	}
	return m.properties.MessageID
}

func isString(v any) bool {
	_, ok := v.(string)
	return ok
}

// repliable reports whether responses to the command may go to its reply-to.
func (m *message) repliable() bool {
	first, rest, _ := strings.Cut(m.properties.ReplyTo, "/")
	tenant, id, _ := strings.Cut(rest, "/")
	return first == responses && tenant == string(m.tenant) && id != ""
}

// supported reports whether devices can have the body: data, a string or binary value, or none.
func supported(m *amqp.Message) bool {
	switch m.Value.(type) {
	case nil, string, []byte:
		return len(m.Sequence) == 0
	}
	return false
}

// onward encodes the command for the adapter (messaging 9.5). What is not of this
// hop stays as it is, byte for byte.
func (m *message) onward(id string, gateway iot.DeviceID) ([]byte, error) {
	p := *m.properties
	p.CorrelationID, p.MessageID = m.id(), id
	b := make([]byte, 0, len(m.encoded)+len(id)+len(gateway)+64)
	b = append(b, m.at.MessageAnnotations.Of(m.encoded)...)
	b, err := p.Append(b)
	if err != nil {
		return nil, err
	}
	if gateway != "" {
		b, err = m.appendVia(b, gateway)
	} else {
		b, err = amqp.AppendWithoutEntry(b, m.at.ApplicationProperties.Of(m.encoded), propertyVia)
	}
	if err != nil {
		return nil, err
	}
	return append(b, m.encoded[m.at.Body:]...), nil
}

// appendVia appends the application properties with the name of a gateway.
func (m *message) appendVia(b []byte, gateway iot.DeviceID) ([]byte, error) {
	kept := make(amqp.Map, 0, len(m.application)+1)
	for _, p := range m.application {
		switch p.Key {
		case propertyVia, amqp.Symbol(propertyVia):
		default:
			kept = append(kept, p)
		}
	}
	section := amqp.Message{ApplicationProperties: append(kept, amqp.Pair{Key: propertyVia, Value: string(gateway)})}
	return section.Append(b)
}
