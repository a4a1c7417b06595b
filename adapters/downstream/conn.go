package downstream

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/adapters"
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
	in        inbox
	// unannounced: the log knows that the router hears of no subscriptions. The
	// directory guards it.
	unannounced bool
}

// stands reports whether links can be attached. The connection is locked.
func (c *conn) stands() bool { return c.session != nil && c.pc.Engine().Ready() }

// attachOwn asks for a link of a name that none had before. It returns nil when the
// connection is about to go. It is locked.
func (c *conn) attachOwn(address string, a peer.Attachment, data any, b *peer.Batch) *peer.Link {
	if !c.stands() {
		return nil
	}
	c.names++
	a.Name = address + "#" + strconv.FormatUint(c.names, 10)
	l := c.session.Attach(a)
	if l != nil {
		l.Data = data
		b.Touch(c.pc)
	}
	return l
}

// later attaches a link again that the router detached. Where the connection is
// gone by then that does nothing.
func (c *conn) later(attach func(b *peer.Batch)) {
	c.pc.Lock()
	stands := c.stands()
	c.pc.Unlock()
	if !stands {
		return
	}
	time.AfterFunc(refusedFor, func() {
		var b peer.Batch
		attach(&b)
		b.Flush()
	})
}

// follow attaches the links by which the router tells and is told of things. The
// connection is up. Commands can come before subscriptions are announced.
func (c *conn) follow(b *peer.Batch) {
	if c.s.o.Notices != nil {
		for _, address := range adapters.NoticeAddresses {
			c.attachNotices(address, b)
		}
	}
	if c.s.o.Commands != nil {
		c.attachCommands(b)
		c.attachDirectory(b)
	}
}

// attach asks for a link to t's address. It returns nil when the connection is
// about to go, and a refused link when the router allows no more. t.mu is held.
func (c *conn) attach(t *target, now time.Time, b *peer.Batch) *link {
	lk := &link{t: t, c: c}
	c.pc.Lock()
	defer c.pc.Unlock()
	if !c.stands() {
		return nil
	}
	lk.l = c.attachOwn(t.address, peer.Attachment{
		Role:             amqp.RoleSender,
		SenderSettleMode: amqp.SenderMixed, ReceiverSettleMode: amqp.ReceiverFirst,
		Source: &amqp.Source{},
		Target: &amqp.Target{Address: t.address, HasAddress: true},
	}, lk, b)
	if lk.l == nil {
		lk.refused, lk.until = errNoHandles, now.Add(refusedFor)
	}
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
		switch lk := ev.Link.Data.(type) {
		case *link:
			lk.t.credited(ev.Link, b, e)
		case *announcer:
			c.s.directory.writable(c, b)
		}
	case peer.EventDetach:
		switch lk := ev.Link.Data.(type) {
		case *link:
			lk.t.detached(lk, ev.Error, b, e)
		case *noticeLink:
			c.noticesDetached(lk, ev)
		case *commandLink:
			c.commandsDetached(ev)
		case *announcer:
			lk.detached(ev)
		}
	case peer.EventWritable:
		c.Writable(b, c.pc)
	case peer.EventAttach:
		c.refuse(b, ev.Link)
	default:
		c.handleRare(b, ev)
	}
}

func (c *conn) handleRare(b *peer.Batch, ev *peer.Event) {
	switch ev.Kind {
	case peer.EventDelivery:
		switch ev.Link.Data.(type) {
		case *noticeLink:
			c.notice(b, ev)
		case *commandLink:
			c.inbound(b, ev)
		}
	case peer.EventAttached:
		switch lk := ev.Link.Data.(type) {
		case *noticeLink:
			c.noticesAttached(lk, ev)
		case *commandLink:
			c.commandsAttached(ev)
		case *announcer:
			lk.attached(b, ev)
		}
	case peer.EventOutcome:
		if a, ok := ev.Token.Ref.(*announcer); ok {
			c.word(b, ev)
			a.settled(b, ev)
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
		d, ok := ev.Token.Ref.(*delivery)
		if !ok {
			return n
		}
		err, final := c.word(b, ev)
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
func (c *conn) Writable(b *peer.Batch, _ *peer.Conn) {
	c.s.pumpWaiting(b)
	c.s.directory.writable(c, b)
}

// Closed implements peer.Handler.
func (c *conn) Closed(*peer.Batch, *peer.Conn, error) {
	c.s.down(c)
	c.commandsGone()
}
