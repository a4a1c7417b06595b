package mqtt_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// What a fuzzed client is, in the bits of its first argument.
const (
	fuzzVersion5  = 1 << iota // speaks MQTT 5, else 3.1.1
	fuzzConnected             // has sent CONNECT already
	fuzzGateway               // is a gateway, else a device
	fuzzNobody                // of an adapter that authenticates nobody
	fuzzHeld                  // its messages get their outcome only once all is sent
	fuzzStays                 // leaves it to the adapter to end the connection
	fuzzSmall                 // of MQTT 5: takes small packets only, two at a time
	fuzzPieces                // sends some bytes at a time
)

// Bounds of the memory that one client makes the adapter and its fakes take in
// all, over time: for being there, and for each byte it sends.
const (
	fuzzBase    = 1 << 20
	fuzzPerByte = 1 << 10
)

// FuzzMQTT checks that whatever a client sends is answered in MQTT or ends the
// connection, without a panic, without a goroutine or session left, with
// bounded memory, and that messages leave for nobody but the client's device
// and those it may act for.
func FuzzMQTT(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s.client, s.data)
	}
	f.Fuzz(func(t *testing.T, client byte, data []byte) {
		before := allocated()
		synctest.Test(t, func(t *testing.T) { fuzzOne(t, client, data) })
		if got, most := allocated()-before, uint64(fuzzBase+len(data)*fuzzPerByte); got > most {
			t.Errorf("%d bytes made the adapter allocate %d, want at most %d", len(data), got, most)
		}
	})
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// fuzzOne is the life of one client, in time of its own.
func fuzzOne(t *testing.T, client byte, data []byte) {
	down := &adaptertest.Downstream{}
	down.Outcome(fuzzOutcome)
	w := newFuzzWorld(t, client&fuzzNobody != 0, down)
	release := func() {}
	if client&fuzzHeld != 0 {
		_, release = down.Block()
	}
	c := w.dial(client, data)
	synctest.Wait()
	release()
	synctest.Wait()
	if client&fuzzStays == 0 {
		c.leave()
		if n := w.sessions.Len(); n != 0 {
			t.Errorf("%d sessions are left of a client that is gone", n)
		}
	}
	w.stop(t)
	c.leave()
	if n, m := w.commands.Len(), w.commands.InFlight(); n != 0 || m != 0 {
		t.Errorf("%d subscriptions and %d commands are left", n, m)
	}
	acks := checkReplies(t, client, c.replies)
	for _, m := range down.Sent() {
		if m.TTD != nil {
			continue // a notification of ours
		}
		checkFuzzed(t, client, c.sent, m)
		if m.QoS == iot.AtLeastOnce && fuzzOutcome(m) == nil {
			acks--
		}
	}
	if acks > 0 {
		t.Errorf("%d messages were acknowledged that nobody accepted", acks)
	}
}

// TestClientsLeaveNoMemory sends what fuzzing begins with to one adapter, again
// and again.
func TestClientsLeaveNoMemory(t *testing.T) {
	const most = 64 // bytes for each client, less than anything that stands for one takes
	seeds := fuzzSeeds()
	synctest.Test(t, func(t *testing.T) {
		w := newFuzzWorld(t, false, adaptertest.Discard{})
		round := func() {
			for _, s := range seeds {
				c := w.dial(s.client, s.data)
				synctest.Wait()
				c.leave()
			}
		}
		round()
		before := live()
		const rounds = 10
		for range rounds {
			round()
		}
		if got := live() - before; got > rounds*len(seeds)*most {
			t.Errorf("%d clients left %d bytes, want at most %d", rounds*len(seeds), got, rounds*len(seeds)*most)
		}
		w.stop(t)
	})
}

// live is how many bytes are in use once nothing more can be freed.
func live() int {
	runtime.GC()
	runtime.GC() // the first one only empties pools into their second chance
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}

// fuzzOutcome is what becomes of a message.
func fuzzOutcome(m *iot.Message) error {
	switch {
	case bytes.HasPrefix(m.Payload, []byte("!")):
		return iot.ErrNoCredit
	case bytes.HasPrefix(m.Payload, []byte("?")):
		return errors.New("a reason that no device gets to see")
	}
	return nil
}

// fuzzWorld is an adapter whose clients are in memory.
type fuzzWorld struct {
	sessions *adapters.Sessions
	commands *adapters.Commands
	conns    chan net.Conn
	stop     func(t *testing.T)
}

func newFuzzWorld(t *testing.T, nobody bool, down adapters.Downstream) *fuzzWorld {
	log := slog.New(panicHandler{slog.DiscardHandler, t})
	adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: forgetful{}, Logger: log})
	w := &fuzzWorld{conns: make(chan net.Conn), commands: adapters.NewCommands(adapters.CommandsOptions{})}
	w.commands.AnnounceTo(fuzzRouter{w.commands})
	presence := adapters.NewPresence(adapters.PresenceOptions{Invoker: forgetful{}, Logger: log})
	p := adapters.NewPipeline(adapters.Options{Type: mqtt.Type, Admissions: adm, Downstream: down, Commands: w.commands, Presence: presence})
	w.sessions = adapters.NewSessions(p, adapters.SessionOptions{Logger: log})
	a := mqtt.New(mqtt.Options{
		Pipeline: p, Sessions: w.sessions, NoAuthentication: nobody, MaxInFlight: 3, Will: true, Logger: log,
	})
	served := make(chan error, 1)
	ln := &memoryListener{conns: w.conns, closed: make(chan struct{})}
	go func() { served <- a.Serve(t.Context(), ln, nil) }()
	w.stop = func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := a.Shutdown(ctx); err != nil {
			t.Errorf("shutdown hangs: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		presence.Close()
		w.sessions.Close()
		adm.Close()
		if n := w.sessions.Len(); n != 0 {
			t.Errorf("%d sessions are left of an adapter that stopped", n)
		}
	}
	return w
}

// fuzzRouter has commands for every device that it hears of, even before the device
// is told that it has subscribed.
type fuzzRouter struct{ to adapters.CommandHandler }

func (r fuzzRouter) Announce(changes []adapters.Announcement, done func()) {
	for _, a := range changes {
		if !a.Gone {
			r.command(a)
		}
	}
	if done != nil {
		done()
	}
}

func (fuzzRouter) LastGateway(iot.TenantID, iot.DeviceID, iot.DeviceID) {}

func (r fuzzRouter) command(a adapters.Announcement) {
	for i, c := range []adapters.Command{
		{Name: "request", CorrelationID: "abc", ReplyID: string(a.Device) + "/r/+", Payload: []byte("one"), ContentType: "text/plain", Properties: map[string]any{"k": "v", "n": 1}},
		{Name: "one-way"},
		{Name: "not/+/possible"},
	} {
		c.Tenant, c.Device = a.Tenant, a.Device
		if a.All && i == 0 {
			c.Device, c.Gateway = adaptertest.Device2, a.Device
		}
		r.to.Command(&c, func(error) {})
	}
}

// forgetful is [adaptertest.Invoker] without its notes.
type forgetful struct{}

func (forgetful) Invoke(ctx context.Context, r events.Request) (events.Reply, error) {
	return new(adaptertest.Invoker).Invoke(ctx, r)
}

// fuzzClient is a client, and what it sends and gets.
type fuzzClient struct {
	net.Conn
	sent, replies []byte
	wg            sync.WaitGroup
}

// dial connects a client that sends data.
func (w *fuzzWorld) dial(client byte, data []byte) *fuzzClient {
	near, far := net.Pipe()
	c := &fuzzClient{Conn: near, sent: data}
	if client&fuzzConnected != 0 {
		c.sent = append(fuzzConnect(client), data...)
	}
	w.conns <- far
	c.wg.Go(func() { c.replies, _ = io.ReadAll(near) })
	c.wg.Go(func() { c.write(client&fuzzPieces != 0) })
	return c
}

// write sends all; a piece has as many bytes as make headers and bodies come apart.
func (c *fuzzClient) write(pieces bool) {
	size := max(len(c.sent), 1)
	if pieces {
		size = 7
	}
	for piece := range slices.Chunk(c.sent, size) {
		if _, err := c.Write(piece); err != nil {
			return
		}
	}
}

// leave ends the connection, and lets pass the time that the adapter may take
// to be done with it.
func (c *fuzzClient) leave() {
	c.Close()
	c.wg.Wait()
	time.Sleep(time.Minute)
}

// panicHandler fails the test when the adapter logs an error: nothing that a
// client does is one.
type panicHandler struct {
	slog.Handler
	t *testing.T
}

func (panicHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }

func (h panicHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h panicHandler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += "\n" + a.String()
		return true
	})
	h.t.Errorf("logged an error: %s", text)
	return nil
}

// memoryListener hands out what comes in by a channel.
type memoryListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memoryListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1883} }

// checkReplies checks that what the adapter sent is MQTT, and begins as it has
// to. It returns how many messages a client of MQTT 5 was told are accepted;
// one of MQTT 3.1.1 may have asked for acknowledgements in any case.
func checkReplies(t *testing.T, client byte, b []byte) (acks int) {
	version := byte(0)
	for first := true; len(b) > 0; first = false {
		pk, n, err := decodeReply(version, b)
		if err != nil {
			t.Fatalf("reply %x is no MQTT: %v", b, err)
		}
		if first != (pk.FixedHeader.Type == packets.Connack) {
			t.Fatalf("got %s, which is first: %t", packets.PacketNames[pk.FixedHeader.Type], first)
		}
		if first {
			version = 4
			if n > 4 {
				version = 5
			}
			if client&fuzzConnected != 0 && (pk.ReasonCode != 0 || (version == 5) != (client&fuzzVersion5 != 0)) {
				t.Fatalf("CONNECT is answered with %x", b[:n])
			}
		}
		if command := isCommandTopic(pk.TopicName); pk.FixedHeader.Type == packets.Publish && (pk.FixedHeader.Retain || pk.FixedHeader.Dup ||
			command && pk.FixedHeader.Qos > 1 || !command && (pk.FixedHeader.Qos != 0 || !isErrorTopic(pk.TopicName))) {
			t.Errorf("got PUBLISH to %q with %+v", pk.TopicName, pk.FixedHeader)
		}
		if client&fuzzSmall != 0 && client&fuzzConnected != 0 && version == 5 && n > smallPacket {
			t.Errorf("got a packet of %d bytes, want at most %d", n, smallPacket)
		}
		if pk.FixedHeader.Type == packets.Puback && version == 5 && pk.ReasonCode == 0 {
			acks++
		}
		b = b[n:]
	}
	return acks
}

// isCommandTopic: commands of [fuzzRouter] that can be sent are.
func isCommandTopic(name string) bool {
	s := strings.Split(name, "/")
	return len(s) == 6 && (s[0] == "c" || s[0] == "command") && (s[3] == "q" || s[3] == "req") && (s[5] == "request") == (s[4] != "") &&
		(s[5] == "request" || s[5] == "one-way") && !strings.ContainsAny(name, "+#")
}

// isErrorTopic: nothing else but error messages is sent to devices, in six segments.
func isErrorTopic(name string) bool {
	return (strings.HasPrefix(name, "e/") || strings.HasPrefix(name, "error/")) && strings.Count(name, "/") == 5 && !strings.ContainsAny(name, "+#")
}

// decodeReply reads one packet of the adapter off b and returns its length.
func decodeReply(version byte, b []byte) (*packets.Packet, int, error) {
	pk := &packets.Packet{ProtocolVersion: version}
	if err := pk.FixedHeader.Decode(b[0]); err != nil {
		return pk, 0, err
	}
	r := bytes.NewReader(b[1:])
	remaining, size, err := packets.DecodeLength(r)
	n := 1 + size + remaining
	if err != nil || n > len(b) {
		return pk, 0, io.ErrUnexpectedEOF
	}
	pk.FixedHeader.Remaining = remaining
	body := b[1+size : n]
	switch pk.FixedHeader.Type {
	case packets.Connack:
		if remaining > 2 {
			pk.ProtocolVersion = 5
		}
		return pk, n, pk.ConnackDecode(body)
	case packets.Publish:
		return pk, n, pk.PublishDecode(body)
	case packets.Puback:
		return pk, n, pk.PubackDecode(body)
	case packets.Suback:
		return pk, n, pk.SubackDecode(body)
	case packets.Unsuback:
		return pk, n, pk.UnsubackDecode(body)
	case packets.Pingresp:
		return pk, n, nil
	case packets.Disconnect:
		return pk, n, pk.DisconnectDecode(body)
	}
	return pk, n, errors.New("type " + packets.PacketNames[pk.FixedHeader.Type])
}

// checkFuzzed checks whose a message is, and that it is made of what was sent.
func checkFuzzed(t *testing.T, client byte, sent []byte, m *iot.Message) {
	t.Helper()
	if client&fuzzNobody == 0 {
		switch who := (owned{m.Tenant, m.Device, m.Gateway}); {
		case client&fuzzConnected == 0: // it may have logged in as any of them
		case client&fuzzGateway == 0 && who != owned{adaptertest.Tenant, adaptertest.Device, ""},
			client&fuzzGateway != 0 && who != owned{adaptertest.Tenant, adaptertest.Gateway, ""} && who != owned{adaptertest.Tenant, adaptertest.Device2, adaptertest.Gateway}:
			t.Errorf("got a message of %+v", who)
		}
	}
	if m.Endpoint == iot.CommandResponse && (m.ReplyID == "" || m.CorrelationID == "" || m.Status < 200 || m.Status > 599) {
		t.Errorf("got a response to %q %q with status %d", m.ReplyID, m.CorrelationID, m.Status)
	}
	if m.Endpoint != iot.Telemetry && m.Endpoint != iot.Event && m.Endpoint != iot.CommandResponse || m.Endpoint == iot.Event && m.QoS != iot.AtLeastOnce {
		t.Errorf("got %s with QoS %d", m.Endpoint, m.QoS)
	}
	if !bytes.Contains(sent, []byte(m.Address)) || !bytes.Contains(sent, m.Payload) || len(m.Payload) > adapters.DefaultMaxPayload {
		t.Errorf("got a message to %q with payload %q, which was not sent", m.Address, m.Payload)
	}
	for name, v := range m.Properties {
		if s, ok := v.(string); !ok || !bytes.Contains(sent, []byte(name)) || !bytes.Contains(sent, []byte(s)) {
			t.Errorf("got property %q = %v, which was not sent", name, v)
		}
	}
}

type owned struct {
	tenant          iot.TenantID
	device, gateway iot.DeviceID
}

// smallPacket is the Maximum Packet Size of a client that takes small ones only.
const smallPacket = 32

// fuzzConnect is the CONNECT of a client.
func fuzzConnect(client byte) []byte {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: 4, Connect: packets.ConnectParams{
		ProtocolName: []byte("MQTT"), Clean: true, Keepalive: 30, ClientIdentifier: "fuzz",
	}}
	if client&fuzzNobody == 0 {
		device := adaptertest.Device
		if client&fuzzGateway != 0 {
			device = adaptertest.Gateway
		}
		pk.Connect.UsernameFlag, pk.Connect.Username = true, []byte(string(device)+"@"+string(adaptertest.Tenant))
		pk.Connect.PasswordFlag, pk.Connect.Password = true, []byte(adaptertest.Password)
	}
	if client&fuzzVersion5 != 0 {
		pk.ProtocolVersion = 5
		if client&fuzzSmall != 0 {
			pk.Properties.MaximumPacketSize, pk.Properties.ReceiveMaximum = smallPacket, 2
		}
	}
	return encodePacket(pk)
}

func encodePacket(pk packets.Packet) []byte {
	b, err := packetBytes(&pk)
	if err != nil || len(b) == 0 {
		panic("a seed cannot be encoded: " + packets.PacketNames[pk.FixedHeader.Type])
	}
	return b
}
