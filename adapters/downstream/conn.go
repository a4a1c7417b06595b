package downstream

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// conn is one connection to a router, with the one session that all links
// are on. It is the connection's handler.
type conn struct {
	s       *Set
	name    string // for the log
	pc      *peer.Conn
	session *peer.Session // guarded by pc
	names   uint64        // guarded by pc: makes link names unique
	wasUp   atomic.Bool
	onUp    func()

	noticesUp int // guarded by pc: links by which notices come
}

// attach asks for a link to t's address. It returns nil when the connection is
// about to go, and a refused link when the router allows no more. t.mu is held.
func (c *conn) attach(t *target, now time.Time, b *peer.Batch) *link {
	lk := &link{t: t, c: c}
	c.pc.Lock()
	defer c.pc.Unlock()
	if c.session == nil || !c.pc.Engine().Ready() {
		return nil
	}
	c.names++
	lk.l = c.session.Attach(peer.Attachment{
		Name:             t.address + "#" + strconv.FormatUint(c.names, 10),
		Role:             amqp.RoleSender,
		SenderSettleMode: amqp.SenderMixed, ReceiverSettleMode: amqp.ReceiverFirst,
		Source: &amqp.Source{},
		Target: &amqp.Target{Address: t.address, HasAddress: true},
	})
	if lk.l == nil {
		lk.refused, lk.until = errNoHandles, now.Add(refusedFor)
		return lk
	}
	lk.l.Data = lk
	b.Touch(c.pc)
	return lk
}

// close closes the connection if it is established, and reports whether.
func (c *conn) close() bool {
	c.pc.Lock()
	ready := c.pc.Engine().Ready()
	c.pc.Unlock()
	if ready {
		c.pc.Close(nil)
	}
	return ready
}

// Handle implements peer.Handler.
func (c *conn) Handle(b *peer.Batch, pc *peer.Conn, events []peer.Event) {
	for len(events) > 0 {
		var e ended
		n := c.reports(b, events, &e)
		if n == 0 {
			c.handle(b, &events[0], &e)
			n = 1
		}
		c.s.conclude(&e)
		events = events[n:]
	}
}

func (c *conn) handle(b *peer.Batch, ev *peer.Event, e *ended) {
	switch ev.Kind {
	case peer.EventCredit:
		if lk, ok := ev.Link.Data.(*link); ok {
			lk.t.credited(ev.Link, b, e)
		}
	case peer.EventDetach:
		switch lk := ev.Link.Data.(type) {
		case *link:
			lk.t.detached(lk, ev.Error, b, e)
		case *noticeLink:
			c.noticesDetached(lk, ev)
		}
	case peer.EventWritable:
		c.s.pumpWaiting(b)
	case peer.EventAttach:
		c.refuse(b, ev.Link)
	default:
		c.handleRare(b, ev)
	}
}

func (c *conn) handleRare(b *peer.Batch, ev *peer.Event) {
	switch ev.Kind {
	case peer.EventDelivery:
		if _, ok := ev.Link.Data.(*noticeLink); ok {
			c.notice(b, ev)
		}
	case peer.EventAttached:
		if n, ok := ev.Link.Data.(*noticeLink); ok {
			c.noticesAttached(n, ev)
		}
	case peer.EventOpen:
		c.pc.Lock()
		c.session = c.pc.Engine().Begin()
		b.Touch(c.pc)
		c.pc.Unlock()
	case peer.EventBegin:
		c.pc.Lock()
		ours := ev.Session == c.session
		c.pc.Unlock()
		if ours {
			c.wasUp.Store(true)
			c.onUp()
			c.s.up(c, b)
			c.follow(b)
		}
	case peer.EventClose:
		c.s.down(c)
	case peer.EventEnd:
		c.s.down(c)
		if ev.Error != nil {
			c.s.log.Warn("router ended the session", "router", c.name, "err", ev.Error)
		}
		c.close()
	}
}

// reports takes the words on deliveries that events begin with, and returns
// how many there are. Many come at once, most for one target.
func (c *conn) reports(b *peer.Batch, events []peer.Event, e *ended) (n int) {
	var t *target // locked
	defer func() {
		if t != nil {
			t.mu.Unlock()
		}
	}()
	for ; n < len(events); n++ {
		ev := &events[n]
		if ev.Kind != peer.EventOutcome && ev.Kind != peer.EventLost {
			return n
		}
		err, final := c.word(b, ev)
		d, ok := ev.Token.Ref.(*delivery)
		if !ok {
			continue
		}
		if d.t != t {
			if t != nil {
				t.mu.Unlock()
			}
			t = d.t
			t.mu.Lock()
		}
		t.end(d, err, final, e)
	}
	return n
}

// word is what an event says of a delivery, and whether it is the last one. A
// delivery that the receiver left for us to settle is settled.
func (c *conn) word(b *peer.Batch, ev *peer.Event) (err error, final bool) {
	if ev.Kind == peer.EventLost {
		return errLost, true
	}
	if !ev.Settled {
		c.pc.Lock()
		if ev.Link.SettleSent(ev.ID, ev.State) {
			b.Touch(c.pc)
		}
		c.pc.Unlock()
	}
	return outcome(ev.State), ev.Settled
}

// refuse declines a link that the router attaches: those to receive by are
// attached from here.
func (c *conn) refuse(b *peer.Batch, l *peer.Link) {
	c.pc.Lock()
	defer c.pc.Unlock()
	l.Refuse(&amqp.Error{Condition: amqp.CondNotAllowed, Description: "adapters attach links themselves"})
	b.Touch(c.pc)
}

// Writable implements peer.Handler.
func (c *conn) Writable(b *peer.Batch, _ *peer.Conn) { c.s.pumpWaiting(b) }

// Closed implements peer.Handler.
func (c *conn) Closed(*peer.Batch, *peer.Conn, error) { c.s.down(c) }
