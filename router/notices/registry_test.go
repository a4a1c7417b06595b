package notices_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	posthttp "github.com/sluice-iot/sluice/events/post/http"
	"github.com/sluice-iot/sluice/functions"
	writer "github.com/sluice-iot/sluice/functions/notices"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/listen"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
	"github.com/sluice-iot/sluice/router"
	"github.com/sluice-iot/sluice/router/notices"
)

const installation = "sluice.test"

// site is a registry on disk whose changes are posted to routers by mutual TLS.
type site struct {
	t         *testing.T
	registry  *registry.Service
	invoker   events.Invoker
	ca        *listen.Authority
	dir       string
	ingress   net.Listener
	posting   bool // false: the writer dies between commit and post
	identites *auth.Directory
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), posting: true}
	store, err := sqlitestore.Open(t.Context(), filepath.Join(s.dir, "registry.db"), sqlitestore.Options{})
	s.must(err)
	t.Cleanup(func() { store.Close() })
	passwords := registry.NewPasswords(4, 0)
	s.registry, err = registry.New(store, registry.Options{Passwords: passwords})
	s.must(err)
	kek, err := assertion.NewKEK(make([]byte, assertion.KEKSize))
	s.must(err)
	signer, err := assertion.NewSigner(assertion.SignerConfig{Store: store, KEK: kek, Issuer: "//" + installation})
	s.must(err)
	list, err := functions.Identity(functions.Deps{Registry: s.registry, Passwords: passwords, Signer: signer, Feed: store})
	s.must(err)
	s.invoker, err = inproc.NewEncoded(slog.New(slog.DiscardHandler), list...)
	s.must(err)
	s.ca, err = listen.OpenAuthority(s.dir, time.Now())
	s.must(err)
	s.ingress, err = net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	path := filepath.Join(s.dir, "identities.yaml")
	s.must(auth.AddIdentityWith(path, "adapter", "secret",
		auth.Authority{Address: "notification/*", May: auth.Read}, auth.Authority{Address: "event/*", May: auth.Read}))
	s.identites, err = auth.Open(path, auth.Options{})
	s.must(err)
	p := s.poster("function")
	observer := writer.New(p, slog.New(slog.DiscardHandler))
	store.Observe(func(ctx context.Context, changes []registry.Change) {
		if s.posting {
			observer.Observe(ctx, changes)
		}
	})
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// poster posts as a component of a kind.
func (s *site) poster(kind string) *posthttp.Poster {
	f, err := s.ca.IssueComponent(s.dir, kind, "one", nil, time.Hour)
	s.must(err)
	conf, err := listen.ClientTLS(f, slog.New(slog.DiscardHandler))
	s.must(err)
	p, err := posthttp.New(posthttp.Config{Name: installation, URLs: []string{"https://" + s.ingress.Addr().String()}, TLS: conf("127.0.0.1")})
	s.must(err)
	s.t.Cleanup(p.Close)
	return p
}

func (s *site) update(device iot.DeviceID, enabled bool) {
	s.t.Helper()
	_, err := s.registry.UpdateDevice(s.t.Context(), "T", device, iot.Device{Enabled: &enabled}, "")
	s.must(err)
}

// token is a registration assertion as the functions make it.
func (s *site) token(device iot.DeviceID) []byte {
	s.t.Helper()
	r, err := events.Call(s.t.Context(), s.invoker, events.RegistrationAssert{TenantID: "T", DeviceID: device})
	s.must(err)
	return []byte(r.Assertion)
}

// edge is a router that follows the site.
type edge struct {
	s        *site
	verifier *assertion.Verifier
	follower *notices.Follower
	addr     string
	stop     func()
}

// start runs a router; ingress says whether it can be posted to.
func (s *site) start(ingress bool) *edge {
	s.t.Helper()
	keys := func(ctx context.Context) (assertion.KeySet, time.Duration, error) {
		set, err := events.Call(ctx, s.invoker, events.AssertionKeys{})
		if err != nil {
			return assertion.KeySet{}, 0, err
		}
		return assertion.KeySet{Keys: set.Keys}, set.MaxAge(), nil
	}
	e := &edge{s: s, verifier: assertion.NewVerifier(assertion.VerifierConfig{Issuer: "//" + installation, Keys: keys})}
	r := router.New(router.Options{Name: "r", Directory: s.identites, Verifier: e.verifier,
		Addresses: []config.Address{{Pattern: "event/*", Distribution: config.Balanced}}})
	e.follower = notices.New(notices.Options{Verifier: e.verifier, Invoker: s.invoker, Publisher: r, ConfirmAfter: 50 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	wg.Go(func() { e.follower.Run(ctx) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	e.addr = ln.Addr().String()
	wg.Go(func() { r.Serve(ctx, router.Listener{Listener: ln}) })
	var srv *httptest.Server
	if ingress {
		srv = s.serve(e.follower)
	}
	e.stop = sync.OnceFunc(func() {
		if srv != nil {
			srv.Close()
		}
		cancel()
		wg.Wait()
		e.verifier.Close()
	})
	s.t.Cleanup(e.stop)
	return e
}

// serve opens the ingress by mutual TLS.
func (s *site) serve(f *notices.Follower) *httptest.Server {
	files, err := s.ca.IssueComponent(s.dir, "router", "r", nil, time.Hour)
	s.must(err)
	conf, err := listen.ServerTLS(files, listen.ServerOptions{Logger: slog.New(slog.DiscardHandler)})
	s.must(err)
	srv := httptest.NewUnstartedServer(notices.NewIngress(notices.IngressOptions{Name: installation, Take: f.Take, Token: s.identites.Token}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.Listener.Close()
	srv.Listener = tls.NewListener(s.ingress, conf)
	srv.Start()
	return srv
}

// verify is what the router says of a token.
func (e *edge) verify(token []byte) error {
	_, err := e.verifier.Verify(token, time.Now())
	return err
}

// refused waits until the token is.
func (e *edge) refused(token []byte) {
	e.s.t.Helper()
	for e.verify(token) == nil {
		if err := e.s.t.Context().Err(); err != nil {
			e.s.t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// receive attaches a receiver.
func (e *edge) receive(address string) *goamqp.Receiver {
	e.s.t.Helper()
	c, err := goamqp.Dial(e.s.t.Context(), "amqp://"+e.addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain("adapter", "secret")})
	e.s.must(err)
	e.s.t.Cleanup(func() { c.Close() })
	x, err := c.NewSession(e.s.t.Context(), nil)
	e.s.must(err)
	r, err := x.NewReceiver(e.s.t.Context(), address, nil)
	e.s.must(err)
	return r
}

func next(t *testing.T, r *goamqp.Receiver) *goamqp.Message {
	t.Helper()
	m, err := r.Receive(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.AcceptMessage(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func (s *site) populate(devices ...iot.DeviceID) {
	s.t.Helper()
	_, _, err := s.registry.CreateTenant(s.t.Context(), "T", iot.Tenant{})
	s.must(err)
	for _, d := range devices {
		_, _, err := s.registry.CreateDevice(s.t.Context(), "T", d, iot.Device{})
		s.must(err)
	}
}

// TestDisabledDevice goes the whole way: registry, post, ingress, verifier, and
// the adapters' notification.
func TestDisabledDevice(t *testing.T) {
	s := newSite(t)
	e := s.start(true)
	tenants, devices := e.receive("notification/registry-tenant"), e.receive("notification/registry-device")
	s.populate("D", "E")
	var got map[string]any
	if err := json.Unmarshal(next(t, tenants).GetData(), &got); err != nil || got["type"] != "tenant-change-v1" || got["change"] != "CREATE" {
		t.Errorf("%v, %v", got, err)
	}
	for _, d := range []string{"D", "E"} {
		if err := json.Unmarshal(next(t, devices).GetData(), &got); err != nil || got["device-id"] != d || got["change"] != "CREATE" {
			t.Errorf("%v, %v", got, err)
		}
	}
	d, other := s.token("D"), s.token("E")
	for _, token := range [][]byte{d, other} {
		if err := e.verify(token); err != nil {
			t.Fatal(err)
		}
	}
	s.update("D", false)
	if err := e.verify(d); !errors.Is(err, iot.ErrForbidden) {
		t.Errorf("when the management call returns, the token is %v", err)
	}
	if err := e.verify(other); err != nil {
		t.Error(err)
	}
	if err := json.Unmarshal(next(t, devices).GetData(), &got); err != nil || got["enabled"] != false || got["device-id"] != "D" {
		t.Errorf("%v, %v", got, err)
	}
	s.must(s.registry.DeleteDevices(t.Context(), "T"))
	if err := e.verify(other); !errors.Is(err, iot.ErrForbidden) {
		t.Errorf("after the deletion of all devices: %v", err)
	}
}

// TestWriterDiesBetweenCommitAndPost has a change of which nobody tells, and one
// that leaves a gap.
func TestWriterDiesBetweenCommitAndPost(t *testing.T) {
	s := newSite(t)
	e := s.start(true)
	s.populate("D", "E", "F")
	d, other := s.token("D"), s.token("E")
	if err := errors.Join(e.verify(d), e.verify(other)); err != nil {
		t.Fatal(err)
	}
	s.posting = false
	s.update("D", false)
	e.refused(d) // by the confirmation that its use asks for
	if err := e.verify(other); err != nil {
		t.Error(err)
	}
	s.update("E", false)
	s.posting = true
	s.update("F", false) // shows the gap
	e.refused(other)
}

// TestRouterThatWasAway finds what changed meanwhile before it trusts old tokens.
func TestRouterThatWasAway(t *testing.T) {
	s := newSite(t)
	first := s.start(false) // the writer cannot reach it
	s.populate("D", "E")
	d, other := s.token("D"), s.token("E")
	if err := errors.Join(first.verify(d), first.verify(other)); err != nil {
		t.Fatal(err)
	}
	first.stop()
	s.update("D", false)
	second := s.start(true)
	second.refused(d)
	if err := second.verify(other); err != nil {
		t.Error(err)
	}
}

func TestProvisionedDevice(t *testing.T) {
	s := newSite(t)
	e := s.start(true)
	p := events.DeviceProvisioned{TenantID: "T", DeviceID: "D", Method: events.ByCertificate, At: time.Now()}
	post := s.poster("function")
	if err := post.Post(t.Context(), []events.Fact{p}); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("without an application: %v", err)
	}
	r := e.receive("event/T")
	told := make(chan error, 1)
	go func() {
		for { // until the router has the receiver's credit
			err := post.Post(t.Context(), []events.Fact{p})
			if !errors.Is(err, iot.ErrUnavailable) || t.Context().Err() != nil {
				told <- err
				return
			}
		}
	}()
	m := next(t, r)
	if err := <-told; err != nil {
		t.Error(err)
	}
	if m.ApplicationProperties["hono_registration_status"] != "NEW" || m.ApplicationProperties["device_id"] != "D" || !m.Header.Durable {
		t.Errorf("%+v", m)
	}
}

// TestWhoMayPost has components with certificates of the installation, and nobody.
func TestWhoMayPost(t *testing.T) {
	s := newSite(t)
	s.start(true)
	for kind, want := range map[string]error{"function": nil, "adapter": iot.ErrForbidden, "router": iot.ErrForbidden} {
		if err := s.poster(kind).Post(t.Context(), []events.Fact{device}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", kind, err, want)
		}
	}
	conf, err := listen.ClientTLS(listen.Files{CA: s.ca.CAFile()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf("127.0.0.1")}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("https://"+s.ingress.Addr().String()+"/events", "application/cloudevents-batch+json", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Errorf("%d without a certificate", resp.StatusCode)
	}
}
