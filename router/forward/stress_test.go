package forward_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// TestStress has clients attach, send, settle, stall and die at random. Then
// every unsettled delivery has one outcome, a true one, what a receiver got is in its
// sender's order, the books are right, and nothing is left behind.
func TestStress(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { stress(t, seed) })
		})
	}
}

// words is what all clients of a stress test know.
type words struct {
	t  *testing.T
	mu sync.Mutex
	// What receivers said of each message; "" = nothing yet, "settled" = came so.
	got map[string][]string
	// What senders heard.
	heard map[string]string
	open  map[string]bool // unsettled deliveries of senders that are still there
	count map[string]int
	// Some receivers ask for settled deliveries: those they have not read yet are accepted.
	lenient bool
}

func stress(t *testing.T, seed uint64) {
	s := newStage(t)
	w := &words{t: t, got: map[string][]string{}, heard: map[string]string{}, open: map[string]bool{}, count: map[string]int{}, lenient: seed%2 == 0}
	var players []*player
	var wg sync.WaitGroup
	for i := range 8 {
		p := &player{w: w, s: s, id: i, rnd: rand.New(rand.NewPCG(seed, uint64(i)))}
		players = append(players, p)
		wg.Go(func() { p.play(600) })
	}
	wg.Wait()
	synctest.Wait()
	if err := s.router.Check(); err != nil {
		t.Error(err)
	}
	// Receivers say the last word on what they have; surplus runs out of time.
	for range 100 {
		for _, p := range players {
			p.settleAll(amqp.StateAccepted, "accepted")
		}
		time.Sleep(300 * time.Millisecond) // also ends connections that stalled
		synctest.Wait()
	}
	if err := s.router.Check(); err != nil {
		t.Error(err)
	}
	for _, p := range players {
		defer p.c.end.Close()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.open {
		t.Errorf("%s has no outcome; receivers said %q", name, w.got[name])
	}
	t.Logf("%d unsettled: %v", len(w.heard), w.count)
	for _, c := range []string{"accepted", "released", "rejected", "modified(delivery-failed)"} {
		if w.count[c] == 0 {
			t.Errorf("no delivery was %s: the test does not test", c)
		}
	}
}

// player is one client after the other.
type player struct {
	w   *words
	s   *stage
	id  int
	rnd *rand.Rand
	n   int // clients and links so far

	c *client
	// The last message that each link had from each sender's link.
	last map[string]int
}

func (p *player) connect() {
	p.n++
	p.last = map[string]int{}
	name := fmt.Sprintf("P%d.%d", p.id, p.n)
	c := connect(p.s.ctx, &p.s.wg, name, p.s.router, p.s.wheel, func(v any, stack []byte) { p.w.t.Errorf("panic: %v\n%s", v, stack) })
	c.mu.Lock()
	c.on = func(l *clientLink, ev *peer.Event) { p.event(c, l, ev) }
	c.mu.Unlock()
	p.c = c
	for {
		time.Sleep(time.Millisecond)
		c.mu.Lock()
		ready := c.session != nil
		c.mu.Unlock()
		if ready {
			return
		}
	}
}

var stressAddresses = []string{"x", "y", "z", "closest/1", "multicast/1"}

// play does n random things.
func (p *player) play(n int) {
	for range n {
		if p.c == nil || p.gone() {
			p.connect()
		}
		switch k := p.rnd.IntN(100); {
		case k < 1:
			p.c.end.Close()
		case k < 2:
			p.c.conn.Close(nil)
		case k < 4:
			p.stall()
		default:
			p.c.do(true, p.act)
		}
		if p.rnd.IntN(4) == 0 {
			time.Sleep(time.Duration(p.rnd.IntN(50)) * time.Millisecond)
		}
	}
	p.unstall()
}

func (p *player) gone() bool {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return p.c.ended
}

func (p *player) unstall() {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.c.stall != nil {
		close(p.c.stall)
		p.c.stall = nil
	}
}

func (p *player) stall() {
	p.c.mu.Lock()
	was := p.c.stall != nil
	if !was {
		p.c.stall = make(chan struct{})
	}
	p.c.mu.Unlock()
	if was {
		p.unstall()
	}
}

// act does one thing on a link. The connection is locked.
func (p *player) act() {
	live := slices.DeleteFunc(slices.Clone(p.c.order), func(l *clientLink) bool { return !l.link.Attached() })
	if len(live) < 2 || len(live) < 6 && p.rnd.IntN(10) == 0 {
		p.attach()
		return
	}
	l := live[p.rnd.IntN(len(live))]
	if p.rnd.IntN(40) == 0 {
		l.link.Detach(nil)
		p.forget(l)
		return
	}
	if l.link.Role() == amqp.RoleSender {
		for range 1 + p.rnd.IntN(5) {
			p.send(l)
		}
		return
	}
	switch p.rnd.IntN(5) {
	case 0:
		l.link.SetCredit(uint32(p.rnd.IntN(30)))
	case 1:
		if l.link.Credit() > 0 && p.rnd.IntN(4) == 0 {
			l.link.SetDrain()
		}
	default:
		p.settle(l)
	}
}

func (p *player) attach() {
	p.n++
	name := fmt.Sprintf("P%d.%dn", p.id, p.n)
	address := stressAddresses[p.rnd.IntN(len(stressAddresses))]
	a := peer.Attachment{SenderSettleMode: amqp.SenderMixed, ReceiverSettleMode: amqp.ReceiverSettleMode(p.rnd.IntN(2)),
		Source: &amqp.Source{Address: address, HasAddress: true}, Target: &amqp.Target{Address: address, HasAddress: true}}
	if p.rnd.IntN(2) == 0 {
		a.Role = amqp.RoleReceiver
		if p.w.lenient && p.rnd.IntN(5) == 0 {
			a.SenderSettleMode = amqp.SenderSettled
		}
	}
	l := p.c.attach(name, a)
	if l == nil {
		return
	}
	l.address = address
	if a.Role == amqp.RoleReceiver {
		l.link.SetCredit(uint32(p.rnd.IntN(30)))
	}
}

func (p *player) send(l *clientLink) {
	settled, size := p.rnd.IntN(4) == 0, 0
	switch p.rnd.IntN(20) {
	case 0:
		size = 20_000 + p.rnd.IntN(200_000)
	case 1:
		size = 3000
	}
	if p.c.send(l, settled, size) != peer.Sent {
		return
	}
	if name := fmt.Sprintf("%s%d", l.name, l.sent); !settled {
		p.w.mu.Lock()
		p.w.open[name] = true
		p.w.mu.Unlock()
		if p.rnd.IntN(20) == 0 { // it does not wait
			l.link.SettleSent(l.ids[name], amqp.StateReleased)
			delete(l.names, l.ids[name])
			p.closed(name)
		}
	}
}

func (p *player) closed(name string) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	delete(p.w.open, name)
}

// settle gives one of a receiver's deliveries an outcome.
func (p *player) settle(l *clientLink) {
	for id, name := range l.names {
		switch p.rnd.IntN(6) {
		case 0:
			p.say(l, id, name, amqp.StateReleased, "released")
		case 1:
			p.say(l, id, name, amqp.AppendRejected(nil, nil), "rejected")
		default:
			p.say(l, id, name, amqp.StateAccepted, "accepted")
		}
		return
	}
}

func (p *player) say(l *clientLink, id uint32, name string, state amqp.Raw, word string) {
	if !l.link.Settle(id, state, l.link.ReceiverSettleMode() == amqp.ReceiverFirst || p.rnd.IntN(2) == 0) {
		delete(l.names, id)
		return
	}
	delete(l.names, id)
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.w.got[name] = append(p.w.got[name], word)
}

func (p *player) settleAll(state amqp.Raw, word string) {
	p.c.do(true, func() {
		for _, l := range p.c.order {
			if l.link.Role() == amqp.RoleReceiver {
				if l.link.Attached() {
					l.link.SetCredit(100)
				}
				for _, id := range slices.Collect(maps.Keys(l.names)) {
					p.say(l, id, l.names[id], state, word)
				}
			}
		}
	})
}

// forget is told that a link or its connection is gone.
func (p *player) forget(l *clientLink) {
	if l.link.Role() == amqp.RoleSender {
		for _, name := range l.names {
			p.closed(name)
		}
	}
	clear(l.names)
	l.gone = true
}

// event is what happened on a link.
func (p *player) event(c *client, l *clientLink, ev *peer.Event) {
	switch ev.Kind {
	case peer.EventDelivery:
		p.delivery(l, ev)
	case peer.EventOutcome:
		name := l.names[ev.ID]
		if name == "" && l.gone {
			return // it was on its way when the link went
		}
		if name == "" {
			p.w.t.Errorf("delivery %d of %s on %s has its outcome, and is then %s (settled: %v)", ev.ID, l.name, l.address, outcome(ev.State), ev.Settled)
			return
		}
		p.outcome(l.address, name, outcome(ev.State))
		delete(l.names, ev.ID)
		if !ev.Settled {
			l.link.SettleSent(ev.ID, ev.State)
		}
	case peer.EventSenderState:
		delete(l.names, ev.ID)
	case peer.EventDetach:
		if ev.Error != nil && !strings.HasPrefix(l.address, "multicast") { // there it may be too slow
			p.w.t.Errorf("%s of %s detached: %v", l.name, l.address, ev.Error)
		}
		p.forget(l)
	case peer.EventClose:
		if ev.Error != nil {
			p.w.t.Errorf("%s closed: %v", c.name, ev.Error)
		}
	}
}

func (p *player) delivery(l *clientLink, ev *peer.Event) {
	name := nameIn(ev.Payload)
	from, n := cutNumber(name)
	if key := l.name + "<" + from; p.last[key] >= n {
		p.w.t.Errorf("%s got %s after %s%d", l.name, name, from, p.last[key])
	} else {
		p.last[key] = n
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if len(p.w.got[name]) > 0 && !strings.HasPrefix(l.address, "multicast") {
		p.w.t.Errorf("%s was delivered twice", name)
	}
	if ev.Settled {
		p.w.got[name] = append(p.w.got[name], "settled")
		return
	}
	p.w.got[name] = append(p.w.got[name], "")
	l.names[ev.ID] = name
}

func cutNumber(name string) (string, int) {
	stem := strings.TrimRight(name, "0123456789")
	return stem, atoi(name[len(stem):])
}

// outcome is a sender's outcome: it must be what a receiver said.
func (p *player) outcome(address, name, word string) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if was := p.w.heard[name]; was != "" {
		p.w.t.Errorf("%s is %s after it was %s", name, word, was)
	}
	p.w.heard[name] = word
	p.w.count[word]++
	delete(p.w.open, name)
	got := p.w.got[name]
	said := slices.Contains(got, word)
	switch {
	case word == "accepted" && !said && !slices.Contains(got, "settled") && !(p.w.lenient && (len(got) == 0 || strings.HasPrefix(address, "multicast"))),
		word == "rejected" && !said,
		word == "released" && !said && slices.Contains(got, "") && !strings.HasPrefix(address, "multicast"):
		p.w.t.Errorf("%s on %s is %s, but receivers said %q", name, address, word, got)
	}
}
