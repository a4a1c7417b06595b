package http_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// until waits for a condition, as long as the test may take.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		if t.Context().Err() != nil {
			t.Fatal(what)
		}
		time.Sleep(time.Millisecond)
	}
}

// waiting is a request that waits for a command.
func waiting(t testing.TB, base string, ttd int) *nethttp.Request {
	r, err := nethttp.NewRequestWithContext(t.Context(), "POST", fmt.Sprintf("%s/telemetry?hono-ttd=%d", base, ttd), strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
	return r
}

// A client that hangs up while it waits is noticed, so that commands are not for it.
func TestHangUpWhileWaiting(t *testing.T) {
	head := "POST /telemetry HTTP/1.1\r\nHost: x\r\nhono-ttd: 60\r\n" + as(adaptertest.Device) + "\r\n"
	for _, tt := range []struct {
		name string
		tls  bool
		send string
	}{
		{"length", false, head + "Content-Length: 1\r\n\r\nx"},
		{"chunks", false, head + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"},
		{"no body", false, head + "Content-Type: " + adapters.EmptyNotification + "\r\n\r\n"},
		{"HTTP/1.0", false, strings.Replace(head, "1.1", "1.0", 1) + "Content-Length: 1\r\n\r\nx"},
		{"TLS", true, head + "Content-Length: 1\r\n\r\nx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, http.Options{}, adapters.Options{})
			var c net.Conn
			var err error
			if tt.tls {
				base, conf := serveTLS(t, w.Adapter, true)
				c, err = tls.Dial("tcp", strings.TrimPrefix(base, "https://"), conf)
			} else {
				base, _ := serve(t, w.Adapter)
				c, err = net.Dial("tcp", strings.TrimPrefix(base, "http://"))
			}
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, tt.send)
			until(t, "it does not wait", func() bool { return w.commands.Len() == 1 && len(w.down.Sent()) == 1 })
			c.Close()
			until(t, "it still waits", func() bool { return w.commands.Len() == 0 })
			var o outcomes
			w.commands.Command(to(adaptertest.Device), o.done)
			o.check(t, iot.ErrUnavailable)
		})
	}
}

// A stream of HTTP/2 that is reset ends its waiting, and no other's.
func TestResetWhileWaiting(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	base, conf := serveTLS(t, w.Adapter, true)
	tr := transport(t, conf, 2)
	answers := make(chan int, 1)
	ask := func(r *nethttp.Request) {
		resp, err := tr.RoundTrip(r)
		if err != nil {
			answers <- 0
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		answers <- resp.StatusCode
	}
	other := waiting(t, base, 60)
	other.SetBasicAuth("gateway-1@tenant-1", adaptertest.Password)
	go ask(other)
	until(t, "nobody waits", func() bool { return w.commands.Len() == 1 && len(w.down.Sent()) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	go ask(waiting(t, base, 60).WithContext(ctx))
	until(t, "it does not wait", func() bool { return w.commands.Len() == 2 && len(w.down.Sent()) == 2 })
	cancel()
	if got := <-answers; got != 0 {
		t.Errorf("got %d, want the request cancelled", got)
	}
	until(t, "it still waits", func() bool { return w.commands.Len() == 1 })
	var o outcomes
	w.commands.Command(to(adaptertest.Device), o.done)
	o.check(t, iot.ErrUnavailable)
	w.commands.Command(to(adaptertest.Gateway), o.done)
	if got := <-answers; got != 200 {
		t.Errorf("got %d, want 200", got)
	}
	until(t, "no outcome", func() bool { return w.commands.InFlight() == 0 })
	o.check(t, iot.ErrUnavailable, nil)
}

// Waits longer than what other requests have for their answers end with one, too.
func TestLongWait(t *testing.T) {
	const wait = 30 * time.Minute
	for _, version := range []int{1, 2} {
		for _, commanded := range []bool{true, false} {
			t.Run(fmt.Sprintf("HTTP/%d commanded %v", version, commanded), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, http.Options{IdleTimeout: time.Hour}, adapters.Options{})
					w.inv.Adapters(events.TenantAdapter{Type: http.Type, Enabled: true, Ext: map[string]any{"max-ttd": float64(wait / time.Second)}})
					server, client := deviceTLS(t, true)
					server.SessionTicketsDisabled = true // a pipe takes nothing that the client does not read yet
					p, done := newPipes(), make(chan error, 1)
					go func() { done <- w.Serve(t.Context(), p, server) }()
					tr := transport(t, client, version)
					tr.DialContext = func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil }
					var o outcomes
					if commanded {
						time.AfterFunc(wait-time.Second, func() { w.commands.Command(to(adaptertest.Device), o.done) })
					}
					start := time.Now()
					for range 2 { // the connection is good for another one
						resp, err := tr.RoundTrip(waiting(t, "https://adapter.example", int(wait/time.Second)))
						if err != nil {
							t.Fatalf("after %v: %v", time.Since(start), err)
						}
						body, err := io.ReadAll(resp.Body)
						resp.Body.Close()
						want, took := 202, wait
						if commanded {
							want, took = 200, wait-time.Second
						}
						if got := time.Since(start); err != nil || resp.StatusCode != want || got != took || commanded && string(body) != `{"on":true}` {
							t.Errorf("got %d %q, %v after %v; want %d after %v", resp.StatusCode, body, err, got, want, took)
						}
						commanded, start = false, time.Now()
					}
					tr.CloseIdleConnections()
					time.Sleep(2 * time.Second)
					if err := w.Shutdown(t.Context()); err != nil {
						t.Errorf("shutdown: %v", err)
					}
					if err := <-done; err != nil {
						t.Errorf("serve: %v", err)
					}
				})
			})
		}
	}
}

// A stop ends all waiting with an answer, and no more waiting begins.
func TestShutdownEndsWaiting(t *testing.T) {
	const n = 50
	w := newWorld(t, http.Options{}, adapters.Options{})
	base, conf := serveTLS(t, w.Adapter, true)
	plain, client := serve(t, w.Adapter)
	answers := make(chan int, n)
	for i := range n {
		rt, to := nethttp.RoundTripper(client.Transport), plain
		if i%2 == 0 {
			rt, to = transport(t, conf.Clone(), 1+i/2%2), base
		}
		go func() {
			resp, err := rt.RoundTrip(waiting(t, to, 60))
			if err != nil {
				t.Error(err)
				answers <- 0
				return
			}
			resp.Body.Close()
			if resp.ProtoMajor == 1 && !resp.Close {
				t.Error("the answer does not say that the connection ends")
			}
			answers <- resp.StatusCode
		}()
	}
	until(t, "they do not wait", func() bool { return len(w.down.Sent()) == n })
	start := time.Now()
	if err := w.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for range n {
		if got := <-answers; got != 202 {
			t.Errorf("got %d, want 202", got)
		}
	}
	if d := time.Since(start); d > 30*time.Second { // of 60
		t.Errorf("it took %v", d)
	}
	if n := w.commands.Len(); n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
	rec := w.do("POST", "/telemetry?hono-ttd=60", "x", as(adaptertest.Device), text)
	if m := w.down.Sent()[n]; rec.Code != 202 || m.TTD != nil {
		t.Errorf("afterwards got %d with ttd %v, want 202 with none", rec.Code, m.TTD)
	}
}

// What waits, gets a command, expires or hangs up leaves nothing behind.
func TestWaitingLeavesNothing(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	base, _ := serve(t, w.Adapter)
	addr := strings.TrimPrefix(base, "http://")
	var turn sync.Mutex
	n := 0
	w.down.Outcome(func(m *iot.Message) error {
		turn.Lock()
		n++
		commanded := n%3 == 0
		turn.Unlock()
		if commanded {
			c := to(m.Device)
			w.commands.Command(c, func(error) {})
		}
		return nil
	})
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range 20 {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Fprintf(c, "POST /telemetry HTTP/1.1\r\nHost: x\r\nhono-ttd: 1\r\n%s\r\nContent-Length: 1\r\n\r\nx", as(adaptertest.Device))
				if i%4 != 0 { // else it hangs up
					if i%4 == 1 || i == 2 {
						resp, err := nethttp.ReadResponse(bufio.NewReader(c), nil)
						if err != nil {
							t.Error(err)
						} else {
							resp.Body.Close()
						}
					} else {
						_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
						_, _ = c.Read(make([]byte, 1))
					}
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	until(t, "subscriptions or commands are left", func() bool { return w.commands.Len() == 0 && w.commands.InFlight() == 0 })
	until(t, "goroutines are left", func() bool { return runtime.NumGoroutine() <= before+2 })
}
