package command

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/service"
)

// tellWait is how long a request waits until its event is stored. Hono's clients give
// up soon, and the event is stored all the same.
const tellWait = time.Second

// tell tells applications of a change of a consumer. That it could not is logged: the
// device takes commands nevertheless.
func (f *Foreign) tell(ctx context.Context, kind events.PresenceKind, c *service.Consumer, at time.Time) {
	got, err := events.Call(ctx, f.o.Invoker, events.NotificationDerive{Changes: []events.PresenceChange{
		{Kind: kind, TenantID: c.Tenant, DeviceID: c.Device, Adapter: c.Instance, At: at}}})
	if err == nil {
		for _, fact := range got.Events {
			if err = f.publish(ctx, fact.Event(), c.Instance); err != nil {
				break
			}
		}
	}
	if err != nil {
		f.o.Logger.Warn("applications are not told of a device", "tenant", string(c.Tenant), "device", string(c.Device), "kind", string(kind), "err", err)
	}
}

// publish sends an event and waits until it is stored.
func (f *Foreign) publish(ctx context.Context, m *iot.Message, instance string) error {
	message, err := encodeEvent(m, instance)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tellWait)
	defer cancel()
	got := make(chan outcome, 1)
	f.o.Publish(addressOf(m), message, func(state amqp.Raw) { got <- outcomeOf(state) })
	select {
	case <-ctx.Done():
		return iot.Errorf(iot.ErrTimeout, "the event was not stored in time; it may be later")
	case o := <-got:
		if o != accepted {
			return iot.Errorf(iot.ErrUnavailable, "the event was not stored: %s", outcomeNames[o])
		}
		return nil
	}
}

func addressOf(m *iot.Message) string { return "event/" + string(m.Tenant) }

// encodeEvent makes the message of messaging 7.1. Who sends it is the adapter, as
// Hono's command router says (messaging 11).
func encodeEvent(m *iot.Message, instance string) ([]byte, error) {
	tenant, device := string(m.Tenant), string(m.Device)
	properties := amqp.Map{{Key: "device_id", Value: device}, {Key: "qos", Value: int32(1)}, {Key: "orig_adapter", Value: instance}}
	if m.TTD != nil {
		properties = append(properties, amqp.Pair{Key: "ttd", Value: int32(*m.TTD)})
	}
	out := amqp.Message{
		Header: &amqp.Header{Durable: true},
		MessageAnnotations: amqp.Map{
			{Key: amqp.Symbol("device_id"), Value: device}, {Key: amqp.Symbol("tenant_id"), Value: tenant},
			{Key: amqp.Symbol("resource"), Value: addressOf(m) + "/" + device},
		},
		Properties: &amqp.Properties{MessageID: events.NewID(), To: addressOf(m), ContentType: amqp.Symbol(m.ContentType),
			CreationTime: amqp.TimestampOf(m.Created)},
		ApplicationProperties: properties,
	}
	if m.Payload != nil {
		out.Data = [][]byte{m.Payload}
	}
	return out.Append(nil)
}
