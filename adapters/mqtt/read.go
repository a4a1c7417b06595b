package mqtt

import (
	"errors"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Bounds of what is read, in bytes of remaining length.
const (
	// maxConnect bounds what somebody may send before it is known who it is.
	maxConnect = 32 << 10
	// maxHeader is what a PUBLISH may have beside its payload: Hono's 128 bytes,
	// and room for a long topic with its bag and for properties.
	maxHeader = 128 + 8<<10

	smallBuffer = 128     // of a connection while nothing is awaited
	bigBuffer   = 4 << 10 // of a connection while it sends
)

// fault is what a client does wrong on the level of MQTT: it ends the
// connection.
type fault struct {
	code byte // reason code of MQTT 5
	text string
}

func (f *fault) Error() string { return f.text }

var (
	errTooLong     = &fault{packets.ErrPacketTooLarge.Code, "packet is too large"}
	errLength      = &fault{packets.ErrMalformedPacket.Code, "malformed packet: remaining length of more than four bytes"}
	errIdle        = &fault{packets.ErrKeepAliveTimeout.Code, "nothing came for one and a half times the keep-alive"}
	errConnEnded   = errors.New("connection is being closed")
	errNotInTime   = errors.New("no CONNECT came in time")
	errFirstPacket = errors.New("first packet is not a CONNECT")
	errText        = errors.New("text frame: want binary frames")
)

var bigBuffers = sync.Pool{New: func() any { return new([bigBuffer]byte) }}

// input is the reading side of a connection. While the client is silent it has
// no more than the small buffer.
type input struct {
	small [smallBuffer]byte
	big   *[bigBuffer]byte // from bigBuffers, or nil
	buf   []byte           // what unread is a part of: small, big, or one made for a large packet
	r, w  int              // unread is buf[r:w]
	full  bool             // the last read filled big: more is there
	set   time.Time        // when the read deadline was set last
}

// header is the fixed header of a packet.
type header struct {
	packets.FixedHeader
	size int // of the header itself
}

// parseHeader reads a fixed header off b; ok is false while bytes of it are missing.
func parseHeader(b []byte) (h header, ok bool, err error) {
	for i := 1; i < len(b); i++ {
		if i > 4 {
			return h, false, errLength
		}
		h.Remaining |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] < 0x80 {
			if err := h.Decode(b[0]); err != nil {
				return h, false, malformed(err)
			}
			h.size = 1 + i
			return h, true, nil
		}
	}
	return h, false, nil
}

// next waits for a packet with at most limit bytes of remaining length. The
// body is valid until the next call. Errors are a *fault or of the connection.
func (c *conn) next(limit int) (header, []byte, error) {
	in := &c.in
	armed := false
	for {
		h, ok, err := parseHeader(in.buf[in.r:in.w])
		if err != nil {
			return h, nil, err
		}
		need := 2
		if ok {
			if h.Remaining > limit {
				return h, nil, errTooLong
			}
			if need = h.size + h.Remaining; in.w-in.r >= need {
				body := in.buf[in.r+h.size : in.r+need]
				in.r += need
				return h, body, nil
			}
		}
		if !armed {
			c.uncork()
			if !c.arm(time.Now()) {
				return h, nil, errConnEnded
			}
			armed = true
		}
		if err := c.fill(need); err != nil {
			return h, nil, err
		}
	}
}

// fill reads once, into a buffer that has room for a packet of need bytes.
func (c *conn) fill(need int) error {
	in := &c.in
	if in.r == in.w && !in.full {
		in.drop()
		in.buf = in.small[:]
	} else {
		in.room(need)
	}
	n, err := c.nc.Read(in.buf[in.w:])
	in.w += n
	in.full = in.big != nil && in.w == bigBuffer
	if n > 0 {
		return nil
	}
	return err
}

// drop gives back what is not needed while the client is silent.
func (in *input) drop() {
	if in.big != nil {
		bigBuffers.Put(in.big)
		in.big = nil
	}
	in.buf, in.r, in.w, in.full = nil, 0, 0, false
}

// room makes a place for more of what is unread, a packet of need bytes. Memory
// for a large one is taken once a good part of it is there.
func (in *input) room(need int) {
	unread := in.buf[in.r:in.w]
	to, big := in.buf, in.big
	switch {
	case len(in.buf) < bigBuffer:
		big = bigBuffers.Get().(*[bigBuffer]byte)
		to = big[:]
	case len(unread) == len(in.buf):
		to, big = make([]byte, need), nil
	}
	in.r, in.w = 0, copy(to, unread)
	if in.big != nil && big == nil {
		bigBuffers.Put(in.big)
	}
	in.buf, in.big = to, big
}

// arm sets the time by which the client has to be heard of. It is not worth
// doing for each packet: a tenth of the keep-alive sooner is soon enough. It
// returns false when the connection is being closed.
func (c *conn) arm(now time.Time) bool {
	if c.keepAlive == 0 || now.Sub(c.in.set) < c.keepAlive/10 {
		return !c.ending.Load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false // the deadline is that of the end now
	}
	c.in.set = now
	c.nc.SetReadDeadline(now.Add(c.keepAlive + c.keepAlive/2))
	return true
}

// malformed turns an error of the codec into a fault.
func malformed(err error) error {
	var code packets.Code
	if errors.As(err, &code) && code.Code >= 0x80 {
		return &fault{code.Code, code.Reason}
	}
	return &fault{packets.ErrMalformedPacket.Code, packets.ErrMalformedPacket.Reason}
}
