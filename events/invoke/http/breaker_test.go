package http_test

import (
	"context"
	"errors"
	nethttp "net/http"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/events/invoke"
	"github.com/sluice-iot/sluice/events/invoke/http"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestTheCircuitOpensByWhatIsNoAnswer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(t *testing.T, w nethttp.ResponseWriter, r *nethttp.Request)
		opens  bool
	}{
		{"cut", func(*testing.T, nethttp.ResponseWriter, *nethttp.Request) { panic(nethttp.ErrAbortHandler) }, true},
		{"a proxy's 502", func(_ *testing.T, w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(502) }, true},
		{"this component is not admitted", func(_ *testing.T, w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(403) }, false},
		{"the function says that its store is down", func(t *testing.T, w nethttp.ResponseWriter, r *nethttp.Request) {
			reply(t, w, r, cehttp.Binary, iot.Errorf(iot.ErrUnavailable, "store down"))
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first, tries := host(t, func(_ int, w nethttp.ResponseWriter, r *nethttp.Request) { tt.answer(t, w, r) })
			inv, err := http.New(http.Config{URL: first.URL(), Source: "//sluice.test/x/y", Breaker: invoke.BreakerOptions{Failures: 4, Open: time.Hour, MaxOpen: time.Hour}})
			if err != nil {
				t.Fatal(err)
			}
			defer inv.Close()
			for range 3 {
				if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrUnavailable) {
					t.Errorf("got %v", err)
				}
			}
			if opened := tries.Load() == 4; opened != tt.opens {
				t.Errorf("asked %d times", tries.Load())
			}
		})
	}
}

func TestBearerTokens(t *testing.T) {
	plain, _ := host(t, func(_ int, w nethttp.ResponseWriter, r *nethttp.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer t-1" {
			t.Errorf("Authorization: %q", got)
		}
		reply(t, w, r, cehttp.Binary, nil)
	})
	token, fail := "t-1", error(nil)
	inv, err := http.New(http.Config{URL: plain.URL(), Source: "//sluice.test/x/y", Token: func(context.Context) (string, error) { return token, fail }})
	if err != nil {
		t.Fatal(err)
	}
	defer inv.Close()
	if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); err != nil {
		t.Error(err)
	}
	fail = errors.New("no token file")
	if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
