package mqtt_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

var _ adaptertest.Commanded = (*harness)(nil)

// listener is a connected client that subscribes for commands with quality of
// service 1.
type listener struct{ *device }

func (h *harness) Listen(ctx context.Context, l adaptertest.Listen) (adaptertest.Listener, error) {
	d, err := h.connect(ctx, l.Login)
	if err != nil {
		return nil, err
	}
	filter := "command//" + string(l.TargetDevice) + "/req/#"
	if l.All {
		filter = "c//+/q/#"
	}
	pk := subscribe(filter)
	pk.ProtocolVersion, pk.Filters[0].Qos = 5, 1
	li := listener{d}
	if _, err = d.c.nc.Write(encode(h.t, pk)); err == nil {
		err = li.subscribed(ctx)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return li, nil
}

// subscribed waits for the SUBACK.
func (l listener) subscribed(ctx context.Context) error {
	select {
	case a := <-l.answers:
		if a.err == nil && (a.pk.FixedHeader.Type != packets.Suback || a.pk.ReasonCodes[0] > 1) {
			return outcome(a.pk)
		}
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l listener) Next(ctx context.Context) (adaptertest.Received, error) {
	select {
	case a := <-l.answers:
		switch {
		case a.err != nil:
			return adaptertest.Received{}, a.err
		case a.pk.FixedHeader.Type != packets.Publish:
			return adaptertest.Received{}, outcome(a.pk)
		}
		return l.received(a.pk)
	case <-ctx.Done():
		return adaptertest.Received{}, ctx.Err()
	}
}

// received reads and acknowledges a command.
func (l listener) received(pk *packets.Packet) (adaptertest.Received, error) {
	ack := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: pk.PacketID, ProtocolVersion: 5}
	_, err := l.c.nc.Write(encode(l.c.t, ack))
	s := strings.SplitN(pk.TopicName, "/", 6)
	if err == nil && len(s) < 6 {
		err = fmt.Errorf("got a command by %q", pk.TopicName)
	}
	if err != nil {
		return adaptertest.Received{}, err
	}
	return adaptertest.Received{Device: iot.DeviceID(s[2]), RequestID: s[4], Name: s[5], Payload: pk.Payload}, nil
}

func (h *harness) Respond(ctx context.Context, r adaptertest.Response) error {
	d, err := h.connect(ctx, r.Login)
	if err != nil {
		return err
	}
	defer d.Close()
	pk := message(fmt.Sprintf("command//%s/res/%s/%d", r.TargetDevice, r.RequestID, r.Status), 7, string(r.Payload))
	pk.ProtocolVersion = 5
	d.c.nc.SetDeadline(time.Now().Add(patience))
	if _, err := d.c.nc.Write(encode(d.c.t, pk)); err != nil {
		return err
	}
	select {
	case a := <-d.answers:
		if a.err != nil {
			return a.err
		}
		return outcome(a.pk)
	case <-ctx.Done():
		return ctx.Err()
	}
}
