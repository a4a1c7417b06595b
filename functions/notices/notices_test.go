package notices_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/notices"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// poster takes facts, or does with them as told.
type poster struct {
	mu    sync.Mutex
	facts []events.Fact
	posts int
	do    func(ctx context.Context, post int) error
}

func (p *poster) Post(ctx context.Context, facts []events.Fact) error {
	p.mu.Lock()
	p.posts++
	n := p.posts
	p.mu.Unlock()
	if p.do != nil {
		if err := p.do(ctx, n); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.facts = append(p.facts, facts...)
	return nil
}

func changes(n int) []registry.Change {
	list := make([]registry.Change, n)
	for i := range list {
		list[i] = registry.Change{Tenant: "T", Sequence: uint64(i + 1), Kind: registry.DeviceChanged,
			Device: iot.DeviceID(fmt.Sprint("d", i)), Change: registry.Create, Enabled: true, At: time.Unix(1, 0)}
	}
	return list
}

func TestEveryKindIsTold(t *testing.T) {
	p := &poster{}
	o := notices.New(p, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the caller is gone, the change is not
	at := time.Unix(5, 0).UTC()
	o.Observe(ctx, []registry.Change{
		{Tenant: "T", Sequence: 7, Kind: registry.TenantChanged, Change: registry.Update, Enabled: true, InvalidateCache: true, At: at},
		{Tenant: "T", Sequence: 8, Kind: registry.DeviceChanged, Device: "d", Change: registry.Delete, At: at},
		{Tenant: "T", Sequence: 9, Kind: registry.CredentialsChanged, Device: "d", At: at},
		{Tenant: "T", Sequence: 10, Kind: registry.DevicesDeleted, At: at},
	})
	want := []events.Fact{
		events.RegistryChanged{Type: events.TypeTenantChanged, TenantID: "T", Sequence: 7, Change: "UPDATE", Enabled: true, InvalidateCache: true, At: at},
		events.RegistryChanged{Type: events.TypeDeviceChanged, TenantID: "T", Sequence: 8, DeviceID: "d", Change: "DELETE", At: at},
		events.RegistryChanged{Type: events.TypeCredentialsChanged, TenantID: "T", Sequence: 9, DeviceID: "d", At: at},
		events.RegistryChanged{Type: events.TypeDevicesDeleted, TenantID: "T", Sequence: 10, At: at},
	}
	if len(p.facts) != len(want) {
		t.Fatalf("posted %d, want %d", len(p.facts), len(want))
	}
	for i := range want {
		if p.facts[i] != want[i] {
			t.Errorf("got %+v, want %+v", p.facts[i], want[i])
		}
	}
	o.Observe(t.Context(), nil)
	if taken, left := o.Counts(); p.posts != 1 || taken != 4 || left != 0 {
		t.Errorf("%d posts, %d taken, %d left", p.posts, taken, left)
	}
}

func TestBurstsAreBatched(t *testing.T) {
	p := &poster{}
	o := notices.New(p, slog.New(slog.DiscardHandler))
	o.Observe(t.Context(), changes(1000))
	if p.posts != 4 || len(p.facts) != 1000 {
		t.Errorf("%d posts with %d facts", p.posts, len(p.facts))
	}
	for i, f := range p.facts {
		if f.(events.RegistryChanged).Sequence != uint64(i+1) {
			t.Fatalf("fact %d has sequence %d", i, f.(events.RegistryChanged).Sequence)
		}
	}
}

func TestOneRouterAwayKeepsNothingFromTheOthers(t *testing.T) {
	var out bytes.Buffer
	p := &poster{do: func(_ context.Context, n int) error {
		if n == 2 {
			return errors.New("router b: connection refused")
		}
		return nil
	}}
	o := notices.New(p, slog.New(slog.NewTextHandler(&out, nil)))
	o.Observe(t.Context(), changes(750))
	if taken, left := o.Counts(); p.posts != 3 || taken != 500 || left != 250 {
		t.Errorf("%d posts, %d taken, %d left", p.posts, taken, left)
	}
	if s := out.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "changes=250") || !strings.Contains(s, "sequence=251") {
		t.Errorf("logged %q", s)
	}
}

// TestTheCallerWaitsHalfASecond also shows that a bulk change does not wait
// that long for every batch while nobody answers.
func TestTheCallerWaitsHalfASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := true
		p := &poster{do: func(ctx context.Context, _ int) error {
			if !dead {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		o := notices.New(p, slog.New(slog.DiscardHandler))
		for i, want := range []time.Duration{500 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond} {
			start := time.Now()
			o.Observe(t.Context(), changes(1000))
			if took := time.Since(start); took != want || p.posts != i+1 {
				t.Errorf("call %d took %s, want %s; %d posts", i, took, want, p.posts)
			}
		}
		time.Sleep(6 * time.Second)
		start := time.Now()
		o.Observe(t.Context(), changes(1))
		if took := time.Since(start); took != 500*time.Millisecond {
			t.Errorf("later it took %s", took)
		}
		dead = false
		o.Observe(t.Context(), changes(1))
		if taken, left := o.Counts(); taken != 1 || left != 3001 {
			t.Errorf("%d taken, %d left", taken, left)
		}
	})
}
