package peer

import (
	"fmt"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// Outgoing is a delivery to be sent. Its bytes are copied before Send returns.
type Outgoing struct {
	Tag     []byte // nil = the delivery-id, 4 bytes
	Format  uint32
	Settled bool
	More    bool // the rest follows by Link.Continue
	Token   Token
	// Head, Mid and Tail together are the encoded message: three parts, so that
	// a section can be replaced without copying what surrounds it.
	Head, Mid, Tail []byte
}

func (o *Outgoing) size() int { return len(o.Head) + len(o.Mid) + len(o.Tail) }

// backlogItem is the rest of a delivery that the peer's window cut off.
type backlogItem struct {
	link  *Link
	id    uint32
	rest  []byte
	more  bool // and it does not end the delivery
	abort bool // nothing is left but to say that it is aborted
}

// SendResult says what became of a Send.
type SendResult uint8

// The results of Send. Of the refusals, NoCredit ends with an EventCredit,
// NotNow with an EventWritable or with Handler.Writable; TooLarge and Gone are final.
const (
	Sent     SendResult = iota
	NoCredit            // the receiver gave none
	NotNow              // session window closed, or too much unsent on the connection
	TooLarge            // larger than the receiver takes
	Gone                // the link is not attached
)

// CanSend tells what Send would say to a message of size bytes.
func (l *Link) CanSend(size int) SendResult {
	switch s := l.s; {
	case !l.attached() || s.e.phase != phaseReady:
		return Gone
	case l.streaming:
		return NotNow // until Continue has sent the last of it
	case l.maxMessage > 0 && uint64(size) > l.maxMessage:
		return TooLarge
	case l.credit == 0:
		return NoCredit
	case !s.writable() || !s.sent.room(s.nextDeliveryID):
		s.refused = true
		return NotNow
	case s.e.Unsent() > UnsentHigh:
		s.e.refused = true
		return NotNow
	}
	return Sent
}

// Send puts a delivery on a sending link, or says why not. The delivery's id
// is l.LastID. A message larger than a frame is split; what the
// session window does not take now follows by itself.
func (l *Link) Send(o *Outgoing) SendResult {
	size := o.size()
	if r := l.CanSend(size); r != Sent {
		return r
	}
	s := l.s
	s.e.large = max(s.e.large, size)
	id := s.nextDeliveryID
	s.nextDeliveryID++
	l.credit--
	l.deliveryCount++
	settled := l.Settles(o.Settled)
	if !settled {
		s.sent.add(id, l, o.Token)
	}
	if o.More {
		l.streaming, l.streamID, l.streamed = true, id, uint64(size)
	}
	s.writeTransfer(l, id, o, settled, size)
	return Sent
}

// Settles reports whether a delivery that is to be sent settled, or not, goes
// out settled: the link's mode has the last word.
func (l *Link) Settles(settled bool) bool {
	switch l.sndMode {
	case amqp.SenderSettled:
		return true
	case amqp.SenderUnsettled:
		return false
	}
	return settled
}

// LastID is the delivery-id of the last Send on the link's session.
func (l *Link) LastID() uint32 { return l.s.nextDeliveryID - 1 }

// transferRoom is the most that frame header and transfer performative take.
const transferRoom = 8 + 3 + 3 + 5 + 5 + (2 + amqp.MaxDeliveryTag) + 5 + 1 + 1

// writeTransfer writes the first frame of a delivery by hand, because it is
// what a router does most, and leaves the rest to writeRest.
func (s *Session) writeTransfer(l *Link, id uint32, o *Outgoing, settled bool, size int) {
	e := s.e
	if e.out == nil {
		e.out = getBuffer()
	}
	b := e.out
	at := len(b)
	b = amqp.OpenFrame(b, amqp.FrameAMQP, s.channel)
	b = append(b, 0x00, 0x53, byte(amqp.DescTransfer), 0xc0, 0, 5)
	list := len(b) - 2
	b = amqp.AppendUint(b, l.handle)
	b = amqp.AppendUint(b, id)
	if o.Tag == nil {
		b = append(b, 0xa0, 4, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
	} else {
		b = amqp.AppendBinary(b, o.Tag)
	}
	b = amqp.AppendUint(b, o.Format)
	b = amqp.AppendBool(b, settled)
	room := int(e.maxFrame) - transferRoom
	if size > room || o.More {
		b = append(b, 0x41) // more
		b[list+1] = 6
	}
	b[list] = byte(len(b) - list - 1)
	if size <= room {
		b = append(append(append(b, o.Head...), o.Mid...), o.Tail...)
		e.out = amqp.CloseFrame(b, at)
		s.countTransfer()
		return
	}
	rest := make([]byte, 0, size)
	rest = append(append(append(rest, o.Head...), o.Mid...), o.Tail...)
	b = append(b, rest[:room]...)
	e.out = amqp.CloseFrame(b, at)
	s.countTransfer()
	s.writeRest(backlogItem{link: l, id: id, rest: rest[room:], more: o.More})
}

func (s *Session) countTransfer() {
	s.nextOutgoingID++
	s.remoteWindow--
}

// writeRest writes the following frames of a delivery as far as the window
// goes, and keeps the rest for [Session.pump].
func (s *Session) writeRest(it backlogItem) {
	e := s.e
	room := int(e.maxFrame) - transferRoom
	for len(it.rest) > 0 || it.abort {
		if s.remoteWindow == 0 {
			s.backlog = append(s.backlog, it)
			return
		}
		n := min(room, len(it.rest))
		t := amqp.Transfer{Handle: it.link.handle, DeliveryID: it.id, HasDeliveryID: true,
			More: n < len(it.rest) || it.more, Aborted: it.abort}
		it.abort = false
		if e.out == nil {
			e.out = getBuffer()
		}
		at := len(e.out)
		b := t.Append(amqp.OpenFrame(e.out, amqp.FrameAMQP, s.channel))
		e.out = amqp.CloseFrame(append(b, it.rest[:n]...), at)
		s.countTransfer()
		it.rest = it.rest[n:]
	}
}

// pump sends what waited for the peer's window.
func (s *Session) pump(fx *Effects) {
	for len(s.backlog) > 0 && s.remoteWindow > 0 {
		items := s.backlog
		s.backlog = nil
		s.writeRest(items[0])
		s.backlog = append(s.backlog, items[1:]...)
	}
	s.resume(fx)
}

// dropBacklog aborts the deliveries of a link whose end was not sent.
func (s *Session) dropBacklog(l *Link) {
	kept := s.backlog[:0]
	for _, it := range s.backlog {
		if it.link != l {
			kept = append(kept, it)
		}
	}
	clear(s.backlog[len(kept):])
	s.backlog = kept
}

// SettleSent is the sender's word on a delivery that it sent: it settles it
// with a state of its own, as one does that has waited long enough. It reports
// whether the delivery was unsettled.
func (l *Link) SettleSent(id uint32, state amqp.Raw) bool {
	slot := l.s.sent.get(id)
	if slot == nil || slot.link != l {
		return false
	}
	l.s.sent.remove(id)
	l.s.hold(&l.s.settles, amqp.RoleSender, id, state, true)
	return true
}

// Settle is the receiver's word on a delivery that it received. With settled
// false the state is told and the sender's settlement awaited (receiver settle
// mode second). It reports whether the delivery was unsettled.
func (l *Link) Settle(id uint32, state amqp.Raw, settled bool) bool {
	slot := l.s.received.get(id)
	if slot == nil || slot.link != l {
		return false
	}
	if settled {
		l.s.received.remove(id)
	} else {
		slot.state |= slotAnswered
	}
	l.s.hold(&l.s.accepts, amqp.RoleReceiver, id, state, settled)
	return true
}

// SetToken remembers where a received delivery went, while it is unsettled. It
// reports whether it is.
func (l *Link) SetToken(id uint32, t Token) bool {
	slot := l.s.received.get(id)
	if slot == nil || slot.link != l {
		return false
	}
	slot.token = t
	return true
}

// hold merges a disposition with the one that is held back, or writes that one
// and holds this.
func (s *Session) hold(p *pendingState, role amqp.Role, id uint32, state amqp.Raw, settled bool) {
	if p.active {
		if id == p.last+1 && settled == p.settled && string(state) == string(p.state) {
			p.last = id
			return
		}
		s.flushState(p, role)
	}
	p.active, p.settled, p.first, p.last = true, settled, id, id
	p.state = append(p.state[:0], state...)
	s.markDirty()
}

// dispositionRoom is the most that frame header and disposition take around the state.
const dispositionRoom = 8 + 3 + 9 + 1 + 5 + 5 + 1 + 1

func (s *Session) flushState(p *pendingState, role amqp.Role) {
	if !p.active {
		return
	}
	p.active = false
	if len(p.state) > int(s.e.maxFrame)-dispositionRoom {
		// The peer takes no frame that long: the kind of outcome has to do.
		p.state = append(p.state[:0], 0x00, 0x53, byte(amqp.Raw(p.state).StateKind()), 0x45)
	}
	d := amqp.Disposition{Role: role, First: p.first, Last: p.last, Settled: p.settled, State: p.state}
	at := s.e.openFrame(s.channel)
	s.e.closeFrame(d.Append(s.e.out), at)
}

// onDisposition splits a range into one event per delivery.
func (e *Engine) onDisposition(f amqp.Frame, fx *Effects) error {
	if _, err := amqp.DecodeInto(f.Body, &fx.disposition); err != nil {
		return err
	}
	s, err := e.session(f.Channel)
	if err != nil || s.ended {
		return err
	}
	p := &fx.disposition
	if int32(p.Last-p.First) < 0 {
		return &amqp.Error{Condition: amqp.CondInvalidField, Description: fmt.Sprintf("disposition.last %d is before first %d", p.Last, p.First)}
	}
	r := &s.sent
	if p.Role == amqp.RoleSender {
		r = &s.received
	}
	if r.empty() {
		return nil
	}
	full := !s.sent.room(s.nextDeliveryID)
	if len(r.old) > 0 {
		for _, id := range r.oldIn(p.First, p.Last) {
			s.hear(r, id, p, fx)
		}
	}
	for id, left := r.overlap(p.First, p.Last); left > 0; id, left = id+1, left-1 {
		s.hear(r, id, p, fx)
	}
	if full {
		s.resume(fx)
	}
	return nil
}

// hear makes an event of the peer's word on one delivery. Of words that do not
// settle only the first outcome counts: a range is a few bytes, however many
// deliveries it names, and a peer could repeat it for ever.
func (s *Session) hear(r *ring, id uint32, p *amqp.Disposition, fx *Effects) {
	slot := r.get(id)
	if slot == nil {
		return
	}
	if !p.Settled {
		if slot.state&slotHeard != 0 || !p.State.Terminal() {
			return
		}
		slot.state |= slotHeard
	}
	l := slot.link
	ev := Event{Kind: EventOutcome, Session: s, Link: l, ID: id, Token: slot.token, State: p.State, Settled: p.Settled}
	if p.Settled {
		r.remove(id)
	}
	if r == &s.received {
		ev.Kind = EventSenderState
		if d := l.partial; d != nil && d.id == id && !d.cut {
			d.settled = d.settled || p.Settled
			return // the owner has not seen it yet
		}
	}
	fx.add(ev)
}

// onTransfer takes one frame of a delivery.
func (e *Engine) onTransfer(f amqp.Frame, fx *Effects) error {
	payload, err := amqp.DecodeInto(f.Body, &fx.transfer)
	if err != nil {
		return err
	}
	s, err := e.session(f.Channel)
	if err != nil || s.ended {
		return err
	}
	if s.window == 0 {
		s.endWith(&amqp.Error{Condition: amqp.CondWindowViolation, Description: "transfer beyond the incoming window"}, fx)
		return nil
	}
	s.window--
	s.nextIncomingID++
	if s.window <= e.cfg.IncomingWindow/2 && s.withheld == 0 {
		s.flowDue = true
		s.markDirty()
	}
	p := &fx.transfer
	l := s.lastLink
	if l == nil || l.remoteHandle != p.Handle {
		if l = s.links.get(p.Handle); l == nil {
			s.endWith(&amqp.Error{Condition: amqp.CondUnattachedHandle, Description: fmt.Sprintf("transfer on handle %d", p.Handle)}, fx)
			return nil
		}
		s.lastLink = l
	}
	if l.state == linkDetached {
		return nil // it was on its way when we detached
	}
	if l.role != amqp.RoleReceiver || l.state != linkAttached {
		s.endWith(&amqp.Error{Condition: amqp.CondErrantLink, Description: fmt.Sprintf("transfer on handle %d, which does not receive", p.Handle)}, fx)
		return nil
	}
	if e := l.onTransfer(p, payload, fx); e != nil {
		l.abortPartial(fx)
		fx.add(Event{Kind: EventDetach, Session: s, Link: l, Error: e, Closed: true})
		l.Detach(e)
	}
	return nil
}

// onTransfer joins the frames of a delivery. The error it returns detaches the link.
func (l *Link) onTransfer(p *amqp.Transfer, payload []byte, fx *Effects) *amqp.Error {
	if l.partial == nil {
		if err := l.begin(p); err != nil {
			return err
		}
		if !p.More && !p.Aborted {
			return l.deliver(Event{ID: p.DeliveryID, Tag: p.DeliveryTag, Format: p.MessageFormat,
				Settled: p.Settled, State: p.State, Payload: payload}, fx)
		}
		if err := l.track(p.DeliveryID); err != nil {
			return err
		}
		l.partial = &partial{id: p.DeliveryID, format: p.MessageFormat,
			tag: append([]byte{}, p.DeliveryTag...)}
	}
	d := l.partial
	if p.HasDeliveryID && p.DeliveryID != d.id {
		return &amqp.Error{Condition: amqp.CondNotAllowed, Description: fmt.Sprintf("transfer of delivery %d before %d is complete", p.DeliveryID, d.id)}
	}
	if p.Aborted {
		l.abortPartial(fx) // it counts as settled and used its credit
		if l.s.received.get(d.id) != nil {
			l.s.received.remove(d.id)
		}
		return nil
	}
	d.settled = d.settled || p.Settled
	if len(p.State) > 0 {
		d.state = append(d.state[:0], p.State...)
	}
	if d.size += uint64(len(payload)); l.maxMessage > 0 && d.size > l.maxMessage {
		return l.tooLarge()
	}
	if d.cut {
		l.passOn(d, payload, p.More, fx)
		return nil
	}
	e := l.s.e
	if most := maxPartials * e.cfg.MaxMessageSize; uint64(e.partial+len(payload)) > most {
		return &amqp.Error{Condition: amqp.CondResourceLimitExceeded, Description: fmt.Sprintf(
			"deliveries of which frames are missing hold %d bytes on this connection, at most %d are kept", e.partial, most)}
	}
	d.payload = append(d.payload, payload...)
	e.partial += len(payload)
	if p.More {
		if l.cutThrough && len(d.payload) >= cutThroughSize {
			l.cut(d, fx)
		}
		return nil
	}
	l.dropPartial()
	if d.settled || l.sndMode == amqp.SenderSettled {
		d.settled = true
		l.s.received.remove(d.id)
	}
	fx.add(Event{Kind: EventDelivery, Session: l.s, Link: l, ID: d.id, Tag: d.tag, Format: d.format,
		Settled: d.settled, State: d.state, Payload: d.payload})
	return nil
}

// dropPartial forgets a delivery of which more frames were to come.
func (l *Link) dropPartial() {
	if l.partial != nil {
		l.s.e.partial -= len(l.partial.payload)
		l.partial = nil
	}
}

func (l *Link) tooLarge() *amqp.Error {
	return &amqp.Error{Condition: amqp.CondMessageSizeExceeded, Description: fmt.Sprintf("at most %d bytes are taken here", l.maxMessage)}
}

// begin checks the first frame of a delivery against the credit given.
func (l *Link) begin(p *amqp.Transfer) *amqp.Error {
	if !p.HasDeliveryID {
		return &amqp.Error{Condition: amqp.CondInvalidField, Description: "first transfer of a delivery has no delivery-id"}
	}
	if int32(l.limit-l.deliveryCount) <= 0 {
		if l.grace == 0 {
			return &amqp.Error{Condition: amqp.CondTransferLimitExceeded, Description: "transfer without link credit"}
		}
		l.grace--
		l.limit++
		l.markFlow() // the next flow finds the sender where we think it is
	}
	l.deliveryCount++
	if l.credit > 0 {
		l.credit--
	}
	return nil
}

// deliver hands a delivery that came in one frame to the owner.
func (l *Link) deliver(ev Event, fx *Effects) *amqp.Error {
	if l.maxMessage > 0 && uint64(len(ev.Payload)) > l.maxMessage {
		return l.tooLarge()
	}
	if l.sndMode == amqp.SenderSettled {
		ev.Settled = true
	}
	if !ev.Settled {
		if err := l.track(ev.ID); err != nil {
			return err
		}
	}
	ev.Kind, ev.Session, ev.Link = EventDelivery, l.s, l
	fx.add(ev)
	return nil
}

// track makes a delivery unsettled.
func (l *Link) track(id uint32) *amqp.Error {
	if !l.s.received.room(id) {
		return &amqp.Error{Condition: amqp.CondNotAllowed, Description: fmt.Sprintf(
			"delivery-id %d is unsettled already, or too many deliveries are", id)}
	}
	l.s.received.add(id, l, Token{})
	return nil
}
