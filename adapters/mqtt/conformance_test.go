package mqtt_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestConformance(t *testing.T) {
	start := func(t *testing.T, p *adapters.Pipeline) adaptertest.Client {
		sessions := adapters.NewSessions(p, adapters.SessionOptions{})
		t.Cleanup(sessions.Close)
		a := mqtt.New(mqtt.Options{Pipeline: p, Sessions: sessions})
		server, client := testTLS(t)
		client.InsecureSkipVerify = true // whatever host it asks for
		return &harness{t: t, a: a, sessions: sessions, addr: serve(t, a, nil), secure: serve(t, a, server), config: client}
	}
	adaptertest.Run(t, adaptertest.Harness{Type: mqtt.Type, Certificates: true, Tokens: true, TTL: true, Connections: true, Commands: true, Notifies: true, Start: start})
}

// harness speaks MQTT 5, for its reason codes, and learns of failures by the
// error topic.
type harness struct {
	t        *testing.T
	a        *mqtt.Adapter
	sessions *adapters.Sessions
	addr     string
	secure   string
	config   *tls.Config
}

var _ adaptertest.Connected = (*harness)(nil)

func (h *harness) Stop(ctx context.Context) error { return h.a.Shutdown(ctx) }
func (h *harness) Sessions() *adapters.Sessions   { return h.sessions }

// Send connects anew.
func (h *harness) Send(ctx context.Context, u adaptertest.Upload) error {
	c, err := h.connect(ctx, u.Login)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Send(ctx, u)
}

func (h *harness) Connect(ctx context.Context, l adaptertest.Login) (adaptertest.Conn, error) {
	c, err := h.connect(ctx, l)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (h *harness) dial(ctx context.Context, l adaptertest.Login) (net.Conn, error) {
	if l.Certificate == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", h.addr)
	}
	config := h.config.Clone()
	config.ServerName, config.Certificates = l.ServerName, []tls.Certificate{*l.Certificate}
	return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", h.secure)
}

func (h *harness) connect(ctx context.Context, l adaptertest.Login) (*device, error) {
	nc, err := h.dial(ctx, l)
	if err != nil {
		return nil, err
	}
	c := newClient(h.t, nc, 5)
	c.send(connectPacket(5, func(pk *packets.Packet) {
		p := &pk.Connect
		p.Username, p.Password = []byte(l.AuthID+"@"+string(l.Tenant)), []byte(l.Password)
		switch {
		case l.Certificate != nil:
			p.UsernameFlag, p.PasswordFlag = false, false
		case l.Token != "":
			p.UsernameFlag, p.Password = false, []byte(l.Token)
			if l.AuthID != "" {
				p.ClientIdentifier = "tenants/" + string(l.Tenant) + "/devices/" + l.AuthID
			}
		}
	}), subscribe("error///#"))
	ack, err := c.read()
	if err == nil && ack.ReasonCode != 0 {
		err = connackError(ack)
	}
	if err == nil {
		_, err = c.read() // SUBACK
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	d := &device{c: c, closed: make(chan struct{}), answers: make(chan answer, 1)}
	go d.receive()
	return d, nil
}

// device is a connected client.
type device struct {
	c       *client
	closed  chan struct{}
	answers chan answer
	mu      sync.Mutex // one upload at a time
}

// answer is what came for an upload.
type answer struct {
	pk  *packets.Packet
	err error
}

// receive passes on what comes first after an upload.
func (d *device) receive() {
	defer close(d.closed)
	for {
		pk, err := d.c.read()
		select {
		case d.answers <- answer{pk, err}:
		default: // a PUBACK after a report, or a DISCONNECT after it
		}
		if err != nil {
			return
		}
	}
}

func (d *device) Closed() <-chan struct{} { return d.closed }
func (d *device) Close() error            { return d.c.nc.Close() }

func (d *device) Send(ctx context.Context, u adaptertest.Upload) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	topic := string(u.Endpoint)
	if u.TargetDevice != "" {
		topic += "/" + string(u.TargetTenant) + "/" + string(u.TargetDevice)
	}
	if u.TTL > 0 {
		topic += "/?hono-ttl=" + strconv.Itoa(int(u.TTL/time.Second))
	}
	pk := message(topic, 7, string(u.Payload))
	pk.ProtocolVersion, pk.Properties.ContentType = 5, u.ContentType
	if u.QoS == iot.AtMostOnce {
		pk.FixedHeader.Qos, pk.PacketID = 0, 0
	}
	b := encode(d.c.t, pk)
	if u.QoS == iot.AtMostOnce {
		b = append(b, packets.Pingreq<<4, 0)
	}
	d.c.nc.SetDeadline(time.Now().Add(patience))
	if _, err := d.c.nc.Write(b); err != nil {
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

func outcome(pk *packets.Packet) error {
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

// connackError is as precise as HTTP: the code alone does not tell a device
// that is not registered from one that may not.
func connackError(ack *packets.Packet) error {
	text := ack.Properties.ReasonString
	sentinel := map[byte]error{
		0x80: iot.ErrUnavailable, 0x86: iot.ErrUnauthenticated, 0x87: iot.ErrForbidden, 0x88: iot.ErrUnavailable, 0x97: iot.ErrQuota,
	}[ack.ReasonCode]
	switch {
	case sentinel == nil:
		return errors.New(packets.Code{Code: ack.ReasonCode, Reason: text}.String())
	case text == "device is disabled or not registered":
		sentinel = iot.ErrNotFound
	}
	return fmt.Errorf("%s: %w", text, sentinel)
}
