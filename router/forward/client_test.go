package forward_test

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// client is a peer of the router in this process: our engine in the client's
// role, with one session, whose owner does only what he is told.
type client struct {
	name  string
	conn  *peer.Conn
	end   *peer.Pipe
	batch peer.Batch

	mu      sync.Mutex
	session *peer.Session
	links   map[string]*clientLink
	order   []*clientLink
	seen    []string
	stall   chan struct{} // not nil: the client does not read
	ended   bool
	on      func(*clientLink, *peer.Event) // gets the events of links instead
}

type clientLink struct {
	name  string
	link  *peer.Link
	sent  int               // messages, which are named link name + number
	names map[uint32]string // of unsettled deliveries
	ids   map[string]uint32
	last  int // credit that was last told

	draining bool
	address  string
	gone     bool
}

func (l *clientLink) note(name string, id uint32) { l.names[id], l.ids[name] = name, id }

// connect makes a client whose connection is served by r.
func connect(ctx context.Context, wg *sync.WaitGroup, name string, r peer.Handler, wheel *peer.Wheel, onPanic func(any, []byte)) *client {
	ours, theirs := peer.NewPipe()
	wg.Go(func() {
		peer.AcceptPipe(ctx, theirs, peer.Options{
			Config: peer.Config{ContainerID: "router"}, Handler: r, Wheel: wheel, Auth: anyone{}, OnPanic: onPanic}, nil)
	})
	c := &client{name: name, end: ours, links: map[string]*clientLink{}}
	c.conn = peer.ConnectPipe(ours, peer.Options{Config: peer.Config{ContainerID: name, Hostname: "router"},
		Handler: c, Wheel: wheel, Login: peer.Login{Mechanism: "ANONYMOUS", InitialResponse: []byte(name)}, OnPanic: onPanic})
	wg.Go(func() { c.conn.Serve(ctx) })
	return c
}

func (c *client) say(format string, args ...any) {
	c.seen = append(c.seen, fmt.Sprintf(format, args...))
}

// do calls f with the connection locked and writes what it brought about.
func (c *client) do(flush bool, f func()) {
	c.conn.Lock()
	c.mu.Lock()
	f()
	c.batch.Touch(c.conn)
	c.mu.Unlock()
	c.conn.Unlock()
	if flush {
		c.batch.Flush()
	}
}

func (c *client) attach(name string, a peer.Attachment) *clientLink {
	a.Name = name
	l := &clientLink{name: name, names: map[uint32]string{}, ids: map[string]uint32{}}
	if l.link = c.session.Attach(a); l.link == nil {
		return nil // the connection is ending
	}
	l.link.Data = l
	c.links[name] = l
	c.order = append(c.order, l)
	return l
}

// send sends a message with the next name, padded to size bytes.
func (c *client) send(l *clientLink, settled bool, size int) peer.SendResult {
	name := fmt.Sprintf("%s%d", l.name, l.sent+1)
	body := name + " " + strings.Repeat("x", max(0, size-len(name)-1))
	res := l.link.Send(&peer.Outgoing{Settled: settled, Tail: data(body)})
	if res == peer.Sent {
		l.sent++
		if !l.link.Settles(settled) {
			l.note(name, l.link.LastID())
		}
	}
	return res
}

// data is a message with one data section.
func data(body string) []byte {
	return amqp.AppendBinary([]byte{0, 0x53, byte(amqp.DescData)}, []byte(body))
}

// head is the first n bytes of a message like data's with a body of size bytes.
func head(name string, n, size int) []byte {
	return data(name + " " + strings.Repeat("x", size-len(name)-1))[:n]
}

// nameIn finds the name that send put into a message.
func nameIn(message []byte) string {
	v, _, err := amqp.DecodeValue(message[3:])
	body, ok := v.([]byte)
	if err != nil || !ok {
		return fmt.Sprintf("BROKEN %.20x", message)
	}
	name, _, _ := strings.Cut(string(body), " ")
	return name
}

// Handle implements peer.Handler.
func (c *client) Handle(b *peer.Batch, conn *peer.Conn, events []peer.Event) {
	c.mu.Lock()
	stall := c.stall
	c.mu.Unlock()
	if stall != nil {
		<-stall
	}
	conn.Lock()
	defer conn.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range events {
		c.event(&events[i])
	}
	b.Touch(conn)
}

func (c *client) event(ev *peer.Event) {
	var l *clientLink
	if ev.Link != nil {
		l, _ = ev.Link.Data.(*clientLink)
	}
	if c.on != nil && (l != nil || ev.Kind == peer.EventClose) {
		c.on(l, ev)
		return
	}
	switch ev.Kind {
	case peer.EventOpen:
		c.session = c.conn.Engine().Begin()
	case peer.EventDelivery:
		if !ev.Settled && len(ev.Payload) < 4 {
			c.say("%s got %d bytes", l.name, len(ev.Payload))
			return
		}
		name, how := nameIn(ev.Payload), ""
		if ev.Settled {
			how = " settled"
		} else {
			l.note(name, ev.ID)
		}
		c.say("%s got %s%s", l.name, name, how)
	case peer.EventOutcome:
		name, how := l.names[ev.ID], ""
		if !ev.Settled {
			how = ", awaits settlement"
		} else {
			delete(l.names, ev.ID)
		}
		c.say("%s %s %s%s", l.name, name, outcome(ev.State), how)
	case peer.EventSenderState:
		c.say("%s %s %s by its sender", l.name, l.names[ev.ID], outcome(ev.State))
		delete(l.names, ev.ID)
	case peer.EventLost:
		delete(l.names, ev.ID)
	case peer.EventDetach:
		if ev.Error != nil {
			c.say("%s detached: %v", l.name, ev.Error)
		}
	case peer.EventCredit:
		if ev.Link.Drain() {
			c.say("%s drain", l.name)
		}
	case peer.EventClose:
		c.say("closed: %v", ev.Error)
	}
}

// Writable implements peer.Handler.
func (c *client) Writable(*peer.Batch, *peer.Conn) {}

// Closed implements peer.Handler.
func (c *client) Closed(_ *peer.Batch, _ *peer.Conn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.say("end")
	c.ended = true
}

func outcome(state amqp.Raw) string {
	v, err := amqp.DecodeState(state)
	if err != nil {
		return "BROKEN " + err.Error()
	}
	switch v := v.(type) {
	case nil:
		return "settled"
	case amqp.Accepted:
		return "accepted"
	case amqp.Released:
		return "released"
	case *amqp.Rejected:
		if v.Error == nil {
			return "rejected"
		}
		return "rejected(" + v.Error.Error() + ")"
	case *amqp.Modified:
		var flags []string
		if v.DeliveryFailed {
			flags = append(flags, "delivery-failed")
		}
		if v.UndeliverableHere {
			flags = append(flags, "undeliverable-here")
		}
		return "modified(" + strings.Join(flags, " ") + ")"
	}
	return fmt.Sprintf("%T", v)
}
