package observe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/observe"
)

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body)
}

func up(data map[string]any) observe.Check {
	return func(context.Context) (bool, map[string]any) { return true, data }
}

func down(context.Context) (bool, map[string]any) { return false, nil }

func TestHealth(t *testing.T) {
	health := observe.NewHealth()
	h := observe.NewHandler(health, nil)
	expect := func(when string, want map[string]int) {
		t.Helper()
		for path, code := range want {
			if got, body := get(t, h, path); got != code {
				t.Errorf("%s: %s: got %d, want %d: %s", when, path, got, code, body)
			}
		}
	}
	expect("at first", map[string]int{"/started": 503, "/readiness": 503, "/readyz": 503, "/liveness": 200, "/healthz": 200})
	health.Started()
	expect("started", map[string]int{"/started": 200, "/readiness": 200, "/readyz": 200, "/liveness": 200, "/": 404})
	health.Readiness("b", down)
	health.Readiness("a", up(map[string]any{"routers": 2}))
	expect("not connected", map[string]int{"/started": 200, "/readiness": 503, "/liveness": 200})
	health.Readiness("b", up(nil))
	expect("connected", map[string]int{"/readiness": 200})
	health.Liveness("stuck", down)
	expect("stuck", map[string]int{"/readiness": 200, "/liveness": 503, "/healthz": 503})
	health.Remove("stuck")
	expect("removed", map[string]int{"/liveness": 200})
	_, body := get(t, h, "/readiness")
	var got map[string]any
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"status": "UP", "checks": []any{
		map[string]any{"name": "started", "status": "UP", "data": map[string]any{"version": observe.Version()}},
		map[string]any{"name": "a", "status": "UP", "data": map[string]any{"routers": 2.0}},
		map[string]any{"name": "b", "status": "UP"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	health.Stopping()
	expect("stopping", map[string]int{"/readiness": 503, "/liveness": 200})
	if _, body := get(t, h, "/liveness"); strings.TrimSpace(body) != `{"status":"UP","checks":[]}` {
		t.Errorf("got %s", body)
	}
}

func TestSlowCheckIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		health := observe.NewHealth()
		health.Liveness("slow", func(ctx context.Context) (bool, map[string]any) {
			<-ctx.Done()
			return false, map[string]any{"error": "timed out"}
		})
		if code, body := get(t, observe.NewHandler(health, nil), "/liveness"); code != 503 || !strings.Contains(body, "timed out") {
			t.Errorf("got %d %s", code, body)
		}
	})
}

func TestChecksChangeWhileAsked(t *testing.T) {
	health := observe.NewHealth()
	h := observe.NewHandler(health, nil)
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d"} {
		wg.Go(func() { health.Readiness(name, up(nil)); health.Remove(name) })
		wg.Go(func() { get(t, h, "/readiness") })
	}
	wg.Wait()
}

func TestLogger(t *testing.T) {
	for format, want := range map[string]string{"text": "level=WARN msg=shown tenant=T", "json": `"level":"WARN","msg":"shown","tenant":"T"`, "auto": `"msg":"shown"`, "": `"msg":"shown"`} {
		var out bytes.Buffer
		log, err := observe.NewLogger(&out, observe.LogOptions{Level: "warn", Format: format})
		if err != nil {
			t.Fatal(err)
		}
		log.Info("hidden")
		log.Warn("shown", slog.String("tenant", "T"))
		if got := out.String(); !strings.Contains(got, want) || strings.Contains(got, "hidden") {
			t.Errorf("%s: got %s", format, got)
		}
	}
	for _, o := range []observe.LogOptions{{Level: "loud"}, {Format: "xml"}} {
		if _, err := observe.NewLogger(io.Discard, o); err == nil {
			t.Errorf("%+v: want an error", o)
		}
	}
}

func TestVersion(t *testing.T) {
	if observe.Version() == "" || !strings.HasPrefix(observe.GoVersion(), "go") {
		t.Errorf("got %q, %q", observe.Version(), observe.GoVersion())
	}
	observe.SetVersion("v1.2.3")
	t.Cleanup(func() { observe.SetVersion("") })
	if got := observe.Version(); got != "v1.2.3" {
		t.Errorf("got %q", got)
	}
}
