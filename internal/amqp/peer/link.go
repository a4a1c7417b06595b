package peer

import (
	"cmp"
	"fmt"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// Link is one end of a link (Part 2, section 2.6).
type Link struct {
	// Data belongs to the owner.
	Data any

	s             *Session
	name          string
	role          amqp.Role // ours
	handle        uint32    // ours
	remoteHandle  uint32
	state         linkState
	sndMode       amqp.SenderSettleMode
	rcvMode       amqp.ReceiverSettleMode
	maxMessage    uint64       // as receiver: what we take; as sender: what the peer takes; 0 = no limit
	attach        *amqp.Attach // the peer's, until the owner has answered it
	unanswered    bool         // we detached before the peer's attach came
	flowDue       bool
	drain         bool
	deliveryCount uint32
	credit        uint32
	unsettled     int // deliveries of the link in the session's rings

	// Receiver: the farthest delivery-count that any flow of ours allowed. A
	// sender may use what it was once given, also after a flow that took it back.
	limit uint32
	// grace is how many deliveries beyond the limit are borne after credit was
	// lowered. A sender that is ahead of the flow that lowers it computes a negative
	// credit; go-amqp takes that for a very large one until the next flow. The session
	// window, which it keeps, bounds what it sends meanwhile.
	grace   uint32
	partial *partial // delivery of which more frames are to come
	// cutThrough hands the owner large deliveries in parts.
	cutThrough bool

	// Sender: a delivery in parts is under way, of so many bytes so far.
	streaming bool
	streamID  uint32
	streamed  uint64
}

type linkState uint8

const (
	linkOffered  linkState = iota // the peer's attach awaits the owner's answer
	linkAwaiting                  // our attach awaits the peer's answer
	linkAttached
	linkDetached
)

// partial is a delivery that comes in several frames.
type partial struct {
	id      uint32
	tag     []byte
	format  uint32
	settled bool
	state   []byte
	payload []byte
	size    uint64 // of what came so far
	cut     bool   // the owner gets it in parts
}

// Name returns the link's name.
func (l *Link) Name() string { return l.name }

// Role returns our role.
func (l *Link) Role() amqp.Role { return l.role }

// Session returns the link's session.
func (l *Link) Session() *Session { return l.s }

// Conn returns the link's connection.
func (l *Link) Conn() *Conn { return l.s.e.conn }

// Credit is how many deliveries may still go over the link: as the peer gave
// them to a sender, as we gave them to the peer's sender.
func (l *Link) Credit() uint32 { return l.credit }

// Drain reports whether the receiver wants its credit used up now.
func (l *Link) Drain() bool { return l.drain }

// SenderSettleMode returns the mode in force.
func (l *Link) SenderSettleMode() amqp.SenderSettleMode { return l.sndMode }

// ReceiverSettleMode returns the mode in force.
func (l *Link) ReceiverSettleMode() amqp.ReceiverSettleMode { return l.rcvMode }

// MaxMessageSize is the largest message that may go over the link, 0 for no limit.
func (l *Link) MaxMessageSize() uint64 { return l.maxMessage }

func (l *Link) attached() bool { return l.state == linkAttached && !l.s.ended }

// Attached reports whether the link is established in both directions.
func (l *Link) Attached() bool { return l.attached() }

func (e *Engine) onAttach(channel uint16, p *amqp.Attach, fx *Effects) error {
	s, err := e.session(channel)
	if err != nil || s.ended {
		return err
	}
	if p.Handle > e.cfg.HandleMax {
		return &amqp.Error{Condition: amqp.CondFramingError, Description: fmt.Sprintf("handle %d, handle-max is %d", p.Handle, e.cfg.HandleMax)}
	}
	if s.links.get(p.Handle) != nil {
		s.endWith(&amqp.Error{Condition: amqp.CondHandleInUse, Description: fmt.Sprintf("handle %d is attached", p.Handle)}, fx)
		return nil
	}
	if l := s.names[linkName{p.Name, !p.Role}]; l != nil {
		switch {
		case l.state == linkAwaiting:
			l.answered(p, fx)
			return nil
		case l.unanswered:
			l.unanswered = false // we gave up on it; the peer's detach follows
			l.setRemote(p)
			return nil
		}
		s.endWith(&amqp.Error{Condition: amqp.CondIllegalState, Description: fmt.Sprintf("link %.64q is attached", p.Name)}, fx)
		return nil
	}
	full := e.cfg.LinkMax > 0 && e.live >= e.cfg.LinkMax
	var l *Link
	if !full || e.held < e.cfg.LinkMax+linkSlack {
		l = s.newLink(p.Name, !p.Role)
	}
	if l == nil {
		s.endWith(&amqp.Error{Condition: amqp.CondResourceLimitExceeded, Description: "too many links"}, fx)
		return nil
	}
	l.setRemote(p)
	l.attach = p
	l.sndMode, l.rcvMode = p.SenderSettleMode, p.ReceiverSettleMode
	if full {
		l.Refuse(&amqp.Error{Condition: amqp.CondResourceLimitExceeded,
			Description: fmt.Sprintf("too many links: at most %d on a connection", e.cfg.LinkMax)})
		return nil
	}
	fx.add(Event{Kind: EventAttach, Session: s, Link: l, Attach: p})
	return nil
}

// linkName tells a session's links apart: a name may be used once per direction.
type linkName struct {
	name string
	role amqp.Role // ours
}

// newLink makes a link with a free handle, or returns nil when there is none.
func (s *Session) newLink(name string, role amqp.Role) *Link {
	h := s.nextHandle
	if n := len(s.freeHandles); n > 0 {
		h, s.freeHandles = s.freeHandles[n-1], s.freeHandles[:n-1]
	} else if h > min(s.handleMax, s.e.cfg.HandleMax) {
		return nil
	} else {
		s.nextHandle++
	}
	l := &Link{s: s, name: name, role: role, handle: h}
	s.byHandle.set(h, l)
	s.e.live++
	s.e.held++
	s.names[linkName{name, role}] = l
	return l
}

// free gives a link's name and handle back once both sides have detached.
func (s *Session) free(l *Link) {
	s.byHandle.del(l.handle)
	s.e.held--
	if s.links.get(l.remoteHandle) == l {
		s.links.del(l.remoteHandle)
	}
	if s.names[linkName{l.name, l.role}] == l {
		delete(s.names, linkName{l.name, l.role})
	}
	s.freeHandles = append(s.freeHandles, l.handle)
	s.lastLink = nil
}

func (l *Link) setRemote(p *amqp.Attach) {
	l.remoteHandle = p.Handle
	l.s.links.set(p.Handle, l)
	if l.role == amqp.RoleReceiver {
		l.deliveryCount = p.InitialDeliveryCount
		l.limit = l.deliveryCount
	} else {
		l.maxMessage = p.MaxMessageSize
	}
}

func (l *Link) answered(p *amqp.Attach, fx *Effects) {
	l.setRemote(p)
	l.state = linkAttached
	fx.add(Event{Kind: EventAttached, Session: l.s, Link: l, Attach: p})
	if l.role == amqp.RoleReceiver && l.credit > 0 {
		l.limit = l.deliveryCount + l.credit
		l.markFlow()
	}
}

// Attachment is what our side says of a link.
type Attachment struct {
	Name               string // only for Attach
	Role               amqp.Role
	SenderSettleMode   amqp.SenderSettleMode
	ReceiverSettleMode amqp.ReceiverSettleMode
	Source             *amqp.Source
	Target             *amqp.Target
	Capabilities       []amqp.Symbol // offered
	Desired            []amqp.Symbol
	Properties         amqp.Raw
	Credit             uint32 // receiver: given at once
	MaxMessageSize     uint64 // receiver: bytes; 0 = that of the connection
	// CutThrough makes a receiver hand over deliveries above 64 KiB in parts:
	// an EventDelivery with More set, then EventPart. Their size has no bound
	// but MaxMessageSize.
	CutThrough bool
}

// Attach attaches a link on a session that the peer has answered or not yet;
// EventAttached follows. It returns nil when the peer allows no more links, when
// the name is in use, and when session or connection are ending.
func (s *Session) Attach(a Attachment) *Link {
	if s.ended || s.e.phase != phaseReady || s.names[linkName{a.Name, a.Role}] != nil {
		return nil
	}
	l := s.newLink(a.Name, a.Role)
	if l == nil {
		return nil
	}
	l.state = linkAwaiting
	l.sndMode, l.rcvMode = a.SenderSettleMode, a.ReceiverSettleMode
	if a.Role == amqp.RoleReceiver {
		l.maxMessage = cmp.Or(a.MaxMessageSize, s.e.cfg.MaxMessageSize)
		l.credit = a.Credit
	}
	l.writeAttach(a)
	return l
}

func (l *Link) writeAttach(a Attachment) {
	p := &amqp.Attach{
		Name: l.name, Handle: l.handle, Role: l.role,
		SenderSettleMode: l.sndMode, ReceiverSettleMode: l.rcvMode,
		Source: a.Source, Target: a.Target,
		OfferedCapabilities: a.Capabilities, DesiredCapabilities: a.Desired, Properties: a.Properties,
	}
	if l.role == amqp.RoleReceiver {
		p.MaxMessageSize = l.maxMessage
	}
	l.s.e.writeFrame(amqp.FrameAMQP, l.s.channel, p)
}

// Accept answers the peer's attach: with its own termini where a has none, and
// with the settle modes that it asked for. Credit is given at once.
func (l *Link) Accept(a Attachment) {
	if l.state != linkOffered || l.s.ended {
		return
	}
	l.state = linkAttached
	if a.Source == nil {
		a.Source = l.attach.Source
	}
	if a.Target == nil {
		a.Target = l.attach.Target
	}
	if l.role == amqp.RoleReceiver {
		l.cutThrough = a.CutThrough
		l.maxMessage = a.MaxMessageSize
		if !a.CutThrough {
			l.maxMessage = cmp.Or(a.MaxMessageSize, l.s.e.cfg.MaxMessageSize)
		}
	}
	l.writeAttach(a)
	l.attach = nil
	if l.flowDue { // the peer's flow, close behind its attach, asked for one
		l.flowDue = false
		l.markFlow()
	}
	if l.role == amqp.RoleReceiver && a.Credit > 0 {
		l.SetCredit(a.Credit)
	}
}

// Refuse answers the peer's attach with one that has no terminus, and detaches
// with the error (Part 2, section 2.6.3).
func (l *Link) Refuse(err *amqp.Error) {
	if l.state != linkOffered || l.s.ended {
		return
	}
	a := Attachment{}
	// The terminus on the peer's side stays; ours is null.
	if l.role == amqp.RoleReceiver {
		a.Source = l.attach.Source
	} else {
		a.Target = l.attach.Target
	}
	l.writeAttach(a)
	l.attach = nil
	l.state = linkAttached
	l.Detach(err)
}

// Detach closes the link with an error, which may be nil; it may do so before the
// peer has answered our attach. Its unsettled deliveries are forgotten without a
// word: [Link.DetachLost] tells of them.
func (l *Link) Detach(err *amqp.Error) { l.DetachLost(err, nil) }

// DetachLost is Detach for a sending link whose owner wants to hear of the
// deliveries that were not settled: each is an EventLost in fx.
func (l *Link) DetachLost(err *amqp.Error, fx *Effects) {
	if !l.attached() && (l.state != linkAwaiting || l.s.ended) {
		return
	}
	l.unanswered = l.state == linkAwaiting
	l.s.flush()
	l.s.e.writeFrame(amqp.FrameAMQP, l.s.channel, &amqp.Detach{Handle: l.handle, Closed: true, Error: err})
	l.state = linkDetached
	l.s.e.live--
	l.forget(fx)
}

// forget settles what the link has unsettled.
func (l *Link) forget(fx *Effects) {
	l.dropPartial()
	l.s.dropBacklog(l)
	if l.role == amqp.RoleReceiver {
		l.s.received.removeLink(l, nil)
		return
	}
	l.s.sent.removeLink(l, func(id uint32, s slot) {
		if fx != nil {
			fx.add(Event{Kind: EventLost, Session: l.s, Link: l, ID: id, Token: s.token, Settled: s.state&slotHeard != 0})
		}
	})
}

// gone tells the owner that the link is no more.
func (l *Link) gone(err *amqp.Error, closed bool, fx *Effects) {
	if l.state == linkDetached {
		return
	}
	l.state = linkDetached
	l.s.e.live--
	l.abortPartial(fx)
	fx.add(Event{Kind: EventDetach, Session: l.s, Link: l, Error: err, Closed: closed})
	l.forget(fx)
}

func (e *Engine) onDetach(channel uint16, p *amqp.Detach, fx *Effects) error {
	s, err := e.session(channel)
	if err != nil || s.ended {
		return err
	}
	l := s.links.get(p.Handle)
	if l == nil {
		s.endWith(&amqp.Error{Condition: amqp.CondUnattachedHandle, Description: fmt.Sprintf("detach of handle %d", p.Handle)}, fx)
		return nil
	}
	if l.state == linkDetached {
		s.free(l) // the answer to ours
		return nil
	}
	if l.state == linkOffered {
		l.writeAttach(Attachment{}) // the owner has not yet: a detach needs one before it
	}
	s.flush()
	l.gone(p.Error, p.Closed, fx)
	s.resume(fx)
	s.e.writeFrame(amqp.FrameAMQP, s.channel, &amqp.Detach{Handle: l.handle, Closed: p.Closed})
	s.free(l)
	return nil
}

// onFlow applies the link part of a flow.
func (l *Link) onFlow(p *amqp.Flow, fx *Effects) {
	if l.state == linkDetached {
		return
	}
	if l.role == amqp.RoleSender {
		l.senderFlow(p, fx)
	} else if p.HasDeliveryCount {
		l.receiverFlow(p)
	}
	if p.Echo {
		l.markFlow()
	}
}

// senderFlow sets the credit from a receiver's flow (Part 2, section 2.6.7):
//
//	credit = flow.delivery-count + flow.link-credit - l.deliveryCount
//
// Counts are serial numbers that wrap (RFC 1982). An absent delivery-count
// stands for the initial one, which is 0 here.
func (l *Link) senderFlow(p *amqp.Flow, fx *Effects) {
	if p.HasLinkCredit {
		l.credit = p.DeliveryCount + p.LinkCredit - l.deliveryCount
		if int32(l.credit) < 0 && p.LinkCredit < 1<<31 {
			l.credit = 0 // it took back what we have used
		}
	}
	l.drain = p.Drain
	fx.add(Event{Kind: EventCredit, Session: l.s, Link: l})
}

// receiverFlow follows a sender that advanced its delivery-count without
// sending, as it does when drained.
func (l *Link) receiverFlow(p *amqp.Flow) {
	// It cannot use up more than it was given.
	skipped := min(p.DeliveryCount-l.deliveryCount, l.limit-l.deliveryCount)
	if int32(p.DeliveryCount-l.deliveryCount) <= 0 {
		return
	}
	l.deliveryCount += skipped
	l.credit -= min(l.credit, skipped)
	if l.drain && l.credit == 0 {
		l.drain = false
	}
}

func (l *Link) markFlow() {
	if !l.flowDue {
		l.flowDue = true
		l.s.dirty = append(l.s.dirty, l)
		l.s.markDirty()
	}
}

// SetCredit sets a receiver's credit to n deliveries from now on; what the
// sender sent before it hears of a lower one still arrives.
func (l *Link) SetCredit(n uint32) {
	if l.role != amqp.RoleReceiver || l.state == linkDetached {
		return
	}
	if n < l.credit {
		l.grace = l.s.e.cfg.IncomingWindow
	}
	l.credit = n
	if to := l.deliveryCount + n; int32(to-l.limit) > 0 {
		l.limit = to
	}
	if l.attached() {
		l.markFlow()
	}
}

// SetDrain asks the sender to use up its credit now and to tell so.
func (l *Link) SetDrain() {
	if l.role == amqp.RoleReceiver && l.attached() {
		l.drain = true
		l.markFlow()
	}
}

// Drained uses up a sender's credit after the owner sent what it had.
func (l *Link) Drained() {
	if l.role != amqp.RoleSender || !l.attached() || !l.drain {
		return
	}
	l.deliveryCount += l.credit
	l.credit = 0
	l.markFlow()
}
