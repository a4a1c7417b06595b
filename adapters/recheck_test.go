package adapters_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

var (
	credentialsChanged = adapters.Notice{Type: adapters.NoticeCredentials, Tenant: adaptertest.Tenant, Device: adaptertest.Device}
	tenantChanged      = adapters.Notice{Type: adapters.NoticeTenant, Change: "UPDATE", Tenant: adaptertest.Tenant, Enabled: true}
	errDown            = iot.Errorf(iot.ErrUnavailable, "store is down")
)

func TestChecksAreRepeatedUntilAnswered(t *testing.T) {
	for _, removed := range []bool{true, false} {
		t.Run(fmt.Sprint("removed ", removed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, adapters.SessionOptions{})
				s, closed := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
				g.inv.Fail(errDown)
				g.all.Notice(credentialsChanged)
				time.Sleep(time.Hour)
				calls := len(g.inv.Calls())
				if calls < 100 || calls > 400 {
					t.Errorf("got %d questions in an hour, want one in at most 30 s", calls)
				}
				if _, err := admitted(t, s, "", ""); !errors.Is(err, iot.ErrUnavailable) || s.Terminal("", err) {
					t.Errorf("an upload meanwhile: got %v, want ErrUnavailable", err)
				}
				if removed {
					g.inv.RemoveSecret(adaptertest.Device, adaptertest.PasswordSecret)
				}
				g.inv.Fail(nil)
				time.Sleep(time.Minute)
				if err := closed(); removed != errors.Is(err, iot.ErrUnauthenticated) {
					t.Errorf("got closed by %v, want closed %v", err, removed)
				}
				calls = len(g.inv.Calls())
				time.Sleep(time.Hour)
				if got := len(g.inv.Calls()) - calls; got != 0 {
					t.Errorf("%d more questions after the answer, want none", got)
				}
				s.Close()
			})
		})
	}
}

func TestChecksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asking, most, asked atomic.Int64
		inv := &adaptertest.Invoker{}
		a, _ := newAdmissions(t, adapters.AdmissionOptions{Invoker: invokerFunc(func(ctx context.Context, r events.Request) (events.Reply, error) {
			if q, ok := r.(events.Admit); ok && q.Credential.SecretID != "" {
				most.Store(max(most.Load(), asking.Add(1)))
				defer asking.Add(-1)
				asked.Add(1)
				time.Sleep(time.Second)
			}
			return inv.Invoke(ctx, r)
		})})
		p := adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: a, Downstream: adaptertest.Discard{}})
		ss := adapters.NewSessions(p, adapters.SessionOptions{})
		defer ss.Close()
		g := &gate{ss: ss, adm: a, inv: inv, p: p, all: adapters.NoticeHandlers{a, ss}}
		g.all.Following(true)
		time.Sleep(time.Nanosecond)
		const n = 200
		for i := range n {
			l := passwordLogin(t, adaptertest.Device, adaptertest.Password)
			l.Context = map[string]any{"client-id": i}
			g.open(t, l)
		}
		g.all.Notice(credentialsChanged)
		time.Sleep(time.Minute)
		if asked.Load() != n || most.Load() > 32 {
			t.Errorf("got %d checks, %d at once; want %d, 32 at most", asked.Load(), most.Load(), n)
		}
		if ss.Len() != n {
			t.Errorf("%d sessions are left, want %d", ss.Len(), n)
		}
	})
}

// A change that comes while a check is under way makes another one necessary.
func TestChangesWhileAskingAreNotMissed(t *testing.T) {
	for name, handlers := range map[string]func(*gate) adapters.NoticeHandlers{
		"answers first":  func(g *gate) adapters.NoticeHandlers { return adapters.NoticeHandlers{g.adm, g.ss} },
		"sessions first": func(g *gate) adapters.NoticeHandlers { return adapters.NoticeHandlers{g.ss, g.adm} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, adapters.SessionOptions{})
				_, closed := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
				release := g.inv.Block()
				handlers(g).Notice(credentialsChanged)
				synctest.Wait()
				handlers(g).Notice(credentialsChanged)
				release()
				synctest.Wait()
				g.inv.RemoveSecret(adaptertest.Device, adaptertest.PasswordSecret) // after the first was answered
				time.Sleep(time.Minute)
				if closed() == nil {
					t.Error("the second change was missed")
				}
			})
		})
	}
}

// What a notice says about a device that is just being let in counts for it.
func TestChangesWhileConnectingAreNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, adapters.SessionOptions{})
		// The answer is there, but on its way, when the device is removed.
		a, _ := newAdmissions(t, adapters.AdmissionOptions{Invoker: invokerFunc(func(ctx context.Context, r events.Request) (events.Reply, error) {
			reply, err := g.inv.Invoke(ctx, r)
			time.Sleep(time.Second)
			return reply, err
		})})
		p := adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: a, Downstream: g.down})
		ss := adapters.NewSessions(p, adapters.SessionOptions{})
		defer ss.Close()
		closed := make(chan error, 1)
		go func() {
			if _, err := ss.Open(t.Context(), passwordLogin(t, adaptertest.Device, adaptertest.Password), home, func(err error) { closed <- err }); err != nil {
				closed <- err
			}
		}()
		time.Sleep(time.Millisecond)
		g.inv.Remove(adaptertest.Device)
		adapters.NoticeHandlers{a, ss}.Notice(adapters.Notice{Type: adapters.NoticeDevice, Change: "DELETE", Tenant: adaptertest.Tenant, Device: adaptertest.Device})
		if err := <-closed; !errors.Is(err, iot.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	})
}

func TestTrustAnchorsConcernCertificatesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, adapters.SessionOptions{})
		_, byCertificate := g.open(t, certificateLogin(t))
		s, byPassword := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
		g.inv.Defaults(map[string]any{"color": "blue"}, nil, "")
		g.all.Notice(tenantChanged)
		synctest.Wait()
		if got := len(g.inv.Calls()); got != 2 || g.inv.Lookups() != 1 {
			t.Errorf("a change of defaults: got %d admissions and %d look-ups, want 2 and 1", got, g.inv.Lookups())
		}
		if who, ok, err := s.TryAdmit("", ""); !ok || err != nil || who.TenantObject().Defaults["color"] != "blue" {
			t.Errorf("got %v, %v, want the new defaults from what is known", ok, err)
		}
		g.inv.TrustedCA(`{"subject-dn":"CN=ca"}`)
		g.inv.RemoveSecret(adaptertest.Device, adaptertest.CertificateSecret)
		g.all.Notice(tenantChanged)
		synctest.Wait()
		if got := len(g.inv.Calls()); got != 3 {
			t.Errorf("a change of anchors: got %d admissions, want 1 more than 2", got)
		}
		if byCertificate() == nil || byPassword() != nil {
			t.Errorf("got closed by %v, %v; want the certificate's only", byCertificate(), byPassword())
		}
	})
}

func TestTenantsAreAskedForUntilAnswered(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*gate)
		closed error
	}{
		{"still allowed", func(*gate) {}, nil},
		{"adapter disabled", func(g *gate) { g.inv.Adapters(events.TenantAdapter{Type: "hono-http", Enabled: true}) }, iot.ErrForbidden},
		{"tenant gone", func(g *gate) { g.inv.RemoveTenant(adaptertest.Tenant) }, iot.ErrForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, adapters.SessionOptions{})
				s, closed := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
				g.inv.Fail(errDown)
				g.all.Notice(tenantChanged)
				time.Sleep(time.Hour)
				if closed() != nil {
					t.Errorf("closed by %v before anybody knew", closed())
				}
				tt.change(g)
				g.inv.Fail(nil)
				time.Sleep(time.Minute)
				if !errors.Is(closed(), tt.closed) {
					t.Errorf("got closed by %v, want %v", closed(), tt.closed)
				}
				lookups := g.inv.Lookups()
				time.Sleep(time.Hour)
				if got := g.inv.Lookups(); got != lookups {
					t.Errorf("%d more look-ups after the answer, want none", got-lookups)
				}
				s.Close()
			})
		})
	}
}

func TestTenantsAreLookedAtAfterAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, adapters.SessionOptions{})
		_, closed := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
		l := passwordLogin(t, adaptertest.Device, adaptertest.Password)
		l.Tenant.ID = adaptertest.OtherTenant
		s, other := g.open(t, l)
		g.all.Following(false)
		g.inv.RemoveTenant(adaptertest.Tenant)
		g.inv.Remove(adaptertest.Device)
		time.Sleep(time.Minute)
		if got := g.inv.Lookups(); got != 0 || closed() != nil {
			t.Errorf("while notices do not come: %d look-ups, closed by %v; want none, and not", got, closed())
		}
		g.all.Following(true)
		g.all.Following(true)
		synctest.Wait()
		if !errors.Is(closed(), iot.ErrForbidden) || other() != nil {
			t.Errorf("got closed by %v, %v; want that of the tenant that is gone", closed(), other())
		}
		if got := g.inv.Lookups(); got > 3 {
			t.Errorf("got %d look-ups for two tenants, want 3 at most", got)
		}
		time.Sleep(adapters.UnfollowedAge)
		if _, err := admitted(t, s, "", ""); !errors.Is(err, iot.ErrNotFound) || !s.Terminal("", err) {
			t.Errorf("an upload after what was missed: got %v, want ErrNotFound, which ends the connection", err)
		}
	})
}

// A session of a tenant that lost its credentials to another device is not that
// other device's.
func TestCredentialsOfAnotherDeviceNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := "first"
		a, _ := newAdmissions(t, adapters.AdmissionOptions{Invoker: invokerFunc(func(context.Context, events.Request) (events.Reply, error) {
			return &events.Admitted{
				TenantObject: events.TenantObject{ID: adaptertest.Tenant, Enabled: true}, DeviceID: iot.DeviceID(device), SecretID: "s", CacheFor: time.Hour,
			}, nil
		})})
		p := adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: a, Downstream: adaptertest.Discard{}})
		ss := adapters.NewSessions(p, adapters.SessionOptions{})
		defer ss.Close()
		var why error
		if _, err := ss.Open(t.Context(), passwordLogin(t, adaptertest.Device, adaptertest.Password), home, func(err error) { why = err }); err != nil {
			t.Fatal(err)
		}
		device = "second"
		adapters.NoticeHandlers{a, ss}.Notice(adapters.Notice{Type: adapters.NoticeCredentials, Tenant: adaptertest.Tenant, Device: "first"})
		synctest.Wait()
		if !errors.Is(why, iot.ErrUnauthenticated) {
			t.Errorf("got closed by %v, want ErrUnauthenticated", why)
		}
	})
}

func TestClosedSessionsAskNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, adapters.SessionOptions{})
		s, closed := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
		other, _ := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
		g.inv.Fail(errDown)
		g.all.Notice(credentialsChanged)
		synctest.Wait()
		s.Close()
		calls := len(g.inv.Calls())
		g.ss.Close() // the check of the other ends, too
		time.Sleep(time.Hour)
		if got := len(g.inv.Calls()); got != calls || closed() != nil {
			t.Errorf("%d more questions, closed by %v; want none, and not", got-calls, closed())
		}
		if _, err := s.Admit(t.Context(), "", ""); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("an upload on what is closed: got %v", err)
		}
		other.Close()
		if g.ss.Len() != 0 || g.adm.Indexed() != 0 {
			t.Errorf("got %d sessions and %d in the index, want none", g.ss.Len(), g.adm.Indexed())
		}
	})
}

func TestNoticesBesideSessions(t *testing.T) {
	g := newGate(t, adapters.SessionOptions{})
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			g.all.Notice([]adapters.Notice{
				credentialsChanged, tenantChanged, {Type: adapters.NoticeDevice, Tenant: adaptertest.Tenant, Device: adaptertest.Device, Enabled: true},
				{Type: adapters.NoticeDevicesDeleted, Tenant: adaptertest.Tenant},
			}[i%4])
			time.Sleep(10 * time.Microsecond)
		}
	}()
	l := passwordLogin(t, adaptertest.Device, adaptertest.Password)
	for i := range 300 {
		l.Context = map[string]any{"client-id": i % 7}
		s, err := g.ss.Open(t.Context(), l, home, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		admitted(t, s, "", "")
		s.Close()
	}
	close(stop)
	<-ended
	g.ss.Close()
	g.adm.Close()
	if g.ss.Len() != 0 || g.adm.Indexed() != g.adm.Cached() {
		t.Errorf("got %d sessions, %d in the index and %d in the cache; want none, and as many", g.ss.Len(), g.adm.Indexed(), g.adm.Cached())
	}
}

func TestOwnDeviceCostsNoAllocation(t *testing.T) {
	g := newGate(t, adapters.SessionOptions{})
	s, _ := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
	got := testing.AllocsPerRun(100, func() {
		if _, ok, err := s.TryAdmit("", ""); !ok || err != nil {
			t.Error(ok, err)
		}
	})
	if got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}
