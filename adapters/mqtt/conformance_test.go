package mqtt_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestConformance(t *testing.T) {
	adaptertest.Run(t, adaptertest.Harness{Type: mqtt.Type, Start: func(t *testing.T, p *adapters.Pipeline) adaptertest.Client {
		sessions := adapters.NewSessions(p, adapters.SessionOptions{})
		t.Cleanup(sessions.Close)
		a := mqtt.New(mqtt.Options{Pipeline: p, Sessions: sessions})
		return &harness{t, a, serve(t, a, nil)}
	}})
}

// harness connects anew for each upload, by MQTT 5 for its reason codes, and
// learns of failures by the error topic.
type harness struct {
	t    *testing.T
	a    *mqtt.Adapter
	addr string
}

func (h *harness) Stop(ctx context.Context) error { return h.a.Shutdown(ctx) }

func (h *harness) Send(ctx context.Context, u adaptertest.Upload) error {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", h.addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	c := newClient(h.t, nc, 5)
	c.send(connectPacket(5, as(u.AuthID+"@"+string(u.Tenant), u.Password)))
	ack, err := c.read()
	if err != nil {
		return err
	}
	if ack.ReasonCode != 0 {
		return connackError(ack)
	}
	c.send(subscribe("error///#"))
	if _, err := c.read(); err != nil {
		return err
	}
	topic := string(u.Endpoint)
	if u.TargetDevice != "" {
		topic += "/" + string(u.TargetTenant) + "/" + string(u.TargetDevice)
	}
	pk := message(topic, 7, string(u.Payload))
	if u.QoS == iot.AtMostOnce {
		pk.FixedHeader.Qos, pk.PacketID = 0, 0
	}
	pk.Properties.ContentType = u.ContentType
	c.send(pk)
	if u.QoS == iot.AtMostOnce {
		c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	}
	return h.outcome(c)
}

func (h *harness) outcome(c *client) error {
	pk, err := c.read()
	if err != nil {
		return err
	}
	switch pk.FixedHeader.Type {
	case packets.Puback, packets.Pingresp:
		return nil
	case packets.Publish:
		var e struct {
			Code    int
			Message string
		}
		if err := json.Unmarshal(pk.Payload, &e); err != nil {
			return fmt.Errorf("error message %q: %v", pk.Payload, err)
		}
		sentinel := map[int]error{
			400: iot.ErrInvalid, 401: iot.ErrUnauthenticated, 403: iot.ErrForbidden, 404: iot.ErrNotFound,
			413: iot.ErrTooLarge, 429: iot.ErrQuota, 500: iot.ErrUnavailable, 503: iot.ErrUnavailable,
		}[e.Code]
		return fmt.Errorf("%s: %w", e.Message, sentinel)
	case packets.Disconnect:
		if pk.ReasonCode == packets.ErrPacketTooLarge.Code {
			return iot.ErrTooLarge
		}
	}
	return fmt.Errorf("got %s with code %#x %q", packets.PacketNames[pk.FixedHeader.Type], pk.ReasonCode, pk.Properties.ReasonString)
}

func connackError(ack *packets.Packet) error {
	sentinel := map[byte]error{
		0x80: iot.ErrUnavailable, 0x86: iot.ErrUnauthenticated, 0x87: iot.ErrForbidden, 0x88: iot.ErrUnavailable,
		0x97: iot.ErrQuota, 0x9c: iot.ErrUnavailable,
	}[ack.ReasonCode]
	text := ack.Properties.ReasonString
	if text == "device is disabled or not registered" {
		sentinel = iot.ErrNotFound // as precise as HTTP, but for the code
	}
	if sentinel == nil {
		return fmt.Errorf("got CONNACK %#x %q", ack.ReasonCode, text)
	}
	return fmt.Errorf("%s: %w", text, sentinel)
}
