package edge

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestTokenFile calls functions that ask for a token, which changes meanwhile.
func TestTokenFile(t *testing.T) {
	var mu sync.Mutex
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusForbidden)
	}))
	defer srv.Close()
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := config.Defaults()
	cfg.Functions = config.Functions{Identity: srv.URL, TokenFile: path}
	p := New(Options{Config: &cfg, Parts: Parts{HTTP: true}, Log: slog.New(slog.DiscardHandler)})
	if _, err := p.functionsByURL(srv.URL); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	for want, text := range map[string]string{"holds no bearer token": "two words\n", "expected a bearer token of at most": strings.Repeat("x", 20_000)} {
		write(text)
		if _, err := p.functionsByURL(srv.URL); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	write("first\n")
	inv, err := p.functionsByURL(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer inv.Close()
	call := func() {
		t.Helper()
		if _, err := inv.Invoke(t.Context(), events.AssertionKeys{}); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
	call()
	write("second-token")
	call()
	mu.Lock()
	defer mu.Unlock()
	if got[0] != "Bearer first" || got[len(got)-1] != "Bearer second-token" {
		t.Errorf("got %q", got)
	}
}
