package stored

import (
	"fmt"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// deviceKey is where a message says which device it is from (contract: messaging, 7.1).
const deviceKey = "device_id"

// record makes a message one that can be stored. Its time to live begins now.
func record(tenant iot.TenantID, message []byte, now int64) (r eventstore.Record, refused *amqp.Error) {
	if len(message) > eventstore.MaxMessageBytes {
		return r, &amqp.Error{Condition: amqp.CondMessageSizeExceeded,
			Description: fmt.Sprintf("an event has %d bytes at most", eventstore.MaxMessageBytes)}
	}
	sections, err := amqp.ScanSections(message)
	if err != nil {
		return r, &amqp.Error{Condition: amqp.CondDecodeError, Description: err.Error()}
	}
	device, err := amqp.MapValue(sections.MessageAnnotations.Of(message), deviceKey)
	if err == nil && device == nil {
		device, err = amqp.MapValue(sections.ApplicationProperties.Of(message), deviceKey)
	}
	if err != nil {
		return r, &amqp.Error{Condition: amqp.CondDecodeError, Description: err.Error()}
	}
	if annotations := sections.DeliveryAnnotations; annotations.Len() > 0 { // for one hop, which ends here
		message = append(append(make([]byte, 0, len(message)-annotations.Len()),
			message[:annotations.Start]...), message[annotations.End:]...)
	}
	r = eventstore.Record{Tenant: tenant, Device: iot.DeviceID(device.Text()), Message: message}
	h, _, err := amqp.SplitHeader(message)
	if err != nil {
		return r, &amqp.Error{Condition: amqp.CondDecodeError, Description: err.Error()}
	}
	if h.HasTTL && h.TTL > 0 {
		r.Expires = now + int64(h.TTL)
	}
	// One that is refused by the store would be so with others of its batch.
	checked := r
	checked.ID.Counter = 1
	if err := checked.Check(); err != nil {
		return r, &amqp.Error{Condition: amqp.CondInvalidField, Description: err.Error()}
	}
	return r, nil
}

// head is the header section with which a stored message goes out: what is left of
// its time to live, and whether it was delivered before; it is appended to b. tail is the rest of the message.
func head(b, message []byte, attempt uint16, expires, now int64) (header, tail, out []byte) {
	h, tail, err := amqp.SplitHeader(message)
	if err != nil {
		return nil, message, b // it was whole when it came
	}
	h.Durable = true
	h.FirstAcquirer, h.DeliveryCount = attempt == 0, uint32(attempt)
	if h.HasTTL = expires != 0; h.HasTTL {
		h.TTL = uint32(min(max(1, expires-now), 1<<32-1))
	}
	at := len(b)
	b = h.Append(b)
	return b[at:len(b):len(b)], tail, b
}
