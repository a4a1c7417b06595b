package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// perSource is how many devices connect from one loopback address: adapters allow a
// thousand, and an address has some 28,000 ports.
const perSource = 500

// dialDevice connects the i-th device, over TLS where the URL's scheme ends so.
func dialDevice(u *url.URL, i int) (net.Conn, error) {
	source := i / perSource
	d := net.Dialer{Timeout: 20 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+source/250), byte(1+source%250))}}
	c, err := d.Dial("tcp", u.Host)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "https" || u.Scheme == "mqtts" {
		// The server is one that this run started, with a certificate that nobody knows.
		t := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		if err := t.Handshake(); err != nil {
			c.Close()
			return nil, err
		}
		c = t
	}
	return c, nil
}

// userOf is the name of the i-th device, where it has one.
func (o *opts) userOf(i int) string {
	if strings.Contains(o.user, "%d") {
		return fmt.Sprintf(o.user, i)
	}
	return o.user
}

// receive has an application take what the devices send. woken is called when
// there may be room for more.
func (o *opts) receive(m *meter, woken func()) (close func(), err error) {
	u, err := url.Parse(o.sink)
	if err != nil {
		return nil, err
	}
	l := &rawLoad{u: u, o: o, m: m}
	if err := l.receive(o.sinkAddr, 0, &pair{woken: woken}); err != nil {
		return nil, err
	}
	return l.close, nil
}

// runHTTP has o.conns devices upload telemetry with QoS 1, each over a kept
// connection of its own with one request at a time.
func runHTTP(o *opts) error {
	u, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	m := &meter{}
	end, err := o.receive(m, nil)
	if err != nil {
		return err
	}
	defer end()
	return o.eachDevice(u, m, func(c net.Conn, i int, stop *atomic.Bool) error { return o.upload(c, i, m, stop) })
}

// eachDevice has o.conns devices, each on a connection of its own, do as act says until stop is
// set, and measures meanwhile.
func (o *opts) eachDevice(u *url.URL, m *meter, act func(c net.Conn, i int, stop *atomic.Bool) error) error {
	var stop atomic.Bool
	var running sync.WaitGroup
	for i := range o.conns {
		c, err := dialDevice(u, i)
		if err != nil {
			return fmt.Errorf("device %d: %w", i, err)
		}
		running.Go(func() {
			defer c.Close()
			if err := act(c, i, &stop); err != nil {
				m.bad.Add(1)
				fmt.Printf("device %d: %v\n", i, err)
			}
		})
	}
	measure(o.label, o.pid, m, &m.recv, o.warm, o.dur)
	stop.Store(true)
	running.Wait()
	fmt.Printf("%-34s drained: sent %d received %d acked %d\n", o.label, m.sent.Load(), m.recv.Load(), m.acked.Load())
	return nil
}

// upload sends one request after the other until stop is set.
func (o *opts) upload(c net.Conn, i int, m *meter, stop *atomic.Bool) error {
	r := bufio.NewReaderSize(c, 1<<10)
	head := "POST /telemetry HTTP/1.1\r\nHost: " + c.RemoteAddr().String() + "\r\nAuthorization: Basic " +
		base64.StdEncoding.EncodeToString([]byte(o.userOf(i)+":"+o.password)) +
		"\r\nContent-Type: application/octet-stream\r\nQoS-Level: 1\r\nContent-Length: " + strconv.Itoa(o.size) + "\r\n\r\n"
	buf := append([]byte(head), make([]byte, o.size)...)
	body := buf[len(head):]
	p := newPacer(o.rate / float64(o.conns))
	p.next += p.gap * time.Duration(i) / time.Duration(o.conns)
	for !stop.Load() {
		p.wait()
		began := now()
		binary.BigEndian.PutUint64(body, uint64(began))
		m.sent.Add(1)
		if _, err := c.Write(buf); err != nil {
			return err
		}
		status, err := readStatus(r)
		if err != nil {
			return err
		}
		if status != 202 {
			return fmt.Errorf("answered with %d", status)
		}
		m.ack.add(now() - began)
		m.acked.Add(1)
	}
	return nil
}

// readStatus reads one response of HTTP/1.1 that says how long it is.
func readStatus(r *bufio.Reader) (status int, err error) {
	length := 0
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch name, value, _ := bytes.Cut(line, []byte(":")); {
		case first && len(line) >= 12:
			status, err = strconv.Atoi(string(line[9:12]))
		case len(line) == 0:
			_, err := r.Discard(length)
			return status, err
		case bytes.EqualFold(name, []byte("content-length")):
			length, err = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
		if err != nil {
			return 0, err
		}
	}
}
