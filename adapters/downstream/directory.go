package downstream

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// gatewayWait is how long last gateways gather before they are announced.
	gatewayWait = 400 * time.Millisecond
	// maxGateways is how many may wait; they are announced if there is time, and
	// those beyond it are not.
	maxGateways = 10_000
)

// directory tells routers of this process's subscriptions for commands. Its lock
// is taken without any other and followed by that of one connection at most.
type directory struct {
	s    *Set
	wake chan struct{} // somebody is to be told all

	mu       sync.Mutex // guards what follows and all announcers
	members  []*announcer
	gateways map[deviceKey]iot.DeviceID // since the last time that they were announced
	message  announcement
}

// awaited is a call of Announce that waits for routers.
type awaited struct {
	left  int // routers
	done  func()
	timer *time.Timer
}

var _ adapters.Announcer = (*Set)(nil)

// Announce implements [adapters.Announcer]. done is told after SendTimeout at
// the latest, maybe before Announce returns, and without a lock held; it must not
// block. Without Options.Commands nobody is told.
func (s *Set) Announce(changes []adapters.Announcement, done func()) {
	d := &s.directory
	var w *awaited
	if done != nil {
		w = &awaited{done: done}
	}
	var b peer.Batch
	d.mu.Lock()
	for _, a := range d.members {
		a.add(changes)
		a.await(w)
		a.pump(&b)
	}
	if w != nil && w.left > 0 {
		w.timer = time.AfterFunc(s.o.SendTimeout, func() { d.giveUp(w) })
		done = nil
	}
	d.mu.Unlock()
	b.Flush()
	if done != nil {
		s.tellAnnounced(done)
	}
}

// giveUp ends a wait that took too long.
func (d *directory) giveUp(w *awaited) {
	d.mu.Lock()
	done := w.done
	w.done = nil
	d.mu.Unlock()
	if done != nil {
		d.s.tellAnnounced(done)
	}
}

// took counts one router less for whom w waits, and adds to ended what is to be
// told when it was the last.
func (w *awaited) took(ended []func()) []func() {
	if w.left--; w.left > 0 || w.done == nil {
		return ended
	}
	ended = append(ended, w.done)
	w.done = nil
	w.timer.Stop()
	return ended
}

func (s *Set) tellAnnounced(done func()) {
	s.guarded("the end of an announcement was told", done, nil)
}

// tell calls what Announce was given. No lock is held.
func (d *directory) tell(ended []func()) {
	for _, done := range ended {
		d.s.tellAnnounced(done)
	}
}

// LastGateway implements [adapters.Announcer]: what gathers within 400 ms is
// announced together. It is dropped where no router is connected.
func (s *Set) LastGateway(tenant iot.TenantID, device, gateway iot.DeviceID) {
	d := &s.directory
	d.mu.Lock()
	defer d.mu.Unlock()
	k := deviceKey{tenant, device}
	if _, known := d.gateways[k]; len(d.members) == 0 || !known && len(d.gateways) >= maxGateways {
		return
	}
	if d.gateways == nil {
		d.gateways = make(map[deviceKey]iot.DeviceID)
		time.AfterFunc(gatewayWait, d.announceGateways)
	}
	d.gateways[k] = gateway
}

func (d *directory) announceGateways() {
	var b peer.Batch
	d.mu.Lock()
	gathered := d.gateways
	d.gateways = nil
	for _, a := range d.members {
		for k, g := range gathered {
			if len(a.vias) >= maxGateways {
				break
			}
			a.vias = append(a.vias, via{k, g})
		}
		a.pump(&b)
	}
	d.mu.Unlock()
	b.Flush()
}

// run tells routers all, when they know nothing. That is done here alone, so
// that the handler is not called from within its own calls, and so that nobody who
// reads from a router waits for it.
func (d *directory) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
			d.refresh()
		}
	}
}

func (d *directory) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// refresh asks the handler once for all routers that are to be told.
func (d *directory) refresh() {
	d.mu.Lock()
	var stale []*announcer
	for _, a := range d.members {
		if a.refresh() {
			stale = append(stale, a)
		}
	}
	d.mu.Unlock()
	if len(stale) == 0 {
		return
	}
	var all []adapters.Announcement
	d.s.guarded("subscriptions were listed", func() { all = d.s.o.Commands.Subscribed() }, nil)
	var b peer.Batch
	d.mu.Lock()
	for _, a := range stale {
		a.refreshed(all, &b)
	}
	d.mu.Unlock()
	b.Flush()
}

// writable offers what waits for a connection again.
func (d *directory) writable(c *conn, b *peer.Batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.members {
		if a.c == c {
			a.pump(b)
		}
	}
}
