package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// connecting is how many clients connect at a time: enough to keep a server busy that
// takes its time for each.
const connecting = 64

// keepAlive is that of idle clients, in seconds; they ping in half of it.
const keepAlive = 120

// errLater is a server that cannot answer now.
var errLater = errors.New("told to come again")

// runMQTTIdle connects o.conns clients, each of which subscribes where -sub has a %d,
// and has them do nothing but ping. It holds no buffer and no goroutine for any, so
// that a quarter of a million fit into a process.
func runMQTTIdle(o *opts) error {
	u, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	r0, c0 := o.pid.rss(), o.pid.cpu()
	conns := make([]net.Conn, o.conns)
	began := time.Now()
	var next, later atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range connecting {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < o.conns && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				c, err := o.mqIdle(u, i)
				for errors.Is(err, errLater) {
					later.Add(1)
					time.Sleep(time.Second)
					c, err = o.mqIdle(u, i)
				}
				if err != nil {
					err = fmt.Errorf("client %d: %w", i, err)
					failed.Store(&err)
				}
				conns[i] = c
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	took := time.Since(began)
	fmt.Printf("%-34s connected: %d in %.1f s, %.0f conn/s, srv %.0f us/conn, RSS %d KiB; told to come again %d times\n", o.label, o.conns, took.Seconds(),
		float64(o.conns)/took.Seconds(), float64((o.pid.cpu()-c0).Microseconds())/float64(o.conns), o.pid.rss(), later.Load())
	stop := make(chan struct{})
	all.Go(func() { pingAll(conns, stop) })
	idleReport(o, r0)
	close(stop)
	all.Wait()
	lost := 0
	for _, c := range conns {
		if ended(c) {
			lost++
		}
		abort(c)
	}
	if lost > 0 {
		return fmt.Errorf("%d of %d connections ended while they were idle", lost, len(conns))
	}
	return nil
}

// mqIdle connects a client, with a bounded time for each answer.
func (o *opts) mqIdle(u *url.URL, i int) (net.Conn, error) {
	c, err := dialDevice(u, i)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	ask := func(packet []byte, answer []byte) error {
		if _, err := c.Write(packet); err != nil {
			return err
		}
		got := make([]byte, len(answer))
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if got[0] == 0x20 && got[3] == 3 {
			return errLater
		}
		if got[0] != answer[0] || got[len(got)-1] != answer[len(answer)-1] {
			return fmt.Errorf("got % x, want % x", got, answer)
		}
		return nil
	}
	err = ask(o.mqConnect(u, i, fmt.Sprintf("idle-%d", i), keepAlive), []byte{0x20, 2, 0, 0})
	if err == nil && strings.Contains(o.subTopic, "%d") {
		err = ask(mqPkt(nil, 0x82, append(mqStr([]byte{0, 1}, fmt.Sprintf(o.subTopic, i)), 0)), []byte{0x90, 3, 0, 1, 0})
	}
	if err != nil {
		abort(c)
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}

// abort closes a connection without a trace. Those that are closed in order stay known to the system
// for minutes, and it knows only so many.
func abort(c net.Conn) {
	inner := c
	if t, ok := c.(*tls.Conn); ok {
		inner = t.NetConn()
	}
	if tcp, ok := inner.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	inner.Close()
}

// pingAll has each client ping once in half of its keep-alive.
func pingAll(conns []net.Conn, stop chan struct{}) {
	const steps = 100
	tick := time.NewTicker(keepAlive * time.Second / 2 / steps)
	defer tick.Stop()
	for step := 0; ; step++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for i := step % steps; i < len(conns); i += steps {
			_, _ = conns[i].Write([]byte{0xc0, 0})
		}
	}
}

// ended reports whether the server has closed a connection, all answers to pings being read.
func ended(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	for buf := make([]byte, 64); ; {
		if _, err := c.Read(buf); err != nil {
			var timeout net.Error
			return !errors.As(err, &timeout) || !timeout.Timeout()
		}
	}
}
