package auth_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestTurns has one address wait with many and another come late with one.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := auth.NewGate(1)
		a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		if err := g.Enter(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		wait := func(name string, from netip.Addr) {
			go func() {
				if err := g.Enter(t.Context(), from); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				g.Leave()
			}()
			synctest.Wait()
		}
		for _, name := range []string{"a1", "a2", "a3"} {
			wait(name, a)
		}
		wait("b1", b)
		g.Leave()
		synctest.Wait()
		if want := []string{"a1", "b1", "a2", "a3"}; !slices.Equal(order, want) {
			t.Errorf("got %v, want %v", order, want)
		}
	})
}

// TestWaitingIsBounded fills the line of one address, and then all of it.
func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := auth.NewGate(1)
		ctx, cancel := context.WithCancel(t.Context())
		address := netip.MustParseAddr("192.0.2.1")
		var errs []error
		var mu sync.Mutex
		enter := func(from netip.Addr) {
			go func() {
				err := g.Enter(ctx, from)
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}()
			synctest.Wait()
		}
		enter(address) // gets the check
		for range 65 {
			enter(address)
		}
		if len(errs) != 2 || !errors.Is(errs[1], iot.ErrUnavailable) {
			t.Fatalf("one address: got %v", errs)
		}
		for range 256 - 64 + 1 {
			address = address.Next()
			enter(address)
		}
		if len(errs) != 3 || !errors.Is(errs[2], iot.ErrUnavailable) {
			t.Fatalf("all: %d answers", len(errs))
		}
		cancel()
		synctest.Wait()
		if len(errs) != 3+256 {
			t.Fatalf("after the end: %d answers", len(errs))
		}
		g.Leave()
		if err := g.Enter(t.Context(), address); err != nil {
			t.Error(err)
		}
	})
}
