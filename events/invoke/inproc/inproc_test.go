package inproc_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

func function(handle func(context.Context, events.TenantGet) (*events.TenantGot, error)) events.Function {
	return events.NewFunction(handle)
}

func TestInvoke(t *testing.T) {
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	f := function(func(_ context.Context, req events.TenantGet) (*events.TenantGot, error) {
		switch req.ID {
		case "panic":
			panic("the secret")
		case "bug":
			count(nil)
		case "missing":
			return nil, iot.Errorf(iot.ErrNotFound, "no such tenant")
		}
		return &events.TenantGot{TenantObject: events.TenantObject{ID: req.ID}, CacheFor: time.Minute}, nil
	})
	direct, err := inproc.New(log, f)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := inproc.NewEncoded(log, f)
	if err != nil {
		t.Fatal(err)
	}
	for name, inv := range map[string]events.Invoker{"direct": direct, "encoded": encoded} {
		t.Run(name, func(t *testing.T) {
			got, err := events.Call(t.Context(), inv, events.TenantGet{ID: "T"})
			if err != nil || got.ID != "T" || got.MaxAge() != time.Minute {
				t.Errorf("got %+v, %v", got, err)
			}
			for id, want := range map[iot.TenantID]error{"panic": status.ErrInternal, "bug": status.ErrInternal, "missing": iot.ErrNotFound} {
				if _, err := events.Call(t.Context(), inv, events.TenantGet{ID: id}); !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", id, err, want)
				}
			}
			if _, err := inv.Invoke(t.Context(), events.AssertionKeys{}); !errors.Is(err, status.ErrUnknownType) {
				t.Errorf("no function: %v", err)
			}
			done, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := inv.Invoke(done, events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrUnavailable) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
	if s := logged.String(); !strings.Contains(s, "panicked") || !strings.Contains(s, "nil map") || strings.Contains(s, "the secret") {
		t.Errorf("log: %s", s)
	}
	if _, err := inproc.New(log, f, f); err == nil {
		t.Error("two functions for one type are accepted")
	}
}

func TestTheDeadlineIsTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := function(func(ctx context.Context, _ events.TenantGet) (*events.TenantGot, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		inv, err := inproc.New(slog.New(slog.DiscardHandler), f)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		for _, tt := range []struct {
			ctx  context.Context
			want time.Duration
		}{{ctx, 3 * time.Second}, {t.Context(), 3*time.Second + events.DefaultBudget}} {
			if _, err := inv.Invoke(tt.ctx, events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrTimeout) {
				t.Errorf("got %v, want ErrTimeout", err)
			}
			if got := time.Since(start); got != tt.want {
				t.Errorf("ended after %s, want %s", got, tt.want)
			}
		}
	})
}

// count panics when counts is nil.
func count(counts map[string]int) { counts["x"]++ }
