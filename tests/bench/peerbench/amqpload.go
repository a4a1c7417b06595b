package main

import (
	"fmt"
	"net/url"
	"slices"
	"time"
)

func runRaw(o *opts) error {
	u, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	m := &meter{}
	l := &rawLoad{u: u, o: o, m: m}
	defer l.close()
	ps := make([]pair, o.pairs)
	for i := range o.pairs {
		if err := l.receive(o.address(i), i, &ps[i]); err != nil {
			return err
		}
	}
	time.Sleep(200 * time.Millisecond)
	for i := range o.pairs {
		if err := l.send(o.address(i), i, &ps[i]); err != nil {
			return err
		}
	}
	l.run()
	return nil
}

// runQueue has several senders and receivers at one address.
func runQueue(o *opts) error {
	u, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	l := &rawLoad{u: u, o: o, m: &meter{}}
	defer l.close()
	p := &pair{}
	for i := range o.receivers {
		if err := l.receive(o.addr, i, p); err != nil {
			return err
		}
	}
	time.Sleep(200 * time.Millisecond)
	for i := range o.senders {
		if err := l.send(o.addr, i, p); err != nil {
			return err
		}
	}
	l.run()
	return nil
}

// rawLoad is all that sends and receives in one run.
type rawLoad struct {
	u         *url.URL
	o         *opts
	m         *meter
	receivers []*wire
	senders   []*rawSender
}

func (l *rawLoad) receive(addr string, i int, p *pair) error {
	w, err := rawRecv(l.u, addr, l.o, l.m, i, p)
	if err != nil {
		return fmt.Errorf("receiver %d: %w", i, err)
	}
	l.receivers = append(l.receivers, w)
	return nil
}

func (l *rawLoad) send(addr string, i int, p *pair) error {
	s, err := rawSend(l.u, addr, l.o, l.m, i, p)
	if err != nil {
		return fmt.Errorf("sender %d: %w", i, err)
	}
	l.senders = append(l.senders, s)
	return nil
}

// drainTime is how long what is on its way may take to arrive when nothing more is sent.
const drainTime = 10 * time.Second

// closeTime is how long a server may take to end connections.
const closeTime = 5 * time.Second

// run sends, measures, and lets arrive what is on its way.
func (l *rawLoad) run() {
	o, m := l.o, l.m
	for _, s := range l.senders {
		go s.write(o, m)
	}
	measure(o.label, o.pid, m, &m.recv, o.warm, o.dur)
	for _, s := range l.senders {
		s.mu.Lock()
		s.stop = true
		s.mu.Unlock()
		s.cond.Broadcast()
	}
	time.Sleep(500 * time.Millisecond)
	arrived := func() bool {
		sent := m.sent.Load()
		return m.recv.Load() >= sent && (o.settled || m.acked.Load() >= sent)
	}
	for began := time.Now(); o.durable && !arrived() && time.Since(began) < drainTime; {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Printf("%-34s drained: sent %d received %d acked %d\n", o.label, m.sent.Load(), m.recv.Load(), m.acked.Load())
}

// close ends sessions before connections, as a server may take back what was settled
// right before a connection ended.
func (l *rawLoad) close() {
	wires := l.receivers
	for _, s := range l.senders {
		wires = append(wires, s.w)
	}
	for _, w := range wires {
		w.closing.Store(true)
		w.end()
	}
	open := func(w *wire) bool { return !w.over.Load() }
	for began := time.Now(); time.Since(began) < closeTime && slices.ContainsFunc(wires, open); {
		time.Sleep(time.Millisecond)
	}
	for _, w := range wires {
		w.c.Close()
	}
}

// end ends the link and the session.
func (w *wire) end() {
	b := enc{}.frame(0, func(b enc) enc {
		return b.list(dDetach, 2, func(b enc) enc { return b.u32(0).boolean(true) })
	})
	w.c.Write(b.frame(0, func(b enc) enc {
		return b.list(dEnd, 0, func(b enc) enc { return b })
	}))
}
