package adapters

import (
	"errors"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// hand sees to it that somebody gives to routers what is ready. p.mu is held.
func (p *Presence) hand() {
	if !p.handing && len(p.ready) > 0 && p.sending < presenceSends && p.base.Err() == nil {
		p.handing = true
		p.wg.Go(p.handAll)
	}
}

// handAll starts what is ready, as long as there is room.
func (p *Presence) handAll() {
	for x := p.nextReady(); x != nil; x = p.nextReady() {
		pipeline, fact := x.n.Pipeline, x.fact
		if !pipeline.Ready() {
			p.sent(x, iot.Errorf(iot.ErrUnavailable, "no router is connected"))
			continue
		}
		pipeline.announce(x.n.Who, x.n.Address, fact.Event(), func(err error) { p.sent(x, err) })
	}
}

// nextReady takes the next one out; nil = there is none, and who asked is done.
func (p *Presence) nextReady() *notice {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skipGone()
	if p.base.Err() != nil || len(p.ready) == 0 || p.sending >= presenceSends {
		p.handing = false
		p.checkEmpty()
		return nil
	}
	x := p.popReady()
	p.derived.Remove(x.place)
	x.place = nil
	p.sending++
	return x
}

func (p *Presence) popReady() *notice {
	x := p.ready[0]
	p.ready[0], p.ready = nil, p.ready[1:]
	return x
}

// skipGone takes out what was dropped when its turn had come. p.mu is held.
func (p *Presence) skipGone() {
	for len(p.ready) > 0 && p.ready[0].gone {
		p.advance(p.popReady())
	}
}

// sent is told what became of a notification.
func (p *Presence) sent(x *notice, err error) {
	p.mu.Lock()
	p.sending--
	again := err != nil && p.retry(x, err)
	if !again {
		if err == nil {
			p.counts.Sent++
		} else {
			p.counts.Failed++
			p.say("a notification is not sent", err)
		}
		p.advance(x)
	}
	p.hand()
	p.checkEmpty()
	p.mu.Unlock()
	if !again {
		finish(x.done, err)
	}
}

// retry lets x wait for another try, where there is to be one: no router took it, as far as
// is known. p.mu is held.
func (p *Presence) retry(x *notice, err error) bool {
	if !errors.Is(err, iot.ErrUnavailable) && !errors.Is(err, iot.ErrNoCredit) || p.base.Err() != nil || time.Since(x.since) > presenceKept || once(x.key.Kind) {
		return false
	}
	if p.derived.Len()+p.fresh.Len() >= PresenceQueue {
		return false // it is older than those that wait
	}
	x.tries++
	p.counts.Repeated++
	x.place = p.derived.PushFront(x)
	x.again = time.AfterFunc(presencePause(x.tries), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.base.Err() == nil {
			p.ready = append(p.ready, x)
			p.hand()
		}
	})
	return true
}

// advance lets the next notification of x's device go. p.mu is held.
func (p *Presence) advance(x *notice) {
	c := p.chains[x.of()]
	if c == nil || c.list[0] != x { // after Close
		return
	}
	for c.list[0] = nil; len(c.list) > 0 && (c.list[0] == nil || c.list[0].gone); c.list = c.list[1:] {
		c.list[0] = nil
	}
	if len(c.list) == 0 {
		delete(p.chains, x.of())
		return
	}
	p.ready = append(p.ready, c.list[0])
}

// announce sends an event that no device has sent, and so is not counted as a device's. done
// is called as by [Pipeline.Submit].
func (p *Pipeline) announce(who Admission, address string, e *iot.Message, done func(error)) {
	up := &Upload{Endpoint: e.Endpoint, QoS: e.QoS, Address: address, ContentType: e.ContentType, TTD: e.TTD, Payload: e.Payload}
	m := p.message(who, up)
	m.ID, m.Created = e.ID, e.Created
	p.o.Downstream.Start(m, func(err error) {
		if !errors.Is(err, iot.ErrForbidden) {
			done(downstreamError(eventError(up, err)))
			return
		}
		p.o.Admissions.renewToTell(who, func(anew Admission, err error) {
			if err != nil {
				done(err)
				return
			}
			p.o.Downstream.Start(p.again(anew, up, m), func(err error) {
				done(downstreamError(eventError(up, refusedAgain(err))))
			})
		})
	})
}
