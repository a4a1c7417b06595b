package peer

// Batch remembers the connections that were given output, so that each is
// flushed once. It belongs to one goroutine; the zero value is ready.
type Batch struct{ touched []*Conn }

// Touch notes that c has output. c's lock is held. Whoever notes it first owes
// the flush; later ones rely on that.
func (b *Batch) Touch(c *Conn) {
	if !c.dirty {
		c.dirty = true
		b.touched = append(b.touched, c)
	}
}

// Flush writes what the touched connections have. No lock is held.
func (b *Batch) Flush() {
	// Flushing can make a connection writable again and so touch others.
	for i := 0; i < len(b.touched); i++ {
		b.touched[i].flush(b)
	}
	clear(b.touched)
	b.touched = b.touched[:0]
}
