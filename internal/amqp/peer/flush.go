package peer

// flush writes what there is. If somebody writes already, he takes it along.
func (c *Conn) flush(b *Batch) {
	c.mu.Lock()
	c.dirty = false
	if c.flushing || !c.e.HasOutput() && !c.t.Pending() {
		c.mu.Unlock()
		return
	}
	c.flushing = true
	out := c.e.TakeOutput()
	c.mu.Unlock()
	n, err := c.t.TryWrite(out[:min(len(out), bufferSize)])
	if err != nil {
		c.writeFailed(out)
		return
	}
	c.mu.Lock()
	c.e.Wrote(n)
	if n == len(out) && !c.t.Pending() && !c.e.HasOutput() {
		c.flushing = false
		c.drained.Broadcast()
		resume := c.e.Resume()
		c.mu.Unlock()
		putBuffer(out)
		if resume {
			c.writable(b)
		}
		return
	}
	c.mu.Unlock()
	// A borrowed reader has its own work: whatever is more than one buffer, or
	// more than the socket takes now, is a temporary writer's.
	go c.drainOutput(out, n)
}

// drainOutput writes until nothing is left.
func (c *Conn) drainOutput(out []byte, n int) {
	var b Batch
	for {
		for n < len(out) || c.t.Pending() {
			k, err := c.t.Write(out[n:min(len(out), n+bufferSize)], stallTimeout)
			if err != nil {
				c.writeFailed(out)
				return
			}
			n += k
			c.wrote(k, &b)
		}
		putBuffer(out)
		c.mu.Lock()
		if !c.e.HasOutput() && !c.t.Pending() {
			c.flushing = false
			c.drained.Broadcast()
			resume := c.e.Resume()
			c.mu.Unlock()
			if resume {
				c.writable(&b)
			}
			b.Flush()
			return
		}
		out, n = c.e.TakeOutput(), 0
		c.mu.Unlock()
	}
}

// wrote accounts for bytes that have left and wakes who waits for that.
func (c *Conn) wrote(k int, b *Batch) {
	c.mu.Lock()
	c.e.Wrote(k)
	c.drained.Broadcast()
	resume := c.e.Resume()
	c.mu.Unlock()
	if resume {
		c.writable(b)
		b.Flush()
	}
}

// writeFailed ends the connection: the reader finds the transport closed.
func (c *Conn) writeFailed(out []byte) {
	putBuffer(out)
	c.t.Close()
	c.mu.Lock()
	c.flushing = false
	c.closed = true
	c.drained.Broadcast()
	c.mu.Unlock()
}
