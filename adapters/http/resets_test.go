package http_test

import (
	"context"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/internal/iot"
)

// resetWorld is an adapter whose clients reset their requests, in time of its own.
type resetWorld struct {
	world
	client func(version int) *nethttp.Transport // each has a connection of its own
}

func inResetWorld(t *testing.T, f func(t *testing.T, w resetWorld)) {
	synctest.Test(t, func(t *testing.T) {
		w := resetWorld{world: newWorld(t, http.Options{}, adapters.Options{})}
		server, config := deviceTLS(t, true)
		server.SessionTicketsDisabled = true // a pipe takes nothing that the client does not read yet
		p, done := newPipes(), make(chan error, 1)
		go func() { done <- w.Serve(t.Context(), p, server) }()
		var all []*nethttp.Transport
		w.client = func(version int) *nethttp.Transport {
			tr := transport(t, config.Clone(), version)
			tr.DialContext = func(context.Context, string, string) (net.Conn, error) { return writeBehind(p.dial()), nil }
			all = append(all, tr)
			return tr
		}
		defer func() {
			for _, tr := range all {
				tr.CloseIdleConnections()
			}
			time.Sleep(time.Minute)
			if err := w.Shutdown(context.Background()); err != nil {
				t.Errorf("shutdown: %v", err)
			}
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
			if n := w.commands.Len(); n != 0 {
				t.Errorf("%d subscriptions are left", n)
			}
		}()
		f(t, w)
	})
}

// writesBehind is a connection whose other side need not read what is written at once.
type writesBehind struct {
	net.Conn
	waiting chan []byte
	closed  chan struct{}
	close   func() error
}

func writeBehind(c net.Conn) net.Conn {
	b := &writesBehind{Conn: c, waiting: make(chan []byte, 10_000), closed: make(chan struct{})}
	b.close = sync.OnceValue(func() error {
		close(b.closed)
		return c.Close()
	})
	go func() {
		for {
			select {
			case text := <-b.waiting:
				if _, err := c.Write(text); err != nil {
					return
				}
			case <-b.closed:
				return
			}
		}
	}()
	return b
}

func (b *writesBehind) Write(text []byte) (int, error) {
	select {
	case b.waiting <- slices.Clone(text):
		return len(text), nil
	case <-b.closed:
		return 0, net.ErrClosed
	}
}

func (b *writesBehind) Close() error { return b.close() }

// ask has a device wait for a command, and reset the request after that time; 0 = it does
// not. It returns the status, 0 = there was no answer, and Retry-After.
func (w resetWorld) ask(t *testing.T, tr *nethttp.Transport, device iot.DeviceID, ttd int, after time.Duration) (status, retry int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if after > 0 {
		defer time.AfterFunc(after, cancel).Stop()
	}
	r := waiting(t, "https://adapter.example", ttd).WithContext(ctx)
	r.SetBasicAuth(string(device)+"@"+string(adaptertest.Tenant), adaptertest.Password)
	resp, err := tr.RoundTrip(r)
	if err != nil {
		if ctx.Err() == nil {
			t.Fatal(err)
		}
		synctest.Wait()
		return 0, 0
	}
	if resp.StatusCode != 200 { // what is left of a command is reset, which is no wrong
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	resp.Body.Close()
	retry, _ = strconv.Atoi(resp.Header.Get("Retry-After"))
	return resp.StatusCode, retry
}

// reset has a device wait many times at once on one connection, and reset it all.
func (w resetWorld) reset(t *testing.T, tr *nethttp.Transport, times int) {
	t.Helper()
	if got, _ := w.ask(t, tr, adaptertest.Device, 0, 0); got != 202 {
		t.Errorf("got %d for an upload, want 202", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, times)
	for range times {
		go func() {
			resp, err := tr.RoundTrip(waiting(t, "https://adapter.example", 60).WithContext(ctx))
			if err == nil {
				resp.Body.Close()
			}
			ended <- err
		}()
	}
	synctest.Wait()
	cancel()
	for range times {
		if err := <-ended; err == nil {
			t.Error("a request that was reset has an answer")
		}
	}
	synctest.Wait()
}

// TestResetAtOnce: who resets its requests of HTTP/2 early is refused for some time,
// without a subscription and an upload. Others go on. A connection that breaks with all that
// is on it does not count as that.
func TestResetAtOnce(t *testing.T) {
	inResetWorld(t, func(t *testing.T, w resetWorld) {
		w.reset(t, w.client(2), 100)
		if got, _ := w.ask(t, w.client(2), adaptertest.Device, 1, 0); got != 202 {
			t.Errorf("after 100 resets it got %d, want 202", got)
		}
		w.reset(t, w.client(2), 60) // and 90 that are not forgiven yet
		sent := len(w.down.Sent())
		for range 3 {
			if got, retry := w.ask(t, w.client(2), adaptertest.Device, 60, 0); got != 429 || retry != 5 {
				t.Errorf("it got %d with Retry-After %d, want 429 with 5", got, retry)
			}
		}
		if n := len(w.down.Sent()) - sent; n != 0 {
			t.Errorf("%d uploads of requests that were refused", n)
		}
		if got, _ := w.ask(t, w.client(1), adaptertest.Device, 1, 0); got != 202 {
			t.Errorf("by HTTP/1.1 it got %d, want 202", got)
		}
		if got, _ := w.ask(t, w.client(2), adaptertest.Gateway, 1, 0); got != 202 {
			t.Errorf("another device got %d, want 202", got)
		}
		time.Sleep(3 * time.Second)
		if got, _ := w.ask(t, w.client(2), adaptertest.Device, 1, 0); got != 202 {
			t.Errorf("after 5 s it got %d, want 202", got)
		}
	})
}

// TestRefusedConnectionRests: a connection of one device alone is not read while this
// device is refused; one that others use as well is.
func TestRefusedConnectionRests(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared %v", shared), func(t *testing.T) {
			inResetWorld(t, func(t *testing.T, w resetWorld) {
				tr, want := w.client(2), 6*time.Second
				if shared {
					want = time.Second
					w.ask(t, tr, adaptertest.Gateway, 1, 0)
				}
				w.reset(t, w.client(2), 90)
				w.reset(t, w.client(2), 60)
				if got, _ := w.ask(t, tr, adaptertest.Device, 60, 0); got != 429 {
					t.Fatalf("got %d, want 429", got)
				}
				start := time.Now()
				if got, _ := w.ask(t, tr, adaptertest.Gateway, 1, 0); got != 202 || time.Since(start) != want {
					t.Errorf("another device got %d after %v, want 202 after %v", got, time.Since(start), want)
				}
			})
		})
	}
}

// TestWhoIsNotRefused: what devices do that do nothing wrong, many times.
func TestWhoIsNotRefused(t *testing.T) {
	const times = 400
	for _, tt := range []struct {
		name    string
		version int
		do      func(t *testing.T, w resetWorld, tr *nethttp.Transport) (status int)
		want    []int
	}{
		{"waits one after the other", 2, func(t *testing.T, w resetWorld, tr *nethttp.Transport) int {
			status, _ := w.ask(t, tr, adaptertest.Device, 1, 0)
			return status
		}, []int{202}},
		{"gets a command at once", 2, func(t *testing.T, w resetWorld, tr *nethttp.Transport) int {
			w.down.Outcome(func(m *iot.Message) error {
				w.commands.Command(to(m.Device), func(error) {})
				return nil
			})
			status, _ := w.ask(t, tr, adaptertest.Device, 60, 0)
			return status
		}, []int{200}},
		{"gives up after a second", 2, func(t *testing.T, w resetWorld, tr *nethttp.Transport) int {
			status, _ := w.ask(t, tr, adaptertest.Device, 60, time.Second)
			return status
		}, []int{0}},
		{"gives up early now and then", 2, func(t *testing.T, w resetWorld, tr *nethttp.Transport) int {
			status, _ := w.ask(t, tr, adaptertest.Device, 60, time.Millisecond)
			time.Sleep(100 * time.Millisecond)
			return status
		}, []int{0}},
		{"hangs up with HTTP/1.1", 1, func(t *testing.T, w resetWorld, tr *nethttp.Transport) int {
			status, _ := w.ask(t, tr, adaptertest.Device, 60, time.Millisecond)
			return status
		}, []int{0, 202}}, // the answer of a request that has ended may be faster than its end
	} {
		t.Run(tt.name, func(t *testing.T) {
			inResetWorld(t, func(t *testing.T, w resetWorld) {
				tr := w.client(tt.version)
				for i := range times {
					if got := tt.do(t, w, tr); !slices.Contains(tt.want, got) {
						t.Fatalf("time %d: got %d, want one of %d", i, got, tt.want)
					}
				}
			})
		})
	}
}
