package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

var random = []test{
	{"OneHolder", func(t *testing.T, s eventstore.Store) { play(t, s, 1, 1, 250) }},
	{"TwoHolders", func(t *testing.T, s eventstore.Store) { play(t, s, 2, 2, 250) }},
	{"ThreeHolders", func(t *testing.T, s eventstore.Store) { play(t, s, 3, 3, 250) }},
}

// What becomes of an event, as far as a test can know.
type fate struct {
	device    iot.DeviceID
	number    int
	expires   int64
	accepted  bool // settled so, under a fence that held
	requeued  bool // comes out of its order
	delivered bool
}

// model is what must hold whatever is done in whatever order: an event that was taken is
// delivered, waits, is a dead letter or has expired; none comes after its
// time or after it was accepted; first deliveries of a device are in order.
type model struct {
	*rig
	rnd    *rand.Rand
	fates  map[string]*fate
	last   map[iot.DeviceID]int // highest number that was delivered for the first time
	actors []*actor
	born   int
}

// actor is a holder.
type actor struct {
	name  string
	hands map[eventstore.PartitionID]*grip
}

// grip is what a holder has of one partition.
type grip struct {
	*hand
	queue  []eventstore.Record // read, not delivered
	flight []eventstore.Record // delivered, not settled
}

const modelTenant = "T"

func play(t *testing.T, s eventstore.Store, seed uint64, holders, steps int) {
	m := &model{rig: start(t, s, eventstore.Options{MaxTTL: 6 * time.Hour, MaxAttempts: 6}), rnd: rand.New(rand.NewPCG(seed, 42)),
		fates: map[string]*fate{}, last: map[iot.DeviceID]int{}}
	for range holders {
		m.actors = append(m.actors, nil)
	}
	for range steps {
		m.step()
		if t.Failed() {
			return
		}
	}
	m.drain()
}

func (m *model) step() {
	i := m.rnd.IntN(len(m.actors))
	if m.actors[i] == nil { // a new process
		m.born++
		m.actors[i] = &actor{name: fmt.Sprint("h", m.born), hands: map[eventstore.PartitionID]*grip{}}
	}
	a := m.actors[i]
	g := a.pick(m.rnd)
	switch n := m.rnd.IntN(100); {
	case n < 18:
		m.bring(a)
	case n < 30 || g == nil:
		m.ask(a)
	case n < 52:
		m.fetch(a, g)
	case n < 67:
		m.deliver(g)
	case n < 84:
		m.settleSome(a, g)
	case n < 86:
		m.giveUp(a, g)
	case n < 87:
		m.actors[i] = nil // killed
	case n < 95:
		m.now = m.now.Add(time.Duration(1<<m.rnd.IntN(15)) * time.Millisecond)
	case n < 96:
		m.now = m.now.Add(time.Duration(m.rnd.IntN(90)) * time.Minute)
	case n < 98:
		if _, _, err := m.Expire(m.t.Context(), 1+m.rnd.IntN(20)); err != nil {
			m.t.Error(err)
		}
	default:
		m.requeue()
	}
}

func (a *actor) pick(rnd *rand.Rand) *grip {
	ids := make([]eventstore.PartitionID, 0, len(a.hands))
	for id := range a.hands {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil
	}
	slices.SortFunc(ids, eventstore.PartitionID.Compare)
	return a.hands[ids[rnd.IntN(len(ids))]]
}

// bring appends; now and then the answer is lost, and the same comes again, perhaps with more.
func (m *model) bring(a *actor) {
	var records []eventstore.Record
	more := func() {
		for range 1 + m.rnd.IntN(12) {
			ttl := []time.Duration{0, time.Second, 20 * time.Second, time.Hour, 9 * time.Hour}[m.rnd.IntN(5)]
			rec := m.event(modelTenant, iot.DeviceID(fmt.Sprint("d", m.rnd.IntN(5))), ttl)
			longest := m.in(6 * time.Hour)
			if rec.Expires == 0 || rec.Expires > longest {
				rec.Expires = longest
			}
			m.fates[string(rec.Message)] = &fate{device: rec.Device, number: m.seq[rec.Device], expires: rec.Expires}
			records = append(records, rec)
		}
	}
	more()
	if m.rnd.IntN(4) == 0 {
		m.append(a.name, records...)
		if m.rnd.IntN(2) == 0 {
			more()
		}
	}
	for i, got := range m.append(a.name, records...) {
		g := a.hands[got.Partition]
		if !got.Live || g == nil || got.Position != g.next {
			continue // it has to be read
		}
		rec := records[i]
		rec.Position = got.Position
		g.next++
		g.queue = append(g.queue, rec)
	}
}

func (m *model) ask(a *actor) {
	out := m.claimAll(modelTenant, a.name)
	had := a.hands
	a.hands = map[eventstore.PartitionID]*grip{}
	for _, c := range out.Claims {
		g := had[c.Partition]
		if g == nil || g.fence != c.Fence {
			if !c.New && g != nil {
				m.t.Errorf("%s holds %v under a new fence that it was not told of", a.name, c.Partition)
			}
			g = &grip{hand: &hand{r: m.rig, tenant: modelTenant, id: c.Partition, fence: c.Fence, next: c.Next}}
		}
		a.hands[c.Partition] = g
		if c.Wanted && m.rnd.IntN(3) > 0 {
			m.giveUp(a, g)
		}
	}
}

// fetch reads; now and then the answer is lost.
func (m *model) fetch(a *actor, g *grip) {
	out, err := g.tryRead(1+m.rnd.IntN(20), 1+m.rnd.IntN(1000))
	if err != nil {
		delete(a.hands, g.id) // another took it
		return
	}
	for _, rec := range out.Records {
		f := m.fates[string(rec.Message)]
		switch {
		case f == nil:
			m.t.Errorf("%s was never appended", rec.Message)
		case f.accepted:
			m.t.Errorf("%s comes though it was accepted", rec.Message)
		case f.expires <= m.now.UnixMilli():
			m.t.Errorf("%s comes %d ms after its time", rec.Message, m.now.UnixMilli()-f.expires)
		}
	}
	if m.rnd.IntN(10) == 0 {
		return
	}
	g.next = out.Next
	for _, rec := range out.Records {
		had := func(x eventstore.Record) bool { return x.Position == rec.Position }
		if !slices.ContainsFunc(g.queue, had) && !slices.ContainsFunc(g.flight, had) { // its lease was over
			g.queue = append(g.queue, rec)
		}
	}
}

func (m *model) deliver(g *grip) {
	for n := m.rnd.IntN(len(g.queue) + 1); n > 0; n-- {
		rec := g.queue[0]
		g.queue = g.queue[1:]
		f := m.fates[string(rec.Message)]
		if rec.Attempt == 0 && !f.requeued {
			if f.number <= m.last[f.device] {
				m.t.Errorf("%s is delivered for the first time after %d", rec.Message, m.last[f.device])
			}
			m.last[f.device] = f.number
		}
		f.delivered = true
		g.flight = append(g.flight, rec)
	}
}

func (m *model) settleSome(a *actor, g *grip) {
	var words []eventstore.Settlement
	var keep, gone []eventstore.Record
	for _, rec := range g.flight {
		if m.rnd.IntN(3) == 0 {
			keep = append(keep, rec)
			continue
		}
		x := eventstore.Settlement{From: rec.Position, To: rec.Position, Attempt: rec.Attempt, Outcome: eventstore.Accepted}
		switch m.rnd.IntN(10) {
		case 0:
			x.Outcome = eventstore.Rejected
		case 1, 2:
			x.Outcome, x.AtOnce = eventstore.Released, m.rnd.IntN(2) == 0
		case 3:
			x.Outcome, x.DeliveryFailed = eventstore.Modified, true
		}
		words, gone = append(words, x), append(gone, rec)
	}
	if _, err := g.trySettle(words...); err != nil {
		delete(a.hands, g.id)
		return
	}
	g.flight = keep
	for i, rec := range gone {
		if words[i].Outcome == eventstore.Accepted {
			m.fates[string(rec.Message)].accepted = true
		}
	}
	if m.rnd.IntN(4) == 0 { // the answer was lost
		_, _ = g.trySettle(words...)
	}
}

// giveUp releases, with what was not delivered where that is known.
func (m *model) giveUp(a *actor, g *grip) {
	undelivered := uint64(0)
	if m.rnd.IntN(2) == 0 {
		undelivered = g.next
		for _, rec := range g.queue {
			if rec.Attempt == 0 {
				undelivered = min(undelivered, rec.Position)
			}
		}
	} else { // all that was read counts as delivered
		for _, rec := range g.queue {
			if f := m.fates[string(rec.Message)]; rec.Attempt == 0 && !f.requeued {
				m.last[f.device] = max(m.last[f.device], f.number)
			}
		}
	}
	g.release(undelivered)
	delete(a.hands, g.id)
}

func (m *model) dead() map[string]uint64 {
	out := map[string]uint64{}
	for _, id := range eventstore.FirstGeneration() {
		from := uint64(0)
		for {
			list, next, err := m.Browse(m.t.Context(), eventstore.BrowseRequest{Tenant: modelTenant, Partition: id, Dead: true, From: from})
			if err != nil {
				m.t.Fatal(err)
			}
			for _, b := range list {
				out[string(b.Record.Message)]++
				if b.Reason == "" || b.Attempts == 0 {
					m.t.Errorf("dead letter %s: reason %q, attempts %d", b.Record.Message, b.Reason, b.Attempts)
				}
			}
			if from = next; next == 0 {
				break
			}
		}
	}
	return out
}

func (m *model) requeue() {
	for text := range m.dead() {
		m.fates[text].requeued = true
	}
	for _, id := range eventstore.FirstGeneration() {
		for more := true; more; {
			var err error
			if _, more, err = m.Requeue(m.t.Context(), eventstore.RequeueRequest{Tenant: modelTenant, Partition: id}); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

// drain kills all holders and lets one take everything.
func (m *model) drain() {
	m.now = m.now.Add(11 * time.Second)
	a := &actor{name: "last", hands: map[eventstore.PartitionID]*grip{}}
	for range 10 { // what is kept for those that wait, and what idle ones hold
		m.ask(a)
		m.now = m.now.Add(6 * time.Minute)
	}
	m.ask(a)
	if len(a.hands) != eventstore.Partitions {
		m.t.Fatalf("the last holder has %d partitions", len(a.hands))
	}
	for _, id := range eventstore.FirstGeneration() {
		g := a.hands[id]
		for range 1000 {
			out := g.read(0)
			for _, rec := range out.Records {
				m.settle(g, rec)
			}
			if out.Next == out.End && out.NextAt.IsZero() {
				break
			}
			if len(out.Records) == 0 {
				m.now = m.now.Add(time.Minute)
			}
		}
	}
	m.check()
}

func (m *model) settle(g *grip, rec eventstore.Record) {
	f := m.fates[string(rec.Message)]
	if f.accepted || f.expires <= m.now.UnixMilli() {
		m.t.Errorf("%s comes too late, or once more", rec.Message)
	}
	g.settle(outcome(rec.Position, rec.Position, rec.Attempt, eventstore.Accepted))
	f.accepted = true
}

// check wants nothing to be left, and nothing to be lost.
func (m *model) check() {
	for more := true; more; {
		var err error
		if _, more, err = m.Expire(m.t.Context(), 0); err != nil {
			m.t.Fatal(err)
		}
	}
	dead := m.dead()
	letters := uint64(0)
	var lost []string
	for text, f := range m.fates {
		if letters += dead[text]; dead[text] == 0 && !f.accepted && f.expires > m.now.UnixMilli() {
			lost = append(lost, text)
		}
		if dead[text] > 0 && f.accepted {
			m.t.Errorf("%s was accepted and is a dead letter", text)
		}
	}
	if slices.Sort(lost); len(lost) > 0 {
		m.t.Errorf("lost are %s", strings.Join(lost, " "))
	}
	s := m.stats(modelTenant)
	same(m.t, "waiting, in flight, bytes", []int64{s.Waiting, s.InFlight, s.Bytes}, []int64{0, 0, 0})
	same(m.t, "dead letters", s.DeadLetters, letters)
}
