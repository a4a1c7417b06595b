package health_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/cmd/internal/command"
	"github.com/sluice-iot/sluice/cmd/internal/health"
	"github.com/sluice-iot/sluice/internal/config"
)

// probed answers a probe: 200 while it is ready.
func probed(t *testing.T, ready *bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked %s", r.URL)
		}
		if !*ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
}

// TestWhomToAsk finds the process by each of the ways to name it.
func TestWhomToAsk(t *testing.T) {
	ready := true
	plain, secure := httptest.NewServer(probed(t, &ready)), httptest.NewTLSServer(probed(t, &ready))
	defer plain.Close()
	defer secure.Close()
	address := plain.Listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(file, []byte(`listeners: [{role: health, address: "`+address+`"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		env  map[string]string
		o    health.Options
	}{
		"a URL":             {args: []string{"--url", plain.URL + "/readyz"}},
		"a port":            {o: health.Options{Port: port}},
		"the default":       {o: health.Options{Listeners: []config.Listener{{Role: config.RoleHealth, Address: address}}}},
		"a file":            {args: []string{"--config", file}},
		"a file by name":    {env: map[string]string{"SLUICE_CONFIG": file}},
		"the environment":   {env: map[string]string{"SLUICE_LISTENERS": `[{role: health, address: "` + address + `"}]`}},
		"an address of all": {env: map[string]string{"SLUICE_LISTENERS": `[{role: health, address: "0.0.0.0:` + port + `", insecure: true}]`}},
		"no proxy":          {args: []string{"--url", plain.URL + "/readyz"}, env: map[string]string{"HTTP_PROXY": "http://127.0.0.1:1"}},
		"a certificate of whomever": {env: map[string]string{
			"SLUICE_LISTENERS": `[{role: health, address: "` + secure.Listener.Addr().String() + `", tls: {}}]`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			for _, ready = range []bool{true, false} {
				if err := health.Run("test", c.args, c.o, io.Discard); (err == nil) != ready {
					t.Errorf("ready %t: %v", ready, err)
				} else if err != nil && !strings.Contains(err.Error(), "/readyz answered 503") {
					t.Error(err)
				}
			}
		})
	}
}

func TestNobodyAnswers(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // it accepts nobody
	for want, args := range map[string][]string{
		"deadline exceeded":          {"--url", "http://" + ln.Addr().String(), "--timeout", "20ms"},
		"refused":                    {"--url", "http://127.0.0.1:1/readyz"},
		"configuration file":         {"--config", "absent.yaml"},
		"no listener of the role":    {},
		`unexpected argument "more"`: {"more"},
	} {
		if err := health.Run("test", args, health.Options{Listeners: []config.Listener{}}, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", args, err, want)
		}
	}
	var stderr bytes.Buffer
	if err := health.Run("test", []string{"--timeout", "soon"}, health.Options{}, &stderr); !errors.Is(err, command.ErrUsage) || stderr.Len() == 0 {
		t.Errorf("%v: %s", err, &stderr)
	}
}
