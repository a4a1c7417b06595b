package peer

import (
	"net"
	"time"
)

// NewTCP gives tests a socket's transport.
func NewTCP(c net.Conn) (interface {
	TryWrite(b []byte) (int, error)
	Write(b []byte, stall time.Duration) (int, error)
}, error) {
	return newTCP(c)
}

// BeginAt is Begin for a session that numbers transfers and deliveries from id.
func (e *Engine) BeginAt(id uint32) *Session {
	ch, _ := e.freeChannel()
	s := e.newSession(ch)
	s.nextOutgoingID, s.nextDeliveryID = id, id
	s.writeBegin()
	return s
}

// Ring is what a session remembers of unsettled deliveries.
type Ring struct {
	r ring
	l Link
}

func (r *Ring) Add(id uint32) bool {
	if !r.r.room(id) {
		return false
	}
	r.r.add(id, &r.l, Token{ID: id})
	return true
}
func (r *Ring) Get(id uint32) bool {
	s := r.r.get(id)
	return s != nil && s.token.ID == id
}
func (r *Ring) Remove(id uint32) { r.r.remove(id) }
func (r *Ring) Unsettled() int   { return r.l.unsettled }
func (r *Ring) Slots() int       { return len(r.r.slots) }
func (r *Ring) Old(first, last uint32) []uint32 {
	return r.r.oldIn(first, last)
}
func (r *Ring) Overlap(first, last uint32) (start, n uint32) { return r.r.overlap(first, last) }
func (r *Ring) RemoveLink() (ids []uint32) {
	r.r.removeLink(&r.l, func(id uint32, _ slot) { ids = append(ids, id) })
	return ids
}

// Spy calls look before every call of a connection's transport, with whether
// its lock was free.
func Spy(c *Conn, look func(call string, free bool)) {
	c.t = spy{c.t, func(call string) {
		free := c.mu.TryLock()
		if free {
			c.mu.Unlock()
		}
		look(call, free)
	}}
}

type spy struct {
	transport
	look func(call string)
}

func (s spy) Read(head []byte) ([]byte, error) { s.look("Read"); return s.transport.Read(head) }
func (s spy) TryWrite(b []byte) (int, error)   { s.look("TryWrite"); return s.transport.TryWrite(b) }
func (s spy) Write(b []byte, stall time.Duration) (int, error) {
	s.look("Write")
	return s.transport.Write(b, stall)
}
func (s spy) CloseWrite() error { s.look("CloseWrite"); return s.transport.CloseWrite() }
func (s spy) Close() error      { s.look("Close"); return s.transport.Close() }
func (s spy) SetReadDeadline(t time.Time) error {
	s.look("SetReadDeadline")
	return s.transport.SetReadDeadline(t)
}

// PutBuffer gives back what TakeOutput gave, as a connection does.
func PutBuffer(b []byte) { putBuffer(b) }
