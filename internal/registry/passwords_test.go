package registry_test

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func TestVerify(t *testing.T) {
	p := registry.NewPasswords(4, 0)
	b64 := base64.StdEncoding.EncodeToString
	s256 := sha256.Sum256([]byte("saltpw"))
	s512 := sha512.Sum512([]byte("pw"))
	bcrypt, err := p.Hash(t.Context(), "pw")
	must(t, err)
	long, err := p.Hash(t.Context(), strings.Repeat("x", 80))
	must(t, err)
	off := false
	sha := iot.Secret{ID: "sha", HashFunction: "sha-256", PwdHash: b64(s256[:]), Salt: []byte("salt")}
	slow := iot.Secret{ID: "bcrypt", HashFunction: "bcrypt", PwdHash: bcrypt}
	with := func(s iot.Secret, change func(*iot.Secret)) []iot.Secret {
		change(&s)
		return []iot.Secret{s}
	}
	for _, c := range []struct {
		name, password string
		secrets        []iot.Secret
		want           string // secret id; "" = refused
	}{
		{"sha-256", "pw", []iot.Secret{sha}, "sha"},
		{"sha-256 by default", "pw", with(sha, func(s *iot.Secret) { s.HashFunction = "" }), "sha"},
		{"sha-512 without salt", "pw", []iot.Secret{{ID: "512", HashFunction: "sha-512", PwdHash: b64(s512[:])}}, "512"},
		{"bcrypt", "pw", []iot.Secret{slow}, "bcrypt"},
		{"bcrypt 2y", "pw", with(slow, func(s *iot.Secret) { s.PwdHash = strings.Replace(bcrypt, "$2a$", "$2y$", 1) }), "bcrypt"},
		{"bcrypt with one digit", "pw", with(slow, func(s *iot.Secret) { s.PwdHash = strings.Replace(bcrypt, "$04$", "$4$", 1) }), "bcrypt"},
		{"bcrypt of a long password", strings.Repeat("x", 80), with(slow, func(s *iot.Secret) { s.PwdHash = long }), "bcrypt"},
		{"second of two", "pw", []iot.Secret{{ID: "1", HashFunction: "sha-256", PwdHash: "AAAA"}, slow}, "bcrypt"},
		{"cheap one first", "pw", []iot.Secret{slow, sha}, "sha"},
		{"wrong", "pw2", []iot.Secret{sha, slow}, ""},
		{"empty password", "", []iot.Secret{sha, slow}, ""},
		{"none", "pw", nil, ""},
		{"disabled", "pw", with(sha, func(s *iot.Secret) { s.Enabled = &off }), ""},
		{"not yet", "pw", with(sha, func(s *iot.Secret) { s.NotBefore.Time = noon.Add(1) }), ""},
		{"no more", "pw", with(sha, func(s *iot.Secret) { s.NotAfter.Time = noon.Add(-1) }), ""},
		{"at the ends", "pw", with(sha, func(s *iot.Secret) { s.NotBefore.Time, s.NotAfter.Time = noon, noon }), "sha"},
		{"unknown function", "pw", with(sha, func(s *iot.Secret) { s.HashFunction = "md5" }), ""},
		{"no base64", "pw", with(sha, func(s *iot.Secret) { s.PwdHash = "*" }), ""},
		{"no bcrypt", "pw", with(slow, func(s *iot.Secret) { s.PwdHash = "*" }), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cred := iot.Credential{Type: iot.HashedPassword, Secrets: c.secrets}
			id, err := p.Verify(t.Context(), &cred, c.password, noon)
			if id != c.want || (err == nil) != (c.want != "") || err != nil && !errors.Is(err, iot.ErrUnauthenticated) {
				t.Fatalf("got %q, %v, want %q", id, err, c.want)
			}
			if got := registry.HasSecret(&cred, c.want, noon); c.want != "" && !got {
				t.Fatal("HasSecret does not find it")
			}
			cred.Enabled = &off
			_, err = p.Verify(t.Context(), &cred, c.password, noon)
			wantErr(t, err, iot.ErrUnauthenticated)
			if registry.HasSecret(&cred, c.want, noon) {
				t.Fatal("HasSecret finds it in a disabled credential")
			}
		})
	}
}

func TestGeneratePassword(t *testing.T) {
	password, secret := registry.GeneratePassword()
	if b, err := base64.RawURLEncoding.DecodeString(password); err != nil || len(b) != 32 {
		t.Fatalf("got %d bytes, %v, want 32", len(b), err)
	}
	secret.ID = "s"
	id, err := registry.NewPasswords(4, 1).Verify(t.Context(), &iot.Credential{Type: iot.HashedPassword, Secrets: []iot.Secret{secret}}, password, noon)
	if id != "s" || err != nil {
		t.Fatalf("got %q, %v", id, err)
	}
}

// Work waits for its turn no longer than its context allows.
func TestPasswordsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := registry.NewPasswords(4, 1)
		release := registry.Occupy(p)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Hash(ctx, "x")
		wantErr(t, err, iot.ErrTimeout)
		gone, leave := context.WithCancel(t.Context())
		leave()
		_, err = p.Hash(gone, "x")
		wantErr(t, err, context.Canceled)
		release()
		_, err = p.Hash(t.Context(), "x")
		must(t, err)
	})
}

// Those who verify come again rather than wait behind whoever guesses.
func TestFewWaitToVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := registry.NewPasswords(4, 1)
		hash, err := p.Hash(t.Context(), "x")
		must(t, err)
		c := &iot.Credential{Type: iot.HashedPassword, Secrets: []iot.Secret{{ID: "1", HashFunction: registry.Bcrypt, PwdHash: hash}}}
		release := registry.Occupy(p)
		var waiting, busy atomic.Int32
		for range 150 {
			go func() {
				began := time.Now()
				_, err := p.Verify(t.Context(), c, "x", time.Now())
				if !errors.Is(err, iot.ErrUnavailable) || iot.RetryAfter(err) != time.Second {
					t.Errorf("got %v, want ErrUnavailable with a time to come again", err)
				}
				if time.Since(began) == 0 {
					busy.Add(1)
				} else {
					waiting.Add(1)
				}
			}()
		}
		synctest.Wait()
		if busy.Load() != 22 {
			t.Errorf("%d were sent away at once, want 22", busy.Load())
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if waiting.Load() != 128 {
			t.Errorf("%d waited, want 128", waiting.Load())
		}
		release()
		_, err = p.Verify(t.Context(), c, "x", time.Now())
		must(t, err)
	})
}

func TestMatchesContext(t *testing.T) {
	for _, c := range []struct {
		ext     string
		context map[string]any
		want    bool
	}{
		{"", map[string]any{"a": 1}, true},
		{`{"client-id":"x"}`, nil, true},
		{`{"client-id":"x"}`, map[string]any{"client-id": "x", "other": 1}, true},
		{`{"client-id":"x"}`, map[string]any{"client-id": "y"}, false},
		{`{"client-id":"x"}`, map[string]any{"other": "y"}, true},
		{`{"n":1}`, map[string]any{"n": 1}, true},
		{`{"n":1}`, map[string]any{"n": float64(1)}, true},
		{`{"n":1}`, map[string]any{"n": "1"}, false},
		{`{"n":true,"m":null}`, map[string]any{"n": true, "m": nil}, true},
	} {
		cred := iot.Credential{Ext: json.RawMessage(c.ext)}
		if got := registry.MatchesContext(&cred, c.context); got != c.want {
			t.Errorf("%s with %v: got %t", c.ext, c.context, got)
		}
	}
}
