package peer

import "github.com/sluice-iot/sluice/internal/amqp"

// cutThroughSize is how much of a delivery is put together before a link with
// cut-through hands it on in parts.
const cutThroughSize = 64 * 1024

// cut begins to hand a delivery over in parts.
func (l *Link) cut(d *partial, fx *Effects) {
	l.s.e.partial -= len(d.payload)
	d.cut = true
	if d.settled || l.sndMode == amqp.SenderSettled {
		d.settled = true
		if l.s.received.get(d.id) != nil {
			l.s.received.remove(d.id)
		}
	}
	fx.add(Event{Kind: EventDelivery, Session: l.s, Link: l, ID: d.id, Tag: d.tag, Format: d.format,
		Settled: d.settled, State: d.state, Payload: d.payload, More: true})
	d.payload = nil
}

// passOn hands over a further part.
func (l *Link) passOn(d *partial, payload []byte, more bool, fx *Effects) {
	fx.add(Event{Kind: EventPart, Session: l.s, Link: l, ID: d.id, Payload: payload, More: more})
	if !more {
		l.partial = nil
		if d.settled && l.s.received.get(d.id) != nil {
			l.s.received.remove(d.id)
		}
	}
}

// abortPartial forgets a delivery whose rest will not come, and tells the
// owner if it had a part of it.
func (l *Link) abortPartial(fx *Effects) {
	d := l.partial
	l.dropPartial()
	if d != nil && d.cut && fx != nil {
		fx.add(Event{Kind: EventAborted, Session: l.s, Link: l, ID: d.id})
	}
}

// Continue sends more of the delivery whose Send had More set; the last part
// has more unset. NotNow means that nothing was taken, as with Send. TooLarge means
// that the receiver takes no message of this size: the owner aborts it.
func (l *Link) Continue(payload []byte, more bool) SendResult {
	s := l.s
	switch {
	case !l.attached() || s.e.phase != phaseReady || !l.streaming:
		return Gone
	case l.maxMessage > 0 && l.streamed+uint64(len(payload)) > l.maxMessage:
		return TooLarge
	case !s.writable():
		s.refused = true
		return NotNow
	case s.e.Unsent() > UnsentHigh:
		s.e.refused = true
		return NotNow
	}
	l.streamed += uint64(len(payload))
	s.e.large = max(s.e.large, len(payload))
	it := backlogItem{link: l, id: l.streamID, rest: payload, more: more}
	l.streaming = more
	if s.remoteFrames(len(payload)) > s.remoteWindow {
		it.rest = append([]byte(nil), payload...) // what does not fit outlives this call
	}
	if len(payload) == 0 {
		if !more {
			s.writeEmpty(it)
		}
		return Sent
	}
	s.writeRest(it)
	return Sent
}

// remoteFrames is how many transfers n bytes take.
func (s *Session) remoteFrames(n int) uint32 {
	room := int(s.e.maxFrame) - transferRoom
	return uint32((n + room - 1) / room)
}

// writeEmpty ends a delivery whose last part has nothing in it.
func (s *Session) writeEmpty(it backlogItem) {
	s.e.writeFrame(amqp.FrameAMQP, s.channel, &amqp.Transfer{Handle: it.link.handle, DeliveryID: it.id, HasDeliveryID: true})
	s.countTransfer()
}

// Abort ends the delivery under way without its rest. The receiver forgets it;
// its settlement, if it was unsettled, is over too.
func (l *Link) Abort() {
	if !l.streaming || !l.attached() {
		return
	}
	s := l.s
	l.streaming = false
	s.dropBacklog(l)
	if slot := s.sent.get(l.streamID); slot != nil && slot.link == l {
		s.sent.remove(l.streamID)
	}
	it := backlogItem{link: l, id: l.streamID, abort: true}
	if len(s.backlog) > 0 {
		s.backlog = append(s.backlog, it)
		return
	}
	s.writeRest(it)
}

// Withhold keeps the session's window from being opened again, or lifts that.
// What the peer may still send by then arrives. Each call with on set wants one without.
func (s *Session) Withhold(on bool) {
	if on {
		s.withheld++
		return
	}
	if s.withheld--; s.withheld == 0 && !s.ended {
		s.flowDue = true
		s.markDirty()
	}
}
