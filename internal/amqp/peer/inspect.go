package peer

import (
	"cmp"
	"slices"

	"github.com/sluice-iot/sluice/internal/amqp"
)

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

// Links lists the links of the connection by channel and handle. Its lock is held.
func (e *Engine) Links() []*Link {
	_, n := e.Sizes()
	list := make([]*Link, 0, n)
	for s := range e.local.all() {
		for l := range s.byHandle.all() {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b *Link) int {
		return cmp.Or(cmp.Compare(a.s.channel, b.s.channel), cmp.Compare(a.handle, b.handle))
	})
	return list
}

// Link returns the link with our handle on our channel, or nil. The
// connection's lock is held.
func (e *Engine) Link(channel uint16, handle uint32) *Link {
	if s := e.local.get(uint32(channel)); s != nil {
		return s.byHandle.get(handle)
	}
	return nil
}

// Channel and Handle are our numbers for the link.
func (l *Link) Channel() uint16 { return l.s.channel }

// Handle is our number for the link on its session.
func (l *Link) Handle() uint32 { return l.handle }

// Unsettled is how many deliveries of the link are not settled.
func (l *Link) Unsettled() int { return l.unsettled }

// DeliveryCount is the link's delivery-count (Part 2, section 2.6.7).
func (l *Link) DeliveryCount() uint32 { return l.deliveryCount }
