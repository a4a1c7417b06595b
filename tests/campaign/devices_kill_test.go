package campaign_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

const (
	streamTenant  = eventTenant
	streamDevices = 4  // of each protocol
	streamWindow  = 16 // messages that an MQTT device has in flight
)

// streams are devices that send telemetry of QoS 1 and an application that takes it. It
// is wrong to acknowledge what the application does not have by then.
type streams struct {
	site  *deviceSite
	stop  chan struct{} // closed when devices end
	leave chan struct{} // closed when the application does
	all   sync.WaitGroup
	apps  sync.WaitGroup
	http  atomic.Int64 // acknowledged
	mqtt  atomic.Int64
	taken atomic.Int64

	mu     sync.Mutex
	got    map[string]bool   // numbered messages that the application has
	last   map[string]uint64 // by connection: the number that came last
	faults []string
	app    *wire.Client // of now
	twice  int
	broken int // answers and connections that were lost
}

func startStreams(t *testing.T, s *deviceSite) *streams {
	t.Helper()
	f := &streams{site: s, stop: make(chan struct{}), leave: make(chan struct{}), got: map[string]bool{}, last: map[string]uint64{}}
	f.apps.Go(f.consume)
	transport := &http.Transport{MaxIdleConnsPerHost: streamDevices}
	client := &http.Client{Transport: transport, Timeout: patience}
	for i := range streamDevices {
		f.all.Go(func() { f.upload(client, i) })
		f.all.Go(func() { f.publish(streamDevices + i) })
	}
	t.Cleanup(func() {
		f.end()
		transport.CloseIdleConnections()
	})
	return f
}

// end lets devices end what they do, and then the application.
func (f *streams) end() {
	if !isClosed(f.stop) {
		close(f.stop)
	}
	f.all.Wait()
	if !isClosed(f.leave) {
		close(f.leave)
	}
	f.reset()
	f.apps.Wait()
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// rest waits a little before another attempt.
func (f *streams) rest(until chan struct{}) {
	f.mu.Lock()
	f.broken++
	f.mu.Unlock()
	select {
	case <-until:
	case <-time.After(20*time.Millisecond + rand.N(20*time.Millisecond)):
	}
}

func (f *streams) fault(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.faults) < 20 {
		f.faults = append(f.faults, fmt.Sprintf(format, args...))
	}
}

// acknowledged notes that a device was told so.
func (f *streams) acknowledged(count *atomic.Int64, message string) {
	f.mu.Lock()
	has := f.got[message]
	f.mu.Unlock()
	if !has {
		f.fault("%q was acknowledged and the application does not have it", message)
	}
	count.Add(1)
}

// upload is an HTTP device.
func (f *streams) upload(client *http.Client, device int) {
	for n := uint64(1); !isClosed(f.stop); n++ {
		message := fmt.Sprintf("http %d %d", device, n)
		switch status, _, err := sendEvent(client, f.site.device, "telemetry", eventDevice(device), 0, []byte(message)); status {
		case http.StatusAccepted:
			f.acknowledged(&f.http, message)
		case 0, http.StatusServiceUnavailable:
			f.rest(f.stop)
		default:
			f.fault("device %d: %d, %v", device, status, err)
		}
	}
}

// publish is an MQTT device, which connects again when its connection is lost.
func (f *streams) publish(device int) {
	for life := 0; !isClosed(f.stop); life++ {
		c, err := dialMQTT(f.site.login(streamTenant, device))
		if refused, ok := err.(mqttRefused); ok && refused != 3 {
			f.fault("device %d: %v", device, err)
		}
		if err == nil {
			f.stream(c, fmt.Sprintf("mqtt/%d %d", life, device))
			c.Close()
		}
		f.rest(f.stop)
	}
}

// stream sends numbered messages over one connection until it ends.
func (f *streams) stream(c net.Conn, name string) {
	room := make(chan struct{}, streamWindow)
	over := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(over)
		r := bufio.NewReader(c)
		for want := uint64(1); ; want++ {
			head, body, err := readMQTT(r)
			if err != nil {
				return
			}
			if head != mqttPuback || len(body) != 2 || binary.BigEndian.Uint16(body) != uint16(want) {
				f.fault("%s: %#02x % x, want the PUBACK of %d", name, head, body, want)
				return
			}
			f.acknowledged(&f.mqtt, fmt.Sprintf("%s %d", name, want))
			<-room
		}
	})
	defer reading.Wait()
	defer c.Close()
	for n := uint64(1); n < 1<<16; n++ { // one for each packet id
		select {
		case <-f.stop:
			return
		case <-over:
			return
		case room <- struct{}{}:
		}
		if _, err := c.Write(mqttPublish(nil, "telemetry", uint16(n), fmt.Appendf(nil, "%s %d", name, n))); err != nil {
			return
		}
	}
}

// consume is the application, which connects again when its connection is lost.
func (f *streams) consume() {
	for !isClosed(f.leave) {
		c, err := wire.Dial(wire.Options{Addr: f.site.northbound, User: user, Password: secret})
		if err == nil {
			f.mu.Lock()
			f.app = c
			f.mu.Unlock()
			if !isClosed(f.leave) { // else nobody closes this one
				f.take(c)
			}
			c.Conn.Close()
		}
		f.rest(f.leave)
	}
}

// take accepts what comes, once it is noted.
func (f *streams) take(c *wire.Client) {
	const credit = 500
	if c.Write(wire.Receiver(0, "r", "telemetry/"+streamTenant), nil) != nil || c.Write(wire.Credit(0, 0, credit), nil) != nil {
		return
	}
	for count, topped := uint32(0), uint32(0); ; {
		performative, body, err := c.Read()
		if err != nil {
			return
		}
		tr, ok := performative.(*amqp.Transfer)
		if !ok {
			continue
		}
		m, err := amqp.DecodeMessage(body)
		if err != nil || len(m.Data) != 1 {
			f.fault("a message that is none: %v", err)
			return
		}
		f.note(string(m.Data[0]))
		if count++; count-topped > credit/2 {
			topped = count
			_ = c.Write(wire.Credit(0, count, credit), nil)
		}
		_ = c.Write(&amqp.Disposition{Role: amqp.RoleReceiver, First: tr.DeliveryID, Last: tr.DeliveryID, Settled: true, State: amqp.StateAccepted}, nil)
	}
}

// note keeps a message for good: an application that is killed has it when it returns.
func (f *streams) note(message string) {
	var who string
	var device int
	var number uint64
	if _, err := fmt.Sscanf(message, "%s %d %d", &who, &device, &number); err != nil {
		f.fault("%q is from nobody here", message)
		return
	}
	f.taken.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.got[message] {
		f.twice++
		return
	}
	f.got[message] = true
	stream := fmt.Sprint(who, device)
	if last := f.last[stream]; number <= last && len(f.faults) < 20 {
		f.faults = append(f.faults, fmt.Sprintf("%q came after number %d", message, last))
	}
	f.last[stream] = number
}

// reset ends the application's connection as its death would.
func (f *streams) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.app == nil {
		return
	}
	if tcp, ok := f.app.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	f.app.Conn.Close()
}

// flowing waits until devices of both protocols were told so a random number of times more.
func (f *streams) flowing(t *testing.T, n int) {
	t.Helper()
	for _, count := range []*atomic.Int64{&f.http, &f.mqtt} {
		goal := count.Load() + 1 + randomly(n)
		for last, since := count.Load(), time.Now(); last < goal; time.Sleep(time.Millisecond) {
			if now := count.Load(); now > last {
				last, since = now, time.Now()
			} else if time.Since(since) > patience {
				f.mu.Lock()
				defer f.mu.Unlock()
				t.Fatalf("nothing was acknowledged for %s: %d over HTTP, %d over MQTT; %q", patience, f.http.Load(), f.mqtt.Load(), f.faults)
			}
		}
	}
}

// TestDevicesKilled kills adapters, router and application in the middle of streams of
// QoS 1 over HTTP and MQTT: whatever was acknowledged is at the application, MQTT messages
// are acknowledged in their order, and nobody is refused for longer than it takes to come back.
func TestDevicesKilled(t *testing.T) {
	t.Parallel()
	s := newDeviceSite(t)
	s.startFunction(t)
	s.startRouter(t)
	s.startAdapter(t, s.functions)
	s.startMQTT(t, s.functions)
	s.register(t, streamTenant, 2*streamDevices, quickSecret)
	f := startStreams(t, s)
	victims := []struct {
		name string
		kill func()
	}{
		{"MQTT adapter", func() { s.mqttAdapter.kill(); s.startMQTT(t, s.functions) }},
		{"HTTP adapter", func() { s.adapter.kill(); s.startAdapter(t, s.functions) }},
		{"router", func() { s.router.kill(); s.startRouter(t) }},
		{"application", f.reset},
	}
	rounds := eventRounds()
	for range rounds {
		for _, v := range victims {
			f.flowing(t, 300)
			v.kill()
		}
	}
	f.flowing(t, 300)
	f.end()
	f.mu.Lock()
	defer f.mu.Unlock()
	t.Logf("%d rounds of MQTT adapter, HTTP adapter, router, application killed: acknowledged %d over HTTP, %d over MQTT; the application got %d, %d of them twice; %d connections or answers lost",
		rounds, f.http.Load(), f.mqtt.Load(), f.taken.Load(), f.twice, f.broken)
	for _, fault := range f.faults {
		t.Error(fault)
	}
}
