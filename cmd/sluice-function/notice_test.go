package main_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/functions/host/hosttest"
	"github.com/sluice-iot/sluice/internal/listen"
	"github.com/sluice-iot/sluice/router/notices"
)

// taken is what a router's ingress let in, and what a sink got.
type taken struct {
	mu    sync.Mutex
	facts map[string]bool
}

func (k *taken) take(_ context.Context, facts []events.Fact) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range facts {
		c := f.(events.RegistryChanged)
		k.facts[c.Type+" "+c.Change+" "+string(c.DeviceID)] = true
	}
	return nil
}

// ServeHTTP is a sink: it takes one CloudEvent a request from anybody.
func (k *taken) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := cehttp.ReadBody(r.Body, r.ContentLength, 1<<20)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	e, err := cehttp.Read(r.Header, body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	f, err := events.DecodeFact(&e)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_ = k.take(r.Context(), []events.Fact{f})
	w.WriteHeader(http.StatusAccepted)
}

// registered are the facts of what the function register does.
var registered = []string{events.TypeTenantChanged + " CREATE ", events.TypeDeviceChanged + " CREATE D", events.TypeCredentialsChanged + "  D"}

func (k *taken) has(t *testing.T, want ...string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range want {
		if !k.facts[w] {
			t.Errorf("%q is missing in %v", w, k.facts)
		}
	}
}

// routers is a router's ingress, and what a process needs to post to it.
type routers struct {
	*taken
	sink     taken
	own      listen.Files
	env      []string
	args     []string
	password string
}

func newRouters(t *testing.T) *routers {
	t.Helper()
	dir := t.TempDir()
	ca, err := listen.OpenAuthority(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issue := func(kind string) listen.Files {
		files, err := ca.IssueComponent(dir, kind, kind+"-0", nil, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		files.CA = ca.CAFile()
		return files
	}
	conf, err := listen.ServerTLS(issue("router"), listen.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := &routers{taken: &taken{facts: map[string]bool{}}, sink: taken{facts: map[string]bool{}}}
	ingress := httptest.NewUnstartedServer(notices.NewIngress(notices.IngressOptions{Name: "sluice.local", Take: r.take}))
	ingress.TLS = conf
	ingress.StartTLS()
	t.Cleanup(ingress.Close)
	sink := httptest.NewServer(&r.sink)
	t.Cleanup(sink.Close)
	var identities string
	identities, r.password = operator(t, dir)
	r.own = issue("function")
	r.env = environment("SLUICE_DATA="+filepath.Join(dir, "data"), "SLUICE_IDENTITIES="+identities, "K_SINK="+sink.URL)
	r.args = []string{"--set", "notices.ingresses=[" + ingress.URL + "]"}
	return r
}

// byFile says where the certificate is.
func (r *routers) byFile() []string {
	return plus(r.env, "SLUICE_TLS_CERTIFICATE="+r.own.Certificate, "SLUICE_TLS_KEY="+r.own.Key, "SLUICE_TLS_CA="+r.own.CA)
}

// byText says what the certificate is, where there are no files.
func (r *routers) byText(t *testing.T) []string {
	t.Helper()
	env := plus(r.env, "TMPDIR="+t.TempDir()) // the process is killed, and leaves its files
	for name, file := range map[string]string{"CERTIFICATE": r.own.Certificate, "KEY": r.own.Key, "CA": r.own.CA} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		env = plus(env, "SLUICE_TLS_"+name+"_PEM="+string(text))
	}
	return env
}

// TestChangesReachTheRouters shows it for every platform, and on Lambda also for
// what a queue had kept.
func TestChangesReachTheRouters(t *testing.T) {
	t.Run("port", func(t *testing.T) {
		r := newRouters(t)
		p := start(t, plus(r.byFile(), "PORT=0"), r.args...)
		register(t, overHTTP(p.address(t, "function"), r.password))
		r.has(t, registered...)
		r.sink.has(t, registered...)
	})
	t.Run("listeners", func(t *testing.T) {
		r := newRouters(t)
		p := start(t, r.byFile(), append(r.args, "--set", listeners)...)
		register(t, overHTTP(p.address(t, "management"), r.password))
		r.has(t, registered...)
		r.sink.has(t, registered...)
	})
	t.Run("lambda", func(t *testing.T) {
		r, runtime := newRouters(t), hosttest.NewRuntime(t)
		startOn(t, runtime, plus(r.byText(t), "SLUICE_LAMBDA_ACCEPT=http,sqs"), r.args...)
		register(t, byURL(runtime, r.password))
		kept := events.RegistryChanged{Type: events.TypeDeviceChanged, TenantID: "T", Sequence: 99, DeviceID: "kept", Change: "UPDATE", Enabled: true, At: time.Now()}
		e, err := events.EncodeFact(kept, "sluice.local")
		if err != nil {
			t.Fatal(err)
		}
		res, err := runtime.Invoke(t.Context(), "", sqs(t, e))
		if err != nil || string(res.Payload) != `{"batchItemFailures":[]}` {
			t.Errorf("the queue: %s, %v", res.Payload, err)
		}
		r.has(t, append(registered, events.TypeDeviceChanged+" UPDATE kept")...)
		r.sink.has(t, registered...)
	})
}
