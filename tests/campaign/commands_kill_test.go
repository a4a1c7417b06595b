package campaign_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
)

const (
	commandDevices = 8
	commandWindow  = 64 // commands that the application has under way
)

// sentCommand is what is known of one command. The application sends each once.
type sentCommand struct {
	outcome  string // "" = none yet
	received int    // by the device
	cut      bool   // the device was cut off soon after it had received it
	answers  int    // responses at the application
	took     time.Duration
	during   string // what was killed last then
}

// commandRun is devices that take commands, and an application that sends them.
type commandRun struct {
	site  *commandSite
	stop  chan struct{} // closed when the application ends
	leave chan struct{} // closed when devices do
	apps  sync.WaitGroup
	all   sync.WaitGroup

	accepted atomic.Int64

	mu       sync.Mutex
	commands map[string]*sentCommand
	app      *commander // of now
	conns    [commandDevices]net.Conn
	cutOff   [commandDevices]bool // the connection of now was cut, by the test and not by its adapter's death
	lives    int                  // of the application
	victim   string               // what is killed, or was last
	faults   []string
}

func startCommandRun(t *testing.T, s *commandSite) *commandRun {
	t.Helper()
	f := &commandRun{site: s, stop: make(chan struct{}), leave: make(chan struct{}), commands: map[string]*sentCommand{}}
	for i := range commandDevices {
		f.all.Go(func() { f.live(i) })
	}
	f.apps.Go(f.apply)
	t.Cleanup(f.end)
	return f
}

// end lets the application end what is under way, and then the devices.
func (f *commandRun) end() {
	if !isClosed(f.stop) {
		close(f.stop)
	}
	f.apps.Wait()
	if !isClosed(f.leave) {
		close(f.leave)
	}
	for i := range commandDevices {
		f.cut(i)
	}
	f.all.Wait()
}

func (f *commandRun) fault(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.faults) < 20 {
		f.faults = append(f.faults, fmt.Sprintf(format, args...))
	}
}

func (f *commandRun) rest(until chan struct{}) {
	select {
	case <-until:
	case <-time.After(20*time.Millisecond + rand.N(20*time.Millisecond)):
	}
}

// live is a device, which connects and subscribes again when its connection is lost.
func (f *commandRun) live(i int) {
	for ; !isClosed(f.leave); f.rest(f.leave) {
		c, err := dialMQTT(f.site.login(i))
		var refused mqttRefused
		if errors.As(err, &refused) && refused != unavailable {
			f.fault("device %d: %v", i, err)
		}
		if err != nil {
			continue
		}
		f.mu.Lock()
		f.conns[i], f.cutOff[i] = c, false
		f.mu.Unlock()
		if !isClosed(f.leave) { // else nobody cuts this one
			f.obey(i, c)
		}
		c.Close()
	}
}

// obey takes commands over one connection until it ends, and answers them.
func (f *commandRun) obey(i int, c net.Conn) {
	var here []string
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.cutOff[i] {
			return
		}
		// The last acknowledgements may not have got through.
		for _, id := range here[max(0, len(here)-2*commandWindow):] {
			f.commands[id].cut = true
		}
	}()
	r := bufio.NewReader(c)
	early, err := subscribed(c, r, 1)
	for err == nil {
		for _, m := range early {
			if f.got(i, &m) {
				here = append(here, m.payload)
			}
			out := puback(m.id)
			if m.request != "" {
				out = append(out, mqttAnswer(m, m.payload)...)
			}
			if _, err := c.Write(out); err != nil {
				return
			}
		}
		var head byte
		var body []byte
		if head, body, err = readMQTT(r); err != nil {
			return
		}
		if early = early[:0]; head&0xf0 == mqttPublishHead {
			var m mqttCommand
			m, err = commandOf(head, body)
			early = append(early, m)
		}
	}
	var lost net.Error
	if !errors.As(err, &lost) && !isClosed(f.leave) && err.Error() != "EOF" && err.Error() != "unexpected EOF" {
		f.fault("device %d: %v", i, err)
	}
}

// got notes that a device received a command.
func (f *commandRun) got(device int, m *mqttCommand) bool {
	f.mu.Lock()
	x := f.commands[m.payload]
	if x != nil {
		x.received++
	}
	f.mu.Unlock()
	if x == nil {
		f.fault("device %d got command %q, which nobody sent", device, m.payload)
		return false
	}
	if m.id == 0 || m.dup {
		f.fault("device %d got %+v; want it with quality of service 1 and for the first time", device, m)
	}
	return true
}

// cut ends the connection of a device as a loss of the network would.
func (f *commandRun) cut(i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cutOff[i] = true; f.conns[i] != nil {
		abort(f.conns[i])
	}
}

// apply is the application, which connects again when its connection is lost.
func (f *commandRun) apply() {
	for ; !isClosed(f.stop); f.rest(f.stop) {
		f.mu.Lock()
		f.lives++
		life := f.lives
		f.mu.Unlock()
		a, err := newCommander(f.site.routers[0].northbound, eventTenant, fmt.Sprint("reply-", life), f.answered)
		if err != nil {
			continue
		}
		f.mu.Lock()
		f.app = a
		f.mu.Unlock()
		f.order(a, life)
		if left := a.wait(0); left > 0 {
			f.fault("%d commands have no outcome after %s, while the application is there", left, patience)
		}
		f.rest(f.stop) // for responses that are under way
		a.close()
	}
}

// order sends commands over one connection until it ends, every other one without a response.
func (f *commandRun) order(a *commander, life int) {
	for n := 0; !isClosed(f.stop); n++ {
		device := rand.IntN(commandDevices)
		id := fmt.Sprintf("%d-%d-%d", life, n, device)
		x, began := &sentCommand{}, time.Now()
		f.mu.Lock()
		f.commands[id] = x
		f.mu.Unlock()
		err := a.send(outgoingCommand{device: eventDevice(device), name: "order", id: id, payload: id, oneWay: n%2 == 1}, func(outcome string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			x.outcome, x.took, x.during = outcome, time.Since(began), f.victim
			if outcome == "accepted" {
				f.accepted.Add(1)
			}
		})
		if err != nil {
			f.mu.Lock()
			delete(f.commands, id)
			f.mu.Unlock()
			return
		}
		if left := a.wait(commandWindow); left > commandWindow {
			f.fault("%d commands have no outcome after %s, while the application is there", left, patience)
			return
		}
	}
}

// answered takes a response.
func (f *commandRun) answered(m *amqp.Message) {
	if m == nil || m.Properties == nil || len(m.Data) != 1 {
		f.fault("a response that is none")
		return
	}
	id := string(m.Data[0])
	if m.Properties.CorrelationID != id {
		f.fault("the response to %q has correlation-id %v", id, m.Properties.CorrelationID)
	}
	f.mu.Lock()
	x := f.commands[id]
	if x != nil {
		x.answers++
	}
	f.mu.Unlock()
	if x == nil {
		f.fault("a response to %q, which nobody sent", id)
	}
}

// flowing waits until a random number of commands more were accepted.
func (f *commandRun) flowing(t *testing.T, n int) {
	t.Helper()
	goal := f.accepted.Load() + 1 + randomly(n)
	for last, since := f.accepted.Load(), time.Now(); last < goal; time.Sleep(time.Millisecond) {
		if now := f.accepted.Load(); now > last {
			last, since = now, time.Now()
		} else if time.Since(since) > patience {
			f.mu.Lock()
			defer f.mu.Unlock()
			t.Fatalf("no command was accepted for %s, %d before; %s; %q", patience, last, f.app, f.faults)
		}
	}
}

// TestCommandsKilled kills and stops adapter and router, and kills application and connections of
// devices, by turns with commands in flight: each ends with an outcome at the application as long as that lives, none
// is delivered twice, and none that is released was at the device, unless the device was cut off
// before it had acknowledged it.
func TestCommandsKilled(t *testing.T) {
	t.Parallel()
	s := newCommandSite(t, 1)
	s.register(t, commandDevices)
	f := startCommandRun(t, s)
	victims := []struct {
		name string
		kill func()
	}{
		{"adapter", func() { s.mqttAdapter.kill(); s.startMQTT(t) }},
		{"router", func() { s.routers[0].kill(); s.routers[0].start(t, s.events) }},
		{"adapter, in order", func() { s.mqttAdapter.stop(t); s.startMQTT(t) }},
		{"router, in order", func() { s.routers[0].part.stop(t); s.routers[0].start(t, s.events) }},
		{"application", func() {
			f.mu.Lock()
			a := f.app
			f.mu.Unlock()
			a.c.Cut()
		}},
		{"connection of a device", func() { f.cut(rand.IntN(commandDevices)) }},
	}
	rounds, longest := eventRounds(), map[string]time.Duration{}
	for range rounds {
		for _, v := range victims {
			f.flowing(t, 500)
			began := time.Now()
			f.mu.Lock()
			f.victim = v.name
			f.mu.Unlock()
			v.kill()
			if took := time.Since(began); took > longest[v.name] {
				longest[v.name] = took
			}
		}
	}
	f.flowing(t, 500)
	f.end()
	f.judge(t, rounds)
	t.Logf("it took so long at most until each was back: %v", longest)
}

// judge looks at what became of each command.
func (f *commandRun) judge(t *testing.T, rounds int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	outcomes, got, answers, bad, longest := map[string]int{}, map[string]int{}, 0, 0, time.Duration(0)
	for id, x := range f.commands {
		outcomes[x.outcome]++
		answers += x.answers
		longest = max(longest, x.took)
		if x.received > 0 {
			got[x.outcome]++
		}
		var why string
		switch {
		case x.outcome == "":
			why = "has no outcome"
		case x.received > 1:
			why = fmt.Sprintf("came to its device %d times", x.received)
		case x.answers > x.received:
			why = fmt.Sprintf("has %d responses", x.answers)
		case x.outcome == "accepted" && x.received == 0:
			why = "was accepted, and its device did not get it"
		case x.outcome == "released" && x.received > 0 && !x.cut:
			why = "was released, and its device had got it"
		case x.outcome == "rejected":
			why = "was rejected"
		default:
			continue
		}
		if bad++; bad <= 10 {
			t.Errorf("command %s (%s after %s, last killed: %s) %s", id, x.outcome, x.took, x.during, why)
		}
	}
	t.Logf("%d rounds of adapter and router killed and stopped, application and connection of a device cut: %d commands, their outcomes %v, of these received by devices %v; %d responses; the last outcome came after %s",
		rounds, len(f.commands), outcomes, got, answers, longest)
	for _, fault := range f.faults {
		t.Error(fault)
	}
}
