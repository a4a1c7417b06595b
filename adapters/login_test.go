package adapters_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestPasswordLogin(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	for _, tt := range []struct {
		name, user, password         string
		tenant, authID, wantPassword string // tenant "" = refused
	}{
		{"plain", "a@t", "pw", "t", "a", "pw"},
		{"first @ separates", "a@t@u", "pw", "t@u", "a", "pw"},
		{"colon and @ in the password", "a@t", "p:w@x", "t", "a", "p:w@x"},
		{"in the user name", b64([]byte("a@t:p:w")), "", "t", "a", "p:w"},
		{"in the user name, without padding", strings.TrimRight(b64([]byte("a@t:pw")), "="), "", "t", "a", "pw"},
		{"in the user name, URL alphabet", base64.URLEncoding.EncodeToString([]byte("a@t:\xfb\xff")), "", "t", "a", "\xfb\xff"},
		{"nothing", "", "", "", "", ""},
		{"no tenant", "a", "pw", "", "", ""},
		{"empty tenant", "a@", "pw", "", "", ""},
		{"empty auth-id", "@t", "pw", "", "", ""},
		{"no password", "a@t", "", "", "", ""},
		{"Base64 of something without password", b64([]byte("a@t")), "", "", "", ""},
		{"Base64 of an empty password", b64([]byte("a@t:")), "", "", "", ""},
		{"no UTF-8", "a\xff@t", "pw", "", "", ""},
		{"control character", "a@t\n", "pw", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := adapters.PasswordLogin(tt.user, tt.password)
			if tt.tenant == "" {
				if !errors.Is(err, iot.ErrUnauthenticated) {
					t.Errorf("got %+v, %v, want ErrUnauthenticated", l, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := events.Credential{Type: iot.HashedPassword, AuthID: tt.authID, Password: tt.wantPassword}
			if c := l.Credential; string(l.Tenant.ID) != tt.tenant || c.Type != want.Type || c.AuthID != want.AuthID || c.Password != want.Password {
				t.Errorf("got tenant %q and %+v, want %q and %+v", l.Tenant.ID, l.Credential, tt.tenant, want)
			}
		})
	}
}

func TestCertificateLogin(t *testing.T) {
	if _, ok, err := adapters.CertificateLogin(nil); ok || err != nil {
		t.Errorf("without TLS: got %v, %v", ok, err)
	}
	if _, ok, err := adapters.CertificateLogin(&tls.ConnectionState{ServerName: "x"}); ok || err != nil {
		t.Errorf("without certificate: got %v, %v", ok, err)
	}
	if _, ok, err := adapters.CertificateLogin(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}); ok || !errors.Is(err, iot.ErrUnauthenticated) {
		t.Errorf("without subject: got %v, %v, want ErrUnauthenticated", ok, err)
	}
	der := adaptertest.Certificate().Certificate[0]
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	l, ok, err := adapters.CertificateLogin(&tls.ConnectionState{ServerName: "t.example", PeerCertificates: []*x509.Certificate{leaf, {}}})
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	c := l.Credential
	if c.Type != iot.X509Cert || c.AuthID != "CN=device-1,O=Sluice" || string(c.Certificate) != string(der) || l.Tenant != (events.TenantRef{SNI: "t.example"}) || !l.Expires.Equal(leaf.NotAfter) {
		t.Errorf("got %+v with %s, %d bytes, until %v", l.Tenant, c.AuthID, len(c.Certificate), l.Expires)
	}
}

func jws(header, claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(header)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
}

const jwt = `{"alg":"ES256","typ":"JWT"}`

func TestIsToken(t *testing.T) {
	for s, want := range map[string]bool{
		jws(jwt, `{}`):                                   true,
		jws(jwt, `nothing that can be read`):             true,
		jws(`{"alg":"ES256"}`, `{}`):                     false,
		jws(`{"typ":"jwt"}`, `{}`):                       false,
		jws(`{"typ":1}`, `{}`):                           false,
		jws(`[]`, `{}`):                                  false,
		jws(jwt, `{}`) + ".x":                            false,
		jws(jwt, `{}`) + "=":                             false,
		strings.TrimSuffix(jws(jwt, ``), "c2lnbmF0dXJl"): false,
		"a.b.c":                               false,
		"password":                            false,
		"":                                    false,
		"..":                                  false,
		jws(jwt, strings.Repeat("x", 16<<10)): false,
	} {
		if got := adapters.IsToken(s); got != want {
			t.Errorf("%.60q: got %v, want %v", s, got, want)
		}
	}
}

func TestTokenLogin(t *testing.T) {
	for _, tt := range []struct {
		name, token  string
		tenant, auth string // given by the protocol
		want         string // tenant/auth-id; "" = refused
	}{
		{"audience", jws(jwt, `{"aud":"hono-adapter","tid":"t","sub":"a","exp":1000}`), "", "", "t/a"},
		{"audience wins", jws(jwt, `{"aud":"hono-adapter","tid":"t","sub":"a","exp":1000}`), "x", "y", "t/a"},
		{"audience among others", jws(jwt, `{"aud":["x","hono-adapter"],"tid":"t","sub":"a","exp":1000.5}`), "", "", "t/a"},
		{"given", jws(jwt, `{"exp":1000}`), "x", "y", "x/y"},
		{"given, other audience", jws(jwt, `{"aud":"x","tid":"t","sub":"a","exp":1000}`), "x", "y", "x/y"},
		{"not given", jws(jwt, `{"exp":1000}`), "x", "", ""},
		{"audience without tid", jws(jwt, `{"aud":"hono-adapter","sub":"a","exp":1000}`), "x", "y", ""},
		{"audience without sub", jws(jwt, `{"aud":"hono-adapter","tid":"t","exp":1000}`), "x", "y", ""},
		{"no end", jws(jwt, `{"aud":"hono-adapter","tid":"t","sub":"a"}`), "", "", ""},
		{"end out of range", jws(jwt, `{"exp":1e300}`), "x", "y", ""},
		{"end no number", jws(jwt, `{"exp":"1000"}`), "x", "y", ""},
		{"audience no text", jws(jwt, `{"aud":1,"exp":1000}`), "x", "y", ""},
		{"claims no object", jws(jwt, `[]`), "x", "y", ""},
		{"control character", jws(jwt, `{"exp":1000}`), "x\n", "y", ""},
		{"no token", "password", "x", "y", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := adapters.TokenLogin(tt.token, iot.TenantID(tt.tenant), tt.auth)
			if tt.want == "" {
				if !errors.Is(err, iot.ErrUnauthenticated) {
					t.Errorf("got %+v, %v, want ErrUnauthenticated", l, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c := l.Credential
			if got := string(l.Tenant.ID) + "/" + c.AuthID; got != tt.want || c.Type != iot.RPK || c.JWT != tt.token {
				t.Errorf("got %s, %+v, want %s", got, c, tt.want)
			}
			if want := time.Unix(1000, 0).Add(10 * time.Minute); !l.Expires.Equal(want) {
				t.Errorf("got end %v, want %v", l.Expires, want)
			}
		})
	}
}

// Failed attempts count for whom a proof names, so that the certificates and
// tokens of one device shut out no other.
func TestFailuresCountForWhomAProofNames(t *testing.T) {
	stranger := func(n int) adapters.Login {
		leaf, err := x509.ParseCertificate(adaptertest.StrangeCertificate().Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		leaf.Subject.CommonName = fmt.Sprint("stranger ", n)
		l, _, err := adapters.CertificateLogin(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	token := func(n int) adapters.Login {
		l, err := adapters.TokenLogin(jws(jwt, fmt.Sprintf(`{"aud":"hono-adapter","tid":"tenant-1","sub":"stranger %d","exp":99999999999}`, n)), "", "")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for name, login := range map[string]func(int) adapters.Login{"certificate": stranger, "token": token} {
		t.Run(name, func(t *testing.T) {
			a, _ := newAdmissions(t, adapters.AdmissionOptions{FailuresPerAuthID: 3})
			attempt := func(n int, want error) {
				t.Helper()
				l := login(n)
				if _, err := a.Admit(t.Context(), l.Request("", home)); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			}
			for range 3 {
				attempt(1, iot.ErrUnauthenticated)
			}
			attempt(1, iot.ErrQuota)
			attempt(2, iot.ErrUnauthenticated)
		})
	}
}

func FuzzTokenLogin(f *testing.F) {
	f.Add(jws(jwt, `{"aud":"hono-adapter","tid":"t","sub":"a","exp":1000}`))
	f.Add(jws(jwt, `{"aud":["x"],"exp":1000}`))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := adapters.TokenLogin(s, "t", "a")
		if err != nil && !errors.Is(err, iot.ErrUnauthenticated) {
			t.Errorf("got error %v, want ErrUnauthenticated", err)
		}
		if err == nil && (!adapters.IsToken(s) || l.Tenant.ID == "" || l.Credential.AuthID == "") {
			t.Errorf("got %+v of what is no token", l)
		}
	})
}

func FuzzPasswordLogin(f *testing.F) {
	f.Add("a@t", "pw")
	f.Add("YUB0OnB3", "")
	f.Fuzz(func(t *testing.T, user, password string) {
		l, err := adapters.PasswordLogin(user, password)
		if err != nil && !errors.Is(err, iot.ErrUnauthenticated) {
			t.Errorf("got error %v, want ErrUnauthenticated", err)
		}
		if err == nil && (l.Tenant.ID == "" || l.Credential.AuthID == "" || l.Credential.Password == "") {
			t.Errorf("got %+v with %+v", l, l.Credential)
		}
	})
}
