package main

import (
	"encoding/binary"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// mqPub is one publisher. PUBACKs come in order, so a count of them is enough.
type mqPub struct {
	c     *mqConn
	mu    sync.Mutex
	cond  *sync.Cond
	sent  int64
	acked int64
	at    [1 << 16]time.Duration
}

// mqLoad is o.pubs publishers and one who receives, all QoS 1. A publisher keeps
// at most o.window publishes unacknowledged, and all of them together keep at
// most o.outstanding publishes that nobody has got. Sleepers are
// woken when a quarter of their limit is free again, so that packets travel in
// batches and the generator stays cheap.
type mqLoad struct {
	o       *opts
	m       *meter
	stop    atomic.Bool
	blocked atomic.Int64 // publishers waiting for whoever receives
	pubs    []*mqPub
}

// runMQTT has what is published taken by a subscriber, an AMQP application, or nobody.
func runMQTT(o *opts) error {
	u, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	l := &mqLoad{o: o, m: &meter{}}
	basis := &l.m.recv
	switch {
	case o.nosub:
		basis = &l.m.acked
	case o.sink != "":
		end, err := o.receive(l.m, l.received)
		if err != nil {
			return err
		}
		defer end()
	default:
		if err := l.subscribe(u); err != nil {
			return err
		}
	}
	for i := range o.pubs {
		c, err := o.mqDial(u, i, fmt.Sprintf("bench-pub%d", i))
		if err != nil {
			return fmt.Errorf("publisher %d: %w", i, err)
		}
		p := &mqPub{c: c}
		p.cond = sync.NewCond(&p.mu)
		l.pubs = append(l.pubs, p)
	}
	for i, p := range l.pubs {
		go l.acks(p)
		go l.publish(i, p)
	}
	measure(o.label, o.pid, l.m, basis, o.warm, o.dur)
	l.stop.Store(true)
	l.wakeAll()
	time.Sleep(500 * time.Millisecond)
	fmt.Printf("%-34s drained: sent %d received %d acked %d\n", o.label, l.m.sent.Load(), l.m.recv.Load(), l.m.acked.Load())
	return nil
}

func (l *mqLoad) full() bool {
	return !l.o.nosub && l.m.sent.Load()-l.m.recv.Load() >= int64(l.o.outstanding)
}

func (l *mqLoad) wakeAll() {
	for _, p := range l.pubs {
		p.mu.Lock() // so that the wake-up cannot slip in before the wait
		p.mu.Unlock()
		p.cond.Signal()
	}
}

// received wakes publishers up when there is room again.
func (l *mqLoad) received() {
	if l.blocked.Load() > 0 && l.m.sent.Load()-l.m.recv.Load() <= int64(l.o.outstanding)*3/4 {
		l.wakeAll()
	}
}

// rest spares the generator, where it is told to.
func (l *mqLoad) rest(c *mqConn) {
	if l.o.coalesce > 0 && c.r.Buffered() == 0 {
		time.Sleep(l.o.coalesce)
	}
}

// broken counts a connection that ended too early.
func (l *mqLoad) broken(who string, err error) {
	if !l.stop.Load() {
		l.m.bad.Add(1)
		fmt.Printf("%s: %v\n", who, err)
	}
}

func (l *mqLoad) subscribe(u *url.URL) error {
	sub, err := l.o.mqDial(u, l.o.pubs, "bench-sub")
	if err != nil {
		return err
	}
	if err := sub.subscribe(l.o.subTopic); err != nil {
		return err
	}
	go l.take(sub)
	return nil
}

// take is the subscriber.
func (l *mqLoad) take(sub *mqConn) {
	var out []byte
	for {
		h, b, err := sub.read()
		if err != nil {
			l.broken("subscriber", err)
			return
		}
		if h>>4 == 3 {
			tl := int(binary.BigEndian.Uint16(b))
			p := b[2+tl:]
			if h>>1&3 > 0 {
				out = append(out, 0x40, 2, p[0], p[1])
				p = p[2:]
			}
			l.m.e2e.add(now() - time.Duration(binary.BigEndian.Uint64(p)))
			l.m.recv.Add(1)
		}
		if sub.r.Buffered() == 0 && len(out) > 0 {
			sub.c.Write(out)
			out = out[:0]
		}
		l.received()
		l.rest(sub)
	}
}

// acks reads what the server tells a publisher.
func (l *mqLoad) acks(p *mqPub) {
	for {
		h, b, err := p.c.read()
		if err != nil {
			l.broken("publisher", err)
			return
		}
		if h>>4 == 4 {
			l.m.ack.add(now() - p.at[binary.BigEndian.Uint16(b)])
			l.m.acked.Add(1)
			p.mu.Lock()
			p.acked++
			wake := p.sent-p.acked <= int64(l.o.window)*3/4
			p.mu.Unlock()
			if wake {
				p.cond.Signal()
			}
		}
		l.rest(p.c)
	}
}

// room waits until the publisher may send, and returns how many messages; 0 = no more.
func (l *mqLoad) room(p *mqPub, paced bool) int64 {
	o, m := l.o, l.m
	p.mu.Lock()
	defer p.mu.Unlock()
	for !l.stop.Load() && (p.sent-p.acked >= int64(o.window) || l.full()) {
		l.blocked.Add(1)
		p.cond.Wait()
		l.blocked.Add(-1)
	}
	if l.stop.Load() {
		return 0
	}
	n := int64(o.window) - (p.sent - p.acked)
	if !o.nosub {
		n = max(1, min(n, int64(o.outstanding)-(m.sent.Load()-m.recv.Load())))
	}
	if paced {
		n = 1
	}
	n = min(n, int64(o.batch))
	p.sent += n
	m.sent.Add(n)
	return n
}

func (l *mqLoad) publish(i int, p *mqPub) {
	o := l.o
	topic := mqStr(nil, o.address(i))
	body := make([]byte, o.size)
	var pkt, buf []byte
	pace := newPacer(o.rate / float64(o.pubs))
	pace.next += pace.gap * time.Duration(i) / time.Duration(o.pubs)
	id := uint16(0)
	for {
		n := l.room(p, pace.gap > 0)
		if n == 0 {
			return
		}
		pace.wait()
		buf = buf[:0]
		for range n {
			if id++; id == 0 {
				id = 1
			}
			t := now()
			p.at[id] = t
			binary.BigEndian.PutUint64(body, uint64(t))
			pkt = append(pkt[:0], topic...)
			pkt = binary.BigEndian.AppendUint16(pkt, id)
			pkt = append(pkt, body...)
			buf = mqPkt(buf, 0x32, pkt)
		}
		if _, err := p.c.c.Write(buf); err != nil {
			l.broken("publisher", err)
			return
		}
	}
}
