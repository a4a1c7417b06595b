package adapters_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// throng are devices that come, send and go as they like.
type throng struct {
	*gate
	submitted, told, opened, closed atomic.Int64
}

// TestEverythingAtOnce has devices come, send and go while the registry changes,
// questions fail, and the router refuses some assertions: each upload ends once,
// each connection is closed once at most, and nothing is left behind.
func TestEverythingAtOnce(t *testing.T) {
	c := &throng{gate: newGate(t, adapters.SessionOptions{Max: 16})}
	c.inv.Defaults(nil, nil, `{"max-connections": 12}`)
	c.down.Outcome(func(*iot.Message) error {
		return []error{nil, nil, nil, iot.ErrNoCredit, iot.ErrForbidden}[rand.N(5)]
	})
	var devices, changes sync.WaitGroup
	stop := make(chan struct{})
	changes.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.change()
				time.Sleep(rand.N(time.Millisecond))
			}
		}
	})
	for range 24 {
		devices.Go(func() {
			for n := 0; n < 25 || n < 2500 && c.missing(); n++ {
				c.visit(t)
			}
		})
	}
	devices.Wait()
	close(stop)
	changes.Wait()
	c.ss.Close()
	if c.missing() {
		t.Errorf("%d connections, %d of them closed, %d uploads: want some of each", c.opened.Load(), c.closed.Load(), c.told.Load())
	}
	if got, want := c.told.Load(), c.submitted.Load(); got != want {
		t.Errorf("%d of %d uploads have ended", got, want)
	}
	if c.ss.Len() != 0 || c.ss.Full() || c.adm.Indexed() != c.adm.Cached() {
		t.Errorf("%d sessions are left, and %d answers besides the cache's %d", c.ss.Len(), c.adm.Indexed(), c.adm.Cached())
	}
}

// missing says that something that was to happen has not happened yet.
func (c *throng) missing() bool {
	return c.opened.Load() == 0 || c.told.Load() == 0 || c.closed.Load() == 0
}

// change is one of what may happen in the registry and on the way to it.
func (c *throng) change() {
	n := adapters.Notice{Change: "UPDATE", Tenant: adaptertest.Tenant, Device: adaptertest.Gateway, Enabled: true}
	switch rand.N(7) {
	case 0:
		n.Type = adapters.NoticeCredentials
	case 1:
		n.Type, n.Device = adapters.NoticeTenant, ""
		c.inv.TrustedCA(fmt.Sprintf(`{"n": %d}`, rand.N(3)))
	case 2:
		n.Type, n.Change, n.Enabled = adapters.NoticeDevice, "DELETE", false
	case 3:
		n.Type, n.Device = adapters.NoticeDevice, adaptertest.Device2
	case 4:
		c.all.Following(rand.N(2) == 0)
		return
	default:
		c.inv.Fail([]error{nil, nil, iot.ErrUnavailable}[rand.N(3)])
		return
	}
	c.all.Notice(n)
}

// visit is one connection of a device, by one of the ways to come in.
func (c *throng) visit(t *testing.T) {
	l := []adapters.Login{{}, certificateLogin(t), passwordLogin(t, adaptertest.Gateway, adaptertest.Password)}[rand.N(3)]
	ctx, cancel := context.WithTimeout(t.Context(), rand.N(20*time.Millisecond))
	defer cancel()
	var closes atomic.Int64
	s, err := c.ss.Open(ctx, l, home, func(error) {
		c.closed.Add(1)
		if closes.Add(1) > 1 {
			t.Error("closed twice")
		}
	})
	if err != nil {
		time.Sleep(rand.N(time.Millisecond))
		return
	}
	c.opened.Add(1)
	var underWay sync.WaitGroup
	for range 10 {
		c.send(t, s, &underWay)
	}
	if rand.N(2) == 0 {
		underWay.Wait()
	}
	s.Close()
	underWay.Wait()
}

// send is one upload of the device or, as a gateway's, for another one.
func (c *throng) send(t *testing.T, s *adapters.Session, underWay *sync.WaitGroup) {
	var tenant iot.TenantID
	var device iot.DeviceID
	if s.Anonymous() || rand.N(4) == 0 {
		tenant, device = adaptertest.Tenant, adaptertest.Device2
	}
	who, ok, err := s.TryAdmit(tenant, device)
	if !ok {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		who, err = s.Admit(ctx, tenant, device)
	}
	if err != nil {
		return
	}
	c.submitted.Add(1)
	underWay.Add(1)
	up := telemetry("x")
	var times atomic.Int64
	c.p.Submit(who, &up, func(error) {
		if times.Add(1) > 1 {
			t.Error("told twice")
			return
		}
		c.told.Add(1)
		underWay.Done()
	})
}
