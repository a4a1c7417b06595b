package forward

import (
	"slices"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// The credit of an address is plain arithmetic:
//
//	given   = what ready receivers take, as last seen
//	granted = what active senders hold of it
//	share   = given / active senders, at least 1
//
// An active sender is raised to its share when it has used half of it, out of
// given - granted. So what is granted never exceeds what was given, and what a
// receiver takes away again is all that can become surplus, apart from the one
// delivery that every sender may always send.

// multicastCredit is what a sender to a multicast address has.
const multicastCredit = 250

// anycast reports whether each delivery goes to one receiver.
func (a *address) anycast() bool { return a.kind == Balanced || a.kind == Closest }

// firstCredit is what a sender gets when the address has receivers.
func (a *address) firstCredit() int {
	switch {
	case a.router.draining.Load() || a.kind == Closed:
		return 0
	case a.kind == Local:
		return a.serviceCredit()
	case a.kind == Stored && a.shelf.Full():
		return 0
	case a.kind == Stored:
		return storedCredit
	case len(a.receivers) == 0:
		return 0
	case a.kind == Multicast:
		return multicastCredit
	}
	return 1
}

// used notes a delivery from s.
func (a *address) used(s *sender, now time.Time) {
	if s.virtual {
		return
	}
	s.lastSend = now
	if !s.active {
		s.active = true
		a.active++
		a.granted += s.out
		if len(a.actives) == 0 {
			a.oldest = now
		}
		a.actives = append(a.actives, s)
	}
	if s.out > 0 {
		s.out--
		a.granted--
	}
}

// withdraw takes the credit of a sender that has surplus back: what it has sent
// by then arrives all the same. The connection of s is locked.
func (a *address) withdraw(b *peer.Batch, s *sender) {
	if !s.virtual {
		a.setCredit(b, s, 0)
	}
}

func (a *address) share() int {
	return max(1, a.given/max(1, a.active))
}

// grant raises the credit of s if it is due and there is some. The connection
// of s is locked.
func (a *address) grant(b *peer.Batch, s *sender) {
	if s.gone || s.virtual || !a.anycast() && a.kind != Multicast || len(a.receivers) == 0 || s.held > 0 || a.router.draining.Load() {
		return
	}
	if a.kind == Multicast {
		// Every receiver has a backlog of its own, so nobody's credit is shared.
		if s.out < multicastCredit/2 {
			a.setCredit(b, s, multicastCredit)
		}
		return
	}
	share := 1
	if s.active {
		share = a.share()
	}
	if s.out >= 1 && s.out >= (share+1)/2 {
		return
	}
	n := min(share-s.out, a.given-a.granted)
	if a.draining {
		n = 0
	}
	if n < share-s.out && s.active && !s.waiting {
		s.waiting = true
		a.waiting = append(a.waiting, s)
	}
	if n = max(n, 1-s.out); n <= 0 {
		return
	}
	a.setCredit(b, s, s.out+n)
}

// sync makes what we know of the credit of s what its engine knows, once all
// that has come is seen: what a sender sent before it heard that its credit was
// lowered is nobody's credit. The connection of s is locked.
func (a *address) sync(s *sender) {
	if s.virtual {
		return
	}
	d := int(s.l.Credit()) - s.out
	s.out += d
	if s.active {
		a.granted += d
	}
}

// setCredit brings what s has to n. Its engine may have taken deliveries in
// that we are yet to see: they are part of n, so the engine's credit moves by as
// much as ours. The connection of s is locked.
func (a *address) setCredit(b *peer.Batch, s *sender, n int) {
	if a.kind == Stored { // nobody's share
		s.l.SetCredit(uint32(n))
		b.Touch(s.c)
		return
	}
	had := int(s.l.Credit())
	has := max(0, had+n-s.out)
	if has == had {
		return
	}
	if s.active {
		a.granted += has - had
	}
	s.out += has - had
	s.l.SetCredit(uint32(has))
	b.Touch(s.c)
}

// serveWaiting grants to senders that found too little, in turn, while there
// is some. No connection is locked.
func (a *address) serveWaiting(b *peer.Batch) {
	for n := len(a.waiting); n > 0 && a.given > a.granted; n-- {
		s := a.waiting[0]
		a.waiting = a.waiting[1:]
		s.waiting = false
		if s.gone || !s.active {
			continue
		}
		s.c.Lock()
		a.grant(b, s)
		s.c.Unlock()
	}
	if len(a.waiting) == 0 {
		a.waiting = nil
	}
}

// rest lowers every sender that has been idle to a credit of one. The peer is
// told by a flow that awaits no answer; what it sent before it hears of it is surplus.
func (a *address) rest(b *peer.Batch, now time.Time) {
	if at := a.restAt(); at.IsZero() || at.After(now) {
		return
	}
	kept := a.actives[:0]
	a.oldest = time.Time{}
	for _, s := range a.actives {
		if !s.gone && now.Sub(s.lastSend) < idleTime {
			kept = append(kept, s)
			if a.oldest.IsZero() || s.lastSend.Before(a.oldest) {
				a.oldest = s.lastSend
			}
			continue
		}
		a.deactivate(s)
		if s.gone || s.out <= 1 || len(a.receivers) == 0 {
			continue
		}
		s.c.Lock()
		a.setCredit(b, s, 1)
		s.c.Unlock()
	}
	clear(a.actives[len(kept):])
	a.actives = kept
	a.waiting = slices.DeleteFunc(a.waiting, func(s *sender) bool {
		if s.gone || !s.active {
			s.waiting = false
		}
		return !s.waiting
	})
}

// restAt is the earliest time at which a sender may have been idle for long
// enough, zero when none is active.
func (a *address) restAt() time.Time {
	if len(a.actives) == 0 {
		return time.Time{}
	}
	return a.oldest.Add(idleTime)
}

func (a *address) deactivate(s *sender) {
	if s.active {
		s.active = false
		a.active--
		a.granted -= s.out
	}
}

// setAll gives every sender the same credit: one when the first receiver
// comes, none when the last one leaves.
func (a *address) setAll(b *peer.Batch, n int) {
	for s := range a.senders {
		if s.virtual {
			continue
		}
		a.deactivate(s)
		s.c.Lock()
		a.setCredit(b, s, n)
		s.c.Unlock()
	}
	clear(a.actives)
	a.actives = a.actives[:0]
}

// setGiven brings a receiver's credit up to date.
func (a *address) setGiven(r *receiver, n int) {
	if r.blocked || r.gone || r.stream != nil {
		n = 0
	}
	a.given += n - r.credit
	r.credit = n
	if n > 0 {
		a.ready.add(r)
	} else {
		a.ready.remove(r)
	}
}
