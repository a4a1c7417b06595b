package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// runHTTPCommands has o.conns HTTP devices that upload and wait for a command, which the
// application sends when the upload comes, and answer it. End to end is from the command to its
// response at the application; what the server does is an upload, a command and a response.
func runHTTPCommands(o *opts) error {
	u, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	sink, err := url.Parse(o.sink)
	if err != nil {
		return err
	}
	m := &meter{}
	l := &rawLoad{u: sink, o: o, m: m}
	defer l.close()
	p := &pair{}
	if err := l.receive("command_response/"+o.tenant+"/reply", 0, p); err != nil {
		return err
	}
	for i := range o.conns {
		o.asserted = append(o.asserted, command(o.tenant, o.deviceOf(i), "reply"))
	}
	s, err := rawSend(sink, "command/"+o.tenant, o, m, 0, p)
	if err != nil {
		return err
	}
	l.senders = append(l.senders, s)
	end, err := o.onTelemetry(sink, func(device int) { s.command(o, m, device) })
	if err != nil {
		return err
	}
	defer end()
	return o.eachDevice(u, m, func(c net.Conn, i int, stop *atomic.Bool) error { return o.waitForCommands(c, i, stop) })
}

// command sends one command. There are never more than there is credit for.
func (s *rawSender) command(o *opts, m *meter, device int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := uint32(s.sent)
	s.sent++
	s.inflight++
	t := now()
	s.at[id&(1<<17-1)] = t
	body := make([]byte, o.size)
	binary.BigEndian.PutUint64(body, uint64(t))
	of := *o
	of.asserted = o.asserted[device : device+1]
	m.sent.Add(1)
	s.w.c.Write(enc{}.transfer(0, id, &of, body))
}

// onTelemetry receives what devices upload, whose first bytes are the device's number.
func (o *opts) onTelemetry(u *url.URL, came func(device int)) (end func(), err error) {
	w, _, err := dialWire(u, "bench-telemetry")
	if err != nil {
		return nil, err
	}
	w.attach(true, "telemetry/"+o.tenant, "t", false)
	if _, err := w.expect(dAttach); err != nil {
		return nil, err
	}
	credit := func(count uint32) {
		w.c.Write(enc{}.frame(0, func(b enc) enc {
			return b.list(dFlow, 7, func(b enc) enc {
				return b.u32(count).u32(1<<31 - 1).u32(0).u32(1<<31 - 1).u32(0).u32(count).u32(uint32(o.credit))
			})
		}))
	}
	credit(0)
	go func() {
		for count := uint32(1); ; {
			code, fs, payload, err := w.readFrame()
			if err != nil {
				return
			}
			if code != dTransfer {
				continue
			}
			if id, ok := fnum(fs, 1); ok {
				w.c.Write(enc{}.frame(0, func(b enc) enc {
					return b.list(dDisposition, 5, func(b enc) enc {
						return append(b.boolean(true).u32(id).u32(id).boolean(true), 0x00, 0x53, dAccepted, 0x45)
					})
				}))
			}
			if d := dataOf(payload); len(d) >= 4 {
				came(int(binary.BigEndian.Uint32(d)))
			}
			if count++; count%uint32(o.credit/4) == 0 {
				credit(count - 1)
			}
		}
	}()
	return func() { w.c.Close() }, nil
}

// waitForCommands uploads, takes the command that comes in the answer, and answers it.
func (o *opts) waitForCommands(c net.Conn, i int, stop *atomic.Bool) error {
	r := bufio.NewReaderSize(c, 4<<10)
	common := " HTTP/1.1\r\nHost: " + c.RemoteAddr().String() + "\r\nAuthorization: Basic " +
		base64.StdEncoding.EncodeToString([]byte(o.userOf(i)+":"+o.password)) + "\r\nContent-Type: application/octet-stream\r\n"
	upload := []byte("POST /telemetry" + common + "hono-ttd: 20\r\nQoS-Level: 1\r\nContent-Length: 4\r\n\r\n")
	upload = binary.BigEndian.AppendUint32(upload, uint32(i))
	p := newPacer(o.rate / float64(o.conns))
	p.next += p.gap * time.Duration(i) / time.Duration(o.conns)
	for !stop.Load() {
		p.wait()
		if _, err := c.Write(upload); err != nil {
			return err
		}
		status, request, payload, err := readCommand(r)
		if err != nil {
			return err
		}
		if status != 200 || request == "" {
			return fmt.Errorf("answered with %d, request id %q; want 200 and a command", status, request)
		}
		answer := append([]byte("POST /command/res/"+request+"?hono-cmd-status=200"+common+"Content-Length: "+strconv.Itoa(len(payload))+"\r\n\r\n"), payload...)
		if _, err := c.Write(answer); err != nil {
			return err
		}
		if status, _, _, err = readCommand(r); err != nil || status != 202 {
			return fmt.Errorf("response answered with %d, %v; want 202", status, err)
		}
	}
	return nil
}

// readCommand reads one response of HTTP/1.1, and what command is in it.
func readCommand(r *bufio.Reader) (status int, request string, payload []byte, err error) {
	length := 0
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, "", nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch name, value, _ := bytes.Cut(line, []byte(":")); {
		case first && len(line) >= 12:
			status, err = strconv.Atoi(string(line[9:12]))
		case len(line) == 0:
			payload = make([]byte, length)
			_, err := io.ReadFull(r, payload)
			return status, request, payload, err
		case bytes.EqualFold(name, []byte("content-length")):
			length, err = strconv.Atoi(string(bytes.TrimSpace(value)))
		case bytes.EqualFold(name, []byte("hono-cmd-req-id")):
			request = string(bytes.TrimSpace(value))
		}
		if err != nil {
			return 0, "", nil, err
		}
	}
}
