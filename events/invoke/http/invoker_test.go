package http_test

import (
	"context"
	"errors"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/events/invoke/http"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// host answers the nth try (from 1) as the test says.
func host(t *testing.T, answer func(try int, w nethttp.ResponseWriter, r *nethttp.Request)) (*http.Invoker, *atomic.Int32) {
	t.Helper()
	var tries atomic.Int32
	srv := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		answer(int(tries.Add(1)), w, r)
	}))
	t.Cleanup(srv.Close)
	inv, err := http.New(http.Config{URL: srv.URL, Source: "//sluice.test/adapters/a-0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inv.Close)
	return inv, &tries
}

// reply answers the call in r with a tenant or an error.
func reply(t *testing.T, w nethttp.ResponseWriter, r *nethttp.Request, mode cehttp.Mode, fail error) {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	call, err := cehttp.Read(r.Header, body)
	if err != nil {
		t.Error(err)
	}
	out := events.EncodeError(&call, "//sluice.test/functions/tenant", fail, time.Now())
	if fail == nil {
		out, err = events.EncodeReply(&call, "//sluice.test/functions/tenant", &events.TenantGot{TenantObject: events.TenantObject{ID: "T"}, CacheFor: time.Minute}, time.Now())
		if err != nil {
			t.Error(err)
		}
	}
	if err := cehttp.WriteResponse(w, mode, events.StatusCode(&out), &out); err != nil {
		t.Error(err)
	}
}

func TestTries(t *testing.T) {
	unavailable := iot.Errorf(iot.ErrUnavailable, "store down")
	plain := func(code int) func(*testing.T, nethttp.ResponseWriter, *nethttp.Request) {
		return func(_ *testing.T, w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(code) }
	}
	fails := func(err error) func(*testing.T, nethttp.ResponseWriter, *nethttp.Request) {
		return func(t *testing.T, w nethttp.ResponseWriter, r *nethttp.Request) { reply(t, w, r, cehttp.Binary, err) }
	}
	cut := func(*testing.T, nethttp.ResponseWriter, *nethttp.Request) { panic(nethttp.ErrAbortHandler) }
	for _, tt := range []struct {
		name   string
		answer []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request) // the last one repeats
		tries  int32
		want   error
	}{
		{"at once", []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request){fails(nil)}, 1, nil},
		{"second try", []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request){fails(unavailable), fails(nil)}, 2, nil},
		{"third try", []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request){plain(502), cut, fails(nil)}, 3, nil},
		{"never", []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request){fails(unavailable)}, 3, iot.ErrUnavailable},
		{"internal is tried once more", []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request){fails(errors.New("x"))}, 2, status.ErrInternal},
		{"a quota without time is final", []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request){fails(iot.Errorf(iot.ErrQuota, "x"))}, 1, iot.ErrQuota},
		{"not found is final", []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request){fails(iot.Errorf(iot.ErrNotFound, "x"))}, 1, iot.ErrNotFound},
		{"unauthenticated is final", []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request){fails(iot.Errorf(iot.ErrUnauthenticated, "x"))}, 1, iot.ErrUnauthenticated},
		{"a status of somebody else says nothing of a device", []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request){plain(404)}, 3, iot.ErrUnavailable},
		{"redirects are not followed", []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request){plain(307)}, 3, iot.ErrUnavailable},
		{"success without CloudEvent", []func(*testing.T, nethttp.ResponseWriter, *nethttp.Request){plain(200)}, 3, iot.ErrUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ids := map[string]bool{}
			inv, tries := host(t, func(try int, w nethttp.ResponseWriter, r *nethttp.Request) {
				ids[r.Header.Get("Ce-Id")] = true
				tt.answer[min(try, len(tt.answer))-1](t, w, r)
			})
			got, err := events.Call(t.Context(), inv, events.TenantGet{ID: "T"})
			if !errors.Is(err, tt.want) || (tt.want == nil && (err != nil || got.ID != "T" || got.MaxAge() != time.Minute)) {
				t.Errorf("got %+v, %v, want %v", got, err, tt.want)
			}
			if n := tries.Load(); n != tt.tries {
				t.Errorf("%d tries, want %d", n, tt.tries)
			}
			if len(ids) != 1 {
				t.Errorf("%d ids in one call", len(ids))
			}
		})
	}
}

func TestStructuredReplies(t *testing.T) {
	inv, _ := host(t, func(_ int, w nethttp.ResponseWriter, r *nethttp.Request) { reply(t, w, r, cehttp.Structured, nil) })
	if got, err := events.Call(t.Context(), inv, events.TenantGet{ID: "T"}); err != nil || got.ID != "T" || got.MaxAge() != time.Minute {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestTheCallOnTheWire(t *testing.T) {
	inv, _ := host(t, func(_ int, w nethttp.ResponseWriter, r *nethttp.Request) {
		h := r.Header
		if h.Get("Ce-Type") != "io.sluice.registration.assert" || h.Get("Ce-Tenantid") != "DEMO" || h.Get("Ce-Subject") != "4711" ||
			h.Get("Content-Type") != "application/json" || h.Get("Ce-Source") != "//sluice.test/adapters/a-0" || h.Get("Idempotency-Key") != "" {
			t.Errorf("headers %v", h)
		}
		if ms := h.Get("Ce-Timeoutms"); len(ms) != 4 { // a little under 5,000
			t.Errorf("timeoutms %s", ms)
		}
		w.WriteHeader(503)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, _ = inv.Invoke(ctx, events.RegistrationAssert{TenantID: "DEMO", DeviceID: "4711"})
}

func TestRetryAfterBeyondTheDeadlineEndsTheCall(t *testing.T) {
	for name, answer := range map[string]func(w nethttp.ResponseWriter, r *nethttp.Request){
		"in the data": func(w nethttp.ResponseWriter, r *nethttp.Request) {
			reply(t, w, r, cehttp.Binary, &iot.Error{Sentinel: iot.ErrUnavailable, Text: "later", RetryAfter: time.Hour})
		},
		"in the header": func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(503)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inv, tries := host(t, func(_ int, w nethttp.ResponseWriter, r *nethttp.Request) { answer(w, r) })
			_, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"})
			if !errors.Is(err, iot.ErrUnavailable) || iot.RetryAfter(err) != time.Hour || tries.Load() != 1 {
				t.Errorf("%v, retry after %s, %d tries", err, iot.RetryAfter(err), tries.Load())
			}
		})
	}
}

func TestTheDeadlineEndsATry(t *testing.T) {
	inv, _ := host(t, func(_ int, _ nethttp.ResponseWriter, r *nethttp.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server sees the client leave once the body is read
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := inv.Invoke(ctx, events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrTimeout) {
		t.Errorf("got %v, want ErrTimeout", err)
	}
}

func TestAReplyWithoutEnd(t *testing.T) {
	inv, _ := host(t, func(_ int, w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Ce-Specversion", "1.0")
		for range http.MaxReplyBytes/(64<<10) + 2 {
			if _, err := io.WriteString(w, strings.Repeat("x", 64<<10)); err != nil {
				return
			}
		}
	})
	if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []http.Config{
		{URL: "identity:8443", Source: "//x/y/z"}, {URL: "ftp://x", Source: "//x/y/z"}, {URL: "https://", Source: "//x/y/z"}, {URL: "https://x"},
	} {
		if _, err := http.New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
	inv, err := http.New(http.Config{URL: "http://127.0.0.1:1", Source: "//x/y/z"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("nobody listens: %v", err)
	}
}
