package stored_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/eventstore"
)

var (
	modelSeed   = flag.Uint64("model.seed", 0, "of TestModel; 0 = a few fixed ones")
	modelRounds = flag.Int("model.rounds", 6, "of TestModel")
)

// TestModel has random producers and consumers use two routers on one log, which fails at
// random, and holds what consumers saw against what may be: every accepted event is delivered and
// settled, or a dead letter; first deliveries of a device come in order; an event that was
// accepted comes again only where the store may have missed it.
func TestModel(t *testing.T) {
	for round := range *modelRounds {
		seed := uint64(round + 1)
		if *modelSeed != 0 {
			seed = *modelSeed + uint64(round)
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { bubble(t, func(t *testing.T) { newModel(t, seed).run() }) })
	}
}

// seen is what is known of an event.
type seen struct {
	first     bool // it was delivered
	taken     bool // a consumer accepted it
	rejected  bool
	deliverys int
	history   []string
}

type model struct {
	t     *testing.T
	dice  sync.Mutex
	rnd   *rand.Rand
	log   *eventstore.Log
	seed  uint64
	all   *routers
	sites [2]*site

	mu      sync.Mutex
	events  map[string]*seen
	doubles int
	twice   []string
	faulty  atomic.Bool // the store fails now and then
	lossy   atomic.Bool // an answer was lost, or a claim, or a connection
	clean   bool        // nothing ever fails
	next    map[string]int
	live    []*consumer
	at      map[*consumer]*site
	prods   [2]*producer
	gone    []*producer // of routers that crashed
	crashes int
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), events: map[string]*seen{}, next: map[string]int{}}
	m.clean = seed%3 == 0
	_, m.log = newLog()
	m.seed, m.all, m.at = seed, &routers{t: t, log: m.log}, map[*consumer]*site{}
	for i := range m.sites {
		m.start(i)
	}
	return m
}

func (m *model) roll(n int) int {
	m.dice.Lock()
	defer m.dice.Unlock()
	return m.rnd.IntN(n)
}

// start starts a router with its producer.
func (m *model) start(i int) {
	s := m.all.start(string(rune('a' + i)))
	m.sites[i], m.prods[i] = s, s.producer("event/T")
	faults := rand.New(rand.NewPCG(m.seed, uint64(i+2)))
	var mu sync.Mutex
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return faults.IntN(n)
	}
	s.log.script(func(ctx context.Context, call string) error {
		time.Sleep(time.Duration(roll(20)) * time.Millisecond)
		if m.faulty.Load() && roll(4) == 0 {
			return errDown
		}
		return ctx.Err()
	}, func(call string) error {
		time.Sleep(time.Duration(roll(20)) * time.Millisecond)
		if m.faulty.Load() && roll(6) == 0 || s.over.Load() {
			return errDown
		}
		return nil
	})
}

// crash kills a router, and starts another in its place after a while.
func (m *model) crash(i int) {
	m.lossy.Store(true)
	m.crashes++
	m.live = slices.DeleteFunc(m.live, func(c *consumer) bool { return m.at[c] == m.sites[i] })
	m.gone = append(m.gone, m.prods[i])
	m.sites[i].kill()
	time.Sleep(time.Duration(m.roll(20)) * time.Second)
	m.start(i)
}

// first is whether a header says that it is the first delivery.
func first(g got) bool { return g.header.FirstAcquirer && g.header.DeliveryCount == 0 }

// delivered notes a delivery to a consumer that knows the latest event of each device that was
// delivered to it first. (Consumers that compete hear in an order of their own.)
func (m *model) delivered(last map[string]int, g got) *seen {
	e := m.events[g.name]
	if e == nil {
		m.t.Errorf("%s was never sent", g.name)
		return &seen{}
	}
	e.deliverys++
	e.history = append(e.history, fmt.Sprintf("%s attempt %d", g.at.Format("15:04:05.000"), g.header.DeliveryCount))
	if e.taken {
		m.doubles++
		m.twice = append(m.twice, g.name)
	}
	if first(g) {
		device, _, _ := strings.Cut(g.name, "/")
		var n int
		fmt.Sscanf(g.name[len(device):], "/%d", &n)
		if !e.first && n < last[device] {
			m.t.Errorf("%s comes first after %s/%d", g.name, device, last[device])
		}
		last[device] = max(last[device], n)
	}
	e.first = true
	return e
}

// decide is a consumer's word on a delivery.
func (m *model) decide(kindly bool) func(got) amqp.Raw {
	last := map[string]int{}
	return func(g got) amqp.Raw {
		m.mu.Lock()
		defer m.mu.Unlock()
		e := m.delivered(last, g)
		x := m.roll(100)
		if kindly {
			x = 0
		}
		switch {
		case x < 70:
			e.taken = true
			e.history = append(e.history, "accepted")
			return amqp.StateAccepted
		case x < 80:
			return amqp.StateReleased
		case x < 88:
			return (&amqp.Modified{DeliveryFailed: x%2 == 0, UndeliverableHere: x%3 == 0}).Append(nil)
		case x < 90:
			e.rejected = true
			return amqp.AppendRejected(nil, &amqp.Error{Condition: "a:b"})
		}
		return nil // it is left open
	}
}

// leave ends a consumer; where nothing may fail, what it said is heard.
func (m *model) leave(c *consumer) {
	if !m.clean {
		c.kill()
		return
	}
	c.do(func() { c.deaf = true })
	c.conn.Close(nil)
	<-c.closed
}

func (m *model) step() {
	switch x := m.roll(100); {
	case x < 60:
		i := m.roll(2)
		device := fmt.Sprintf("%c%d", 'a'+i, m.roll(12)) // of one router each, whose order counts
		m.mu.Lock()
		var names []string
		for range m.roll(20) + 1 {
			m.next[device]++
			name := fmt.Sprintf("%s/%d", device, m.next[device])
			m.events[name] = &seen{}
			names = append(names, name)
		}
		m.mu.Unlock()
		m.prods[i].send(names...)
	case x < 68 && len(m.live) < 5:
		s := m.sites[m.roll(2)]
		c := s.receive("event/T", uint32(m.roll(60)+1), uint32(m.roll(2)*50), m.decide(false))
		m.live, m.at[c] = append(m.live, c), s
	case x < 73 && len(m.live) > 0:
		i := m.roll(len(m.live))
		m.lossy.Store(true)
		m.leave(m.live[i])
		m.live = slices.Delete(m.live, i, i+1)
	case x < 80 && len(m.live) > 0:
		m.live[m.roll(len(m.live))].credit(uint32(m.roll(60)))
	case x < 83 && len(m.live) > 0:
		c := m.live[m.roll(len(m.live))]
		c.do(func() {
			c.link.SetCredit(uint32(m.roll(30)))
			c.link.SetDrain()
		})
	case x < 88 && !m.clean:
		m.faulty.Store(!m.faulty.Load())
		if m.faulty.Load() {
			m.lossy.Store(true)
		}
	case x < 89 && !m.clean && m.roll(3) == 0:
		m.crash(m.roll(2))
	default:
		time.Sleep(time.Duration(m.roll(3000)) * time.Millisecond)
	}
}

func (m *model) run() {
	for range 400 {
		m.step()
		time.Sleep(time.Duration(m.roll(30)) * time.Millisecond)
	}
	m.faulty.Store(false)
	for _, c := range m.live {
		m.leave(c)
	}
	time.Sleep(30 * time.Second)
	for _, s := range m.sites {
		s.consumer("event/T", 100, m.decide(true))
	}
	time.Sleep(10 * time.Minute)
	dead := map[string]bool{}
	for _, e := range deadLetters(m.t, m.log) {
		dead[parse(e.Record.Message).name] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	accepted, deliveries := 0, 0
	for _, e := range m.events {
		deliveries += e.deliverys
	}
	for i, p := range m.prods {
		if n := p.waiting(); n != 0 {
			m.t.Errorf("%d outcomes of producer %d are missing", n, i)
		}
	}
	for _, p := range append(m.gone, m.prods[:]...) {
		for name, outcome := range p.outcomes {
			if outcome != "accepted" {
				continue
			}
			e := m.events[name]
			accepted++
			if !e.taken && !dead[name] {
				m.t.Errorf("%s was accepted, and is neither taken nor dead: %+v", name, *e)
			}
		}
	}
	for name := range dead {
		if e := m.events[name]; e.taken && !m.lossy.Load() {
			m.t.Errorf("%s was taken, and is dead: %+v", name, *e)
		}
	}
	if st, err := m.log.Stats(m.t.Context(), "T"); err != nil || st.Waiting != 0 {
		m.t.Errorf("%+v, %v", st, err)
	}
	if m.clean && m.doubles > 0 {
		for i, s := range m.sites {
			if f := s.server.Figures(); f.LostClaims > 0 {
				m.t.Logf("router %d lost %d claims", i, f.LostClaims)
			}
		}
		m.t.Errorf("%d events came again after they were accepted, though the store never failed", m.doubles)
		for _, name := range m.twice {
			m.t.Logf("%s: %s", name, strings.Join(m.events[name].history, ", "))
		}
	}
	m.t.Logf("%d events accepted, %d deliveries, %d again after they were accepted, %d dead, %d crashes", accepted, deliveries, m.doubles, len(dead), m.crashes)
}
