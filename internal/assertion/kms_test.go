package assertion_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
)

// kmsServer is a key management service over HTTP: its key never leaves it.
type kmsServer struct {
	*httptest.Server
	mu     sync.Mutex
	sealed map[string]kmsRequest
	calls  int
	status int // answered instead, when set
}

type kmsRequest struct {
	Blob    []byte
	Context map[string]string
}

func newKMSServer(t *testing.T) *kmsServer {
	s := &kmsServer{sealed: map[string]kmsRequest{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *kmsServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.status != 0 {
		w.WriteHeader(s.status)
		return
	}
	var req kmsRequest
	if json.NewDecoder(r.Body).Decode(&req) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if r.URL.Path == "/encrypt" {
		id := rand.Text()
		s.sealed[id] = req
		json.NewEncoder(w).Encode(kmsRequest{Blob: []byte(id)})
		return
	}
	had, ok := s.sealed[string(req.Blob)]
	if !ok || !reflect.DeepEqual(had.Context, req.Context) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	json.NewEncoder(w).Encode(kmsRequest{Blob: had.Blob})
}

func (s *kmsServer) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// kmsClient is what stands behind the port.
type kmsClient struct{ url string }

func (c kmsClient) Encrypt(ctx context.Context, plaintext []byte, with map[string]string) ([]byte, error) {
	return c.call(ctx, "/encrypt", kmsRequest{plaintext, with})
}

func (c kmsClient) Decrypt(ctx context.Context, ciphertext []byte, with map[string]string) ([]byte, error) {
	return c.call(ctx, "/decrypt", kmsRequest{ciphertext, with})
}

func (c kmsClient) call(ctx context.Context, path string, body kmsRequest) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		var out kmsRequest
		err := json.NewDecoder(resp.Body).Decode(&out)
		return out.Blob, err
	case http.StatusBadRequest:
		return nil, iot.Errorf(iot.ErrInvalid, "the service refused the ciphertext")
	}
	return nil, fmt.Errorf("status %d", resp.StatusCode)
}

func TestKMS(t *testing.T) {
	server, store, c := newKMSServer(t), &memoryKeys{}, newClock()
	kek := assertion.NewKMSKEK(kmsClient{server.URL})
	start := func(kek assertion.KEK) *assertion.Signer {
		s, err := assertion.NewSigner(assertion.SignerConfig{Store: store, KEK: kek, Issuer: issuer, Algorithm: assertion.ES256, Now: c.Now})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one := start(kek)
	v := newVerifier(t, assertion.VerifierConfig{Keys: one.KeySource()})
	for range 100 {
		if _, err := v.Verify(sign(t, one, assertion.Subject{Tenant: "T", Device: "D"}), c.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if server.calls != 2 { // sealed, and opened as every start will
		t.Errorf("%d calls for 100 tokens, want 2", server.calls)
	}
	restarted := start(kek)
	if _, err := v.Verify(sign(t, restarted, assertion.Subject{Tenant: "T", Device: "D"}), c.Now()); err != nil {
		t.Errorf("after a restart: %v", err)
	}

	subject := assertion.Subject{Tenant: "T", Device: "D"}
	server.answer(http.StatusServiceUnavailable)
	if _, err := restarted.Sign(t.Context(), subject); err != nil {
		t.Errorf("a service that is away stops an open key: %v", err)
	}
	if _, err := start(kek).Sign(t.Context(), subject); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("service away: %v, want ErrUnavailable", err)
	}
	server.answer(0)
	moved := store.keys[0]
	moved.KID = "other"
	store.keys = []assertion.StoredKey{moved}
	if _, err := start(kek).Sign(t.Context(), subject); err == nil || !strings.Contains(err.Error(), "does not open") {
		t.Errorf("a key under another name: %v", err)
	}
	if _, err := start(newKEK(t)).Sign(t.Context(), subject); err == nil || !strings.Contains(err.Error(), "kind") {
		t.Errorf("a local key for what the service sealed: %v", err)
	}
}

// TestKEKIsReplaced moves from a local key to a service while tokens live.
func TestKEKIsReplaced(t *testing.T) {
	server, store, c := newKMSServer(t), &memoryKeys{}, newClock()
	local, service := newKEK(t), assertion.NewKMSKEK(kmsClient{server.URL})
	before := newSigner(t, store, c, "")
	v := newVerifier(t, assertion.VerifierConfig{Keys: before.KeySource()})
	old := sign(t, before, assertion.Subject{Tenant: "T", Device: "D"})

	both, err := assertion.NewSigner(assertion.SignerConfig{Store: store, KEK: assertion.NewKEKs(service, local), Issuer: issuer, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	sign(t, both, assertion.Subject{Tenant: "T", Device: "D"}) // by the key that the local one sealed
	c.add(time.Hour)
	if _, err := both.Rotate(t.Context(), 24*time.Hour, c.Now()); err != nil {
		t.Fatal(err)
	}
	alone, err := assertion.NewSigner(assertion.SignerConfig{Store: store, KEK: service, Issuer: issuer, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	c.add(time.Minute)
	for name, token := range map[string][]byte{"old": old, "new": sign(t, alone, assertion.Subject{Tenant: "T", Device: "D"})} {
		if _, err := v.Verify(token, c.Now()); err != nil {
			t.Errorf("%s token: %v", name, err)
		}
	}
	if _, err := assertion.NewKEKs(service, local).Unwrap(t.Context(), []byte{9, 9}, nil); err == nil {
		t.Error("opened what nobody sealed")
	}
}

func TestEnvKEK(t *testing.T) {
	const name = "SLUICE_TEST_KEK"
	good := base64.StdEncoding.EncodeToString(make([]byte, assertion.KEKSize))
	for text, want := range map[string]string{
		"":      name + " is not set",
		"short": name + ": key",
		base64.StdEncoding.EncodeToString([]byte("short")): name + ": key has 5 bytes, want 32",
	} {
		t.Setenv(name, text)
		if _, err := assertion.EnvKEK(name); err == nil || !strings.Contains(err.Error(), want) || (text != "" && strings.Contains(err.Error(), text)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	t.Setenv(name, good+"\n")
	if _, err := assertion.EnvKEK(name); err != nil {
		t.Error(err)
	}
}
