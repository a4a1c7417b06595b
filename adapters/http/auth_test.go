package http_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	nethttp "net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestPasswords(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	whole := "device-1@tenant-1:" + adaptertest.Password
	for _, tt := range []struct {
		name, header string
		want         int
		asked        int    // invocations
		text         string // part of what the device reads
	}{
		{"good", "Basic " + b64(whole), 202, 1, ""},
		{"scheme in lower case", "basic " + b64(whole), 202, 1, ""},
		{"spaces", "Basic   " + b64(whole) + " ", 202, 1, ""},
		{"whole in the user name", "Basic " + b64(b64(whole)+":"), 202, 1, ""},
		{"whole in the user name, unpadded", "Basic " + b64(strings.TrimRight(b64(whole), "=")+":"), 202, 1, ""},
		{"none", "", 401, 0, "credentials are missing"},
		{"other scheme", "Digest x", 401, 0, "want Basic or Bearer"},
		{"no Base64", "Basic ***", 401, 0, "wants Base64"},
		{"no token", "Basic", 401, 0, "wants Base64"},
		{"no colon", "Basic " + b64("device-1@tenant-1"), 401, 0, "a colon and a password"},
		{"empty password", "Basic " + b64("device-1@tenant-1:"), 401, 0, "empty password"},
		{"empty password inside", "Basic " + b64(b64("device-1@tenant-1:")+":"), 401, 0, "empty password"},
		{"no tenant", "Basic " + b64("device-1:x"), 401, 0, "auth-id@tenant"},
		{"empty tenant", "Basic " + b64("device-1@:x"), 401, 0, "auth-id@tenant"},
		{"empty auth-id", "Basic " + b64("@tenant-1:x"), 401, 0, "auth-id@tenant"},
		{"not UTF-8", "Basic " + b64("\xff@tenant-1:x"), 401, 0, "not UTF-8"},
		{"wrong password", "Basic " + b64("device-1@tenant-1:x"), 401, 1, "bad credentials"},
		{"unknown tenant", "Basic " + b64("device-1@nowhere:x"), 401, 1, "bad credentials"},
		{"tenant is after the first @", "Basic " + b64("device-1@x@tenant-1:x"), 401, 1, "bad credentials"},
		{"adapter disabled", "Basic " + b64("device-1@tenant-off:"+adaptertest.Password), 403, 1, "adapter is disabled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, http.Options{Realm: `a "realm"`}, adapters.Options{})
			rec := w.do("POST", "/telemetry", "x", "Authorization: "+tt.header, text)
			if rec.Code != tt.want || !strings.Contains(rec.Body.String(), tt.text) {
				t.Errorf("got %d %s, want %d with %q", rec.Code, rec.Body, tt.want, tt.text)
			}
			var challenges []string
			if tt.want == 401 {
				challenges = []string{`Basic realm="a \"realm\""`, `Bearer realm="a \"realm\""`}
			}
			if got := rec.Header().Values("WWW-Authenticate"); !slices.Equal(got, challenges) {
				t.Errorf("got challenges %q, want %q", got, challenges)
			}
			if got := len(w.inv.Calls()); got != tt.asked {
				t.Errorf("got %d invocations, want %d", got, tt.asked)
			}
		})
	}
}

// believer is an admission function that lets everybody in whose credential is not
// named in refuse, and remembers what it was asked.
type believer struct {
	refuse string

	mu    sync.Mutex
	calls []events.Admit
}

func (b *believer) Invoke(_ context.Context, req events.Request) (events.Reply, error) {
	q := req.(events.Admit)
	b.mu.Lock()
	b.calls = append(b.calls, q)
	b.mu.Unlock()
	own, device := iot.DeviceID(q.Credential.AuthID), q.DeviceID
	if q.Credential.Type == b.refuse {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "bad credentials")
	}
	answer := &events.Admitted{TenantObject: events.TenantObject{ID: "tenant-1", Enabled: true}, DeviceID: own,
		Assertion: "token", AssertionExpires: time.Now().Add(time.Hour), CacheFor: time.Hour}
	if device != "" && device != own {
		answer.DeviceID, answer.GatewayID = device, own
	}
	return answer, nil
}

func (b *believer) asked() []events.Admit {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

// withInvoker is a world whose admission function is inv.
func withInvoker(t testing.TB, inv events.Invoker) world {
	w := world{down: &adaptertest.Downstream{}}
	adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: inv})
	t.Cleanup(adm.Close)
	w.Adapter = http.New(http.Options{Pipeline: adapters.NewPipeline(adapters.Options{Type: http.Type, Admissions: adm, Downstream: w.down})})
	return w
}

// certificate is a self-signed one.
func certificate(t testing.TB, subject pkix.Name) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// jwt is a token with a signature of nobody.
func jwt(header, claims string) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(header)) + "." + e([]byte(claims)) + "." + e([]byte("signature"))
}

const jwtHeader = `{"typ":"JWT","alg":"ES256"}`

func TestLoginOrder(t *testing.T) {
	cert := certificate(t, pkix.Name{CommonName: "device-1", Organization: []string{"Acme"}})
	claims := jwt(jwtHeader, `{"aud":["x","hono-adapter"],"tid":"tenant-1","sub":"device-1","iat":1,"exp":4000000000}`)
	plain := jwt(jwtHeader, `{"aud":"x","iat":1,"exp":4000000000}`)
	password := as(adaptertest.Device)
	for _, tt := range []struct {
		name           string
		cert           bool
		method, target string
		header         string
		refuse         string
		want           int
		asked          string // type of the credential
		tenant         iot.TenantID
		authID         string
		text           string
	}{
		{"certificate", true, "POST", "/telemetry", "", "", 202, iot.X509Cert, "", "CN=device-1,O=Acme", ""},
		{"certificate before password", true, "POST", "/telemetry", password, "", 202, iot.X509Cert, "", "CN=device-1,O=Acme", ""},
		{"refused certificate ends it", true, "POST", "/telemetry", password, iot.X509Cert, 401, iot.X509Cert, "", "CN=device-1,O=Acme", "bad credentials"},
		{"certificate, whole URI", true, "PUT", "/telemetry/tenant-1/device:2", "", "", 202, iot.X509Cert, "", "CN=device-1,O=Acme", ""},
		{"certificate, other tenant", true, "PUT", "/telemetry/tenant-2/device:2", "", "", 403, iot.X509Cert, "", "CN=device-1,O=Acme", "not authorized for this tenant"},
		{"token with claims", false, "POST", "/event", "Authorization: Bearer " + claims, "", 202, iot.RPK, "tenant-1", "device-1", ""},
		{"token with claims, for another", false, "PUT", "/event//device:2", "Authorization: bearer " + claims, "", 202, iot.RPK, "tenant-1", "device-1", ""},
		{"token with claims, other tenant", false, "PUT", "/event/tenant-2/device:2", "Authorization: Bearer " + claims, "", 403, iot.RPK, "tenant-1", "device-1", "not authorized for this tenant"},
		{"token and URI", false, "PUT", "/telemetry/tenant-1/device-1", "Authorization: Bearer " + plain, "", 202, iot.RPK, "tenant-1", "device-1", ""},
		{"token and URI with query", false, "PUT", "/telemetry/tenant-1/device%3A2?hono-ttl=3", "Authorization: Bearer " + plain, "", 202, iot.RPK, "tenant-1", "device:2", ""},
		{"token without tenant in the URI", false, "PUT", "/telemetry//device-1", "Authorization: Bearer " + plain, "", 401, "", "", "", "which tenant and device"},
		{"token without URI", false, "POST", "/telemetry", "Authorization: Bearer " + plain, "", 401, "", "", "", "which tenant and device"},
		{"refused token", false, "POST", "/event", "Authorization: Bearer " + claims, iot.RPK, 401, iot.RPK, "tenant-1", "device-1", "bad credentials"},
		{"no token", false, "POST", "/telemetry", "Authorization: Bearer", "", 401, "", "", "", "malformed credentials"},
		{"other type", false, "POST", "/telemetry", "Authorization: Bearer " + jwt(`{"typ":"at+jwt","alg":"ES256"}`, `{}`), "", 401, "", "", "", "malformed credentials"},
		{"password", false, "POST", "/telemetry", password, "", 202, iot.HashedPassword, "tenant-1", "device-1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inv := &believer{refuse: tt.refuse}
			w := withInvoker(t, inv)
			r := httptest.NewRequest(tt.method, tt.target, strings.NewReader("x"))
			if r.Header.Set("Content-Type", "text/plain"); tt.header != "" {
				r.Header.Set("Authorization", strings.TrimPrefix(tt.header, "Authorization: "))
			}
			if tt.cert {
				r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}, ServerName: "tenant-1.example"}
			}
			rec := httptest.NewRecorder()
			w.ServeHTTP(rec, r)
			if rec.Code != tt.want || !strings.Contains(rec.Body.String(), tt.text) {
				t.Errorf("got %d %s, want %d with %q", rec.Code, rec.Body, tt.want, tt.text)
			}
			calls := inv.asked()
			if tt.asked == "" {
				if len(calls) != 0 {
					t.Errorf("asked %d times, want never", len(calls))
				}
				return
			}
			if len(calls) == 0 {
				t.Fatal("nobody was asked")
			}
			c := calls[0].Credential
			if c.Type != tt.asked || calls[0].TenantRef.ID != tt.tenant || c.AuthID != tt.authID {
				t.Errorf("asked for %s %q of tenant %q, want %s %q of %q", c.Type, c.AuthID, calls[0].TenantRef.ID, tt.asked, tt.authID, tt.tenant)
			}
			if tt.cert && (!slices.Equal(c.Certificate, cert.Certificate[0]) || calls[0].TenantRef.SNI != "tenant-1.example") {
				t.Errorf("asked with %d bytes of certificate and SNI %q", len(c.Certificate), calls[0].TenantRef.SNI)
			}
		})
	}
}

func TestTwoAuthorizationHeaders(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	rec := w.do("POST", "/telemetry", "x", as(adaptertest.Device), as(adaptertest.Gateway), text)
	if rec.Code != nethttp.StatusBadRequest || !strings.Contains(rec.Body.String(), "more than one Authorization") {
		t.Errorf("got %d %s, want 400", rec.Code, rec.Body)
	}
}

// A connection may change its mind about who it speaks for.
func TestTokensOfOneConnection(t *testing.T) {
	inv := &believer{}
	w := withInvoker(t, inv)
	base, client := serve(t, w.Adapter)
	plain := jwt(jwtHeader, `{"aud":"x","iat":1,"exp":4000000000}`)
	other := jwt(jwtHeader, `{"aud":"y","iat":1,"exp":4000000000}`)
	huge := jwt(jwtHeader, `{"aud":"`+strings.Repeat("x", 8000)+`","iat":1,"exp":4000000000}`)
	for _, tt := range []struct {
		token  string
		device iot.DeviceID
	}{{plain, "a"}, {plain, "a"}, {plain, "b"}, {other, "b"}, {plain, "b"}, {huge, "c"}, {huge, "c"}} {
		r, _ := nethttp.NewRequestWithContext(t.Context(), "PUT", base+"/telemetry/tenant-1/"+string(tt.device), strings.NewReader("x"))
		r.Header.Set("Authorization", "Bearer "+tt.token)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		sent := w.down.Sent()
		if resp.StatusCode != 202 || sent[len(sent)-1].Device != tt.device || sent[len(sent)-1].Gateway != "" {
			t.Errorf("got %d and a message of %q, want 202 and %q", resp.StatusCode, sent[len(sent)-1].Device, tt.device)
		}
	}
	if got := len(inv.asked()); got != 4 {
		t.Errorf("got %d questions, want 4", got)
	}
}

// A browser that has a certificate shows it for any page.
func TestCertificatesOfBrowsers(t *testing.T) {
	cert := certificate(t, pkix.Name{CommonName: "device-1"})
	for _, tt := range []struct {
		allowed, origin string
		want            int
	}{
		{"*", "", 202},
		{"*", "https://adapter.example:8443", 202},
		{"*", "https://other.example", 401},
		{"*", "http://adapter.example:8443", 401},
		{"*", "null", 401},
		{"https://shop.example", "https://shop.example", 202},
		{"https://shop.example", "https://other.example", 403},
	} {
		w := world{down: &adaptertest.Downstream{}}
		adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: &believer{}})
		t.Cleanup(adm.Close)
		w.Adapter = http.New(http.Options{AllowedOrigin: tt.allowed,
			Pipeline: adapters.NewPipeline(adapters.Options{Type: http.Type, Admissions: adm, Downstream: w.down})})
		for _, auth := range []string{"", as(adaptertest.Device)} {
			r := httptest.NewRequest("POST", "https://adapter.example:8443/telemetry", strings.NewReader("x"))
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}}
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			want := tt.want
			if auth != "" {
				if r.Header.Set("Authorization", strings.TrimPrefix(auth, "Authorization: ")); want == 401 {
					want = 202
				}
			}
			rec := httptest.NewRecorder()
			if w.ServeHTTP(rec, r); rec.Code != want {
				t.Errorf("origin %q where %q is allowed, header %q: got %d %s, want %d", tt.origin, tt.allowed, auth, rec.Code, rec.Body, want)
			}
		}
	}
}
