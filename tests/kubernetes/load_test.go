package kubernetes_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// load is numbered messages of several devices at a time, each number once.
type load struct {
	name   string
	kind   string // of message
	stop   context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	next   int
	taken  []string // acknowledged
	status map[int]int
	broken map[string]int // connections, by error
	lost   int            // connections that devices made anew
	gaps   longest
}

// longest is the longest time in which nothing was taken.
type longest struct {
	last, began time.Time
	most        time.Duration
}

func (g *longest) see(now time.Time) {
	if !g.last.IsZero() && now.Sub(g.last) > g.most {
		g.most, g.began = now.Sub(g.last), g.last
	}
	g.last = now
}

// sender is a device with its connection. It is for one goroutine.
type sender interface {
	// send returns a status of HTTP; 202 is an acknowledgement.
	send(ctx context.Context, kind, text string) (int, error)
	// close returns how often the device lost its connection and made another one.
	close() int
}

// httpSender keeps a connection of its own.
type httpSender struct {
	s      *site
	c      *http.Client
	device string
}

func newHTTPSender(s *site, device string) sender { return &httpSender{s, s.client(), device} }

func (d *httpSender) send(ctx context.Context, kind, text string) (int, error) {
	return d.s.upload(ctx, d.c, kind, d.device, text)
}

// close returns 0: net/http makes connections as it needs them.
func (d *httpSender) close() int {
	d.c.CloseIdleConnections()
	return 0
}

// begin starts workers, one for each name of a device, that each send a message every
// pause.
func begin(t *testing.T, s *site, name, kind string, open func(s *site, device string) sender, devices []string, pause time.Duration) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{name: name, kind: kind, stop: cancel, status: map[int]int{}, broken: map[string]int{}}
	for _, device := range devices {
		l.wg.Go(func() {
			d := open(s, device)
			defer func() {
				lost := d.close()
				l.mu.Lock()
				defer l.mu.Unlock()
				l.lost += lost
			}()
			for ctx.Err() == nil {
				l.mu.Lock()
				l.next++
				text := fmt.Sprintf("%s %s %d", name, kind, l.next)
				l.mu.Unlock()
				// One that is under way at the end is finished, so that its answer counts.
				code, err := d.send(context.WithoutCancel(ctx), kind, text)
				l.record(text, code, err)
				time.Sleep(pause)
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) record(text string, code int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.broken[err.Error()]++
		return
	}
	l.status[code]++
	if code == 202 {
		l.taken = append(l.taken, text)
		l.gaps.see(time.Now())
	}
}

func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// check ends the load and compares: whatever was answered with 202 has arrived, or
// does if it is an event, and what was not was refused in a way that a device can
// deal with.
func (l *load) check(t *testing.T, a *application) {
	t.Helper()
	l.end()
	ended := time.Now()
	for _, text := range l.taken {
		for l.kind == event && !a.has(text) && time.Since(ended) < patience {
			time.Sleep(20 * time.Millisecond)
		}
	}
	late := time.Since(ended)
	lost, twice := 0, 0
	for _, text := range l.taken {
		if a.times(text) > 1 {
			twice++
		}
		if !a.has(text) {
			lost++
			if lost < 10 {
				t.Errorf("%q was acknowledged and did not arrive", text)
			}
		}
	}
	t.Logf("%s, %s: %d messages, answers %v, connections broken %v, %d of MQTT made anew, %d acknowledged and lost, %d received twice; the application lost %d connections so far; longest time without a 202: %s; the last to arrive came %s after the last upload",
		l.name, l.kind, l.next, l.status, l.broken, l.lost, lost, twice, a.connectionsLost(), l.gaps.most.Round(time.Millisecond), late.Round(time.Millisecond))
	for code := range l.status {
		if code != 202 && code != 503 {
			t.Errorf("%d uploads were answered with %d", l.status[code], code)
		}
	}
	if len(l.broken) > 0 {
		t.Errorf("connections broke without an answer: %v", l.broken)
	}
	if len(l.taken) < 100 {
		t.Errorf("only %d were taken", len(l.taken))
	}
}
