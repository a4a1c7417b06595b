package downstream

import (
	"slices"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

const (
	// maxChanges is how many changes may wait for one router; with more it is told
	// everything anew.
	maxChanges = 100_000
	// settleTimeout is how long a router may take to settle an announcement before
	// the link is made anew.
	settleTimeout = 30 * time.Second
)

// announcer is a link to a router's device_directory and what it is still to be
// told. The lock of the directory guards it.
type announcer struct {
	d *directory
	c *conn

	l       *peer.Link // nil = the router has not answered yet
	gone    bool
	stale   bool                    // it is to be told everything
	listing bool                    // everything is being listed
	reset   bool                    // what it knows is void with the next message
	all     []adapters.Announcement // what is left of everything
	changes changes                 // since it was listed
	vias    []via

	under bool   // an announcement is not settled
	id    uint32 // that one's
	upTo  uint64 // the number of the last change in it or before it
	guard *time.Timer
	pause bool // the router asked for it

	waits []wait
}

// wait is a call that waits until the router has taken the changes up to one.
type wait struct {
	upTo uint64
	w    *awaited
}

func (c *conn) attachDirectory(b *peer.Batch) {
	d := &c.s.directory
	a := &announcer{d: d, c: c, stale: true}
	d.mu.Lock()
	defer d.mu.Unlock()
	c.pc.Lock()
	defer c.pc.Unlock()
	l := c.attachOwn(addressDirectory, peer.Attachment{
		Role:             amqp.RoleSender,
		SenderSettleMode: amqp.SenderUnsettled, ReceiverSettleMode: amqp.ReceiverFirst,
		Source: &amqp.Source{},
		Target: &amqp.Target{Address: addressDirectory, HasAddress: true},
	}, a, b)
	if l != nil {
		d.members = append(d.members, a)
	}
}

// attached takes note that the router answered; without a target it refused.
func (a *announcer) attached(b *peer.Batch, ev *peer.Event) {
	if ev.Attach.Target == nil {
		return
	}
	a.d.mu.Lock()
	defer a.d.mu.Unlock()
	if a.gone {
		return
	}
	a.l = ev.Link
	a.c.unannounced = false
	a.pump(b)
}

// detached forgets the link, and makes another one where only it is gone.
func (a *announcer) detached(ev *peer.Event) {
	d := a.d
	d.mu.Lock()
	ended := a.leave()
	a.c.pc.Lock()
	tell := !a.c.unannounced && a.c.stands()
	a.c.pc.Unlock()
	a.c.unannounced = a.c.unannounced || tell
	d.mu.Unlock()
	d.tell(ended)
	if tell {
		a.c.s.log.Warn("router hears of no subscriptions", "router", a.c.name, "err", ev.Error)
	}
	a.c.later(a.c.attachDirectory)
}

// leave takes the announcer out and returns what is to be told.
func (a *announcer) leave() (ended []func()) {
	if a.gone {
		return nil
	}
	a.gone, a.l = true, nil
	if a.guard != nil {
		a.guard.Stop()
	}
	if i := slices.Index(a.d.members, a); i >= 0 {
		a.d.members = slices.Delete(a.d.members, i, i+1)
	}
	for _, w := range a.waits {
		ended = w.w.took(ended)
	}
	a.waits, a.all, a.vias, a.changes = nil, nil, nil, changes{}
	return ended
}

// add lets changes wait, unless everything is to be told that comes of them.
func (a *announcer) add(changed []adapters.Announcement) {
	if a.stale {
		return
	}
	for i := range changed {
		a.changes.add(&changed[i])
	}
}

// await lets w wait until the router has taken what was added so far.
func (a *announcer) await(w *awaited) {
	if w == nil || !a.owes() {
		return
	}
	w.left++
	a.waits = append(a.waits, wait{a.changes.last(), w})
}

// owes reports whether there is something that the router has not settled.
func (a *announcer) owes() bool {
	return a.stale || a.listing || a.under || a.reset || len(a.all) > 0 || a.changes.len() > 0
}

// refresh reports whether the router is to be told everything now, and notes that it
// is being listed.
func (a *announcer) refresh() bool {
	if !a.stale || a.l == nil || a.under || a.listing || a.pause {
		return false
	}
	a.stale, a.listing = false, true
	return true
}

// refreshed takes what was listed.
func (a *announcer) refreshed(all []adapters.Announcement, b *peer.Batch) {
	if a.listing = false; a.gone {
		return
	}
	a.all, a.reset = all, true
	a.pump(b)
}

// pump sends the next announcement if none is under way.
func (a *announcer) pump(b *peer.Batch) {
	if a.changes.len() > maxChanges {
		a.stale = true
		a.changes.clear()
	}
	if a.l == nil || a.under || a.listing || a.pause {
		return
	}
	if a.stale {
		a.all, a.reset = nil, false
		a.d.signal()
		return
	}
	if !a.reset && len(a.all) == 0 && a.changes.len() == 0 && len(a.vias) == 0 {
		return
	}
	pc := a.c.pc
	pc.Lock()
	defer pc.Unlock()
	if a.l.CanSend(0) != peer.Sent {
		return // credit or room to write is told of
	}
	a.send(a.compose(), b)
}

// compose makes the next message and takes what it tells out of what is to be
// told.
func (a *announcer) compose() []byte {
	m := &a.d.message
	limit := maxAnnouncement
	if n := a.l.MaxMessageSize(); n > 0 {
		limit = int(min(n, maxAnnouncement))
	}
	m.begin(a.d.s.o.Address, a.reset, limit)
	switch {
	case len(a.all) > 0:
		n := m.rows(a.all)
		a.all = a.all[a.unfit(n, &a.all[0]):]
	case a.changes.len() > 0:
		rows := a.changes.waiting()
		n := m.rows(rows)
		a.changes.take(a.unfit(n, &rows[0]))
	}
	a.vias = a.vias[m.vias(a.vias):]
	if len(a.vias) == 0 {
		a.vias = nil
	}
	if a.reset = false; len(a.all) == 0 {
		a.all, a.upTo = nil, a.changes.taken
	}
	return m.message()
}

// unfit returns n, or 1 when not even the first row went into a message of its
// own: it is left out.
func (a *announcer) unfit(n int, first *adapters.Announcement) int {
	if n > 0 {
		return n
	}
	a.c.s.log.Warn("subscription is too large to be announced", "router", a.c.name, "tenant", first.Tenant, "device", first.Device)
	return 1
}

// send sends a message for which there is room. The connection is locked.
func (a *announcer) send(message []byte, b *peer.Batch) {
	out := peer.Outgoing{Head: message}
	out.Token.Ref = a
	if r := a.l.Send(&out); r != peer.Sent {
		a.c.s.log.Warn("announcement could not be sent", "router", a.c.name, "bytes", len(message), "result", r)
		a.stale = true // it is made anew when the link is
		return
	}
	b.Touch(a.c.pc)
	a.under, a.id = true, a.l.LastID()
	if a.guard == nil {
		a.guard = time.AfterFunc(settleTimeout, a.overdue)
	} else {
		a.guard.Reset(settleTimeout)
	}
}

// settled goes on after the router's word on an announcement.
func (a *announcer) settled(b *peer.Batch, ev *peer.Event) {
	a.d.mu.Lock()
	if !a.under || a.gone || ev.ID != a.id {
		a.d.mu.Unlock()
		return
	}
	a.under = false
	a.guard.Stop()
	var ended []func()
	switch ev.State.StateKind() {
	case amqp.DescAccepted:
		ended = a.reached()
	case amqp.DescRejected: // nothing better can be said to it
		a.c.s.log.Warn("router rejected an announcement of subscriptions", "router", a.c.name, "err", outcome(ev.State))
		ended = a.reached()
	default: // it could not take it now
		a.stale, a.pause = true, true
		a.changes.clear()
		time.AfterFunc(refusedFor, a.resume)
	}
	a.pump(b)
	a.d.mu.Unlock()
	a.d.tell(ended)
}

// reached ends the waits for what the router has now.
func (a *announcer) reached() (ended []func()) {
	n := 0
	for n < len(a.waits) && a.waits[n].upTo <= a.upTo && !a.covered() {
		ended = a.waits[n].w.took(ended)
		n++
	}
	if a.waits = a.waits[n:]; len(a.waits) == 0 {
		a.waits = nil
	}
	return ended
}

// covered reports whether what was dropped for it is still to be told with everything.
func (a *announcer) covered() bool { return a.stale || a.listing || a.reset || len(a.all) > 0 }

func (a *announcer) resume() {
	var b peer.Batch
	a.d.mu.Lock()
	a.pause = false
	a.pump(&b)
	a.d.mu.Unlock()
	b.Flush()
}

// overdue gives up on a router that does not settle: with the link it forgets
// what it was told, and is told everything on the next one.
func (a *announcer) overdue() {
	var b peer.Batch
	a.d.mu.Lock()
	if !a.under || a.gone {
		a.d.mu.Unlock()
		return
	}
	a.c.pc.Lock()
	a.l.Detach(nil)
	b.Touch(a.c.pc)
	a.c.pc.Unlock()
	ended := a.leave()
	a.d.mu.Unlock()
	b.Flush()
	a.d.tell(ended)
	a.c.s.log.Warn("router did not settle an announcement of subscriptions", "router", a.c.name, "after", settleTimeout)
	a.c.later(a.c.attachDirectory)
}
