package auth_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/auth/oidctest"
	"github.com/sluice-iot/sluice/internal/iot"
)

func issuerFile(i *oidctest.Issuer) string {
	return fmt.Sprintf(`issuers: [{issuer: "%s", audience: sluice, authorities-claim: rights}]`, i.URL)
}

func newIssuer(t testing.TB) *oidctest.Issuer {
	i := oidctest.New(t)
	i.Rotate(t, "k", "ES256")
	return i
}

func TestToken(t *testing.T) {
	i := newIssuer(t)
	d := open(t, issuerFile(i), auth.Options{})
	claims := oidctest.Claims{"sub": "app", "aud": "sluice", "rights": []any{
		map[string]any{"address": "telemetry/DEMO", "may": []string{"read"}},
		map[string]any{"operation": "credentials/DEMO:*"},
	}}
	token := i.Token(t, claims)
	for mechanism, response := range map[string]string{
		auth.OAuthBearer:       "n,,\x01auth=Bearer " + token + "\x01\x01",
		"OAUTHBEARER with all": "y,a=me=2Cmyself,\x01host=h\x01port=5671\x01auth=bearer " + token + "\x01\x01",
		auth.XOAuth2:           "user=me\x01auth=Bearer " + token + "\x01\x01",
	} {
		t.Run(mechanism, func(t *testing.T) {
			mechanism, _, _ := strings.Cut(mechanism, " ")
			challenge, id, err := d.Begin(mechanism, nil).Step(t.Context(), []byte(response))
			if err != nil || challenge != nil {
				t.Fatalf("%q, %v", challenge, err)
			}
			if id.Name != "oidc:"+i.URL+"#app" || id.Kind != auth.Application || id.AssertionsRequired || time.Until(id.Expires) > time.Hour || id.Expires.IsZero() {
				t.Errorf("got %+v", id)
			}
			if !id.May("telemetry/DEMO", auth.Read) || id.May("telemetry/DEMO", auth.Write) || !id.MayOperate("credentials/DEMO", "get") {
				t.Errorf("may: %v", id.Authorities())
			}
			if d.Refresh(id) != id || d.Current(id.Name) != nil {
				t.Error("it is not what it was")
			}
		})
	}
}

func TestTokenRefused(t *testing.T) {
	i, stranger := newIssuer(t), newIssuer(t)
	d := open(t, issuerFile(i), auth.Options{})
	claims := func(rights any) oidctest.Claims {
		return oidctest.Claims{"sub": "app", "aud": "sluice", "rights": rights}
	}
	for name, c := range map[string]struct{ token, text string }{
		"of a stranger":     {stranger.Token(t, claims(nil)), "no known issuer"},
		"in another's name": {stranger.Token(t, oidctest.Claims{"iss": i.URL, "sub": "app", "aud": "sluice"}), "does not verify"},
		"no list":           {i.Token(t, claims("all")), "claim rights: expected a list"},
		"unknown member":    {i.Token(t, claims([]any{map[string]any{"address": "a", "may": []string{"read"}, "tenant": "x"}})), "claim rights: expected a list"},
		"unknown activity":  {i.Token(t, claims([]any{map[string]any{"address": "a", "may": []string{"all"}}})), "unknown activity"},
		"bad address":       {i.Token(t, claims([]any{map[string]any{"address": "a//b", "may": []string{"read"}}})), "empty segment"},
		"nothing":           {"", "no known issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			auth2 := "\x01auth=Bearer " + c.token + "\x01\x01"
			if name == "nothing" {
				auth2 = "\x01auth=\x01\x01"
			}
			refused := func(challenge []byte, id *auth.Identity, err error) {
				t.Helper()
				if !errors.Is(err, iot.ErrUnauthenticated) || !strings.Contains(err.Error(), c.text) || id != nil || challenge != nil {
					t.Errorf("got %q, %v, %v, want %q", challenge, id, err, c.text)
				}
			}
			refused(d.Begin(auth.XOAuth2, nil).Step(t.Context(), []byte("user=me"+auth2)))
			x := d.Begin(auth.OAuthBearer, nil)
			challenge, id, err := x.Step(t.Context(), []byte("n,,"+auth2))
			if err != nil || id != nil {
				t.Fatalf("%v, %v", id, err)
			}
			var said map[string]string
			if err := json.Unmarshal(challenge, &said); err != nil || said["status"] != "invalid_token" ||
				said["openid-configuration"] != i.URL+"/.well-known/openid-configuration" {
				t.Errorf("challenge %s", challenge)
			}
			refused(x.Step(t.Context(), []byte("\x01")))
		})
	}
}

func TestTokenWithoutRights(t *testing.T) {
	i := newIssuer(t)
	d := open(t, issuerFile(i), auth.Options{})
	id, err := d.Token(t.Context(), i.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice"}))
	if err != nil || len(id.Authorities()) != 0 || id.May("telemetry/DEMO", auth.Read) {
		t.Errorf("%v, %v", id, err)
	}
}

func TestTokenIssuerAway(t *testing.T) {
	i := newIssuer(t)
	d := open(t, issuerFile(i), auth.Options{})
	i.Serve("/keys", 503, nil)
	_, _, err := d.Begin(auth.XOAuth2, nil).Step(t.Context(), []byte("user=\x01auth=Bearer "+i.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice"})+"\x01\x01"))
	if !errors.Is(err, iot.ErrUnavailable) {
		t.Error(err)
	}
}

func TestMalformedBearer(t *testing.T) {
	d := open(t, "identities: []", auth.Options{})
	for _, c := range []struct{ mechanism, response, text string }{
		{auth.OAuthBearer, "", "malformed"},
		{auth.OAuthBearer, "n,,", "malformed"},
		{auth.OAuthBearer, "n,\x01auth=Bearer x\x01\x01", "malformed"},
		{auth.OAuthBearer, "n,,x\x01auth=Bearer x\x01\x01", "malformed"},
		{auth.OAuthBearer, "p=tls-exporter,,\x01auth=Bearer x\x01\x01", "not offered"},
		{auth.OAuthBearer, "m,,\x01auth=Bearer x\x01\x01", "neither"},
		{auth.OAuthBearer, "n,x,\x01auth=Bearer x\x01\x01", "authorization identity"},
		{auth.OAuthBearer, "n,,\x01auth=Bearer x\x01", "does not end"},
		{auth.OAuthBearer, "n,,\x01auth=Basic x\x01\x01", "expected auth=Bearer"},
		{auth.OAuthBearer, "n,,\x01auth=Bearer\x01\x01", "expected auth=Bearer"},
		{auth.OAuthBearer, "n,,\x01auth=Bearer a b\x01\x01", "expected auth=Bearer"},
		{auth.OAuthBearer, "n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01", "twice"},
		{auth.OAuthBearer, "n,,\x01host\x01\x01", "key=value"},
		{auth.OAuthBearer, "n,,\x01auth=Bearer " + strings.Repeat("x", 17000) + "\x01\x01", "at most"},
		{auth.XOAuth2, "", "user=NAME"},
		{auth.XOAuth2, "auth=Bearer x\x01\x01", "user=NAME"},
		{auth.XOAuth2, "user=x", "user=NAME"},
		{auth.XOAuth2, "user=x\x01auth=Bearer x", "does not end"},
		{auth.XOAuth2, strings.Repeat("x", 17000), "at most"},
	} {
		challenge, id, err := d.Begin(c.mechanism, nil).Step(t.Context(), []byte(c.response))
		if !errors.Is(err, iot.ErrUnauthenticated) || !strings.Contains(err.Error(), c.text) || id != nil || challenge != nil {
			t.Errorf("%s %.40q: %q, %v, %v, want %q", c.mechanism, c.response, challenge, id, err, c.text)
		}
	}
	if challenge, _, err := d.Begin(auth.OAuthBearer, nil).Step(t.Context(), nil); challenge == nil || len(challenge) > 0 || err != nil {
		t.Errorf("without an initial response: %q, %v", challenge, err)
	}
}

func TestIssuersFile(t *testing.T) {
	for text, want := range map[string]string{
		`issuers: [{issuer: "http://id.example", audience: a, authorities-claim: c}]`:                                                   ":1: issuer",
		"issuers:\n  - {issuer: \"https://id.example\", authorities-claim: c}":                                                          ":2: issuer \"https://id.example\": no audience",
		`issuers: [{issuer: "https://id.example", audience: a}]`:                                                                        "no authorities-claim",
		`issuers: [{issuer: "https://a", audience: a, authorities-claim: c}, {issuer: "https://a", audience: b, authorities-claim: c}]`: "given twice",
		`issuers: [{issuer: "https://a", audience: a, authorities-claim: c, jwks-url: "http://b.example/k"}]`:                           "jwks-url",
		`issuers: [{issuer: "https://a", audience: a, subjects: [{subject: "", authorities: []}]}]`:                                     "has no subject",
		`issuers: [{issuer: "https://a", audience: a, subjects: [{subject: s, authorities: [{address: "a//b", may: [read]}]}]}]`:        "subject \"s\"",
		`issuers: [{issuer: "https://a", audience: a, subjects: [{subject: s, authorities: []}, {subject: s, authorities: []}]}]`:       "given twice",
		`identities: [{name: "oidc:x", authorities: []}]`:                                                                               "those of tokens",
		`{"users": {"oidc:x": {"mechanism": "EXTERNAL"}}}`:                                                                              "those of tokens",
	} {
		if _, err := auth.Open(writeFile(t, text), auth.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// TestSubjects has an issuer whose tokens say who somebody is, but not what he may.
func TestSubjects(t *testing.T) {
	i := newIssuer(t)
	file := func(more string) string {
		return fmt.Sprintf(`issuers:
  - issuer: "%s"
    audience: sluice
    subjects:
      - {subject: "system:serviceaccount:iot:router", authorities: [{operation: "functions:router"}]}
      - {subject: "system:serviceaccount:iot:nobody", authorities: []}
    %s
`, i.URL, more)
	}
	token := func(subject string) string {
		return i.Token(t, oidctest.Claims{"sub": subject, "aud": "sluice", "rights": []any{map[string]any{"operation": "functions:adapter"}}})
	}
	for _, tt := range []struct {
		name, more, subject string
		want                []string // operations
		refused             bool
	}{
		{"one of the file", "", "system:serviceaccount:iot:router", []string{"functions:router"}, false},
		{"another", "", "system:serviceaccount:other:router", nil, true},
		{"a prefix", "", "system:serviceaccount:iot:route", nil, true},
		{"one with a claim", "authorities-claim: rights", "system:serviceaccount:iot:router", []string{"functions:router", "functions:adapter"}, false},
		{"another with a claim", "authorities-claim: rights", "app", []string{"functions:adapter"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, file(tt.more), auth.Options{})
			id, err := d.Token(t.Context(), token(tt.subject))
			if tt.refused {
				if !errors.Is(err, iot.ErrUnauthenticated) {
					t.Errorf("got %v, %v", id, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range id.Authorities() {
				got = append(got, a.Operation)
			}
			if strings.Join(got, " ") != strings.Join(tt.want, " ") {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func FuzzBearer(f *testing.F) {
	f.Add([]byte("n,a=x,\x01host=h\x01auth=Bearer a.b.c\x01\x01"))
	f.Add([]byte("user=x\x01auth=Bearer a.b.c\x01\x01"))
	f.Add([]byte("y,,\x01\x01"))
	f.Fuzz(func(t *testing.T, response []byte) {
		for _, parse := range []func([]byte) (string, error){auth.ParseOAuthBearer, auth.ParseXOAuth2} {
			token, err := parse(response)
			if err != nil && token != "" && errors.Is(err, iot.ErrUnauthenticated) {
				continue
			}
			if err == nil && (strings.ContainsAny(token, " ,\x01\n") || !strings.Contains(string(response), token)) {
				t.Errorf("%q gives %q", response, token)
			}
		}
	})
}

func TestAddingKeepsIssuers(t *testing.T) {
	path := writeFile(t, "issuers:\n  - {issuer: \"https://id.example\", audience: a, authorities-claim: c}\n")
	if _, err := auth.AddIdentity(path, "app"); err != nil {
		t.Fatal(err)
	}
	d, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(d.Mechanisms(nil, false), " "); got != "SCRAM-SHA-256 PLAIN OAUTHBEARER XOAUTH2" {
		t.Error(got)
	}
	if _, err := auth.AddIdentity(path, "oidc:https://id.example#x"); err == nil {
		t.Error("a name of tokens was taken")
	}
}
