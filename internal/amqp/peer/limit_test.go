package peer_test

import (
	"fmt"
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// tryLinks attaches links named first to first+n-1 on s and returns how many the
// server accepted and how many it refused, and with what.
func (p *pair) tryLinks(s *peer.Session, first, n int) (accepted []*peer.Link, refused int, why *amqp.Error) {
	p.fx[0].Reset()
	for i := range n {
		s.Attach(peer.Attachment{Name: fmt.Sprint(first + i), Source: &amqp.Source{}, Target: &amqp.Target{Address: "q", HasAddress: true}})
	}
	p.turn(0)
	for _, ev := range p.events(1) {
		if ev.Kind == peer.EventAttach {
			ev.Link.Accept(peer.Attachment{})
		}
	}
	p.turn(1)
	for _, ev := range p.events(0) {
		switch {
		case ev.Kind == peer.EventAttached && ev.Attach.Target != nil:
			accepted = append(accepted, ev.Link)
		case ev.Kind == peer.EventDetach, ev.Kind == peer.EventEnd:
			refused++
			why = ev.Error
		}
	}
	for p.turn(0) || p.turn(1) {
	}
	return accepted, refused, why
}

func TestLinkMax(t *testing.T) {
	p := newPair(t, peer.Config{LinkMax: 5})
	s, other := p.side[0].Begin(), p.side[0].Begin()
	accepted, refused, why := p.tryLinks(s, 0, 7) // in one batch
	if len(accepted) != 5 || refused != 2 || why == nil || why.Condition != amqp.CondResourceLimitExceeded {
		t.Fatalf("%d accepted, %d refused: %v", len(accepted), refused, why)
	}
	if accepted, refused, _ := p.tryLinks(other, 100, 1); len(accepted) != 0 || refused != 1 {
		t.Errorf("on another session: %d accepted, %d refused", len(accepted), refused)
	}
	accepted[0].Detach(nil)
	accepted[1].Detach(nil)
	for p.turn(0) || p.turn(1) {
	}
	if accepted, refused, _ := p.tryLinks(s, 200, 3); len(accepted) != 2 || refused != 1 {
		t.Errorf("in place of two: %d accepted, %d refused", len(accepted), refused)
	}
	s.End(nil)
	for p.turn(0) || p.turn(1) {
	}
	if accepted, refused, _ := p.tryLinks(other, 300, 6); len(accepted) != 5 || refused != 1 {
		t.Errorf("after the end of the session: %d accepted, %d refused", len(accepted), refused)
	}
}

// A peer that does not answer the detach of refused links cannot pile them up.
func TestRefusedLinksAreBounded(t *testing.T) {
	p := newPair(t, peer.Config{LinkMax: 1, HandleMax: 10_000})
	s := p.side[0].Begin()
	for i := range 400 {
		s.Attach(peer.Attachment{Name: fmt.Sprint(i), Target: &amqp.Target{Address: "q", HasAddress: true}})
	}
	p.turn(0)
	p.turn(1)
	var why *amqp.Error
	for _, ev := range p.events(0) {
		if ev.Kind == peer.EventEnd {
			why = ev.Error
		}
	}
	if why == nil || why.Condition != amqp.CondResourceLimitExceeded {
		t.Errorf("the session ended with %v", why)
	}
}
