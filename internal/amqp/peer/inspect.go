package peer

import "github.com/sluice-iot/sluice/internal/amqp"

// Mechanism is the SASL mechanism that the client chose. The connection's lock is held.
func (e *Engine) Mechanism() amqp.Symbol { return e.sasl.chosen }

// Bytes returns how many bytes of frames came in and went out, TLS not
// counted. The connection's lock is held.
func (e *Engine) Bytes() (in, out uint64) { return e.bytesIn, e.bytesOut }

// Sizes returns how many sessions the connection has, and links on them. Its
// lock is held.
func (e *Engine) Sizes() (sessions, links int) {
	for s := range e.local.all() {
		links += s.byHandle.n
	}
	return e.local.n, links
}

// LinkID names a link of a connection by our numbers.
type LinkID struct {
	Channel uint16
	Handle  uint32
}

// LinkIDs lists the links of the connection in no order. Its lock is held: the
// rest of the work on what may be tens of thousands is for later.
func (e *Engine) LinkIDs() []LinkID {
	_, n := e.Sizes()
	list := make([]LinkID, 0, n)
	for s := range e.local.all() {
		for l := range s.byHandle.all() {
			list = append(list, LinkID{s.channel, l.handle})
		}
	}
	return list
}

// Links lists the links of the connection in no order. Its lock is held.
func (e *Engine) Links() []*Link {
	_, n := e.Sizes()
	list := make([]*Link, 0, n)
	for s := range e.local.all() {
		for l := range s.byHandle.all() {
			list = append(list, l)
		}
	}
	return list
}

// Link returns a link, or nil. The connection's lock is held.
func (e *Engine) Link(id LinkID) *Link {
	if s := e.local.get(uint32(id.Channel)); s != nil {
		return s.byHandle.get(id.Handle)
	}
	return nil
}

// Unsettled is how many deliveries of the link are not settled.
func (l *Link) Unsettled() int { return l.unsettled }

// DeliveryCount is the link's delivery-count (Part 2, section 2.6.7).
func (l *Link) DeliveryCount() uint32 { return l.deliveryCount }
