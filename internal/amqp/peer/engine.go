package peer

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// Limits and defaults that hold where a Config leaves them at zero.
const (
	defaultMaxFrameSize   = 16 * 1024
	defaultChannelMax     = 255
	defaultHandleMax      = 65535
	defaultIncomingWindow = 2048 // transfer frames
	defaultMaxMessageSize = 1 << 20

	// maxPartials times MaxMessageSize is what deliveries that have not come
	// whole may take on one connection.
	maxPartials = 16

	// maxSASLFrame is larger than the 512 bytes of the specification because
	// OAuth tokens are.
	maxSASLFrame = 16 * 1024

	// UnsentHigh is how many bytes may wait to be written before the links of a
	// connection count as creditless.
	UnsentHigh = 256 * 1024

	// linkSlack is how many links beyond LinkMax may be refused and not yet
	// detached by the peer too.
	linkSlack = 256
)

// Config is what an engine announces and allows.
type Config struct {
	ContainerID         string
	Hostname            string        // client: the host it wants to reach
	MaxFrameSize        uint32        // bytes, 512 to 65536
	ChannelMax          uint16        // highest channel number: sessions - 1
	HandleMax           uint32        // highest link handle of a session
	LinkMax             int           // links that the peer may have attached on the connection; 0 = as HandleMax allows
	IncomingWindow      uint32        // transfer frames of a session
	IdleTimeout         time.Duration // announced; twice that without a frame closes the connection. 0 = none
	MaxMessageSize      uint64        // bytes, announced on receiving links
	OfferedCapabilities []amqp.Symbol
	DesiredCapabilities []amqp.Symbol
	Properties          amqp.Map
	// Answer may change what a server's open says once the peer's has come; nil = it
	// says the above.
	Answer func(remote, own *amqp.Open)
}

func (c Config) withDefaults() Config {
	if c.MaxFrameSize == 0 {
		c.MaxFrameSize = defaultMaxFrameSize
	}
	c.MaxFrameSize = min(max(c.MaxFrameSize, amqp.MinMaxFrameSize), bufferSize)
	if c.ChannelMax == 0 {
		c.ChannelMax = defaultChannelMax
	}
	if c.HandleMax == 0 {
		c.HandleMax = defaultHandleMax
	}
	if c.IncomingWindow == 0 {
		c.IncomingWindow = defaultIncomingWindow
	}
	if c.MaxMessageSize == 0 {
		c.MaxMessageSize = defaultMaxMessageSize
	}
	return c
}

type phase uint8

const (
	phaseHeader     phase = iota // awaiting the first protocol header
	phaseSASL                    // SASL frames
	phaseSASLWait                // a SASL answer is due from the owner
	phaseAMQPHeader              // awaiting the header after SASL
	phaseOpen                    // awaiting open
	phaseReady
	phaseClosing // our close is out
	phaseClosed
)

// Engine is the protocol state of one connection.
type Engine struct {
	cfg    Config
	server bool
	phase  phase
	conn   *Conn

	sasl saslState

	out      []byte // encoded output not yet handed out
	inFlight int    // bytes handed out and not yet written
	refused  bool   // a Send found too much unsent
	large    int    // the largest message among what is unsent
	partial  int    // bytes of deliveries that have not come whole
	bytesIn  uint64
	bytesOut uint64

	remote   amqp.Open
	maxFrame uint32 // largest frame the peer takes
	idle     time.Duration

	sessions index[Session] // by the peer's channel
	local    index[Session] // by our channel
	last     *Session
	lastCh   uint16

	live int // links that are attached or about to be
	held int // live ones, and those whose detach the peer has not answered

	dirty []*Session // sessions with dispositions or flows to be written

	closeSent bool
	closeErr  *amqp.Error // what the peer's or our close said
	lastIn    time.Time
	lastBeat  time.Time
}

// NewServer returns the engine of an accepted connection. mechanisms are
// offered by SASL, which is mandatory.
func NewServer(cfg Config, mechanisms []amqp.Symbol) *Engine {
	e := newEngine(cfg)
	e.server = true
	e.sasl.mechanisms = mechanisms
	return e
}

// NewClient returns the engine of a connection that we open; its first bytes
// are in the output at once.
func NewClient(cfg Config, login Login) *Engine {
	e := newEngine(cfg)
	e.sasl.login = login
	e.write(func(b []byte) []byte { return append(b, amqp.HeaderSASL...) })
	return e
}

func newEngine(cfg Config) *Engine {
	return &Engine{
		cfg:      cfg.withDefaults(),
		maxFrame: amqp.MinMaxFrameSize,
	}
}

// Ready reports whether both opens were exchanged and no close was.
func (e *Engine) Ready() bool { return e.phase == phaseReady }

// Remote returns the peer's open; meaningful once Ready.
func (e *Engine) Remote() *amqp.Open { return &e.remote }

// Done reports whether the connection has nothing more to say or hear.
func (e *Engine) Done() bool { return e.phase == phaseClosed }

// CloseError returns the error of the close that ended the connection, if any.
func (e *Engine) CloseError() *amqp.Error { return e.closeErr }

// write appends to the output.
func (e *Engine) write(f func(b []byte) []byte) {
	if e.out == nil {
		e.out = getBuffer()
	}
	e.out = f(e.out)
}

func (e *Engine) writeFrame(t amqp.FrameType, channel uint16, p amqp.Performative) {
	if e.closeSent {
		return // nothing may follow a close
	}
	if e.out == nil {
		e.out = getBuffer()
	}
	e.out = amqp.AppendFrame(e.out, t, channel, p)
}

// openFrame begins a frame in the output; closeFrame takes what the output has
// become. Together they do what writeFrame does, without an interface that would put the
// performative on the heap.
func (e *Engine) openFrame(channel uint16) (at int) {
	if e.out == nil {
		e.out = getBuffer()
	}
	at = len(e.out)
	e.out = amqp.OpenFrame(e.out, amqp.FrameAMQP, channel)
	return at
}

func (e *Engine) closeFrame(b []byte, at int) {
	e.out = amqp.CloseFrame(b, at)
	if e.closeSent {
		e.out = e.out[:at] // nothing may follow a close
	}
}

// TakeOutput returns what is to be written, completed by the dispositions and
// flows that were held back to be merged, and forgets it. The caller says with
// [Engine.Wrote] how much of it has left.
func (e *Engine) TakeOutput() []byte {
	e.finish()
	b := e.out
	e.out = nil
	e.inFlight += len(b)
	e.bytesOut += uint64(len(b))
	return b
}

// Unsettled is the number of deliveries that we sent and that are not settled,
// counted from the oldest such one.
func (e *Engine) Unsettled() (n int) {
	for s := range e.local.all() {
		n += int(s.sent.n)
	}
	return n
}

// HasOutput reports whether TakeOutput would return anything.
func (e *Engine) HasOutput() bool { return len(e.out) > 0 || len(e.dirty) > 0 }

// Wrote tells that n bytes of what TakeOutput gave have left.
func (e *Engine) Wrote(n int) {
	if e.inFlight -= n; e.Unsent() == 0 {
		e.large = 0
	}
}

// Unsent is the number of bytes that wait to be written.
func (e *Engine) Unsent() int { return len(e.out) + e.inFlight }

// Choked reports whether so much output waits that no more input should be
// taken: more than sends may leave behind, so that two peers who both send do not
// both stop listening.
func (e *Engine) Choked() bool {
	return e.Unsent() > unsentStop+e.large && e.phase < phaseClosing
}

// Resume reports once that sends which were refused for too much unsent
// output may be tried again.
func (e *Engine) Resume() bool {
	if e.refused && e.Unsent() <= UnsentHigh/2 {
		e.refused = false
		return true
	}
	return false
}

// Input consumes protocol headers and whole frames from the head of b and
// returns how many bytes it took. After an error the engine has written the
// close that tells the peer and takes no more input.
func (e *Engine) Input(b []byte, now time.Time, fx *Effects) (n int, err error) {
	if len(b) > 0 {
		e.lastIn = now
	}
	for n < len(b) && e.phase != phaseClosed && e.phase != phaseSASLWait {
		var k int
		if e.phase == phaseHeader || e.phase == phaseAMQPHeader {
			k, err = e.header(b[n:])
		} else {
			var f amqp.Frame
			if f, k, err = amqp.ParseFrame(b[n:], e.frameLimit()); k > 0 {
				err = e.step(f, fx)
			}
		}
		if err != nil {
			return n, e.fail(err, fx)
		}
		if k == 0 {
			break
		}
		n += k
	}
	e.bytesIn += uint64(n)
	// They point into b, which is not to be kept.
	fx.transfer, fx.disposition, fx.flow = amqp.Transfer{}, amqp.Disposition{}, amqp.Flow{}
	return n, nil
}

// NeedsAuth reports whether Input stopped because the owner has to answer a
// SASL step.
func (e *Engine) NeedsAuth() bool { return e.phase == phaseSASLWait }

func (e *Engine) frameLimit() uint32 {
	if e.phase == phaseSASL {
		return maxSASLFrame
	}
	return e.cfg.MaxFrameSize
}

// fail turns a decoding or framing error into the close that the peer gets.
func (e *Engine) fail(err error, fx *Effects) error {
	var cond *amqp.Error
	var decode *amqp.DecodeError
	var frame *amqp.FrameError
	switch {
	case errors.As(err, &cond):
	case errors.As(err, &frame):
		cond = &amqp.Error{Condition: amqp.CondFramingError, Description: frame.Reason}
	case errors.As(err, &decode):
		cond = &amqp.Error{Condition: amqp.CondDecodeError, Description: strings.TrimPrefix(decode.Error(), "amqp: ")}
	default:
		cond = &amqp.Error{Condition: amqp.CondInternalError}
	}
	if e.phase >= phaseOpen && e.phase < phaseClosed {
		e.Close(cond)
	}
	e.phase = phaseClosed
	e.closeErr = cond
	return err
}

// header handles a protocol header (Part 2, section 2.2).
func (e *Engine) header(b []byte) (int, error) {
	if len(b) < 8 {
		// Garbage is recognised by its first bytes, not waited for.
		if m := min(len(b), 4); string(b[:m]) != "AMQP"[:m] {
			return 0, e.badHeader(b)
		}
		return 0, nil
	}
	h := string(b[:8])
	switch {
	case e.phase == phaseAMQPHeader && h == amqp.HeaderAMQP:
		e.phase = phaseOpen
		if e.server {
			e.write(func(b []byte) []byte { return append(b, amqp.HeaderAMQP...) })
		}
		return 8, nil
	case e.phase == phaseHeader && h == amqp.HeaderSASL:
		e.phase = phaseSASL
		if e.server {
			e.offer()
		}
		return 8, nil
	case e.phase == phaseHeader && h == amqp.HeaderAMQP && e.server:
		// A client that skips SASL is told what is asked for, and then refused
		// whatever it says: dropping the socket would look like an outage to it.
		e.phase = phaseSASL
		e.sasl.refuse = true
		e.offer()
		return 8, nil
	}
	return 0, e.badHeader(b[:8])
}

func (e *Engine) badHeader(b []byte) error {
	if e.server {
		want := amqp.HeaderSASL
		if e.phase == phaseAMQPHeader {
			want = amqp.HeaderAMQP
		}
		e.write(func(b []byte) []byte { return append(b, want...) })
	}
	return &amqp.FrameError{Reason: fmt.Sprintf("protocol header %.8q, SASL or AMQP 1.0 expected", b)}
}

// step handles one frame.
func (e *Engine) step(f amqp.Frame, fx *Effects) error {
	if e.phase == phaseSASL {
		return e.saslFrame(f)
	}
	if f.Type != amqp.FrameAMQP {
		return &amqp.FrameError{Reason: "SASL frame after the SASL dialogue"}
	}
	if len(f.Body) == 0 {
		return nil // heartbeat
	}
	d, err := amqp.PeekDescriptor(f.Body)
	if err != nil {
		return err
	}
	if e.phase == phaseClosing && d != amqp.DescClose {
		return nil // discarded until the peer's close (Part 2, section 2.4.3)
	}
	if e.phase == phaseOpen && d != amqp.DescOpen {
		return &amqp.Error{Condition: amqp.CondIllegalState, Description: fmt.Sprintf("%v before open", d)}
	}
	switch d {
	case amqp.DescTransfer:
		return e.onTransfer(f, fx)
	case amqp.DescDisposition:
		return e.onDisposition(f, fx)
	case amqp.DescFlow:
		return e.onFlow(f, fx)
	}
	// What follows is rare and some of it is kept, so it gets bytes of its own.
	p, _, err := amqp.DecodePerformative(bytes.Clone(f.Body))
	if err != nil {
		return err
	}
	switch p := p.(type) {
	case *amqp.Open:
		return e.onOpen(p, fx)
	case *amqp.Begin:
		return e.onBegin(f.Channel, p, fx)
	case *amqp.Attach:
		return e.onAttach(f.Channel, p, fx)
	case *amqp.Detach:
		return e.onDetach(f.Channel, p, fx)
	case *amqp.End:
		return e.onEnd(f.Channel, p, fx)
	case *amqp.Close:
		return e.onClose(p, fx)
	}
	return &amqp.Error{Condition: amqp.CondNotAllowed, Description: fmt.Sprintf("%v in an AMQP frame", d)}
}

func (e *Engine) onOpen(p *amqp.Open, fx *Effects) error {
	if e.phase != phaseOpen {
		return &amqp.Error{Condition: amqp.CondIllegalState, Description: "second open"}
	}
	if p.MaxFrameSize < amqp.MinMaxFrameSize {
		return &amqp.Error{Condition: amqp.CondInvalidField, Description: fmt.Sprintf(
			"open.max-frame-size %d, at least %d expected", p.MaxFrameSize, amqp.MinMaxFrameSize)}
	}
	e.remote, e.lastBeat = *p, e.lastIn
	// Frames longer than a write buffer bring nothing, so ours stay below 64 KiB.
	e.maxFrame = min(p.MaxFrameSize, 64*1024)
	e.idle = time.Duration(p.IdleTimeout) * time.Millisecond
	e.phase = phaseReady
	if e.server {
		e.writeOpen()
	}
	fx.add(Event{Kind: EventOpen, Open: &e.remote})
	return nil
}

func (e *Engine) writeOpen() {
	var props amqp.Raw
	if len(e.cfg.Properties) > 0 {
		props, _ = amqp.AppendMap(nil, e.cfg.Properties)
	}
	own := amqp.Open{
		ContainerID:         e.cfg.ContainerID,
		Hostname:            e.cfg.Hostname,
		MaxFrameSize:        e.cfg.MaxFrameSize,
		ChannelMax:          e.cfg.ChannelMax,
		IdleTimeout:         uint32(min(e.cfg.IdleTimeout.Milliseconds(), math.MaxUint32)),
		OfferedCapabilities: e.cfg.OfferedCapabilities,
		DesiredCapabilities: e.cfg.DesiredCapabilities,
		Properties:          props,
	}
	if e.cfg.Answer != nil && e.server {
		e.cfg.Answer(&e.remote, &own)
		e.cfg.Answer = nil
	}
	e.writeFrame(amqp.FrameAMQP, 0, &own)
}

// Close writes a close with the error, which may be nil, and what is pending
// before it. Only the peer's close is awaited afterwards; before the opens there
// is nobody to tell, and the engine is Done.
func (e *Engine) Close(err *amqp.Error) {
	if e.closeSent || e.phase == phaseClosed {
		return
	}
	if e.phase < phaseOpen {
		e.phase, e.closeErr = phaseClosed, err
		return
	}
	e.finish()
	if e.server && e.phase == phaseOpen {
		e.writeOpen() // a close must follow an open (Part 2, section 2.4.1)
	}
	e.writeFrame(amqp.FrameAMQP, 0, &amqp.Close{Error: err})
	e.closeSent = true
	e.closeErr = err
	e.phase = phaseClosing
}

func (e *Engine) onClose(p *amqp.Close, fx *Effects) error {
	if !e.closeSent {
		e.closeErr = p.Error
		e.Close(nil)
		e.closeErr = p.Error
	}
	e.phase = phaseClosed
	fx.add(Event{Kind: EventClose, Error: p.Error})
	return nil
}

// Abandon ends every session: the connection is gone. Their events are added to fx.
func (e *Engine) Abandon(fx *Effects) {
	e.phase = phaseClosed
	for s := range e.local.all() {
		s.ended = true
		s.drop(nil, fx)
	}
	e.local.clear()
	e.sessions.clear()
	e.last = nil
}

// Tick does what time demands: a heartbeat in time for the peer's limit, and
// the end of a connection whose peer is silent. It returns when it wants to be
// called again, zero for never, and whether output is waiting.
func (e *Engine) Tick(now time.Time) (next time.Time, output bool) {
	if e.phase == phaseClosed {
		return time.Time{}, false
	}
	if limit := 2 * e.cfg.IdleTimeout; limit > 0 && e.phase >= phaseOpen {
		if now.Sub(e.lastIn) >= limit {
			e.Close(&amqp.Error{Condition: "hono:inactivity",
				Description: fmt.Sprintf("no frame for %v", now.Sub(e.lastIn).Round(time.Second))})
			e.phase = phaseClosed
			return time.Time{}, true
		}
		next = e.lastIn.Add(limit)
	}
	if e.idle > 0 && e.phase == phaseReady {
		// Half of what the peer allows leaves room for a slow network. A beat also
		// goes out on a busy connection: eight bytes are cheaper than a look at the
		// clock whenever something is written.
		every := e.idle / 2
		if e.idle < 4*time.Second {
			every = e.idle / 4
		}
		if !e.lastBeat.Add(every).After(now) {
			e.write(amqp.AppendHeartbeat)
			e.lastBeat, output = now, true
		}
		if beat := e.lastBeat.Add(every); next.IsZero() || beat.Before(next) {
			next = beat
		}
	}
	return next, output
}
