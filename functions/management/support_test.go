package management_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/functions/management"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
)

// operators has admin, who may do everything, writer, who may read and write
// everything, reader, who may read tenants T and V, owner, who may read and write
// tenant T, and broken, of whom nothing can be told. A token is a name; the
// certificate for admin is the only one.
type operators struct{}

// scopes are r, w and e for each tenant.
type scopes map[iot.TenantID]string

func (s scopes) May(t iot.TenantID, a management.Action) bool {
	letter := map[management.Action]string{management.Read: "r", management.Write: "w", management.Export: "e"}[a]
	return strings.Contains(s["*"], letter) || strings.Contains(s[t], letter)
}

func (s scopes) Tenants(a management.Action) (tenants []iot.TenantID, all bool) {
	for t := range s {
		if t != "*" && s.May(t, a) {
			tenants = append(tenants, t)
		}
	}
	slices.Sort(tenants)
	return tenants, s.May("*", a)
}

var everybody = map[string]scopes{
	"admin": {"*": "rwe"}, "writer": {"*": "rw"}, "reader": {"T": "r", "V": "r"}, "owner": {"T": "rw"}, "exporter": {"T": "e"},
}

func (operators) Password(_ context.Context, name, password string) (management.Operator, error) {
	switch {
	case name == "broken":
		return nil, errors.New("directory: secret internals")
	case name == "panics":
		panic("secret internals")
	case everybody[name] == nil || password != "pw":
		return nil, iot.Errorf(iot.ErrUnauthenticated, "bad credentials")
	}
	return everybody[name], nil
}

func (operators) Token(_ context.Context, token string) (management.Operator, error) {
	if everybody[token] == nil {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "bad token")
	}
	return everybody[token], nil
}

func (operators) Certificate(cert *x509.Certificate) (management.Operator, error) {
	if everybody[cert.Subject.CommonName] == nil {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "bad certificate")
	}
	return everybody[cert.Subject.CommonName], nil
}

type api struct {
	*httptest.Server
	t *testing.T
}

// start serves the API over a store of its own.
func start(t *testing.T, o management.Options) *api {
	t.Helper()
	return startWith(t, newService(t, registry.Options{MaxBcryptCost: 4}), o)
}

func newService(t *testing.T, o registry.Options) *registry.Service {
	t.Helper()
	store, err := sqlitestore.Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"), sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	service, err := registry.New(store, o)
	if err != nil {
		t.Fatal(err)
	}
	return service
}

func startWith(t *testing.T, service *registry.Service, o management.Options) *api {
	t.Helper()
	server := httptest.NewServer(management.New(service, operators{}, o))
	t.Cleanup(server.Close)
	return &api{server, t}
}

// request sends a request as admin unless the headers say otherwise. Headers
// come in pairs; an empty value removes one. The body is JSON by default.
// Request and answer have to be as the document says.
func (a *api) request(method, path, body string, headers ...string) (*http.Response, string) {
	a.t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.URL+path, content)
	if err != nil {
		a.t.Fatal(err)
	}
	r.SetBasicAuth("admin", "pw")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Del(headers[i])
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	res, err := a.Client().Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	checkDocumented(a.t, r, body, res, b)
	return res, string(b)
}

// want sends a request and checks its status; it returns ETag and body.
func (a *api) want(status int, method, path, body string, headers ...string) (etag, reply string) {
	a.t.Helper()
	res, reply := a.request(method, path, body, headers...)
	if res.StatusCode != status {
		a.t.Fatalf("%s %s: got status %d %s, want %d", method, path, res.StatusCode, reply, status)
	}
	if status == http.StatusNoContent && reply != "" {
		a.t.Fatalf("%s %s: 204 with a body", method, path)
	}
	if status >= 400 {
		var e struct{ Error string }
		if json.Unmarshal([]byte(reply), &e) != nil || e.Error == "" {
			a.t.Fatalf("%s %s: error body %s", method, path, reply)
		}
	}
	return res.Header.Get("ETag"), reply
}

func (a *api) wantBody(path, want string) {
	a.t.Helper()
	if _, got := a.want(200, "GET", path, ""); got != want {
		a.t.Fatalf("GET %s:\n got %s\nwant %s", path, got, want)
	}
}
