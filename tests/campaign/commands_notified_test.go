package campaign_test

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

// notifiedScale is how many devices stay, how many come and go, and how often each router
// is started anew.
func notifiedScale() (devices, restarts int) {
	switch runs() {
	case some:
		return 200, 5
	case full:
		return 1000, 20
	}
	return 50, 2
}

// comers is how many devices come and go at a time.
const comers = 16

// notified is what applications hear of devices.
type notified struct {
	mu     sync.Mutex
	ids    map[any]bool
	told   map[string][]change // by device, as they come
	again  int                 // notifications with the id of another
	faults []string
}

// change is one of a device, at the time that it bears.
type change struct {
	at   amqp.Timestamp
	here bool // ttd is -1, not 0
}

func (n *notified) fault(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.faults) < 20 {
		n.faults = append(n.faults, fmt.Sprintf(format, args...))
	}
}

// consume takes the events of one router until stop is closed, and connects again
// when its connection is lost.
func (n *notified) consume(addr string, stop chan struct{}) {
	for ; !isClosed(stop); time.Sleep(20 * time.Millisecond) {
		c, err := wire.Dial(wire.Options{Addr: addr, User: user, Password: secret})
		if err != nil {
			continue
		}
		over := make(chan struct{})
		go func() {
			select {
			case <-stop:
			case <-over:
			}
			c.Conn.Close()
		}()
		n.take(c)
		close(over)
	}
}

func (n *notified) take(c *wire.Client) {
	const credit = 500
	if c.Write(wire.Receiver(0, "r", "event/"+eventTenant), nil) != nil || c.Write(wire.Credit(0, 0, credit), nil) != nil {
		return
	}
	for count := uint32(0); ; {
		tr, body, err := wire.Await[*amqp.Transfer](c)
		if err != nil {
			return
		}
		m, err := amqp.DecodeMessage(body)
		if err != nil {
			n.fault("a message that is none: %v", err)
			return
		}
		n.note(m)
		if count++; count%(credit/2) == 0 {
			_ = c.Write(wire.Credit(0, count, credit), nil)
		}
		_ = c.Write(&amqp.Disposition{Role: amqp.RoleReceiver, First: tr.DeliveryID, Last: tr.DeliveryID, Settled: true, State: amqp.StateAccepted}, nil)
	}
}

// note counts a notification once, by its id: what a router that dies had handed out comes again.
func (n *notified) note(m *amqp.Message) {
	device, _ := m.ApplicationProperties.Get("device_id").(string)
	ttd, given := m.ApplicationProperties.Get("ttd").(int32)
	if m.Properties == nil || m.Properties.MessageID == nil || m.Properties.CreationTime == 0 || device == "" || ttd != -1 && ttd != 0 || !given ||
		m.Properties.ContentType != "application/vnd.eclipse-hono-empty-notification" {
		n.fault("an event that is none of these notifications: %+v %v", m.Properties, m.ApplicationProperties)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ids[m.Properties.MessageID] {
		n.again++
		return
	}
	n.ids[m.Properties.MessageID] = true
	n.told[device] = append(n.told[device], change{m.Properties.CreationTime, ttd == -1})
}

// gone reports whether a device was said to go as often as that.
func (n *notified) gone(device string, times int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.told[device] {
		if !c.here {
			times--
		}
	}
	return times <= 0
}

// visitors are devices that come for commands and go again.
type visitors struct {
	site   *commandSite
	first  int // the number of the first of them
	all    sync.WaitGroup
	next   atomic.Int64
	visits []atomic.Int64
	cut    []atomic.Bool // the latest ended without an answer
	there  []sync.Mutex  // held while a device is
	stop   chan struct{}
	heard  *notified
}

func startVisitors(s *commandSite, first, devices int, heard *notified) *visitors {
	v := &visitors{site: s, first: first, visits: make([]atomic.Int64, devices), cut: make([]atomic.Bool, devices), there: make([]sync.Mutex, devices), stop: make(chan struct{}), heard: heard}
	for range min(comers, devices) {
		v.all.Go(func() {
			for !isClosed(v.stop) {
				v.visit(int(v.next.Add(1)-1) % devices)
			}
		})
	}
	return v
}

// visit has one device subscribe and go, in one of three ways.
func (v *visitors) visit(i int) {
	if !v.there[i].TryLock() {
		return
	}
	defer v.there[i].Unlock()
	// Whoever is back before the adapter has seen that its connection was cut has never gone.
	if v.cut[i].Load() && !v.heard.gone(eventDevice(v.first+i), int(v.visits[i].Load())) {
		time.Sleep(time.Millisecond)
		return
	}
	v.cut[i].Store(false)
	c, err := dialMQTT(v.site.login(v.first + i))
	if errors.Is(err, unavailable) {
		time.Sleep(50 * time.Millisecond)
		return
	}
	if err != nil {
		v.heard.fault("device %d: %v", v.first+i, err)
		return
	}
	defer abort(c)
	_ = c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	began := time.Now()
	if _, err := subscribed(c, r, 0); err != nil {
		v.heard.fault("device %d: %v, %s after its SUBSCRIBE", v.first+i, err, time.Since(began))
		return
	}
	v.visits[i].Add(1)
	switch rand.IntN(3) {
	case 0:
		if _, err = c.Write(mqttPacket(nil, mqttUnsubscribe, mqttString([]byte{0, 2}, commandFilter))); err == nil {
			var head byte
			if head, _, err = readMQTT(r); err == nil && head != mqttUnsuback {
				err = fmt.Errorf("%#02x in answer to UNSUBSCRIBE", head)
			}
		}
		if err != nil {
			v.heard.fault("device %d: %v", v.first+i, err)
		}
	case 1:
		v.cut[i].Store(true) // the connection is cut as soon as it is written
		_, _ = c.Write([]byte{mqttDisconnect, 0})
	default:
		v.cut[i].Store(true)
	}
}

// stay has devices subscribe and remain connected.
func stay(t *testing.T, s *commandSite, devices int, heard *notified) {
	t.Helper()
	conns := make([]net.Conn, devices)
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				abort(c)
			}
		}
	})
	var next atomic.Int64
	var all sync.WaitGroup
	for range comers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < devices; i = int(next.Add(1)) - 1 {
				c, err := dialMQTT(s.login(i))
				for ; errors.Is(err, unavailable); c, err = dialMQTT(s.login(i)) {
					time.Sleep(50 * time.Millisecond)
				}
				if err == nil {
					conns[i] = c
					_, err = subscribed(c, bufio.NewReader(c), 0)
				}
				if err != nil {
					heard.fault("device %d, which stays: %v", i, err)
				}
			}
		})
	}
	all.Wait()
}

// TestCommandsNotified has devices that stay subscribed for commands and others that come
// and go while two routers are started anew again and again, now and then both at once.
// Applications hear once of each subscription, once of its end, and of nothing else.
func TestCommandsNotified(t *testing.T) {
	t.Parallel()
	devices, restarts := notifiedScale()
	s := newCommandSite(t, 2)
	comeAndGo := 5 * devices // each waits until it is said to have gone
	s.register(t, devices+comeAndGo)
	heard := &notified{ids: map[any]bool{}, told: map[string][]change{}}
	stop := make(chan struct{})
	var consuming sync.WaitGroup
	for _, r := range s.routers {
		consuming.Go(func() { heard.consume(r.northbound, stop) })
	}
	stay(t, s, devices, heard)
	v := startVisitors(s, devices, comeAndGo, heard)
	for n := range 2 * restarts {
		victims := s.routers[n%2 : n%2+1]
		if n%5 == 4 {
			victims = s.routers
		}
		for _, r := range victims {
			if n%4 < 2 {
				r.kill()
			} else {
				r.part.stop(t)
			}
		}
		for _, r := range victims {
			r.start(t, s.events)
		}
		for _, r := range victims {
			r.part.eventually(t, "told of all devices that stay", func() error {
				if got := int(figure(t, r.health, "sluice_router_device_directory_entries")); got < devices {
					return fmt.Errorf("it knows of %d devices; want %d", got, devices)
				}
				return nil
			})
		}
		time.Sleep(rand.N(300 * time.Millisecond))
	}
	close(v.stop)
	v.all.Wait()
	visits := v.await(t)
	close(stop)
	consuming.Wait()
	heard.judge(t, s, v, devices)
	t.Logf("two routers, %d restarts each: %d devices stayed, %d came and went %d times; notifications: %d, %d of them came once more",
		restarts, devices, comeAndGo, visits, len(heard.ids), heard.again)
}

// await waits until as many notifications are there as there should be, and a little longer
// for those that should not.
func (v *visitors) await(t *testing.T) (visits int) {
	t.Helper()
	for i := range v.visits {
		visits += int(v.visits[i].Load())
	}
	want, last, since := v.first+2*visits, -1, time.Now()
	for time.Since(since) < patience/2 {
		v.heard.mu.Lock()
		got := len(v.heard.ids)
		v.heard.mu.Unlock()
		if got != last {
			last, since = got, time.Now()
		}
		if got >= want && time.Since(since) > 2*time.Second {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return visits
}

// history counts what was told of a device. In the order of their times it comes and goes by
// turns, and at the end it is there or not.
func history(told []change, stays bool) (came, gone int, err error) {
	slices.SortStableFunc(told, func(a, b change) int {
		if a.at == b.at && a.here != b.here { // it goes, and comes back in the same millisecond
			return map[bool]int{true: 1, false: -1}[a.here]
		}
		return cmp.Compare(a.at, b.at)
	})
	here := false
	for _, c := range told {
		if c.here == here {
			err = fmt.Errorf("told twice that it is there: %v", here)
		}
		if here = c.here; here {
			came++
		} else {
			gone++
		}
	}
	if here != stays {
		err = fmt.Errorf("at the end it is there: %v", here)
	}
	return came, gone, err
}

// judge compares what was heard with what was done.
func (n *notified) judge(t *testing.T, s *commandSite, v *visitors, stayed int) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	bad := 0
	for i := range stayed + len(v.visits) {
		want := [2]int{1, 0}
		if i >= stayed {
			visits := int(v.visits[i-stayed].Load())
			want = [2]int{visits, visits}
		}
		came, gone, err := history(n.told[eventDevice(i)], i < stayed)
		if got := [2]int{came, gone}; got != want || err != nil {
			if bad++; bad <= 10 {
				t.Errorf("device %d: %d times -1 and %d times 0; want %d and %d; %v", i, got[0], got[1], want[0], want[1], err)
			}
		}
	}
	if bad > 10 {
		t.Errorf("%d devices in all with too many notifications or too few", bad)
	}
	if bad > 0 {
		t.Log(figures(t, s.mqttHealth, "sluice_adapter_presence", "sluice_adapter_notif", "sluice_adapter_subscr"))
	}
	for _, fault := range n.faults {
		t.Error(fault)
	}
}
