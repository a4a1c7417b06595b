package mqtt_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
)

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

// world is an adapter between two fakes, on a loopback port.
type world struct {
	inv      *adaptertest.Invoker
	down     *adaptertest.Downstream
	adapter  *mqtt.Adapter
	sessions *adapters.Sessions
	addr     string
}

func newWorld(t testing.TB, change func(*mqtt.Options)) *world {
	t.Helper()
	return newWorldOf(t, adapters.Options{}, adapters.SessionOptions{}, change)
}

func newWorldOf(t testing.TB, p adapters.Options, so adapters.SessionOptions, change func(*mqtt.Options)) *world {
	t.Helper()
	w := &world{inv: &adaptertest.Invoker{}, down: &adaptertest.Downstream{}}
	adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: w.inv, MaxAge: time.Hour})
	t.Cleanup(adm.Close)
	p.Type, p.Admissions = mqtt.Type, adm
	if p.Downstream == nil {
		p.Downstream = w.down
	}
	pipeline := adapters.NewPipeline(p)
	w.sessions = adapters.NewSessions(pipeline, so)
	t.Cleanup(w.sessions.Close)
	o := mqtt.Options{Pipeline: pipeline, Sessions: w.sessions}
	if change != nil {
		change(&o)
	}
	w.adapter = mqtt.New(o)
	w.addr = serve(t, w.adapter, nil)
	return w
}

// serve runs a on a loopback port until the test ends.
func serve(t testing.TB, a *mqtt.Adapter, config *tls.Config) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Serve(context.Background(), ln, config) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := a.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// client writes and reads packets as they are.
type client struct {
	t       testing.TB
	nc      net.Conn
	r       *bufio.Reader
	version byte
}

func (w *world) dial(t testing.TB, version byte) *client {
	t.Helper()
	nc, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, nc, version)
}

func newClient(t testing.TB, nc net.Conn, version byte) *client {
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return &client{t, nc, bufio.NewReader(nc), version}
}

// connectPacket logs in as a device of tenant-1.
func connectPacket(version byte, change func(*packets.Packet)) *packets.Packet {
	pk := &packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: version,
		Connect: packets.ConnectParams{
			ProtocolName: []byte("MQTT"), Clean: true,
			UsernameFlag: true, Username: []byte(string(adaptertest.Device) + "@" + string(adaptertest.Tenant)),
			PasswordFlag: true, Password: []byte(adaptertest.Password),
		},
	}
	if version == 3 {
		pk.Connect.ProtocolName = []byte("MQIsdp")
	}
	if change != nil {
		change(pk)
	}
	return pk
}

func as(user, password string) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		pk.Connect.Username, pk.Connect.Password = []byte(user), []byte(password)
	}
}

// connected is a client of the adapter that has been let in.
func (w *world) connected(t testing.TB, version byte, change func(*packets.Packet)) *client {
	t.Helper()
	c := w.dial(t, version)
	c.send(connectPacket(version, change))
	if ack := c.want(packets.Connack); ack.ReasonCode != 0 {
		t.Fatalf("connect: got code %#x %q", ack.ReasonCode, ack.Properties.ReasonString)
	}
	return c
}

func encode(t testing.TB, pk *packets.Packet) []byte {
	t.Helper()
	if kind := pk.FixedHeader.Type; kind == packets.Subscribe || kind == packets.Unsubscribe {
		pk.FixedHeader.Qos = 1
	}
	b, err := packetBytes(pk)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// packetBytes encodes what clients send.
func packetBytes(pk *packets.Packet) ([]byte, error) {
	encoders := map[byte]func(*bytes.Buffer) error{
		packets.Connect: pk.ConnectEncode, packets.Publish: pk.PublishEncode, packets.Puback: pk.PubackEncode, packets.Pubrel: pk.PubrelEncode,
		packets.Subscribe: pk.SubscribeEncode, packets.Unsubscribe: pk.UnsubscribeEncode, packets.Pingreq: pk.PingreqEncode,
		packets.Disconnect: pk.DisconnectEncode, packets.Auth: pk.AuthEncode,
	}
	f := encoders[pk.FixedHeader.Type]
	if f == nil {
		return nil, fmt.Errorf("no encoder for packet type %d", pk.FixedHeader.Type)
	}
	var b bytes.Buffer
	err := f(&b)
	return b.Bytes(), err
}

func (c *client) send(pks ...*packets.Packet) {
	c.t.Helper()
	var b []byte
	for _, pk := range pks {
		pk.ProtocolVersion = c.version
		b = append(b, encode(c.t, pk)...)
	}
	c.write(b)
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// read returns the next packet, or the error that ended the connection.
func (c *client) read() (*packets.Packet, error) {
	pk := &packets.Packet{ProtocolVersion: c.version}
	first, err := c.r.ReadByte()
	if err != nil {
		return nil, err
	}
	if err := pk.FixedHeader.Decode(first); err != nil {
		return nil, err
	}
	if pk.FixedHeader.Remaining, _, err = packets.DecodeLength(c.r); err != nil {
		return nil, err
	}
	body := make([]byte, pk.FixedHeader.Remaining)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return nil, err
	}
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(body)
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback:
		err = pk.PubackDecode(body)
	case packets.Suback:
		err = pk.SubackDecode(body)
	case packets.Unsuback:
		err = pk.UnsubackDecode(body)
	case packets.Disconnect:
		pk.ReasonCode = body[0]
		err = pk.DisconnectDecode(body)
	}
	return pk, err
}

// want reads a packet of this type.
func (c *client) want(kind byte) *packets.Packet {
	c.t.Helper()
	pk, err := c.read()
	if err != nil {
		c.t.Fatalf("got %v, want %s", err, packets.PacketNames[kind])
	}
	if pk.FixedHeader.Type != kind {
		c.t.Fatalf("got %s (code %#x %q), want %s", packets.PacketNames[pk.FixedHeader.Type], pk.ReasonCode, pk.Properties.ReasonString, packets.PacketNames[kind])
	}
	return pk
}

// wantClosed wants the connection to end with no further packet, but, on MQTT
// 5 where code is not 0, a DISCONNECT.
func (c *client) wantClosed(code byte) {
	c.t.Helper()
	if c.version == 5 && code != 0 {
		if pk := c.want(packets.Disconnect); pk.ReasonCode != code {
			c.t.Fatalf("got DISCONNECT %#x %q, want %#x", pk.ReasonCode, pk.Properties.ReasonString, code)
		}
	}
	pk, err := c.read()
	var timeout net.Error
	if err == nil {
		c.t.Fatalf("got %s (code %#x %q), want the end of the connection", packets.PacketNames[pk.FixedHeader.Type], pk.ReasonCode, pk.Properties.ReasonString)
	}
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatal("the connection stays open")
	}
}

// wantOpen checks that the adapter still answers, and that nothing else came.
func (c *client) wantOpen() {
	c.t.Helper()
	c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.want(packets.Pingresp)
}

// message is a PUBLISH; id 0 makes it QoS 0.
func message(topic string, id uint16, payload string) *packets.Packet {
	pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: topic, PacketID: id, Payload: []byte(payload)}
	if id > 0 {
		pk.FixedHeader.Qos = 1
	}
	return pk
}

func subscribe(filters ...string) *packets.Packet {
	pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 99}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f})
	}
	return pk
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}
