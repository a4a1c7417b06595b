package notices_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
	"github.com/sluice-iot/sluice/router/notices"
)

var (
	at     = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	device = events.RegistryChanged{Type: events.TypeDeviceChanged, TenantID: "T", DeviceID: "D", Sequence: 1, Change: "UPDATE", At: at}
	tenant = events.RegistryChanged{Type: events.TypeTenantChanged, TenantID: "T", Sequence: 2, Change: "UPDATE", Enabled: true, At: at}
	born   = events.DeviceProvisioned{TenantID: "T", DeviceID: "D", Method: events.ByCertificate, At: at}
)

func encoded(t testing.TB, f events.Fact, installation string) event.Event {
	t.Helper()
	e, err := events.EncodeFact(f, installation)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// by makes a request of a component with a certificate that was verified.
func by(r *http.Request, kind string) *http.Request {
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: "one", OrganizationalUnit: []string{kind}}}
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}
	return r
}

func post(t testing.TB, body []byte, contentType string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/events", bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	return r
}

func structured(t testing.TB, f events.Fact) *http.Request {
	e := encoded(t, f, "sluice.local")
	b, err := e.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return post(t, b, cehttp.StructuredType)
}

func batch(t testing.TB, facts ...events.Fact) *http.Request {
	var list []event.Event
	for _, f := range facts {
		list = append(list, encoded(t, f, "sluice.local"))
	}
	b, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return post(t, b, cehttp.BatchType)
}

// taker is the one behind the ingress.
type taker struct {
	facts []events.Fact
	err   error
}

func (x *taker) take(_ context.Context, facts []events.Fact) error {
	x.facts = append(x.facts, facts...)
	return x.err
}

func TestIngressTakesEveryForm(t *testing.T) {
	x := &taker{}
	i := notices.NewIngress(notices.IngressOptions{Name: "sluice.local", Take: x.take})
	binary := post(t, nil, "")
	e := encoded(t, device, "sluice.local")
	body, err := cehttp.WriteRequest(binary.Header, &e)
	if err != nil {
		t.Fatal(err)
	}
	r := post(t, body, "application/json")
	for k, v := range binary.Header {
		r.Header[k] = v
	}
	for _, r := range []*http.Request{r, structured(t, tenant), batch(t, device, born), batch(t)} {
		w := httptest.NewRecorder()
		i.ServeHTTP(w, by(r, "function"))
		if w.Code != 202 {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
	}
	if len(x.facts) != 4 || x.facts[0] != events.Fact(device) || x.facts[1] != events.Fact(tenant) || x.facts[3] != events.Fact(born) {
		t.Errorf("%+v", x.facts)
	}
}

func TestIngressRefuses(t *testing.T) {
	foreign := encoded(t, device, "elsewhere")
	foreignBody, _ := foreign.MarshalJSON()
	call := encoded(t, device, "sluice.local")
	call.SetType(events.TypeTenantGet)
	callBody, _ := call.MarshalJSON()
	big := httptest.NewRequest(http.MethodPost, "/events", strings.NewReader("{}"))
	big.Header.Set("Content-Type", cehttp.StructuredType)
	big.ContentLength = notices.DefaultMaxBody + 1
	var many []events.Fact
	for n := range 3 {
		c := device
		c.Sequence = uint64(n + 1)
		many = append(many, c)
	}
	half := batch(t, device)
	half.Body = http.NoBody
	broken := structured(t, device)
	broken.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	for _, tt := range []struct {
		name string
		r    *http.Request
		err  error // of whoever takes facts
		want int
	}{
		{"no proof", structured(t, device), nil, 401},
		{"adapter", by(structured(t, device), "adapter"), nil, 403},
		{"router", by(structured(t, device), "router"), nil, 403},
		{"no component", by(structured(t, device), "operator"), nil, 401},
		{"no CloudEvent", by(post(t, []byte("{}"), "application/json"), "function"), nil, 415},
		{"malformed", by(post(t, []byte("{"), cehttp.StructuredType), "function"), nil, 400},
		{"no batch", by(post(t, []byte("{}"), cehttp.BatchType), "function"), nil, 400},
		{"empty body", by(half, "function"), nil, 400},
		{"another installation", by(post(t, foreignBody, cehttp.StructuredType), "function"), nil, 400},
		{"call", by(post(t, callBody, cehttp.StructuredType), "function"), nil, 422},
		{"body breaks off", by(broken, "function"), nil, 503},
		{"body too large", by(big, "function"), nil, 413},
		{"batch too large", by(batch(t, many...), "function"), nil, 413},
		{"not now", by(structured(t, device), "function"), iot.Errorf(iot.ErrUnavailable, "later"), 503},
		{"no credit", by(structured(t, device), "function"), iot.ErrNoCredit, 503},
		{"slow", by(structured(t, device), "function"), context.DeadlineExceeded, 503},
		{"missing", by(structured(t, device), "function"), iot.ErrNotFound, 503},
		{"fault", by(structured(t, device), "function"), errors.New("bug"), 500},
		{"never", by(structured(t, device), "function"), status.ErrUnknownType, 422},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := &taker{err: tt.err}
			i := notices.NewIngress(notices.IngressOptions{Name: "sluice.local", Take: x.take, MaxBatch: 2})
			w := httptest.NewRecorder()
			i.ServeHTTP(w, tt.r)
			if w.Code != tt.want || tt.err == nil && len(x.facts) > 0 {
				t.Errorf("%d, %d facts taken: %s", w.Code, len(x.facts), w.Body)
			}
			var d events.ErrorData
			if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || d.Status != tt.want || d.Error == "" || strings.Contains(d.Error, "bug") {
				t.Errorf("%v, %+v", err, d)
			}
			if got := w.Header().Get("Retry-After"); (got != "") != (tt.want == 503) {
				t.Errorf("Retry-After is %q", got)
			}
		})
	}
	i := notices.NewIngress(notices.IngressOptions{Name: "sluice.local", Take: (&taker{}).take})
	for path, want := range map[string]int{"GET /events": 405, "POST /": 404} {
		method, target, _ := strings.Cut(path, " ")
		w := httptest.NewRecorder()
		i.ServeHTTP(w, by(httptest.NewRequest(method, target, nil), "function"))
		if w.Code != want {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// TestIngressAsksForTheAddress has applications with tokens.
func TestIngressAsksForTheAddress(t *testing.T) {
	identity := func(address string) *auth.Identity { return application(t, address) }
	for _, tt := range []struct {
		grant string
		facts []events.Fact
		want  int
	}{
		{"notification/registry-device", []events.Fact{device}, 202},
		{"notification/registry-device", []events.Fact{device, tenant}, 403},
		{"notification/registry-tenant", []events.Fact{tenant}, 202},
		{"notification/*", []events.Fact{device, tenant}, 202},
		{"notification/*", []events.Fact{born}, 403},
		{"event/T", []events.Fact{born}, 202},
		{"event/U", []events.Fact{born}, 403},
	} {
		x := &taker{}
		i := notices.NewIngress(notices.IngressOptions{Name: "sluice.local", Take: x.take,
			Token: func(_ context.Context, token string) (*auth.Identity, error) {
				if token != "good" {
					return nil, iot.Errorf(iot.ErrUnauthenticated, "no")
				}
				return identity(tt.grant), nil
			}})
		for token, want := range map[string]int{"good": tt.want, "bad": 401} {
			r := batch(t, tt.facts...)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			i.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("write on %s, %T: %d, want %d", tt.grant, tt.facts[0], w.Code, want)
			}
		}
		if tt.want != 202 && len(x.facts) > 0 {
			t.Error("taken all the same")
		}
	}
}

func TestIngressIsBounded(t *testing.T) {
	enter, leave := make(chan struct{}), make(chan struct{})
	i := notices.NewIngress(notices.IngressOptions{Name: "sluice.local", MaxInFlight: 1, Take: func(context.Context, []events.Fact) error {
		enter <- struct{}{}
		<-leave
		return nil
	}})
	first := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		i.ServeHTTP(first, by(structured(t, device), "function"))
	}()
	<-enter
	w := httptest.NewRecorder()
	i.ServeHTTP(w, by(structured(t, device), "function"))
	if w.Code != 503 {
		t.Errorf("%d beyond the bound", w.Code)
	}
	close(leave)
	<-done
	if first.Code != 202 {
		t.Errorf("%d within the bound", first.Code)
	}
}

func FuzzIngress(f *testing.F) {
	for _, r := range []*http.Request{structured(f, device), structured(f, born), batch(f, device, tenant)} {
		var b bytes.Buffer
		b.ReadFrom(r.Body)
		f.Add(b.Bytes(), r.Header.Get("Content-Type") == cehttp.BatchType)
	}
	f.Fuzz(func(t *testing.T, body []byte, batched bool) {
		x := &taker{}
		i := notices.NewIngress(notices.IngressOptions{Name: "sluice.local", Take: x.take})
		contentType := cehttp.StructuredType
		if batched {
			contentType = cehttp.BatchType
		}
		w := httptest.NewRecorder()
		i.ServeHTTP(w, by(post(t, body, contentType), "function"))
		switch w.Code {
		case 202:
		case 400, 413, 415, 422:
			if len(x.facts) > 0 {
				t.Errorf("%d, and facts are taken", w.Code)
			}
		default:
			t.Errorf("%d for %q", w.Code, body)
		}
		for _, f := range x.facts {
			if _, err := events.EncodeFact(f, "sluice.local"); err != nil {
				t.Errorf("taken, and not complete: %v", err)
			}
		}
	})
}

// application is an identity that may write at the address.
func application(t *testing.T, address string) *auth.Identity {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identities.yaml")
	if err := auth.AddIdentityWith(path, "app", "secret", auth.Authority{Address: address, May: auth.Write}); err != nil {
		t.Fatal(err)
	}
	d, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d.Current("app")
}
