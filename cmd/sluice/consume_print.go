package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	goamqp "github.com/Azure/go-amqp"
)

// emptyNotification is the content type of an event that says nothing but how
// long its device can be reached (contract: messaging 12.1).
const emptyNotification = "application/vnd.eclipse-hono-empty-notification"

// printed is one message for machines: payload is text, or payload-base64 is not.
type printed struct {
	Device      any            `json:"device"`
	Address     string         `json:"address,omitempty"`
	ContentType string         `json:"content-type,omitempty"`
	Created     *time.Time     `json:"created,omitempty"`
	ID          any            `json:"id,omitempty"`
	Payload     *string        `json:"payload,omitempty"`
	Base64      string         `json:"payload-base64,omitempty"`
	Durable     bool           `json:"durable,omitempty"`
	TTL         int64          `json:"ttl-ms,omitempty"`
	Deliveries  uint32         `json:"delivery-count,omitempty"` // earlier ones
	Properties  map[string]any `json:"properties,omitempty"`
	Annotations map[string]any `json:"annotations,omitempty"`          // of the message
	OnTheWay    map[string]any `json:"delivery-annotations,omitempty"` // of this delivery
}

func describe(m *goamqp.Message) printed {
	p := printed{Device: m.ApplicationProperties["device_id"], Annotations: asObject(m.Annotations), OnTheWay: asObject(m.DeliveryAnnotations)}
	if len(m.ApplicationProperties) > 0 {
		p.Properties = make(map[string]any, len(m.ApplicationProperties))
		for k, v := range m.ApplicationProperties {
			p.Properties[k] = plainValue(v)
		}
	}
	if h := m.Header; h != nil {
		p.Durable, p.TTL, p.Deliveries = h.Durable, h.TTL.Milliseconds(), h.DeliveryCount
	}
	if q := m.Properties; q != nil {
		p.ID, p.Created = plainValue(q.MessageID), q.CreationTime
		if q.To != nil {
			p.Address = *q.To
		}
		if q.ContentType != nil {
			p.ContentType = *q.ContentType
		}
	}
	body := bodyOf(m)
	if utf8.Valid(body) {
		text := string(body)
		p.Payload = &text
	} else {
		p.Base64 = base64.StdEncoding.EncodeToString(body)
	}
	return p
}

// bodyOf is the payload, of whatever kind of section it came in.
func bodyOf(m *goamqp.Message) []byte {
	switch v := m.Value.(type) {
	case string:
		return []byte(v)
	case []byte:
		return v
	}
	var body []byte
	for _, part := range m.Data {
		body = append(body, part...)
	}
	return body
}

// asObject makes a map of an AMQP message one of JSON.
func asObject(m map[any]any) map[string]any {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[fmt.Sprint(k)] = plainValue(v)
	}
	return out
}

// plainValue makes a value of an AMQP message one that JSON has.
func plainValue(v any) any {
	switch v := v.(type) {
	case map[any]any:
		return asObject(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = plainValue(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plainValue(e)
		}
		return out
	case goamqp.UUID:
		return v.String()
	case float32:
		return plainFloat(float64(v))
	case float64:
		return plainFloat(v)
	}
	if _, err := json.Marshal(v); err != nil {
		return fmt.Sprint(v)
	}
	return v
}

// plainFloat keeps what JSON has no number for as text.
func plainFloat(v float64) any {
	if _, err := json.Marshal(v); err != nil {
		return fmt.Sprint(v)
	}
	return v
}

// printMessage writes one line.
func printMessage(out io.Writer, asJSON bool, m *goamqp.Message) error {
	p := describe(m)
	if asJSON {
		return encodeJSON(out, p)
	}
	at, device := "", oneLine(fmt.Sprint(p.Device))
	if p.Created != nil {
		at = p.Created.Local().Format("15:04:05.000") + " "
	}
	if p.ContentType == emptyNotification {
		_, err := fmt.Fprintf(out, "%s%s %s\n", at, device, notification(m))
		return err
	}
	payload := p.Base64
	if p.Payload != nil {
		payload = oneLine(*p.Payload)
	}
	if _, ok := m.ApplicationProperties["ttd"]; ok {
		payload = strings.TrimSpace(payload + " (" + notification(m) + ")")
	}
	_, err := fmt.Fprintf(out, "%s%s %s %s\n", at, device, oneLine(p.ContentType), payload)
	return err
}

// notification says for a person how long the device of a message can be reached
// (contract: messaging 11).
func notification(m *goamqp.Message) string {
	v, ok := m.ApplicationProperties["ttd"]
	if !ok {
		return "sent an empty notification"
	}
	switch ttd := asInt(v); {
	case ttd < 0:
		return "can be reached from now on"
	case ttd == 0:
		return "can no longer be reached"
	default:
		text := fmt.Sprintf("can be reached for %d s", ttd)
		if m.Properties == nil || m.Properties.CreationTime == nil {
			return text + ", from a time that is not known"
		}
		return text + ", until " + m.Properties.CreationTime.Add(time.Duration(ttd)*time.Second).Local().Format("15:04:05")
	}
}

// oneLine keeps a payload from breaking the line or the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return ' '
		}
		return r
	}, s)
}

// harmless is oneLine for text of several lines.
func harmless(s string) string {
	return strings.TrimSuffix(strings.Map(func(r rune) rune {
		if isControl(r) && r != '\n' && r != '\t' {
			return ' '
		}
		return r
	}, s), "\n")
}

// isControl tells what moves the cursor of a terminal, ends a line there, or turns
// the direction of what follows.
func isControl(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}
