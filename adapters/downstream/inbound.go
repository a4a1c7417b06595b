package downstream

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// maxSection bounds what is decoded of a message before its body: decoded it
	// takes many times its size.
	maxSection    = 64 << 10
	maxProperties = 256 // that a command may have; what is beyond it is dropped
	maxTrace      = 4096

	keyVia             = "via"
	subjectSuperseded  = "superseded"
	addressDirectory   = "device_directory"
	endpointCommand    = "command"
	keyTraceParent     = "traceparent"
	keyTraceState      = "tracestate"
	compositeTypesFrom = 0xc0 // constructors from here on are lists, maps and arrays
)

// inbound is what a router sent to command_internal: a command, else news.
type inbound struct {
	command *adapters.Command
	news    []news
}

// news tells that a subscription of this process counts no longer, or again.
type news struct {
	tenant     iot.TenantID
	device     iot.DeviceID
	at         int64
	superseded bool
}

func malformedCommand(why string) error {
	return fmt.Errorf("malformed command message: %s", why)
}

// readInbound reads a message (contract: messaging 9.5). Nothing of the result
// is part of it. The error's text is for the application.
func readInbound(message []byte) (inbound, error) {
	s, err := amqp.ScanSections(message)
	if err != nil {
		return inbound{}, malformedCommand(err.Error())
	}
	p, err := readProperties(s.Properties.Of(message))
	if err != nil {
		return inbound{}, err
	}
	body, err := readBody(message[s.Body:])
	if err != nil {
		return inbound{}, err
	}
	if p.Subject == subjectSuperseded && p.To == addressDirectory {
		all, err := readNews(body)
		return inbound{news: all}, err
	}
	c, err := readCommand(p)
	if err != nil {
		return inbound{}, err
	}
	c.Payload = body
	if err := readApplication(c, s.ApplicationProperties.Of(message)); err != nil {
		return inbound{}, err
	}
	if parent, state := readTrace(s.MessageAnnotations.Of(message)); parent != "" {
		c.TraceParent, c.TraceState = parent, state
	}
	return inbound{command: c}, nil
}

// readSection decodes one section that is not too large for that.
func readSection(section []byte, name string) (*amqp.Message, error) {
	if len(section) > maxSection {
		return nil, malformedCommand(fmt.Sprintf("%s have %d bytes, at most %d are taken", name, len(section), maxSection))
	}
	m, err := amqp.DecodeMessage(section)
	if err != nil {
		return nil, malformedCommand(err.Error())
	}
	return m, nil
}

func readProperties(section []byte) (*amqp.Properties, error) {
	m, err := readSection(section, "properties")
	if err != nil {
		return nil, err
	}
	if m.Properties == nil {
		return &amqp.Properties{}, nil
	}
	return m.Properties, nil
}

// readCommand takes from the properties what makes a command.
func readCommand(p *amqp.Properties) (*adapters.Command, error) {
	endpoint, rest, _ := strings.Cut(p.To, "/")
	tenant, device, _ := strings.Cut(rest, "/")
	if endpoint != endpointCommand || tenant == "" || device == "" || strings.Contains(device, "/") {
		return nil, fmt.Errorf("missing or invalid command target address: %.100q, want command/<tenant>/<device>", p.To)
	}
	c := &adapters.Command{
		Tenant: iot.TenantID(tenant), Device: iot.DeviceID(device),
		Name: p.Subject, ContentType: string(p.ContentType),
	}
	var ok bool
	if c.CorrelationID, ok = p.CorrelationID.(string); !ok && p.CorrelationID != nil {
		return nil, malformedCommand(fmt.Sprintf("correlation-id is of type %T, want a string", p.CorrelationID))
	}
	if c.Name == "" {
		return nil, malformedCommand("subject is missing")
	}
	if p.ReplyTo == "" {
		return c, nil
	}
	replies := string(iot.CommandResponse) + "/" + tenant + "/"
	if c.ReplyID, ok = strings.CutPrefix(p.ReplyTo, replies); !ok || c.ReplyID == "" {
		return nil, malformedCommand(fmt.Sprintf("reply-to is %.100q, want %s<reply-id>", p.ReplyTo, replies))
	}
	if c.CorrelationID == "" {
		return nil, malformedCommand("reply-to is set, but correlation-id is not")
	}
	return c, nil
}

// readApplication takes the application properties: those of simple types.
func readApplication(c *adapters.Command, section []byte) error {
	m, err := readSection(section, "application properties")
	if err != nil {
		return err
	}
	for _, p := range m.ApplicationProperties {
		name, ok := p.Key.(string)
		if !ok {
			continue
		}
		v, ok := simple(p.Value)
		if !ok && name != keyVia {
			continue
		}
		switch text, _ := v.(string); {
		case name == keyVia && (text == "" || c.Gateway != ""):
			return malformedCommand("application property via: want one gateway's id")
		case name == keyVia:
			c.Gateway = iot.DeviceID(text)
		case name == keyTraceParent:
			c.TraceParent = text
		case name == keyTraceState:
			c.TraceState = text
		case len(c.Properties) < maxProperties:
			if c.Properties == nil {
				c.Properties = make(map[string]any)
			}
			c.Properties[name] = v
		}
	}
	return nil
}

// simple makes a string, bool, int32, int64 or float64 of a value, if it can
// without loss.
func simple(v any) (any, bool) {
	switch v := v.(type) {
	case string, bool, int32, int64, float64:
		return v, true
	case amqp.Symbol:
		return string(v), true
	case int8:
		return int32(v), true
	case int16:
		return int32(v), true
	case uint8:
		return int32(v), true
	case uint16:
		return int32(v), true
	case uint32:
		return int64(v), true
	case uint64:
		return int64(v), v <= math.MaxInt64
	case float32:
		return float64(v), true
	}
	return nil, false
}

// readTrace takes the trace context from the message annotations (contract:
// messaging 1.7); what is no such is none.
func readTrace(annotations []byte) (parent, state string) {
	raw, err := amqp.MapValue(annotations, keyTraceContext)
	if err != nil || len(raw) == 0 || len(raw) > maxTrace {
		return "", ""
	}
	v, _, err := amqp.DecodeValue(raw)
	if err != nil {
		return "", ""
	}
	m, _ := v.(amqp.Map)
	parent, _ = m.Get(keyTraceParent).(string)
	state, _ = m.Get(keyTraceState).(string)
	return parent, state
}

// readBody takes data sections, or a value that is a string or binary (contract:
// messaging 1.5); nil when there is no body.
func readBody(b []byte) ([]byte, error) {
	var body []byte
	for first := true; len(b) > 0; first = false {
		d, err := amqp.PeekDescriptor(b)
		if err != nil {
			return nil, malformedCommand(err.Error())
		}
		if d == amqp.DescFooter {
			break
		}
		if d != amqp.DescData && (d != amqp.DescValue || !first) {
			return nil, malformedCommand(fmt.Sprintf("unsupported body section %v", d))
		}
		var part []byte
		if part, b, err = readPart(d, b); err != nil {
			return nil, err
		}
		if body = append(body, part...); body == nil {
			body = []byte{}
		}
		if d == amqp.DescValue && len(b) > 0 {
			if d, _ := amqp.PeekDescriptor(b); d != amqp.DescFooter {
				return nil, malformedCommand("there is more than one body")
			}
		}
	}
	return body, nil
}

// readPart decodes the string or binary of a body section. What it is is looked
// at first: a list would take many times its size.
func readPart(d amqp.Descriptor, b []byte) (part, rest []byte, err error) {
	_, value, err := amqp.DecodeValue(b[1:]) // behind the descriptor
	if err != nil {
		return nil, nil, malformedCommand(err.Error())
	}
	if len(value) == 0 || value[0] == 0 || value[0] >= compositeTypesFrom {
		return nil, nil, malformedCommand("unsupported body")
	}
	v, rest, err := amqp.DecodeValue(value)
	if err != nil {
		return nil, nil, malformedCommand(err.Error())
	}
	switch v := v.(type) {
	case []byte:
		return v, rest, nil
	case string:
		if d == amqp.DescValue {
			return []byte(v), rest, nil
		}
	}
	return nil, nil, malformedCommand(fmt.Sprintf("unsupported body of type %T", v))
}

// newsRow is [tenant, device, at].
type newsRow struct {
	tenant iot.TenantID
	device iot.DeviceID
	at     int64
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *newsRow) UnmarshalJSON(b []byte) error {
	var fields []json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	if len(fields) < 3 {
		return fmt.Errorf("row %.100q: want [tenant, device, at]", b)
	}
	for i, v := range []any{&r.tenant, &r.device, &r.at} {
		if err := json.Unmarshal(fields[i], v); err != nil {
			return err
		}
	}
	return nil
}

// readNews reads which subscriptions are superseded and which count again.
func readNews(body []byte) ([]news, error) {
	var m struct{ Superseded, Restored []newsRow }
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("malformed news of subscriptions: %w", err)
	}
	all := make([]news, 0, len(m.Superseded)+len(m.Restored))
	for _, r := range m.Superseded {
		all = append(all, news{r.tenant, r.device, r.at, true})
	}
	for _, r := range m.Restored {
		all = append(all, news{r.tenant, r.device, r.at, false})
	}
	return all, nil
}
