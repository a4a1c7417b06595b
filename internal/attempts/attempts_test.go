package attempts_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/internal/attempts"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := attempts.New[string](3, 100)
		for range 5 { // what succeeds does not count
			if err := l.Begin(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			l.End("a", false)
		}
		for range 3 {
			if err := l.Begin(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			l.End("a", true)
		}
		err := l.Begin(t.Context(), "a")
		if !errors.Is(err, iot.ErrQuota) || iot.RetryAfter(err) != attempts.Window || !l.Full() || l.Blocked("a", time.Now()) != attempts.Window {
			t.Fatalf("got %v after %v", err, iot.RetryAfter(err))
		}
		if err := l.Begin(t.Context(), "b"); err != nil {
			t.Fatalf("somebody else: %v", err)
		}
		l.End("b", false)
		time.Sleep(attempts.Window)
		if err := l.Begin(t.Context(), "a"); err != nil || l.Full() {
			t.Fatalf("after the time: %v", err)
		}
		l.End("a", false)
		if l.Len() != 0 {
			t.Fatalf("%d are remembered", l.Len())
		}
	})
}

// TestBurst expects attempts at the same time to wait rather than to pass the
// limit together.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := attempts.New[string](3, 100)
		var mu sync.Mutex
		tried, refused := 0, 0
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if err := l.Begin(t.Context(), "a"); err != nil {
					mu.Lock()
					refused++
					mu.Unlock()
					return
				}
				mu.Lock()
				tried++
				mu.Unlock()
				time.Sleep(time.Second)
				l.End("a", true)
			})
		}
		wg.Wait()
		if tried != 3 || refused != 17 {
			t.Fatalf("%d tried, %d refused", tried, refused)
		}
	})
}

func TestBounds(t *testing.T) {
	l := attempts.New[int](1, 10)
	for k := 1; k <= 1000; k++ {
		if err := l.Begin(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		l.End(k, true)
	}
	if l.Len() > 10 {
		t.Errorf("%d are remembered", l.Len())
	}
	none := attempts.New[int](-1, 10)
	for range 5 {
		if err := errors.Join(none.Begin(t.Context(), 1), l.Begin(t.Context(), 0)); err != nil {
			t.Fatal(err)
		}
		none.End(1, true)
		l.End(0, true)
	}
	one := attempts.New[int](1, 10)
	if err := one.Begin(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := one.Begin(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestAddress(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3::4": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := attempts.Address(netip.MustParseAddr(text)).String(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

// TestLogins has log-ins fail by name and by address.
func TestLogins(t *testing.T) {
	l := attempts.NewLogins[attempts.NameAt](2, 3, 10)
	near, far := attempts.Remote("192.0.2.1:4711"), attempts.Remote("192.0.2.2")
	wrong := iot.Errorf(iot.ErrUnauthenticated, "no")
	try := func(name string, from netip.Addr, outcome, want error) {
		t.Helper()
		asked := false
		err := l.Try(t.Context(), attempts.At(name, from), from, func() error {
			asked = true
			return outcome
		})
		if !errors.Is(err, want) || asked != !errors.Is(want, iot.ErrQuota) {
			t.Errorf("%s from %s: got %v, asked %t; want %v", name, from, err, asked, want)
		}
	}
	try("a", near, nil, nil)
	try("a", near, iot.ErrUnavailable, iot.ErrUnavailable) // is no failure of the peer
	try("a", near, wrong, iot.ErrUnauthenticated)
	try("a", near, wrong, iot.ErrUnauthenticated)
	try("a", near, nil, iot.ErrQuota)
	try("a", far, nil, nil)
	try("b", near, wrong, iot.ErrUnauthenticated)
	try("c", near, nil, iot.ErrQuota) // the address has used up its own
	try("c", far, nil, nil)
}

func TestRemote(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "192.0.2.1": "192.0.2.1", "[2001:db8::1:2]:80": "2001:db8::", "2001:db8::1": "2001:db8::",
		"[::ffff:192.0.2.1]:80": "192.0.2.1", "": "invalid IP", "pipe": "invalid IP",
	} {
		if got := attempts.Remote(text).String(); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}
