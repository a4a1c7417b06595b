package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
)

// responder is a device that answers each request with what is in it, over MQTT.
type responder struct {
	c      *mqConn
	qos    byte
	answer func(topic string) string // the topic of the answer
}

// runCommands has an application send commands to o.pubs MQTT devices by turns, which answer
// each: end to end is from the command to its response at the application, and the
// acknowledgement is the command's outcome.
func runCommands(o *opts) error {
	sink, err := url.Parse(o.sink)
	if err != nil {
		return err
	}
	for i := range o.pubs {
		device := o.deviceOf(i)
		o.asserted = append(o.asserted, command(o.tenant, device, "reply"))
	}
	if err := o.respond("command///req/#", func(topic string) string {
		return "command///res/" + strings.Split(topic, "/")[4] + "/200"
	}); err != nil {
		return err
	}
	l := &rawLoad{u: sink, o: o, m: &meter{}}
	defer l.close()
	p := &pair{}
	if err := l.receive("command_response/"+o.tenant+"/reply", 0, p); err != nil {
		return err
	}
	if err := l.send("command/"+o.tenant, 0, p); err != nil {
		return err
	}
	l.run()
	return nil
}

// deviceOf is the id of the i-th device, which is how it logs in.
func (o *opts) deviceOf(i int) string {
	device, _, _ := strings.Cut(o.userOf(i), "@")
	return device
}

// command makes the properties of a command.
func command(tenant, device, reply string) enc {
	return enc{}.list(0x73, 6, func(b enc) enc {
		b = b.str("id-" + device).null().str("command/" + tenant + "/" + device).str("order")
		return b.str("command_response/" + tenant + "/" + reply).str("id-" + device)
	})
}

// respond connects o.pubs devices that answer.
func (o *opts) respond(filter string, answer func(topic string) string) error {
	u, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	errs := make([]error, o.pubs)
	var all sync.WaitGroup
	for i := range o.pubs {
		all.Go(func() {
			c, err := o.mqDial(u, i, fmt.Sprintf("bench-device%d", i))
			if err == nil {
				filter := filter
				if strings.Contains(filter, "%d") {
					filter = fmt.Sprintf(filter, i)
				}
				err = c.subscribeAs(filter, byte(o.qos))
			}
			if errs[i] = err; err == nil {
				go (&responder{c, byte(o.qos), answer}).run()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// subscribeAs subscribes with a quality of service.
func (m *mqConn) subscribeAs(filter string, qos byte) error {
	m.c.Write(mqPkt(nil, 0x82, append(mqStr([]byte{0, 1}, filter), qos)))
	h, body, err := m.read()
	if err == nil && (h != 0x90 || body[2] != qos) {
		err = fmt.Errorf("SUBACK %#x %v", h, body)
	}
	return err
}

func (r *responder) run() {
	var out, pkt []byte
	id := uint16(0)
	for {
		h, b, err := r.c.read()
		if err != nil {
			return
		}
		if h>>4 == 3 {
			topic, payload := string(b[2:2+binary.BigEndian.Uint16(b)]), b[2+binary.BigEndian.Uint16(b):]
			if h>>1&3 > 0 {
				out = append(out, 0x40, 2, payload[0], payload[1])
				payload = payload[2:]
			}
			pkt = mqStr(pkt[:0], r.answer(topic))
			if r.qos > 0 {
				if id++; id == 0 {
					id = 1
				}
				pkt = binary.BigEndian.AppendUint16(pkt, id)
			}
			out = mqPkt(out, 0x30|r.qos<<1, append(pkt, payload...))
		}
		if r.c.r.Buffered() == 0 && len(out) > 0 {
			if _, err := r.c.c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}

// runRequests is the same between MQTT clients only: one asks, the others answer.
func runRequests(o *opts) error {
	u, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	if err := o.respond("request/%d", func(topic string) string { return "response" + strings.TrimPrefix(topic, "request") }); err != nil {
		return err
	}
	c, err := o.mqDial(u, o.pubs, "bench-requester")
	if err != nil {
		return err
	}
	if err := c.subscribeAs("response/#", byte(o.qos)); err != nil {
		return err
	}
	l := &mqLoad{o: o, m: &meter{}}
	p := &mqPub{c: c}
	p.cond = sync.NewCond(&p.mu)
	l.pubs = []*mqPub{p}
	go l.responses(p)
	go l.requests(p)
	measure(o.label, o.pid, l.m, &l.m.recv, o.warm, o.dur)
	l.stop.Store(true)
	time.Sleep(500 * time.Millisecond)
	fmt.Printf("%-34s drained: sent %d received %d acked %d\n", o.label, l.m.sent.Load(), l.m.recv.Load(), l.m.acked.Load())
	return nil
}

// responses is what the requester hears.
func (l *mqLoad) responses(p *mqPub) {
	for {
		h, b, err := p.c.read()
		if err != nil {
			l.broken("requester", err)
			return
		}
		switch h >> 4 {
		case 4:
			p.mu.Lock()
			l.m.ack.add(now() - p.at[binary.BigEndian.Uint16(b)])
			p.mu.Unlock()
			l.m.acked.Add(1)
		case 3:
			payload := b[2+binary.BigEndian.Uint16(b):]
			if h>>1&3 > 0 {
				p.c.c.Write([]byte{0x40, 2, payload[0], payload[1]})
				payload = payload[2:]
			}
			l.m.e2e.add(now() - time.Duration(binary.BigEndian.Uint64(payload)))
			l.m.recv.Add(1)
			p.mu.Lock() // so that the wake-up cannot slip in before the wait
			p.mu.Unlock()
			p.cond.Signal()
		}
	}
}

// requests asks the devices by turns.
func (l *mqLoad) requests(p *mqPub) {
	o := l.o
	body := make([]byte, o.size)
	pace := newPacer(o.rate)
	id := uint16(0)
	for n := 0; !l.stop.Load(); n++ {
		p.mu.Lock()
		for l.m.sent.Load()-l.m.recv.Load() >= int64(o.window) {
			p.cond.Wait()
		}
		p.mu.Unlock()
		pace.wait()
		pkt := mqStr(nil, fmt.Sprint("request/", n%o.pubs))
		t := now()
		binary.BigEndian.PutUint64(body, uint64(t))
		if o.qos > 0 {
			if id++; id == 0 {
				id = 1
			}
			p.mu.Lock()
			p.at[id] = t
			p.mu.Unlock()
			pkt = binary.BigEndian.AppendUint16(pkt, id)
		}
		l.m.sent.Add(1)
		if _, err := p.c.c.Write(mqPkt(nil, 0x30|byte(o.qos)<<1, append(pkt, body...))); err != nil {
			l.broken("requester", err)
			return
		}
	}
}
