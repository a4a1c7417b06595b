package campaign_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

// ledger knows every event that a device has sent and every one that a consumer got.
type ledger struct {
	accepted  atomic.Int64 // answered with 202
	delivered atomic.Int64
	refused   atomic.Int64 // 503
	broken    atomic.Int64 // no answer
	epoch     atomic.Int64 // counts what was killed

	mu      sync.Mutex
	uploads [][]sentEvent // by device and number
	got     []gotEvent
	missing int // accepted, with no time to live, not delivered
	faults  []string
}

type sentEvent struct {
	accepted bool
	answered time.Time
	ttl      time.Duration // 0 = none
	times    int           // it was delivered
}

type gotEvent struct {
	device, number int
	life           *life
	epoch          int64
	granted        time.Time // when the consumer gave the credit that it came by
	again          bool      // it says that it was delivered before
}

func newLedger(devices int) *ledger { return &ledger{uploads: make([][]sentEvent, devices)} }

func (l *ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) < 20 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// begin notes that a device is about to send an event.
func (l *ledger) begin(device int, ttl time.Duration) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uploads[device] = append(l.uploads[device], sentEvent{ttl: ttl})
	return len(l.uploads[device]) - 1
}

// accept notes that a device was told so.
func (l *ledger) accept(device, number int) {
	l.accepted.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &l.uploads[device][number]
	if e.accepted, e.answered = true, time.Now(); e.ttl == 0 && e.times == 0 {
		l.missing++
	}
}

func (l *ledger) deliver(g gotEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.device >= len(l.uploads) || g.number >= len(l.uploads[g.device]) {
		if len(l.faults) < 20 {
			l.faults = append(l.faults, fmt.Sprintf("device %d never sent number %d", g.device, g.number))
		}
		return
	}
	e := &l.uploads[g.device][g.number]
	if e.times++; e.accepted && e.ttl == 0 && e.times == 1 {
		l.missing--
	}
	l.got = append(l.got, g)
	l.delivered.Add(1)
}

// fleetRun is devices and consumers at work.
type fleetRun struct {
	*ledger
	site      *eventSite
	pause     time.Duration
	padding   string
	stopSend  chan struct{}
	stopTake  chan struct{}
	devices   sync.WaitGroup
	consumers sync.WaitGroup
	client    *http.Client
}

// startFleet has devices send events, and a consumer at each router take them.
func startFleet(t *testing.T, s *eventSite) *fleetRun {
	t.Helper()
	return startLoad(t, s, eventDevices, devicePause, 0)
}

// startLoad is startFleet with so many devices, pauses between the uploads of each, and
// bytes beside their number in each event.
func startLoad(t *testing.T, s *eventSite, devices int, pause time.Duration, padding int) *fleetRun {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: devices}
	f := &fleetRun{ledger: newLedger(devices), site: s, pause: pause, padding: strings.Repeat("x", padding), stopSend: make(chan struct{}), stopTake: make(chan struct{}),
		client: &http.Client{Transport: transport, Timeout: 2 * patience}}
	for i := range devices {
		f.devices.Go(func() { f.send(i) })
	}
	for _, r := range s.routers {
		f.listen(r)
	}
	t.Cleanup(func() {
		f.stop()
		f.finish()
		transport.CloseIdleConnections()
	})
	return f
}

// listen has a consumer at a router until finish is called.
func (f *fleetRun) listen(r *eventRouter) {
	select {
	case <-f.stopTake: // it was before: another run of consumers
		f.stopTake = make(chan struct{})
	default:
	}
	stop := f.stopTake
	f.consumers.Go(func() { f.consume(r, stop) })
}

// stop lets the devices end what they do.
func (f *fleetRun) stop() {
	select {
	case <-f.stopSend:
	default:
		close(f.stopSend)
	}
	f.devices.Wait()
}

// finish ends the consumers.
func (f *fleetRun) finish() {
	select {
	case <-f.stopTake:
	default:
		close(f.stopTake)
	}
	f.consumers.Wait()
}

// send sends numbered events; none twice, so that what comes twice was delivered twice.
func (f *fleetRun) send(device int) {
	name := eventDevice(device)
	for {
		ttl := time.Duration(0)
		if rand.IntN(someMortal) == 0 {
			ttl = time.Duration(1+rand.IntN(2)) * time.Second
		}
		number := f.begin(device, ttl)
		status, retry, err := sendEvent(f.client, f.site.device, "event", name, ttl, f.body(device, number))
		switch status {
		case http.StatusAccepted:
			f.accept(device, number)
		case http.StatusServiceUnavailable:
			f.refused.Add(1)
			if s, err := strconv.Atoi(retry); err != nil || s < 1 {
				f.fault("a refusal with Retry-After %q", retry)
			}
		case 0:
			f.broken.Add(1)
		default:
			f.fault("device %d: %d, %v", device, status, err)
		}
		select {
		case <-f.stopSend:
			return
		case <-time.After(f.pause/2 + rand.N(f.pause)):
		}
	}
}

// body is that of a device's numbered event.
func (f *fleetRun) body(device, number int) []byte {
	return fmt.Appendf(nil, "%d %d %s", device, number, f.padding)
}

// consume takes what comes, on a new connection when one is lost.
func (f *fleetRun) consume(r *eventRouter, stop <-chan struct{}) {
	for {
		now := r.now()
		c, err := wire.Dial(wire.Options{Addr: r.northbound, User: user, Password: secret})
		if err == nil {
			if r.now() == now { // else nobody knows whose connection it is
				f.take(c, now, stop)
			}
			c.Conn.Close()
		}
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// taking is one connection of a consumer.
type taking struct {
	c       *wire.Client
	mu      sync.Mutex
	count   uint32 // deliveries
	settled uint32
	granted []grant
}

type grant struct {
	limit uint32
	at    time.Time
}

// credit lets deliveries beyond count come. The receiver is locked.
func (x *taking) credit() {
	x.granted = append(x.granted, grant{x.count + consumeCredit, time.Now()})
	_ = x.c.Write(wire.Credit(0, x.count, consumeCredit), nil)
}

// take reads until the connection ends; what came is settled a little later.
func (f *fleetRun) take(c *wire.Client, of *life, stop <-chan struct{}) {
	x := &taking{c: c}
	over := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-stop:
				c.Conn.Close()
				return
			case <-time.After(rand.N(settleWithin)):
				x.settle()
			}
		}
	})
	defer beside.Wait()
	defer close(over)
	if c.Write(wire.Receiver(0, "r", "event/"+eventTenant), nil) != nil {
		return
	}
	if _, _, err := wire.Await[*amqp.Attach](c); err != nil {
		return
	}
	x.mu.Lock()
	x.credit()
	x.mu.Unlock()
	for {
		p, body, err := c.Read()
		if err != nil {
			return
		}
		switch p := p.(type) {
		case *amqp.Transfer:
			f.came(x, of, p, body)
		case *amqp.Detach, *amqp.End, *amqp.Close:
			if !of.killed.Load() {
				f.fault("a consumer that did nothing wrong got %T %+v", p, p)
			}
			return
		}
	}
}

// settle accepts what has come, gives credit, and tells that the consumer is there.
func (x *taking) settle() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.settled < x.count {
		_ = x.c.Write(&amqp.Disposition{Role: amqp.RoleReceiver, First: x.settled, Last: x.count - 1, Settled: true, State: amqp.StateAccepted}, nil)
		x.settled = x.count
	}
	switch last := x.granted; {
	case len(last) == 0:
	case last[len(last)-1].limit-x.count < consumeCredit/2:
		x.credit()
	case time.Since(last[len(last)-1].at) > 5*time.Second:
		x.credit() // the router hears of the consumer, and what has expired is known to be late
	}
}

func (f *fleetRun) came(x *taking, of *life, tr *amqp.Transfer, body []byte) {
	x.mu.Lock()
	if tr.DeliveryID != x.count {
		f.fault("delivery-id %d is the consumer's delivery %d", tr.DeliveryID, x.count)
	}
	x.count++
	for x.granted[0].limit < x.count {
		x.granted = x.granted[1:]
	}
	g := gotEvent{life: of, epoch: f.epoch.Load(), granted: x.granted[0].at}
	x.mu.Unlock()
	m, err := amqp.DecodeMessage(body)
	if err != nil || m.Header == nil || len(m.Data) != 1 {
		f.fault("a message that is none of a device: %v", err)
		return
	}
	if !m.Header.Durable {
		f.fault("an event that is not durable came")
	}
	g.again = !m.Header.FirstAcquirer && m.Header.DeliveryCount > 0
	var padding string
	if _, err := fmt.Sscanf(string(m.Data[0])+"|", "%d %d %s", &g.device, &g.number, &padding); err != nil || padding != f.padding+"|" {
		f.fault("an event with %.40q", m.Data[0])
		return
	}
	f.deliver(g)
}

// left counts what was accepted, has no time to live and is not delivered.
func (l *ledger) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.missing
}

// drain waits until all that was accepted has been delivered.
func (f *fleetRun) drain(t *testing.T) {
	t.Helper()
	for least, since := f.left(), time.Now(); least > 0; time.Sleep(10 * time.Millisecond) {
		if now := f.left(); now < least {
			least, since = now, time.Now()
		} else if time.Since(since) > patience {
			t.Errorf("%d events that were accepted are not delivered, and none of them came for %s", now, patience)
			return
		}
	}
}

// check looks at everything that happened; what came twice must have been allowed to.
func (f *fleetRun) check(t *testing.T, allowed func(first, again *gotEvent) bool) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, text := range f.faults {
		t.Error(text)
	}
	type key struct{ device, number int }
	first := map[key]*gotEvent{}
	last := make([]int, len(f.uploads))
	for i := range last {
		last[i] = -1
	}
	var twice, unasked, unsaid, late, order, unheard, mortal, expired int
	for i := range f.got {
		g := &f.got[i]
		e := &f.uploads[g.device][g.number]
		if e.ttl > 0 && e.accepted && g.granted.After(e.answered.Add(e.ttl)) {
			late++
		}
		k := key{g.device, g.number}
		if before := first[k]; before != nil {
			twice++
			if !allowed(before, g) {
				unasked++
			}
			if !g.again && !before.again {
				unsaid++
			}
			continue
		}
		first[k] = g
		if !e.accepted {
			unheard++
			continue
		}
		// Order is promised of undisturbed deliveries. What a router that was killed had handed
		// out comes again, and says so, whether or not it reached its consumer.
		if g.again {
			continue
		}
		if g.number < last[g.device] {
			if order++; order <= 5 {
				t.Errorf("number %d of device %d came after its number %d", g.number, g.device, last[g.device])
			}
		}
		last[g.device] = max(last[g.device], g.number)
	}
	for _, uploads := range f.uploads {
		for i := range uploads {
			if uploads[i].accepted && uploads[i].ttl > 0 {
				if mortal++; uploads[i].times == 0 {
					expired++
				}
			}
		}
	}
	t.Logf("%d events accepted, %d delivered, %d of them twice; %d refused with 503, %d not answered, of which %d were stored; %d with a time to live, of which %d expired",
		f.accepted.Load(), len(f.got), twice, f.refused.Load(), f.broken.Load(), unheard, mortal, expired)
	if f.missing > 0 {
		t.Errorf("%d events were accepted and never delivered", f.missing)
	}
	if late > 0 {
		t.Errorf("%d events came after their time to live", late)
	}
	if unasked > 0 {
		t.Errorf("%d events came twice though nothing was lost in between", unasked)
	}
	if unsaid > 0 {
		t.Errorf("%d events came twice and did not say so", unsaid)
	}
	if order > 0 {
		t.Errorf("%d events came for the first time after later ones of their devices", order)
	}
}
