package main

import (
	"encoding/binary"
	"fmt"
	"net/url"
	"sync"
	"time"
)

// lanes is how many connections of each side runAddresses divides its links among.
const lanes = 2

// linkCredit is what a receiver gives on each of its links; half of it comes back at once.
const linkCredit = 100

// manySender sends by turns over all links of one connection that have credit.
type manySender struct {
	*rawSender
	limit []int64 // by link: delivery-count that the peer allows
	count []int64
	ready []uint32 // links with credit, each once
	in    []bool   // whether a link is in ready
}

// runAddresses spreads messages over o.addresses addresses, each with one sender and
// one receiver link, over the same few connections whatever their number.
func runAddresses(o *opts) error {
	u, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	m := &meter{}
	ps := make([]pair, lanes)
	n := max(o.addresses/lanes, 1)
	var ws []*wire
	var ss []*manySender
	for lane := range lanes {
		w, _, err := dialWire(u, fmt.Sprintf("bench-r%d", lane))
		if err != nil {
			return err
		}
		if err := attachMany(w, true, lane*n, n, o); err != nil {
			return fmt.Errorf("receivers: %w", err)
		}
		go manyReceive(w, n, o, m, &ps[lane])
		s, err := newManySender(u, lane, n, o)
		if err != nil {
			return fmt.Errorf("senders: %w", err)
		}
		ps[lane].join(s.rawSender)
		s.p = &ps[lane]
		ws, ss = append(ws, w), append(ss, s)
	}
	for _, s := range ss {
		go s.readMany(o, m)
		go s.writeMany(o, m)
	}
	measure(o.label, o.pid, m, &m.recv, o.warm, o.dur)
	for _, s := range ss {
		s.mu.Lock()
		s.stop = true
		s.mu.Unlock()
		s.cond.Broadcast()
	}
	time.Sleep(500 * time.Millisecond)
	fmt.Printf("%-34s drained: sent %d received %d acked %d\n", o.label, m.sent.Load(), m.recv.Load(), m.acked.Load())
	for i := range ws {
		ss[i].w.c.Close()
		ws[i].c.Close()
	}
	return nil
}

// attachMany attaches n links whose handles count from 0 and waits for the answers.
func attachMany(w *wire, recv bool, first, n int, o *opts) error {
	failed := make(chan error, 1)
	go func() {
		for i := range n {
			w.attachAs(recv, o.address(first+i), fmt.Sprint(i), uint32(i), o.settled)
			if recv {
				w.c.Write(linkFlow(nil, uint32(i), 0, linkCredit))
			}
		}
		failed <- nil
	}()
	for range n {
		if _, err := w.expect(dAttach); err != nil {
			return err
		}
	}
	return <-failed
}

func linkFlow(b enc, handle, count, credit uint32) enc {
	return b.frame(0, func(b enc) enc {
		return b.list(dFlow, 7, func(b enc) enc {
			return b.null().u32(1<<31 - 1).u32(0).u32(1<<31 - 1).u32(handle).u32(count).u32(credit)
		})
	})
}

func newManySender(u *url.URL, lane, n int, o *opts) (*manySender, error) {
	w, win, err := dialWire(u, fmt.Sprintf("bench-s%d", lane))
	if err != nil {
		return nil, err
	}
	s := &manySender{
		rawSender: &rawSender{w: w, sessLim: int64(win), at: make([]time.Duration, 1<<17)},
		limit:     make([]int64, n), count: make([]int64, n), in: make([]bool, n),
	}
	s.cond = sync.NewCond(&s.mu)
	failed := make(chan error, 1)
	go func() {
		for i := range n {
			w.attachAs(false, o.address(lane*n+i), fmt.Sprint(i), uint32(i), o.settled)
		}
		failed <- nil
	}()
	for attached := 0; attached < n; {
		code, fs, _, err := w.readFrame()
		if err != nil {
			return nil, err
		}
		switch code {
		case dAttach:
			attached++
		case dFlow:
			s.flow(fs)
		case dDetach, dEnd, dClose:
			return nil, fmt.Errorf("peer sent %#x: %q", code, fs)
		}
	}
	return s, <-failed
}

// flow takes credit; the lock is held, or nobody else is there yet.
func (s *manySender) flow(fs [][]byte) {
	nid, _ := fnum(fs, 0)
	win, _ := fnum(fs, 1)
	s.sessLim = int64(nid) + int64(win)
	h, ok := fnum(fs, 4)
	if !ok {
		return
	}
	dc, _ := fnum(fs, 5)
	cr, _ := fnum(fs, 6)
	s.limit[h] = int64(dc) + int64(cr)
	s.queue(h)
}

func (s *manySender) queue(h uint32) {
	if !s.in[h] && s.limit[h] > s.count[h] {
		s.in[h] = true
		s.ready = append(s.ready, h)
	}
}

func (s *manySender) readMany(o *opts, m *meter) {
	for {
		code, fs, _, err := s.w.readFrame()
		if err != nil {
			return
		}
		switch code {
		case dFlow:
			s.mu.Lock()
			s.flow(fs)
			s.mu.Unlock()
			s.cond.Broadcast()
		case dDisposition:
			s.settled(fs, m)
		case dDetach, dEnd, dClose:
			fmt.Printf("sender: peer closed: %#x %q\n", code, fs)
			m.bad.Add(1)
			s.w.c.Close()
		}
	}
}

func (s *rawSender) settled(fs [][]byte, m *meter) {
	first, _ := fnum(fs, 1)
	last, ok := fnum(fs, 2)
	if !ok {
		last = first
	}
	if len(fs) > 4 && len(fs[4]) > 2 && fs[4][2] != dAccepted && fs[4][1] == 0x53 {
		m.bad.Add(int64(last-first) + 1)
	}
	t := now()
	for id := first; id != last+1; id++ {
		m.ack.add(t - s.at[id&(1<<17-1)])
	}
	m.acked.Add(int64(last-first) + 1)
	s.mu.Lock()
	s.inflight -= int(last-first) + 1
	s.mu.Unlock()
	s.cond.Broadcast()
}

func (s *manySender) writeMany(o *opts, m *meter) {
	body := make([]byte, o.size)
	buf := make(enc, 0, 1<<17)
	var id uint32
	p := newPacer(o.rate)
	for {
		buf = buf[:0]
		p.wait()
		s.mu.Lock()
		sent := 0
		for sent < o.batch {
			if s.stop {
				s.mu.Unlock()
				return
			}
			if len(s.ready) == 0 || s.sent >= s.sessLim || !o.settled && s.inflight >= o.window {
				if sent > 0 {
					break
				}
				s.cond.Wait()
				continue
			}
			h := s.ready[0]
			s.ready = s.ready[1:]
			s.in[h] = false
			s.count[h]++
			s.queue(h)
			t := now()
			s.at[id&(1<<17-1)] = t
			binary.BigEndian.PutUint64(body, uint64(t))
			buf = buf.transfer(h, id, o, body)
			id++
			s.sent++
			s.inflight++
			sent++
			if p.gap > 0 {
				break
			}
		}
		s.mu.Unlock()
		if _, err := s.w.c.Write(buf); err != nil {
			return
		}
		m.sent.Add(int64(sent))
	}
}

func manyReceive(w *wire, n int, o *opts, m *meter, p *pair) {
	count, given := make([]uint32, n), make([]uint32, n)
	out := make(enc, 0, 1<<16)
	var first, last uint32
	pending := false
	accept := func() {
		if pending {
			out = out.frame(0, func(b enc) enc {
				return b.list(dDisposition, 5, func(b enc) enc {
					return append(b.boolean(true).u32(first).u32(last).boolean(true), 0x00, 0x53, dAccepted, 0x45)
				})
			})
			pending = false
		}
	}
	for {
		code, fs, body, err := w.readFrame()
		if err != nil {
			return
		}
		switch code {
		case dTransfer:
			h, _ := fnum(fs, 0)
			id, _ := fnum(fs, 1)
			if d := dataOf(body); len(d) >= 8 {
				m.e2e.add(now() - time.Duration(binary.BigEndian.Uint64(d)))
			} else {
				m.bad.Add(1)
			}
			m.recv.Add(1)
			p.got.Add(1)
			if count[h]++; count[h]-given[h] >= linkCredit/2 {
				given[h] = count[h]
				out = linkFlow(out, h, count[h], linkCredit)
			}
			if !fbool(fs, 4) && !o.settled {
				if !pending || id != last+1 {
					accept()
					first = id
				}
				last, pending = id, true
			}
		case dDetach, dEnd, dClose:
			fmt.Printf("receiver: peer closed: %#x %q\n", code, fs)
			m.bad.Add(1)
			return
		}
		if w.r.Buffered() == 0 || len(out) > 1<<15 {
			if accept(); len(out) > 0 {
				if _, err := w.c.Write(out); err != nil {
					return
				}
				out = out[:0]
			}
		}
	}
}
