package adapters_test

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Who was closed out by new settings of the tenant does not come back by old ones.
func TestBarredSessionsStayOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, adapters.SessionOptions{})
		l := passwordLogin(t, adaptertest.Device, adaptertest.Password)
		_, closed := g.open(t, l)
		g.inv.Adapters(events.TenantAdapter{Type: "hono-http", Enabled: true})
		g.all.Notice(adapters.Notice{Type: adapters.NoticeTenant, Change: "UPDATE", Tenant: adaptertest.Tenant, Enabled: true})
		synctest.Wait()
		if !errors.Is(closed(), iot.ErrForbidden) {
			t.Errorf("got closed by %v, want that the adapter is disabled", closed())
		}
		if _, err := g.ss.Open(t.Context(), l, home, func(error) {}); !errors.Is(err, iot.ErrForbidden) {
			t.Errorf("coming back: got %v, want ErrForbidden", err)
		}
	})
}

// Devices that go, or come, while their tenant's settings change do not get by with
// what was true before.
func TestSettingsChangeWhileDevicesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		login := func(i int) adapters.Login {
			l := passwordLogin(t, adaptertest.Device, adaptertest.Password)
			l.Context = map[string]any{"client-id": i}
			return l
		}
		for round := range 6 {
			g := newGate(t, adapters.SessionOptions{})
			var left [200]*adapters.Session
			for i := range left {
				left[i], _ = g.open(t, login(i))
			}
			for i := range left[:100] { // these come back while the rest goes
				left[i].Close()
			}
			g.inv.Adapters(events.TenantAdapter{Type: "hono-http", Enabled: true})
			g.all.Notice(adapters.Notice{Type: adapters.NoticeTenant, Change: "UPDATE", Tenant: adaptertest.Tenant, Enabled: true})
			for range rand.N(20) {
				runtime.Gosched()
			}
			for i := range 100 {
				g.ss.Open(t.Context(), login(i), home, func(error) {}) // whether that is before the change is open
				left[100+i].Close()
			}
			synctest.Wait()
			if n := g.ss.Len(); n != 0 {
				t.Fatalf("round %d: %d sessions outlived the adapter's end", round, n)
			}
			for i := range left {
				if _, err := g.ss.Open(t.Context(), login(i), home, func(error) {}); !errors.Is(err, iot.ErrForbidden) {
					t.Fatalf("round %d: device %d came back: %v", round, i, err)
				}
			}
		}
	})
}
