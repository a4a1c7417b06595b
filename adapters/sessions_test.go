package adapters_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

func passwordLogin(t testing.TB, device iot.DeviceID, password string) adapters.Login {
	t.Helper()
	l, err := adapters.PasswordLogin(string(device)+"@"+string(adaptertest.Tenant), password)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func certificateLogin(t testing.TB) adapters.Login {
	t.Helper()
	leaf, err := x509.ParseCertificate(adaptertest.Certificate().Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	l, ok, err := adapters.CertificateLogin(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return l
}

// gate is a door with sessions behind it.
type gate struct {
	ss   *adapters.Sessions
	adm  *adapters.Admissions
	inv  *adaptertest.Invoker
	down *adaptertest.Downstream
	p    *adapters.Pipeline
	all  adapters.NoticeHandlers
}

func newGate(t testing.TB, o adapters.SessionOptions) *gate {
	g := &gate{down: &adaptertest.Downstream{}}
	g.adm, g.inv = newAdmissions(t, adapters.AdmissionOptions{})
	g.p = adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: g.adm, Downstream: g.down})
	g.ss = adapters.NewSessions(g.p, o)
	t.Cleanup(g.ss.Close)
	g.all = adapters.NoticeHandlers{g.adm, g.ss}
	g.all.Following(true)
	time.Sleep(time.Nanosecond) // what is asked later is followed
	return g
}

func (g *gate) open(t testing.TB, l adapters.Login) (s *adapters.Session, closed func() error) {
	t.Helper()
	var mu sync.Mutex
	var why error
	s, err := g.ss.Open(t.Context(), l, home, func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if why != nil {
			t.Error("closed twice")
		}
		why = err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, func() error {
		mu.Lock()
		defer mu.Unlock()
		return why
	}
}

// admit is one upload's admission.
func admitted(t testing.TB, s *adapters.Session, tenant iot.TenantID, device iot.DeviceID) (adapters.Admission, error) {
	t.Helper()
	who, ok, err := s.TryAdmit(tenant, device)
	if !ok {
		return s.Admit(t.Context(), tenant, device)
	}
	return who, err
}

func TestAddresses(t *testing.T) {
	const own, gw, behind = adaptertest.Tenant, adaptertest.Gateway, adaptertest.Device2
	for _, tt := range []struct {
		name      string
		anonymous bool
		tenant    iot.TenantID
		device    iot.DeviceID
		want      error
		from      iot.DeviceID
	}{
		{"nothing", false, "", "", nil, gw},
		{"own device", false, "", gw, nil, gw},
		{"own tenant and device", false, own, gw, nil, gw},
		{"tenant by the name it logged in to", false, adaptertest.Alias, gw, nil, gw},
		{"behind", false, "", behind, nil, behind},
		{"behind, with tenant", false, own, behind, nil, behind},
		{"tenant alone", false, own, "", iot.ErrInvalid, ""},
		{"other tenant alone", false, adaptertest.OtherTenant, "", iot.ErrInvalid, ""},
		{"other tenant", false, adaptertest.OtherTenant, gw, iot.ErrForbidden, ""},
		{"not behind", false, "", adaptertest.OtherDevice, iot.ErrForbidden, ""},
		{"unknown", false, "", "nobody", iot.ErrNotFound, ""},
		{"anonymous", true, own, behind, nil, behind},
		{"anonymous, other tenant", true, adaptertest.OtherTenant, behind, nil, behind},
		{"anonymous without tenant", true, "", behind, iot.ErrInvalid, ""},
		{"anonymous without device", true, own, "", iot.ErrInvalid, ""},
		{"anonymous without anything", true, "", "", iot.ErrInvalid, ""},
		{"anonymous, unknown tenant", true, "nowhere", behind, iot.ErrNotFound, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate(t, adapters.SessionOptions{})
			l := passwordLogin(t, gw, adaptertest.Password)
			l.Tenant.ID = adaptertest.Alias
			if tt.anonymous {
				l = adapters.Login{}
			}
			s, _ := g.open(t, l)
			if s.Anonymous() != tt.anonymous {
				t.Errorf("anonymous: got %v, want %v", s.Anonymous(), tt.anonymous)
			}
			if !tt.anonymous && (s.Tenant() != own || s.Device() != gw) {
				t.Errorf("got session of %s/%s, want %s/%s", s.Tenant(), s.Device(), own, gw)
			}
			for range 2 { // asked, and from what is known
				who, err := admitted(t, s, tt.tenant, tt.device)
				if !errors.Is(err, tt.want) {
					t.Fatalf("got %v, want %v", err, tt.want)
				}
				if err == nil && who.Device() != tt.from {
					t.Errorf("got device %s, want %s", who.Device(), tt.from)
				}
			}
			if tt.want == nil {
				if _, ok, err := s.TryAdmit(tt.tenant, tt.device); !ok || err != nil {
					t.Errorf("what is known: got %v, %v", ok, err)
				}
			}
		})
	}
}

func TestRenewalsCarryNoPassword(t *testing.T) {
	token, err := adapters.TokenLogin(adaptertest.Token(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		login    adapters.Login
		provider bool
		want     events.Credential
	}{
		{"password", passwordLogin(t, adaptertest.Device, adaptertest.Password), false,
			events.Credential{Type: iot.HashedPassword, AuthID: string(adaptertest.Device), SecretID: adaptertest.PasswordSecret}},
		{"password that an identity provider checks", passwordLogin(t, adaptertest.Device, adaptertest.Password), true,
			events.Credential{Type: iot.HashedPassword, AuthID: string(adaptertest.Device), Password: adaptertest.Password}},
		{"certificate", certificateLogin(t), false,
			events.Credential{Type: iot.X509Cert, AuthID: "CN=device-1,O=Sluice", Certificate: adaptertest.Certificate().Certificate[0], SecretID: adaptertest.CertificateSecret}},
		{"token", token, false,
			events.Credential{Type: iot.RPK, AuthID: string(adaptertest.Device), JWT: adaptertest.Token(), SecretID: adaptertest.TokenSecret}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate(t, adapters.SessionOptions{})
			if tt.provider {
				g.inv.IdentityProvider()
			}
			tt.login.Context = map[string]any{"client-id": "x"}
			s, _ := g.open(t, tt.login)
			g.adm.Notice(adapters.Notice{Type: adapters.NoticeDevice, Tenant: adaptertest.Tenant, Device: adaptertest.Device, Enabled: true})
			if _, ok, err := s.TryAdmit("", ""); ok || err != nil {
				t.Errorf("after a change: got %v, %v, want to have to ask", ok, err)
			}
			if _, err := s.Admit(t.Context(), "", ""); err != nil {
				t.Fatal(err)
			}
			calls := g.inv.Calls()
			if len(calls) != 2 {
				t.Fatalf("got %d questions, want 2", len(calls))
			}
			q := calls[1]
			if q.TenantRef != (events.TenantRef{ID: adaptertest.Tenant}) || q.Adapter != "hono-mqtt" || q.DeviceID != "" || q.Context["client-id"] != "x" {
				t.Errorf("got %+v, want the tenant's id, the adapter and the context", q)
			}
			if got := *q.Credential; fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRenewalsAreNoFailedAttempts(t *testing.T) {
	g := newGate(t, adapters.SessionOptions{})
	s, _ := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
	g.inv.RemoveSecret(adaptertest.Device, adaptertest.PasswordSecret)
	g.inv.AddSecret(adaptertest.Device, "password-2", "second")
	g.adm.Notice(adapters.Notice{Type: adapters.NoticeCredentials, Tenant: adaptertest.Tenant, Device: adaptertest.Device})
	for range 2 * adapters.DefaultFailuresPerAuthID {
		if _, err := s.Admit(t.Context(), "", ""); !errors.Is(err, iot.ErrUnauthenticated) || !s.Terminal("", err) {
			t.Fatalf("got %v, want ErrUnauthenticated, which ends the connection", err)
		}
	}
	g.open(t, passwordLogin(t, adaptertest.Device, "second"))

	// And who is shut out is who comes anew, not who is in.
	for range adapters.DefaultFailuresPerAuthID {
		_, err := g.ss.Open(t.Context(), passwordLogin(t, adaptertest.Gateway, "wrong"), far, nil)
		if !errors.Is(err, iot.ErrUnauthenticated) {
			t.Fatal(err)
		}
	}
	gw := passwordLogin(t, adaptertest.Gateway, adaptertest.Password)
	if _, err := g.ss.Open(t.Context(), gw, far, nil); !errors.Is(err, iot.ErrQuota) {
		t.Errorf("after too many failures: got %v, want ErrQuota", err)
	}
}

func TestErrorsThatEndTheConnection(t *testing.T) {
	device := func(change string) adapters.Notice {
		return adapters.Notice{Type: adapters.NoticeDevice, Change: change, Tenant: adaptertest.Tenant, Device: adaptertest.Gateway, Enabled: true}
	}
	for _, tt := range []struct {
		name   string
		spoil  func(*gate)
		device iot.DeviceID
		want   error
		ends   bool
	}{
		{"own device gone", func(g *gate) { g.inv.Remove(adaptertest.Gateway) }, "", iot.ErrNotFound, true},
		{"gateway gone", func(g *gate) { g.inv.Remove(adaptertest.Gateway) }, adaptertest.Device2, iot.ErrForbidden, true},
		{"gateway not authorised", nil, adaptertest.OtherDevice, iot.ErrForbidden, true},
		{"device behind gone", nil, "nobody", iot.ErrNotFound, false},
		{"tenant gone", func(g *gate) { g.inv.RemoveTenant(adaptertest.Tenant) }, "", iot.ErrForbidden, true},
		{"adapter disabled", func(g *gate) { g.inv.Adapters(events.TenantAdapter{Type: "hono-http"}) }, "", iot.ErrForbidden, true},
		{"credential removed", func(g *gate) { g.inv.RemoveSecret(adaptertest.Gateway, adaptertest.PasswordSecret) }, "", iot.ErrUnauthenticated, true},
		{"nobody answers", func(g *gate) { g.inv.Fail(iot.Errorf(iot.ErrUnavailable, "down")) }, "", iot.ErrUnavailable, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate(t, adapters.SessionOptions{})
			s, _ := g.open(t, passwordLogin(t, adaptertest.Gateway, adaptertest.Password))
			anonymous, _ := g.open(t, adapters.Login{})
			if tt.spoil != nil {
				tt.spoil(g)
				g.adm.Notice(device("UPDATE")) // what is known does not hold
			}
			_, err := admitted(t, s, "", tt.device)
			if !errors.Is(err, tt.want) || s.Terminal(tt.device, err) != tt.ends {
				t.Errorf("got %v, ends %v; want %v, %v", err, s.Terminal(tt.device, err), tt.want, tt.ends)
			}
			if status.Text(err) == "" || anonymous.Terminal(tt.device, err) {
				t.Errorf("got text %q, ends an anonymous session %v; want some, and not", status.Text(err), anonymous.Terminal(tt.device, err))
			}
		})
	}
	t.Run("no fault of who is connected", func(t *testing.T) {
		g := newGate(t, adapters.SessionOptions{})
		s, _ := g.open(t, passwordLogin(t, adaptertest.Gateway, adaptertest.Password))
		who, err := admitted(t, s, "", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, up := range []adapters.Upload{{Endpoint: "alarm", ContentType: "a/b"}, {Endpoint: iot.Event, ContentType: "a/b"}} {
			if err := g.p.Publish(t.Context(), who, &up); err == nil || s.Terminal("", err) {
				t.Errorf("got %v, which ends the connection: want an error that does not", err)
			}
		}
		if _, err := admitted(t, s, adaptertest.OtherTenant, adaptertest.Device); err == nil || s.Terminal("", err) {
			t.Errorf("foreign tenant: got %v, which ends the connection: want an error that does not", err)
		}
		if s.Terminal("", nil) {
			t.Error("no error ends the connection")
		}
	})
}

func TestProofsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, adapters.SessionOptions{})
		l := passwordLogin(t, adaptertest.Device, adaptertest.Password)
		l.Expires = time.Now().Add(time.Minute)
		s, _ := g.open(t, l)
		if _, err := admitted(t, s, "", ""); err != nil || s.Expired(time.Now()) {
			t.Fatalf("before: got %v, %v", err, s.Expired(time.Now()))
		}
		time.Sleep(time.Minute)
		_, ok, err := s.TryAdmit("", "")
		if !ok || !errors.Is(err, iot.ErrUnauthenticated) || !s.Terminal("", err) || !s.Expired(time.Now()) {
			t.Errorf("after: got %v, %v", ok, err)
		}
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	g := newGate(t, adapters.SessionOptions{Max: 2})
	l := passwordLogin(t, adaptertest.Device, adaptertest.Password)
	first, _ := g.open(t, l)
	if g.ss.Full() {
		t.Error("full with one of two")
	}
	g.open(t, adapters.Login{})
	if _, err := g.ss.Open(t.Context(), l, home, nil); !errors.Is(err, adapters.ErrInstanceConnections) || !g.ss.Full() {
		t.Errorf("the third of two: got %v, full %v", err, g.ss.Full())
	}
	first.Close()
	first.Close()
	if g.ss.Full() || g.ss.Len() != 1 {
		t.Errorf("after one left: full %v with %d", g.ss.Full(), g.ss.Len())
	}
	if _, err := g.ss.Open(t.Context(), passwordLogin(t, adaptertest.Device, "wrong"), home, nil); !errors.Is(err, iot.ErrUnauthenticated) || g.ss.Full() {
		t.Errorf("a refused one: got %v, full %v", err, g.ss.Full())
	}
	g.open(t, l)
	g.ss.Close()
	if _, err := g.ss.Open(t.Context(), l, home, nil); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("after Close: got %v, want ErrUnavailable", err)
	}
}

func TestConnectionsOfATenantAreBounded(t *testing.T) {
	for limits, want := range map[string]error{
		``: nil, `{}`: nil, `{"max-connections":-1}`: nil, `{"max-connections":2}`: nil, `{"max-connections":"1"}`: nil, `[]`: nil,
		`{"max-connections":1}`: adapters.ErrTenantConnections, `{"max-connections":1,"max-ttl":5}`: adapters.ErrTenantConnections,
	} {
		t.Run(limits, func(t *testing.T) {
			g := newGate(t, adapters.SessionOptions{})
			g.inv.Defaults(nil, nil, limits)
			l := passwordLogin(t, adaptertest.Device, adaptertest.Password)
			g.open(t, adapters.Login{})
			s, _ := g.open(t, l)
			if _, err := g.ss.Open(t.Context(), l, home, nil); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			if want == nil {
				return
			}
			s.Close()
			g.open(t, l)
		})
	}
}

// The answer to what a device proved serves it when it comes back; nothing else
// is let in by it.
func TestReconnectsCostNoInvocation(t *testing.T) {
	g := newGate(t, adapters.SessionOptions{})
	l := passwordLogin(t, adaptertest.Device, adaptertest.Password)
	for range 5 {
		s, _ := g.open(t, l)
		s.Close()
	}
	if got := len(g.inv.Calls()); got != 1 {
		t.Errorf("got %d invocations for 5 connections, want 1", got)
	}
	if _, err := g.ss.Open(t.Context(), passwordLogin(t, adaptertest.Device, "wrong"), home, nil); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Errorf("wrong password: got %v", err)
	}
	g.inv.RemoveSecret(adaptertest.Device, adaptertest.PasswordSecret)
	g.all.Notice(adapters.Notice{Type: adapters.NoticeCredentials, Tenant: adaptertest.Tenant, Device: adaptertest.Device})
	if _, err := g.ss.Open(t.Context(), l, home, nil); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Errorf("credential removed while nobody was connected: got %v", err)
	}
}

// Who did not wait for the answer, or found no place, gets it when it comes back.
func TestAnswersNotTakenServeTheNextAttempt(t *testing.T) {
	g := newGate(t, adapters.SessionOptions{})
	l := passwordLogin(t, adaptertest.Device, adaptertest.Password)
	release := g.inv.Block()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.ss.Open(ctx, l, home, nil); !errors.Is(err, context.Canceled) || g.ss.Len() != 0 {
		t.Errorf("got %v, want that of the context", err)
	}
	release()
	s, _ := g.open(t, l)
	if got := len(g.inv.Calls()); got != 1 {
		t.Errorf("got %d questions, want 1", got)
	}
	s.Close()

	g.inv.Defaults(nil, nil, `{"max-connections":0}`)
	l = passwordLogin(t, adaptertest.Gateway, adaptertest.Password)
	for range 3 {
		if _, err := g.ss.Open(t.Context(), l, home, nil); !errors.Is(err, adapters.ErrTenantConnections) {
			t.Fatalf("got %v, want ErrTenantConnections", err)
		}
	}
	if got := len(g.inv.Calls()); got != 2 {
		t.Errorf("got %d questions, want 2", got)
	}
}

// An answer that a session got without its secret lets nobody in.
func TestRenewedAnswersAreNotKept(t *testing.T) {
	g := newGate(t, adapters.SessionOptions{})
	l := passwordLogin(t, adaptertest.Device, adaptertest.Password)
	s, _ := g.open(t, l)
	g.adm.Notice(adapters.Notice{Type: adapters.NoticeDevice, Tenant: adaptertest.Tenant, Device: adaptertest.Device, Enabled: true})
	if _, err := s.Admit(t.Context(), "", ""); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if got := g.adm.Cached(); got != 0 || g.adm.Indexed() != 0 {
		t.Errorf("got %d answers kept, %d in the index, want none", got, g.adm.Indexed())
	}
}

func TestManyRenewalsAreOneQuestion(t *testing.T) {
	g := newGate(t, adapters.SessionOptions{})
	s, _ := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
	g.adm.Notice(adapters.Notice{Type: adapters.NoticeDevice, Tenant: adaptertest.Tenant, Device: adaptertest.Device, Enabled: true})
	release := g.inv.Block()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := s.Admit(t.Context(), "", ""); err != nil {
				t.Error(err)
			}
		})
	}
	release()
	wg.Wait()
	if got := len(g.inv.Calls()); got != 2 {
		t.Errorf("got %d questions, want 2", got)
	}
}

// Messages whose assertion the router no longer takes leave before those that
// come after them.
func TestVoidAssertionsKeepTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, adapters.SessionOptions{})
		s, _ := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
		g.down.Outcome(func(m *iot.Message) error {
			if m.Assertion == "token-1" {
				return iot.Errorf(iot.ErrForbidden, "assertion is void")
			}
			return nil
		})
		release := g.inv.Block()
		var got []string
		var mu sync.Mutex
		submit := func(payload string) {
			who, err := admitted(t, s, "", "")
			if err != nil {
				t.Error(err)
				return
			}
			up := telemetry(payload)
			g.p.Submit(who, &up, func(err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				got = append(got, payload)
			})
		}
		who, err := admitted(t, s, "", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, payload := range []string{"1", "2", "3"} {
			up := telemetry(payload)
			g.p.Submit(who, &up, func(err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				got = append(got, payload)
			})
		}
		go submit("4")
		synctest.Wait()
		release()
		synctest.Wait()
		if want := []string{"1", "2", "3", "4"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if n := len(g.inv.Calls()); n != 2 {
			t.Errorf("got %d questions, want 2", n)
		}
		s.Close()
	})
}

func TestSubmitTellsWhatPublishDoes(t *testing.T) {
	for _, sentinel := range []error{nil, iot.ErrNoCredit, iot.ErrInvalid, iot.ErrTooLarge, iot.ErrUnavailable, iot.ErrTimeout, iot.ErrForbidden} {
		g := newGate(t, adapters.SessionOptions{})
		g.down.Outcome(func(*iot.Message) error { return sentinel })
		s, _ := g.open(t, passwordLogin(t, adaptertest.Device, adaptertest.Password))
		for _, who := range []func() adapters.Admission{
			func() adapters.Admission { who, _ := admitted(t, s, "", ""); return who },
			func() adapters.Admission { return admit(t, g.adm, good()) },
		} {
			for _, up := range []adapters.Upload{telemetry("x"), {Endpoint: iot.Event, QoS: 1, ContentType: "a/b"}, {Endpoint: "alarm"}} {
				want := g.p.Publish(t.Context(), who(), &up)
				done := make(chan error, 1)
				g.p.Submit(who(), &up, func(err error) { done <- err })
				if got := <-done; fmt.Sprint(got) != fmt.Sprint(want) || status.Text(got) != status.Text(want) {
					t.Errorf("%v: got %v, want %v", sentinel, got, want)
				}
			}
		}
	}
}

func TestNoticeHandlersAreToldInTurn(t *testing.T) {
	var told []string
	hs := adapters.NoticeHandlers{teller{"a", &told}, teller{"b", &told}}
	hs.Notice(adapters.Notice{Type: adapters.NoticeTenant})
	hs.Following(true)
	want := []string{"a " + adapters.NoticeTenant, "b " + adapters.NoticeTenant, "a true", "b true"}
	if !slices.Equal(told, want) {
		t.Errorf("got %v, want %v", told, want)
	}
}

type teller struct {
	name string
	told *[]string
}

func (h teller) Notice(n adapters.Notice) { *h.told = append(*h.told, h.name+" "+n.Type) }
func (h teller) Following(yes bool)       { *h.told = append(*h.told, fmt.Sprint(h.name, " ", yes)) }
