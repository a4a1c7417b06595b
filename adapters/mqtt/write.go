package mqtt

import (
	"bytes"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	// maxOut is how many bytes may wait for a client that reads slowly.
	maxOut = 64 << 10
	// writeTimeout is how long a client may leave what is sent to it unread.
	writeTimeout = 10 * time.Second
	// lingerFor is how long a client has to close its side of a connection that
	// is closed by ours, so that what was sent last is not lost with what is unread.
	lingerFor = time.Second
	// maxKept is the largest buffer that is kept for later use.
	maxKept = 8 << 10
)

// halfCloser is a connection of which one direction can be closed.
type halfCloser interface{ CloseWrite() error }

var outBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// output is the writing side of a connection: what is to be sent, and whether
// somebody is sending it. A goroutine for it exists only while there is something.
// Guarded by conn.mu.
type output struct {
	buf      *bytes.Buffer // from outBuffers; nil = nothing to send
	flushing bool
	corked   bool // the reader sends once it has nothing left to do
	broken   bool // nothing can be sent any more
	commands int  // bytes in buf that are commands, which may be large
	set      time.Time
}

// outBuffer returns where to append packets, nil when nothing is sent any more. c.mu
// is held.
func (c *conn) outBuffer() *bytes.Buffer {
	if c.ended || c.out.broken {
		return nil
	}
	if c.out.buf == nil {
		c.out.buf = outBuffers.Get().(*bytes.Buffer)
	}
	if c.out.buf.Len()-c.out.commands > maxOut {
		c.abandon("client does not read what is sent to it")
		return nil
	}
	return c.out.buf
}

// puback acknowledges a PUBLISH that went well. c.mu is held.
func (c *conn) puback(id uint16) {
	if b := c.outBuffer(); b != nil {
		b.Write([]byte{packets.Puback << 4, 2, byte(id >> 8), byte(id)})
	}
}

// send appends a packet; false where it is larger than the client takes, or
// nothing is sent any more. c.mu is held.
func (c *conn) send(pk *packets.Packet) bool {
	b := c.outBuffer()
	if b == nil {
		return false
	}
	before := b.Len()
	if err := c.encode(b, pk); err != nil || c.maxSize > 0 && b.Len()-before > c.maxSize {
		b.Truncate(before)
		return false
	}
	return true
}

// kick lets what is to be sent be sent. c.mu is held.
func (c *conn) kick() {
	if c.out.flushing || c.out.corked || c.out.buf == nil && !c.ended {
		return
	}
	c.out.flushing = true
	go c.flush()
}

// cork lets answers to the packets that the reader has be sent together. When
// there are many, they are sent first.
func (c *conn) cork() {
	c.mu.Lock()
	crowded := c.out.buf != nil && c.out.buf.Len() > maxOut/4
	c.out.corked = !crowded
	c.mu.Unlock()
	if crowded {
		c.uncork()
	}
}

// uncork sends what there is before the reader waits for something.
func (c *conn) uncork() {
	c.mu.Lock()
	c.out.corked = false
	if c.out.flushing || c.out.buf == nil && !c.ended {
		c.mu.Unlock()
		return
	}
	c.out.flushing = true
	c.mu.Unlock()
	c.flush()
}

// flush sends until there is nothing left, and ends the connection where that
// is due.
func (c *conn) flush() {
	c.mu.Lock()
	for c.out.buf != nil && !c.out.broken {
		b, written := c.out.buf, c.takeWritten()
		c.out.buf, c.out.commands = nil, 0
		if now := time.Now(); now.Sub(c.out.set) > writeTimeout/2 {
			c.out.set = now
			c.nc.SetWriteDeadline(now.Add(writeTimeout))
		}
		if c.ended {
			c.releaseCommands() // but those that are written now
		}
		c.mu.Unlock()
		_, err := c.nc.Write(b.Bytes())
		written.settle(err)
		if b.Cap() <= maxKept {
			b.Reset()
			outBuffers.Put(b)
		}
		c.mu.Lock()
		if err != nil {
			c.abandon("cannot send")
		}
	}
	if c.ended && !c.closed {
		c.closed = true
		c.releaseCommands()
		c.hangUp()
	}
	c.out.flushing = false
	c.mu.Unlock()
	c.cond.Broadcast()
}

// hangUp closes our side of the connection. The reader reads until the client
// closed its own, or for a moment. c.mu is held, but not while it waits.
func (c *conn) hangUp() {
	nc, half := c.nc, c.half
	if c.out.broken {
		half = nil
	}
	if half != nil {
		nc.SetReadDeadline(time.Now().Add(lingerFor))
	}
	c.mu.Unlock()
	defer c.mu.Lock()
	if half == nil {
		nc.Close()
		return
	}
	if t, ok := nc.(halfCloser); ok && t != half {
		t.CloseWrite() // of TLS: says so to the other side, and closes nothing
	}
	half.CloseWrite()
}

// end closes the connection in order: what is to be sent is sent, then on MQTT
// 5 a DISCONNECT. Only the first end counts. c.mu is held.
func (c *conn) end(code byte, why string) {
	if c.ended {
		return
	}
	if c.connected && c.version == 5 {
		c.send(&packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Disconnect},
			ReasonCode:  code, Properties: packets.Properties{ReasonString: reasonString(why)},
		})
	}
	c.markEnded(why)
	c.out.corked = false
	c.kick()
}

// abandon gives the connection up: nobody reads what would be sent. c.mu is held.
func (c *conn) abandon(why string) {
	c.markEnded(why)
	c.out.broken = true
	c.out.corked = false
	if c.out.flushing {
		c.nc.SetWriteDeadline(time.Unix(1, 0)) // whoever sends need not go on
	}
	c.kick()
}

func (c *conn) markEnded(why string) {
	if !c.ended {
		c.ended, c.why = true, why
		c.ending.Store(true)
		c.cond.Broadcast()
	}
}

// encode appends a packet.
func (c *conn) encode(b *bytes.Buffer, pk *packets.Packet) error {
	pk.ProtocolVersion = c.version
	pk.Mods.MaxSize = uint32(c.maxSize)
	switch pk.FixedHeader.Type {
	case packets.Connack:
		return pk.ConnackEncode(b)
	case packets.Publish:
		return pk.PublishEncode(b)
	case packets.Puback:
		return pk.PubackEncode(b)
	case packets.Suback:
		return pk.SubackEncode(b)
	case packets.Unsuback:
		return pk.UnsubackEncode(b)
	case packets.Pingresp:
		return pk.PingrespEncode(b)
	case packets.Disconnect:
		return pk.DisconnectEncode(b)
	}
	return packets.ErrNoValidPacketAvailable
}

// reasonString is a text for the client, bounded.
func reasonString(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	for i := range s { // at the start of a character
		if i > most-4 {
			return s[:i] + "..."
		}
	}
	return s
}
