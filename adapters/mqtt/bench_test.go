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

// TestIdleMemory prints what a connection without traffic costs this process,
// the client's end included, which is little more than a descriptor.
// SLUICE_IDLE is the number of connections.
func TestIdleMemory(t *testing.T) {
	var n int
	if fmt.Sscan(os.Getenv("SLUICE_IDLE"), &n); n == 0 {
		t.Skip("SLUICE_IDLE is not set: want a number of connections")
	}
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS=%t", secure), func(t *testing.T) { idleMemory(t, n, secure) })
	}
}

func idleMemory(t *testing.T, n int, secure bool) {
	w := newIdleWorld(t)
	addr := w.addr
	var clientConfig *tls.Config
	if secure {
		var config *tls.Config
		config, clientConfig = testTLS(t)
		addr = serve(t, w.adapter, config)
	}
	hello := encode(t, connectPacket(4, nil))
	open := func(n int) {
		for i := range n {
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

func newIdleWorld(t *testing.T) *world {
	return newWorldOf(t, adapters.Options{}, adapters.SessionOptions{}, nil)
}
