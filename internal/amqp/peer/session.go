package peer

import (
	"fmt"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// Session is one session of a connection (Part 2, section 2.5).
type Session struct {
	e         *Engine
	channel   uint16 // ours
	remote    uint16 // the peer's
	begun     bool   // the peer's begin came
	ended     bool
	handleMax uint32 // the peer's
	isDirty   bool
	flowDue   bool // a flow without a link is due

	// Outgoing: transfers that the peer still takes, and their numbering.
	nextOutgoingID uint32
	remoteWindow   uint32
	nextDeliveryID uint32
	sent           ring
	backlog        []backlogItem // deliveries of which part awaits the window
	refused        bool          // a Send found the window closed

	// Incoming.
	nextIncomingID uint32
	window         uint32 // transfers that we still take
	withheld       int    // who asked that the window is not opened again
	received       ring

	links    index[Link] // by the peer's handle
	byHandle index[Link] // by our handle
	names    map[linkName]*Link
	lastLink *Link // the link of the last transfer

	nextHandle  uint32
	freeHandles []uint32

	dirty   []*Link      // links with a flow due
	accepts pendingState // our word on what we received
	settles pendingState // our word on what we sent
}

// pendingState is a disposition held back so that its neighbours can join it.
type pendingState struct {
	active      bool
	settled     bool
	first, last uint32
	state       []byte
}

// Conn returns the connection of the session, nil for a bare engine.
func (s *Session) Conn() *Conn { return s.e.conn }

// Begin begins a session; EventBegin follows when the peer has answered.
// It returns nil when the peer allows no more, and while the connection is not Ready.
func (e *Engine) Begin() *Session {
	ch, ok := e.freeChannel()
	if !ok || e.phase != phaseReady {
		return nil
	}
	s := e.newSession(ch)
	s.writeBegin()
	return s
}

func (e *Engine) newSession(channel uint16) *Session {
	s := &Session{e: e, channel: channel, window: e.cfg.IncomingWindow,
		handleMax: 1<<32 - 1, // until the peer's begin says less
		names:     map[linkName]*Link{}}
	e.local.set(uint32(channel), s)
	return s
}

func (s *Session) writeBegin() {
	s.e.writeFrame(amqp.FrameAMQP, s.channel, &amqp.Begin{
		RemoteChannel: s.remote, HasRemoteChannel: s.begun,
		NextOutgoingID: s.nextOutgoingID,
		IncomingWindow: s.window,
		OutgoingWindow: s.e.cfg.IncomingWindow,
		HandleMax:      s.e.cfg.HandleMax,
	})
}

func (e *Engine) onBegin(channel uint16, p *amqp.Begin, fx *Effects) error {
	if channel > e.cfg.ChannelMax {
		return &amqp.Error{Condition: amqp.CondFramingError, Description: fmt.Sprintf("channel %d, channel-max is %d", channel, e.cfg.ChannelMax)}
	}
	if e.sessions.get(uint32(channel)) != nil {
		return &amqp.Error{Condition: amqp.CondIllegalState, Description: fmt.Sprintf("channel %d is in use", channel)}
	}
	var s *Session
	if p.HasRemoteChannel {
		if s = e.local.get(uint32(p.RemoteChannel)); s == nil || s.begun {
			return &amqp.Error{Condition: amqp.CondInvalidField, Description: fmt.Sprintf("begin answers channel %d, which awaits none", p.RemoteChannel)}
		}
	} else {
		ch, ok := e.freeChannel()
		if !ok {
			return &amqp.Error{Condition: amqp.CondResourceLimitExceeded, Description: "too many sessions"}
		}
		s = e.newSession(ch)
	}
	s.remote, s.begun = channel, true
	s.remoteWindow = p.IncomingWindow
	s.nextIncomingID = p.NextOutgoingID
	s.handleMax = p.HandleMax
	e.sessions.set(uint32(channel), s)
	if !p.HasRemoteChannel {
		s.writeBegin()
	}
	fx.add(Event{Kind: EventBegin, Session: s})
	return nil
}

func (e *Engine) freeChannel() (uint16, bool) {
	for ch := 0; ch <= int(min(e.cfg.ChannelMax, e.remote.ChannelMax)); ch++ {
		if e.local.get(uint32(ch)) == nil {
			return uint16(ch), true
		}
	}
	return 0, false
}

// session finds the session of a frame.
func (e *Engine) session(channel uint16) (*Session, error) {
	if e.last != nil && e.lastCh == channel {
		return e.last, nil
	}
	s := e.sessions.get(uint32(channel))
	if s == nil {
		return nil, &amqp.Error{Condition: amqp.CondIllegalState, Description: fmt.Sprintf("no session on channel %d", channel)}
	}
	e.last, e.lastCh = s, channel
	return s, nil
}

// End ends the session with an error, which may be nil. Its links take nothing
// more; their events come with EventEnd, when the peer has answered.
func (s *Session) End(err *amqp.Error) {
	if s.ended {
		return
	}
	s.flush()
	s.e.writeFrame(amqp.FrameAMQP, s.channel, &amqp.End{Error: err})
	s.ended = true
}

// endWith ends the session because of what the peer did: its links go, and so
// do the deliveries on them.
func (s *Session) endWith(err *amqp.Error, fx *Effects) {
	if s.ended {
		return
	}
	s.End(err)
	s.dropLinks(err, fx)
}

func (e *Engine) onEnd(channel uint16, p *amqp.End, fx *Effects) error {
	s, err := e.session(channel)
	if err != nil {
		return err
	}
	e.sessions.del(uint32(channel))
	e.last = nil
	s.drop(p.Error, fx)
	if !s.ended {
		s.End(nil)
	}
	e.local.del(uint32(s.channel))
	return nil
}

// drop forgets the session and everything on it.
func (s *Session) drop(err *amqp.Error, fx *Effects) {
	s.dropLinks(err, fx)
	fx.add(Event{Kind: EventEnd, Session: s, Error: err})
}

func (s *Session) dropLinks(err *amqp.Error, fx *Effects) {
	for l := range s.byHandle.all() {
		l.gone(err, true, fx)
	}
	s.backlog = nil
	s.e.held -= s.byHandle.n
	s.byHandle.clear()
	s.links.clear()
	clear(s.names)
	s.lastLink = nil
}

func (s *Session) markDirty() {
	if !s.isDirty {
		s.isDirty = true
		s.e.dirty = append(s.e.dirty, s)
	}
}

// finish writes every disposition and flow that was held back.
func (e *Engine) finish() {
	for i, s := range e.dirty {
		s.isDirty = false
		s.flush()
		e.dirty[i] = nil
	}
	e.dirty = e.dirty[:0]
}

func (s *Session) flush() {
	if s.ended {
		return
	}
	s.flushState(&s.accepts, amqp.RoleReceiver)
	s.flushState(&s.settles, amqp.RoleSender)
	for i, l := range s.dirty {
		s.dirty[i] = nil
		if l.state == linkOffered {
			continue // Accept sees to it
		}
		l.flowDue = false
		if l.attached() {
			s.writeFlow(l)
		}
	}
	s.dirty = s.dirty[:0]
	if s.flowDue {
		s.writeFlow(nil)
	}
}

// writeFlow writes a flow for the session and, unless l is nil, the link. The
// window opens to its full width again with each.
func (s *Session) writeFlow(l *Link) {
	s.flowDue = false
	if s.withheld == 0 {
		s.window = s.e.cfg.IncomingWindow
	}
	f := amqp.Flow{
		NextIncomingID: s.nextIncomingID, HasNextIncomingID: s.begun,
		IncomingWindow: s.window,
		NextOutgoingID: s.nextOutgoingID,
		OutgoingWindow: s.e.cfg.IncomingWindow,
	}
	if l != nil {
		f.Handle, f.HasHandle = l.handle, true
		f.DeliveryCount, f.HasDeliveryCount = l.deliveryCount, true
		f.LinkCredit, f.HasLinkCredit = l.credit, true
		f.Drain = l.drain
		if l.role == amqp.RoleSender {
			f.HasAvailable = true
		}
	}
	at := s.e.openFrame(s.channel)
	s.e.closeFrame(f.Append(s.e.out), at)
}

func (e *Engine) onFlow(fr amqp.Frame, fx *Effects) error {
	if _, err := amqp.DecodeInto(fr.Body, &fx.flow); err != nil {
		return err
	}
	s, err := e.session(fr.Channel)
	if err != nil || s.ended {
		return err
	}
	p := &fx.flow
	s.nextIncomingID = p.NextOutgoingID
	// What the peer had seen when it wrote this decides how much of the window
	// is left (Part 2, section 2.5.6). Numbering starts at 0 here.
	s.remoteWindow = p.NextIncomingID + p.IncomingWindow - s.nextOutgoingID
	if int32(s.remoteWindow) < 0 && p.IncomingWindow < 1<<31 {
		s.remoteWindow = 0
	}
	s.pump(fx)
	if !p.HasHandle {
		if p.Echo {
			s.flowDue = true
			s.markDirty()
		}
		return nil
	}
	l := s.links.get(p.Handle)
	if l == nil {
		s.endWith(&amqp.Error{Condition: amqp.CondUnattachedHandle, Description: fmt.Sprintf("flow on handle %d", p.Handle)}, fx)
		return nil
	}
	l.onFlow(p, fx)
	return nil
}

// writable reports whether a frame may leave now.
func (s *Session) writable() bool {
	return s.remoteWindow > 0 && len(s.backlog) == 0
}

// resume tells the owner once that a refused Send may be tried again.
func (s *Session) resume(fx *Effects) {
	if s.refused && s.writable() {
		s.refused = false
		fx.add(Event{Kind: EventWritable, Session: s})
	}
}
