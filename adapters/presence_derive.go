package adapters

import (
	"container/list"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// derive sees to it that somebody asks the function. p.mu is held.
func (p *Presence) derive() {
	if !p.deriving && p.fresh.Len()+p.uplinks.Len() > 0 && p.base.Err() == nil {
		p.deriving = true
		p.wg.Go(p.deriveAll)
	}
}

// deriveAll asks the function until nothing is left to be asked.
func (p *Presence) deriveAll() {
	for failures := 0; ; {
		batch := p.nextBatch()
		if batch == nil {
			return
		}
		if p.ask(batch) {
			failures = 0
			continue
		}
		failures++
		pause := time.NewTimer(presencePause(failures))
		select {
		case <-pause.C:
		case <-p.base.Done():
			pause.Stop()
		}
	}
}

// nextBatch takes what one call asks about; nil = nothing is left, and who asked is done.
func (p *Presence) nextBatch() (batch []*notice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.base.Err() == nil {
		for _, l := range []*list.List{&p.fresh, &p.uplinks} {
			for l.Len() > 0 && len(batch) < events.MaxPresenceChanges {
				x := l.Remove(l.Front()).(*notice)
				x.place = nil
				batch = append(batch, x)
			}
		}
	}
	p.asked = len(batch)
	p.deriving = batch != nil
	return batch
}

// ask derives what follows from a batch. Where that fails for the moment it puts
// the batch back and returns false.
func (p *Presence) ask(batch []*notice) bool {
	req := events.NotificationDerive{Changes: make([]events.PresenceChange, len(batch))}
	for i, x := range batch {
		req.Changes[i] = x.n.Change
	}
	ctx, cancel := context.WithTimeout(p.base, events.DefaultBudget)
	rep, err := events.Call(ctx, p.o.Invoker, req)
	cancel()
	p.mu.Lock()
	p.counts.Calls++
	p.mu.Unlock()
	switch {
	case err == nil:
		p.take(batch, rep.Events)
	case errors.Is(err, iot.ErrInvalid) && len(batch) == 1:
		p.refused(batch[0], err)
	case errors.Is(err, iot.ErrInvalid): // of one: the others are not to pay for it
		half := len(batch) / 2
		first := p.ask(batch[:half])
		return p.ask(batch[half:]) && first
	default:
		p.putBack(batch, err)
		return false
	}
	return true
}

// take maps facts to the changes that they follow from. A change without one is done.
func (p *Presence) take(batch []*notice, facts []events.PresenceFact) {
	byKey := make(map[events.PresenceKey][]*notice, len(batch))
	for _, x := range batch {
		byKey[x.key] = append(byKey[x.key], x)
	}
	for _, f := range facts {
		k := f.Key()
		if list := byKey[k]; len(list) > 0 {
			list[0].fact, byKey[k] = f, list[1:]
		}
	}
	if p.posts != nil {
		p.posts.add(facts)
	}
	p.mu.Lock()
	var done []*notice
	for _, x := range batch {
		if x.fact == nil || x.key.Kind == events.Uplink {
			done = append(done, x)
			continue
		}
		x.place = p.derived.PushBack(x)
		c := p.chains[x.of()]
		if c == nil {
			c = &chain{}
			p.chains[x.of()] = c
		}
		if c.list = append(c.list, x); len(c.list) == 1 {
			p.ready = append(p.ready, x)
		}
	}
	p.asked -= len(batch)
	p.hand()
	p.checkEmpty()
	p.mu.Unlock()
	for _, x := range done {
		finish(x.done, nil)
	}
}

// refused is the end of a change that the function finds wrong.
func (p *Presence) refused(x *notice, err error) {
	p.mu.Lock()
	p.asked--
	p.counts.Failed++
	p.checkEmpty()
	p.mu.Unlock()
	p.o.Logger.Error("the function refuses a change of presence", "tenant", string(x.key.Tenant), "device", string(x.key.Device), "kind", string(x.key.Kind), "err", err)
	finish(x.done, err)
}

// putBack lets a batch wait for the next call, in its place.
func (p *Presence) putBack(batch []*notice, err error) {
	var out []*notice
	p.mu.Lock()
	p.counts.CallsLost++
	if p.base.Err() == nil {
		p.say("changes of presence are not derived", err)
	}
	now := time.Now()
	for _, x := range slices.Backward(batch) {
		l, lists := &p.uplinks, []*list.List{&p.uplinks}
		if x.key.Kind != events.Uplink {
			l, lists = &p.fresh, []*list.List{&p.derived, &p.fresh}
		}
		x.place = l.PushFront(x)
		if now.Sub(x.since) > presenceKept {
			out = append(out, p.drop(l, x))
		} else if o := p.makeRoom(lists...); o != nil {
			out = append(out, o)
		}
	}
	p.asked -= len(batch)
	p.checkEmpty()
	p.mu.Unlock()
	for _, x := range out {
		finish(x.done, errNoRoom)
	}
}

// presencePause is how long to wait after so many failures: 100 ms, then twice as long
// each time, 5 s at most, and a part of it by chance.
func presencePause(failures int) time.Duration {
	d := min(100*time.Millisecond<<min(failures-1, 10), 5*time.Second)
	return d/2 + rand.N(d/2)
}
