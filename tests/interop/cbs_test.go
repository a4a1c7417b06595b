package interop_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

// fetched is what a client got from cbs.
type fetched struct {
	Type   string `json:"type"`   // application property
	Text   bool   `json:"text"`   // the body is an amqp-value of type string
	Token  string `json:"token"`  // that body
	Closed string `json:"closed"` // how the link ended
}

// fetch gets a token.
func (c caller) fetch(t *testing.T) (f fetched) {
	t.Helper()
	needPeer(t, c.kind)
	if c.kind != "go-amqp" {
		c.run(t, map[string]any{"token": true}, &f)
		return f
	}
	r, err := c.session(t).NewReceiver(t.Context(), "cbs", nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Receive(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Type, _ = m.ApplicationProperties["type"].(string)
	f.Token, f.Text = m.Value.(string)
	_ = r.AcceptMessage(t.Context(), m) // the link may end before this returns
	_, err = r.Receive(t.Context(), nil)
	var end *goamqp.LinkError
	if f.Closed = fmt.Sprint(err); errors.As(err, &end) && end.RemoteErr == nil {
		f.Closed = "without an error"
	}
	return f
}

// validatingKeys are the EC keys that the router publishes, by kid.
func validatingKeys(t *testing.T, addr string) map[string]*ecdsa.PublicKey {
	t.Helper()
	resp, err := client.Get("http://" + addr + "/validating-keys")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/jwk-set+json" {
		t.Fatalf("%s %v: %v", resp.Status, resp.Header, err)
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(text, &set); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	keys := map[string]*ecdsa.PublicKey{}
	for _, k := range set.Keys {
		if k["kid"] == "" || k["use"] != "sig" || k["alg"] == "" {
			t.Errorf("key without kid, use or alg: %v", k)
		}
		if k["alg"] != "ES256" {
			continue
		}
		x, errX := base64.RawURLEncoding.DecodeString(k["x"])
		y, errY := base64.RawURLEncoding.DecodeString(k["y"])
		pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err := errors.Join(errX, errY, err); err != nil {
			t.Fatalf("%v: %v", err, k)
		}
		keys[k["kid"]] = pub
	}
	return keys
}

// TestTokens fetches tokens with three foreign clients, as Hono's components do,
// and verifies them by the published keys.
func TestTokens(t *testing.T) {
	s := startServices(t)
	keys := validatingKeys(t, s.health)
	want := map[string]jwt.MapClaims{
		"http-adapter@HONO": {
			"r:telemetry/*": "W", "r:event/*": "W", "r:registration/*": "RW", "r:credentials/*": "RW", "r:tenant": "RW",
			"o:registration/*:*": "E", "o:credentials/*:*": "E", "o:tenant/*:*": "E",
		},
		"hono-client": {
			"r:tenant": "RW", "o:tenant/DEFAULT_TENANT:*": "E", "r:registration/DEFAULT_TENANT": "RWE",
			"r:credentials/DEFAULT_TENANT": "RWE", "o:registration/DEFAULT_TENANT:*": "E",
		},
	}
	for _, kind := range kinds {
		for _, c := range []caller{
			{kind, s.auth, "http-adapter@HONO", "http-secret"}, {kind, s.auth, "hono-client", "secret"},
			{kind, s.northbound, "http-adapter@HONO", "http-secret"},
		} {
			t.Run(kind+" "+c.user+" "+map[string]string{s.auth: "auth", s.northbound: "northbound"}[c.addr], func(t *testing.T) {
				before := time.Now()
				f := c.fetch(t)
				if f.Type != "amqp:jwt" || !f.Text || f.Closed != "without an error" {
					t.Errorf("got type %q, a text %v, link closed %s", f.Type, f.Text, f.Closed)
				}
				claims := verified(t, f.Token, keys)
				exp, err := claims.GetExpirationTime()
				if err != nil || exp.Before(before.Add(590*time.Second)) || exp.After(time.Now().Add(610*time.Second)) {
					t.Errorf("exp %v, %v", exp, err)
				}
				delete(claims, "exp")
				expected := jwt.MapClaims{"iss": "https://hono.eclipse.org/auth-server", "sub": c.user, "aud": "hono-components"}
				for k, v := range want[c.user] {
					expected[k] = v
				}
				if diff := cmp.Diff(expected, claims); diff != "" {
					t.Errorf("claims (-want +got):\n%s", diff)
				}
			})
		}
	}
	if info, err := os.Stat(filepath.Join(s.dir, "router-router-0", "keys", "auth-token.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}
}

func verified(t *testing.T, token string, keys map[string]*ecdsa.PublicKey) jwt.MapClaims {
	t.Helper()
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(token, claims, func(tok *jwt.Token) (any, error) {
		kid, _ := tok.Header["kid"].(string)
		if key := keys[kid]; key != nil {
			return key, nil
		}
		return nil, fmt.Errorf("kid %q is not published", kid)
	}, jwt.WithValidMethods([]string{"ES256"}), jwt.WithExpirationRequired())
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

// TestConnectionForTokensEnds keeps a connection open on which nothing is fetched.
func TestConnectionForTokensEnds(t *testing.T) {
	s := startServices(t)
	began := time.Now()
	conn, err := goamqp.Dial(t.Context(), "amqp://"+s.auth, &goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain("hono-client", "secret")})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	x, err := conn.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.NewSender(t.Context(), "cbs", nil); !isCondition(err, "amqp:not-allowed") {
		t.Errorf("sender on cbs: got %v", err)
	}
	if _, err := x.NewReceiver(t.Context(), "cbs", &goamqp.ReceiverOptions{RequestedSenderSettleMode: goamqp.SenderSettleModeSettled.Ptr()}); !isCondition(err, "amqp:invalid-field") {
		t.Errorf("settled receiver on cbs: got %v", err)
	}
	select {
	case <-conn.Done():
	case <-time.After(patience):
		t.Fatal("still open")
	}
	var end *goamqp.ConnError
	if !errors.As(conn.Err(), &end) || end.RemoteErr == nil || end.RemoteErr.Condition != "hono:inactivity" {
		t.Errorf("got %v, want hono:inactivity", conn.Err())
	}
	if took := time.Since(began); took < 4*time.Second {
		t.Errorf("closed after %s, want 5s", took)
	}
}

func isCondition(err error, want goamqp.ErrCond) bool {
	var e *goamqp.Error
	return errors.As(err, &e) && e.Condition == want
}
