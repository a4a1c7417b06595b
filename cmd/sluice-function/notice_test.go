package main_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/functions/host/hosttest"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/listen"
)

// ingress is a router's, as far as it takes facts from components.
type ingress struct {
	mu    sync.Mutex
	facts []events.Fact
	from  map[string]bool // OU of the clients' certificates
}

func (i *ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := cehttp.ReadBody(r.Body, r.ContentLength, 1<<20)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	list, _, err := cehttp.ReadBatch(body, 1000)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.from[strings.Join(r.TLS.PeerCertificates[0].Subject.OrganizationalUnit, ",")] = true
	for _, e := range list {
		f, err := events.DecodeFact(&e)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		i.facts = append(i.facts, f)
	}
	w.WriteHeader(http.StatusAccepted)
}

// TestChangesReachTheRouters shows it for what the management API changes, and for
// what a queue had kept.
func TestChangesReachTheRouters(t *testing.T) {
	dir := t.TempDir()
	ca, err := listen.OpenAuthority(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	files, err := ca.IssueComponent(dir, "function", "function-0", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files.CA = ca.CAFile()
	conf, err := listen.ServerTLS(files, listen.ServerOptions{RequireClient: true})
	if err != nil {
		t.Fatal(err)
	}
	router := &ingress{from: map[string]bool{}}
	srv := httptest.NewUnstartedServer(router)
	srv.TLS = conf
	srv.StartTLS()
	t.Cleanup(srv.Close)

	data := filepath.Join(dir, "data")
	identities, password := operator(t, dir)
	r := hosttest.NewRuntime(t)
	start(t, environment("SLUICE_DATA="+data, "SLUICE_IDENTITIES="+identities, "AWS_LAMBDA_RUNTIME_API="+r.Address(), "SLUICE_LAMBDA_ACCEPT=http,sqs",
		"SLUICE_TLS_CERTIFICATE="+files.Certificate, "SLUICE_TLS_KEY="+files.Key, "SLUICE_TLS_CA="+files.CA),
		"--set", "notices.ingresses=["+srv.URL+"/events]")
	register(t, byURL(r, password))
	kept := events.RegistryChanged{Type: events.TypeDeviceChanged, TenantID: "T", Sequence: 99, DeviceID: "kept", Change: "UPDATE", Enabled: true, At: time.Now()}
	e, err := events.EncodeFact(kept, "sluice.local")
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Invoke(t.Context(), "", sqs(t, e))
	if err != nil || string(res.Payload) != `{"batchItemFailures":[]}` {
		t.Errorf("the queue: %s, %v", res.Payload, err)
	}
	router.mu.Lock()
	defer router.mu.Unlock()
	got := map[string]iot.DeviceID{}
	for _, f := range router.facts {
		c := f.(events.RegistryChanged)
		got[c.Type+" "+c.Change+" "+string(c.DeviceID)] = c.DeviceID
	}
	for _, want := range []string{
		events.TypeTenantChanged + " CREATE ", events.TypeDeviceChanged + " CREATE D", events.TypeCredentialsChanged + "  D", events.TypeDeviceChanged + " UPDATE kept",
	} {
		if _, ok := got[want]; !ok {
			t.Errorf("%q is missing in %v", want, got)
		}
	}
	if len(router.from) != 1 || !router.from["function"] {
		t.Errorf("posted by %v", router.from)
	}
}
