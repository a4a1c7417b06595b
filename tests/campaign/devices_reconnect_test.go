package campaign_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Devices that cannot connect wait at random up to firstWait, and up to twice as long
// each time, to lastWait: less, and ten thousand of them are a flood by themselves.
const (
	firstWait = 500 * time.Millisecond
	lastWait  = time.Minute
)

// unavailable is the CONNACK that says to come again.
const unavailable mqttRefused = 3

// herd is MQTT devices that stay connected.
type herd struct {
	site   *deviceSite
	tenant string
	stop   chan struct{}
	all    sync.WaitGroup

	connected atomic.Int64
	later     atomic.Int64 // told to come again
	lost      atomic.Int64 // attempts that got no answer

	mu     sync.Mutex
	conns  map[net.Conn]bool
	faults []string
}

func startHerd(t *testing.T, s *deviceSite, tenant string, devices int) *herd {
	t.Helper()
	h := &herd{site: s, tenant: tenant, stop: make(chan struct{}), conns: map[net.Conn]bool{}}
	for i := range devices {
		h.all.Go(func() { h.live(i) })
	}
	t.Cleanup(h.end)
	return h
}

// live keeps a device connected.
func (h *herd) live(i int) {
	for wait := firstWait; !isClosed(h.stop); {
		c, err := dialMQTT(h.site.login(h.tenant, i))
		var refused mqttRefused
		switch {
		case err == nil:
			wait = firstWait
			h.stay(c)
		case errors.As(err, &refused) && refused != unavailable:
			h.mu.Lock()
			h.faults = append(h.faults, fmt.Sprintf("device %d: %v", i, err))
			h.mu.Unlock()
			return
		case refused == unavailable:
			h.later.Add(1)
		default:
			h.lost.Add(1)
		}
		select {
		case <-h.stop:
		case <-time.After(rand.N(wait)):
		}
		wait = min(2*wait, lastWait)
	}
}

// stay waits until a connection ends.
func (h *herd) stay(c net.Conn) {
	h.mu.Lock()
	h.conns[c] = true
	h.mu.Unlock()
	h.connected.Add(1)
	if !isClosed(h.stop) {
		var b [16]byte
		for {
			if _, err := c.Read(b[:]); err != nil {
				break
			}
		}
	}
	h.connected.Add(-1)
	c.Close()
	h.mu.Lock()
	delete(h.conns, c)
	h.mu.Unlock()
}

func (h *herd) end() {
	if !isClosed(h.stop) {
		close(h.stop)
	}
	h.mu.Lock()
	for c := range h.conns {
		abort(c)
	}
	h.mu.Unlock()
	h.all.Wait()
}

// back waits until so many are connected, and returns how long that took from now.
func (h *herd) back(t *testing.T, devices int) time.Duration {
	t.Helper()
	began := time.Now()
	for last, since := int64(-1), began; ; time.Sleep(2 * time.Millisecond) {
		now := h.connected.Load()
		if now == int64(devices) {
			return time.Since(began)
		}
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > 3*patience {
			h.mu.Lock()
			defer h.mu.Unlock()
			t.Fatalf("%d of %d devices are connected; %.5q", now, devices, h.faults)
		}
	}
}

// TestDevicesReconnect has MQTT devices that are connected lose their adapter and come back
// to its next life, which knows nobody: with SHA-256 and with bcrypt. Nobody is refused, and
// each log-in is one invocation of the function.
func TestDevicesReconnect(t *testing.T) {
	devices, cost := 500, bcrypt.MinCost
	if runs() == full {
		devices, cost = 10_000, 10
		if n, err := strconv.Atoi(os.Getenv("SLUICE_STORM_DEVICES")); err == nil && n > 0 {
			devices = n
		}
	}
	s := newDeviceSite(t)
	s.startFunction(t)
	s.startRouter(t)
	proxy := startCounter(t, s.parts)
	s.register(t, "SLOW", devices, slowSecret(t, cost))
	s.register(t, "FAST", devices, quickSecret)
	for _, kind := range []struct{ name, tenant string }{{"sha-256", "FAST"}, {"bcrypt", "SLOW"}} {
		var h *herd
		for _, life := range []struct {
			name      string
			functions string // host:port that the adapter asks
		}{
			{"nothing known of them", proxy.addr},
			{"adapter restarted", s.functions},
			{"adapter restarted, counted", proxy.addr},
		} {
			if h != nil {
				s.mqttAdapter.kill()
			}
			proxy.reset()
			function := s.function.used(t)
			s.startMQTT(t, life.functions)
			ready := time.Now()
			var later, lost int64
			if h == nil {
				h = startHerd(t, s, kind.tenant, devices)
			} else {
				later, lost = h.later.Load(), h.lost.Load()
			}
			h.back(t, devices)
			took := time.Since(ready)
			later, lost = h.later.Load()-later, h.lost.Load()-lost
			counted := "not counted"
			if life.functions == proxy.addr {
				counted = fmt.Sprint(proxy.all())
			}
			adapter := s.mqttAdapter.used(t)
			t.Logf("%s, %s: %d devices connected %s after the adapter was ready; %d times told to come again, %d attempts without an answer; invocations: %s; processor: functions %s, adapter %s; resident: adapter %d MB",
				kind.name, life.name, devices, took.Round(10*time.Millisecond), later, lost, counted,
				s.function.used(t).processor-function.processor, adapter.processor, adapter.resident>>20)
			if got := proxy.count(admission); life.functions == proxy.addr && (got < devices || later == 0 && lost == 0 && got != devices) {
				t.Errorf("%s, %s: %d invocations; want %d, one for each log-in", kind.name, life.name, got, devices)
			}
		}
		h.end()
		for _, fault := range h.faults {
			t.Error(fault)
		}
		s.mqttAdapter.stop(t)
	}
}
