package http_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestFailures(t *testing.T) {
	internal := errors.New("pq: password of db is hunter2")
	for _, tt := range []struct {
		name             string
		admission, send  error
		want             int
		body, retryAfter string
	}{
		{"no consumer", nil, iot.ErrNoCredit, 503, adapters.TextNoConsumer, "2"},
		{"not settled", nil, iot.ErrTimeout, 503, adapters.TextNoOutcome, "2"},
		{"released", nil, iot.Errorf(iot.ErrUnavailable, "%s", adapters.TextNotProcessed), 503, adapters.TextNotProcessed, "2"},
		{"no router", nil, iot.ErrUnavailable, 503, adapters.TextUnavailable, "2"},
		{"rejected", nil, iot.Errorf(iot.ErrInvalid, `no "number"`), 400, `no \"number\"`, ""},
		{"too large for the router", nil, iot.ErrTooLarge, 413, "message is too large", ""},
		{"unknown from downstream", nil, internal, 503, adapters.TextUnavailable, "2"},
		{"registry unreachable", iot.ErrUnavailable, nil, 503, adapters.TextUnavailable, "2"},
		{"registry wants a pause", &iot.Error{Sentinel: iot.ErrUnavailable, Text: "busy", RetryAfter: 5 * time.Second}, nil, 503, "busy", "5"},
		{"registry slow", iot.ErrTimeout, nil, 503, adapters.TextUnavailable, "2"},
		{"unknown from admission", internal, nil, 503, adapters.TextUnavailable, "2"},
		{"quota", &iot.Error{Sentinel: iot.ErrQuota, Text: "too much", RetryAfter: 1500 * time.Millisecond}, nil, 429, "too much", "2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, http.Options{}, adapters.Options{})
			w.inv.Fail(tt.admission)
			w.down.Outcome(func(*iot.Message) error { return tt.send })
			rec := w.do("POST", "/telemetry", "x", as(adaptertest.Device), text, "QoS-Level: 1")
			if want := `{"error":"` + tt.body + `"}`; rec.Code != tt.want || rec.Body.String() != want {
				t.Errorf("got %d %s, want %d %s", rec.Code, rec.Body, tt.want, want)
			}
			if got := rec.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
				t.Errorf("got content type %q", got)
			}
			if got := rec.Header().Get("Retry-After"); got != tt.retryAfter {
				t.Errorf("got Retry-After %q, want %q", got, tt.retryAfter)
			}
		})
	}
}

func TestEventsThatAreNotStored(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	w.down.Outcome(func(*iot.Message) error { return iot.ErrNoCredit })
	rec := w.do("POST", "/event", "x", as(adaptertest.Device), text)
	if want := `{"error":"events cannot be stored now"}`; rec.Code != 503 || rec.Body.String() != want || rec.Header().Get("Retry-After") != "2" {
		t.Errorf("got %d %s, Retry-After %q; want 503 %s, 2", rec.Code, rec.Body, rec.Header().Get("Retry-After"), want)
	}
	if rec = w.do("POST", "/event", "x", as(adaptertest.Device), text, "QoS-Level: 0"); rec.Code != 400 {
		t.Errorf("QoS 0: got %d, want 400", rec.Code)
	}
	if rec = w.do("POST", "/event", "x", basic("device-1@tenant-1", "wrong"), text); rec.Code != 401 {
		t.Errorf("wrong password: got %d, want 401", rec.Code)
	}
}

func TestTooManyAttempts(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	for i := range 11 {
		rec := w.do("POST", "/telemetry", "x", basic("device-1@tenant-1", "wrong"), text)
		want := 401
		if i == 10 {
			want = 429
		}
		if rec.Code != want || (rec.Header().Get("Retry-After") != "") != (want == 429) {
			t.Errorf("attempt %d: got %d, Retry-After %q; want %d", i, rec.Code, rec.Header().Get("Retry-After"), want)
		}
	}
}
