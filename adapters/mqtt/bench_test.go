package mqtt_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// later is a way to the applications that reports outcomes by a goroutine of
// its own, as a connection to a router does.
type later struct {
	adaptertest.Discard
	outcomes chan func(error)
}

func (l later) Start(_ *iot.Message, done func(error)) { l.outcomes <- done }

func (l later) run() {
	for done := range l.outcomes {
		done(nil)
	}
}

// BenchmarkPublish256 measures a PUBLISH with quality of service 1 and its
// PUBACK over a loopback connection: alone, and with others in flight.
func BenchmarkPublish256(b *testing.B) {
	for _, window := range []int{1, 50} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			down := later{outcomes: make(chan func(error), window)}
			go down.run()
			b.Cleanup(func() { close(down.outcomes) })
			w := newWorldOf(b, adapters.Options{Downstream: down}, adapters.SessionOptions{}, nil)
			c := w.connected(b, 4, nil)
			pk := message("telemetry/?content-type=text%2Fplain", 1, strings.Repeat("x", 256))
			pk.ProtocolVersion = 4
			burst := []byte(strings.Repeat(string(encode(b, pk)), window))
			acks := make([]byte, 4*window)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if n++; n < window {
					continue
				}
				n = 0
				if _, err := c.nc.Write(burst); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c.r, acks); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCommand measures a command to one subscriber over a loopback
// connection, from the call that a router's connection makes to the outcome: alone, and with others
// in flight.
func BenchmarkCommand(b *testing.B) {
	for qos := range byte(2) {
		for _, window := range []int{1, 50} {
			b.Run(fmt.Sprintf("qos=%d/window=%d", qos, window), func(b *testing.B) { benchmarkCommand(b, qos, window) })
		}
	}
}

func benchmarkCommand(b *testing.B, qos byte, window int) {
	w := newCommanding(b, nil)
	c := w.connected(b, 4, nil)
	c.subscribed(qos, "c///q/#")
	cmd := brightness(func(c *adapters.Command) { c.Payload = []byte(strings.Repeat("x", 256)) })
	outcomes := make(chan error, window)
	done := func(err error) { outcomes <- err }
	go acknowledge(c)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n == window {
			if err := <-outcomes; err != nil {
				b.Fatal(err)
			}
			n--
		}
		again := cmd
		w.commands.Command(&again, done)
		n++
	}
	for range n {
		<-outcomes
	}
	c.nc.Close()
}

// acknowledge is a client that takes commands until its connection ends.
func acknowledge(c *client) {
	body := make([]byte, 1024)
	for {
		header, err := c.r.Peek(2)
		if err != nil {
			return
		}
		size, ack := int(header[1]), header[0]&6 != 0
		if size >= 0x80 {
			third, err := c.r.Peek(3)
			if err != nil {
				return
			}
			size = size&0x7f + int(third[2])<<7 + 1
		}
		if _, err := io.ReadFull(c.r, body[:2+size]); err != nil {
			return
		}
		if ack {
			topic := 3 + int(body[3])<<8 + int(body[4]) + 2
			c.nc.Write([]byte{0x40, 2, body[topic], body[topic+1]})
		}
	}
}

// TestIdleMemory prints what a connection without traffic costs this process,
// the client's end included, which is little more than a descriptor, and how much more
// one that is subscribed for commands. SLUICE_IDLE is the number of connections.
func TestIdleMemory(t *testing.T) {
	var n int
	if fmt.Sscan(os.Getenv("SLUICE_IDLE"), &n); n == 0 {
		t.Skip("SLUICE_IDLE is not set: want a number of connections")
	}
	for _, secure := range []bool{false, true} {
		for _, subscribed := range []bool{false, true} {
			t.Run(fmt.Sprintf("TLS=%t, subscribed=%t", secure, subscribed), func(t *testing.T) { idleMemory(t, n, secure, subscribed) })
		}
	}
}

func idleMemory(t *testing.T, n int, secure, subscribed bool) {
	w := newIdleWorld(t)
	addr := w.addr
	var clientConfig *tls.Config
	if secure {
		var config *tls.Config
		config, clientConfig = testTLS(t)
		addr = serve(t, w.adapter, config)
	}
	pk := subscribe("command///req/#")
	pk.ProtocolVersion, pk.Filters[0].Qos = 4, 1
	wish, devices := encode(t, pk), 0
	open := func(n int) {
		for i := range n {
			devices++
			hello := encode(t, connectPacket(4, as(fmt.Sprintf("idle-%d@%s", devices, adaptertest.Tenant), adaptertest.Password)))
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(i/20000), byte(1+i%200))}}
			nc, err := d.Dial("tcp", addr)
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			t.Cleanup(func() { nc.Close() })
			var rw io.ReadWriter = nc
			if secure {
				rw = tls.Client(nc, clientConfig)
			}
			rw.Write(hello)
			if _, err := io.ReadFull(rw, make([]byte, 4)); err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			if subscribed {
				rw.Write(wish)
				if _, err := io.ReadFull(rw, make([]byte, 5)); err != nil {
					t.Fatalf("subscription %d: %v", i, err)
				}
			}
			// A client's TLS state is not the adapter's: it goes, its socket stays.
		}
	}
	open(200)
	before := resident(t)
	open(n)
	after := resident(t)
	t.Logf("%d idle connections: %.2f KiB each, goroutine stacks %d KiB in all", n, float64(after-before)/float64(n)/1024, stacks()/1024)
	start := time.Now()
	if err := w.adapter.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	t.Logf("stopped after %s, with clients that do not close their side", time.Since(start).Round(time.Millisecond))
}

func stacks() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.StackInuse
}

// resident is this process's resident memory in bytes, without garbage.
func resident(t *testing.T) uint64 {
	for range 4 {
		runtime.GC() // stacks shrink by half a time
	}
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("needs /proc")
	}
	var size, rss uint64
	fmt.Sscan(string(b), &size, &rss)
	return rss * uint64(os.Getpagesize())
}

// everybody lets in whoever knows the password, each as a device of its own.
type everybody struct{ adaptertest.Invoker }

func (i *everybody) Invoke(ctx context.Context, r events.Request) (events.Reply, error) {
	q, ok := r.(events.Admit)
	if !ok || q.Credential == nil {
		return i.Invoker.Invoke(ctx, r)
	}
	device, credential := iot.DeviceID(q.Credential.AuthID), *q.Credential
	credential.AuthID = string(adaptertest.Device)
	q.Credential = &credential
	reply, err := new(adaptertest.Invoker).Invoke(ctx, q)
	if admitted, ok := reply.(*events.Admitted); ok {
		admitted.DeviceID, admitted.Registration.DeviceID = device, device
	}
	return reply, err
}

// newIdleWorld is an adapter of many devices, of which nobody takes notes.
func newIdleWorld(t *testing.T) *world {
	commands := adapters.NewCommands(adapters.CommandsOptions{})
	adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: &everybody{}, MaxAge: time.Hour})
	t.Cleanup(adm.Close)
	presence := adapters.NewPresence(adapters.PresenceOptions{Invoker: &everybody{}})
	t.Cleanup(presence.Close)
	p := adapters.NewPipeline(adapters.Options{Type: mqtt.Type, Admissions: adm, Downstream: adaptertest.Discard{}, Commands: commands, Presence: presence})
	w := &world{sessions: adapters.NewSessions(p, adapters.SessionOptions{})}
	t.Cleanup(w.sessions.Close)
	w.adapter = mqtt.New(mqtt.Options{Pipeline: p, Sessions: w.sessions, Conns: adapters.NewConnLimit(1 << 20)})
	w.addr = serve(t, w.adapter, nil)
	return w
}
