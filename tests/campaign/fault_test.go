package campaign_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/pgstore"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
)

const (
	registrations = 1000
	registrars    = 50 // connections
)

// faultRounds is how often the store is killed.
func faultRounds() int {
	switch runs() {
	case some:
		return 3
	case full:
		return 50
	}
	return 1
}

// TestWriterKilled kills the functions, whose registry is a file, in the middle of
// 1,000 registrations over the management API: every one that was acknowledged is
// there, none twice, and the feed has no gap.
func TestWriterKilled(t *testing.T) {
	p := newParts(t, "")
	p.ingress = ""
	p.startFunction(t)
	rounds := faultRounds()
	sum := fault(t, p, rounds, func() { p.function.kill() }, func() {
		p.function = startPart(t, p.function.name, p.function.args)
		p.function.awaitListener(t, p.management)
	}, false)
	p.function.stop(t)
	s, err := sqlitestore.Open(t.Context(), filepath.Join(p.data("function-identity-0"), "registry.db"), sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	checkFeeds(t, s, rounds)
	t.Logf("%d kills: %s", rounds, sum)
}

// TestPostgresKilled kills PostgreSQL below the functions instead. They stay, and say
// when to come back.
func TestPostgresKilled(t *testing.T) {
	db := pgtest.Start(t)
	p := newParts(t, fmt.Sprintf("registry: {store: postgres, url: %q}\n", db.URL))
	p.ingress = ""
	p.startFunction(t)
	rounds := faultRounds()
	sum := fault(t, p, rounds, func() { db.Kill(t) }, func() { db.Restart(t) }, true)
	p.function.stop(t)
	s, err := pgstore.Open(t.Context(), db.URL, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	checkFeeds(t, s, rounds)
	t.Logf("%d kills: %s", rounds, sum)
}

// assault is the registrations of one tenant while its store goes away and comes back.
type assault struct {
	p            *parts
	tenant       string
	client       *http.Client
	answers      bool // whoever is refused is told so, with a time
	next         atomic.Int64
	acknowledged atomic.Int64
	under        atomic.Int64 // acknowledged before the kill
	refused      atomic.Int64 // answered with 503
	broken       atomic.Int64 // not answered
	found        atomic.Int64 // not answered with 201, and there at the next attempt
	up           chan struct{}
}

func (a *assault) String() string {
	return fmt.Sprintf("%d registrations acknowledged before the kill, %d answered with 503, %d not answered; %d of them had been made",
		a.under.Load(), a.refused.Load(), a.broken.Load(), a.found.Load())
}

func (a *assault) add(b *assault) {
	a.under.Add(b.under.Load())
	a.refused.Add(b.refused.Load())
	a.broken.Add(b.broken.Load())
	a.found.Add(b.found.Load())
}

// fault runs the rounds, each in a tenant of its own, and sums them up.
func fault(t *testing.T, p *parts, rounds int, kill, restart func(), answers bool) *assault {
	t.Helper()
	sum := &assault{}
	for round := range rounds {
		transport := &http.Transport{MaxIdleConnsPerHost: registrars, MaxConnsPerHost: registrars}
		a := &assault{p: p, tenant: tenantOf(round), answers: answers, up: make(chan struct{}),
			client: &http.Client{Timeout: patience, Transport: transport}}
		p.operator(t, http.MethodPost, "tenants/"+a.tenant, "application/json", strings.NewReader("{}"), http.StatusCreated)
		var all sync.WaitGroup
		for range registrars {
			all.Go(func() { a.work(t) })
		}
		for after := rand.Int64N(registrations * 3 / 4); a.acknowledged.Load() < after; {
			time.Sleep(100 * time.Microsecond)
		}
		kill()
		a.under.Store(a.acknowledged.Load())
		if answers {
			for a.refused.Load() == 0 { // or the database is back before anybody noticed
				time.Sleep(time.Millisecond)
			}
		}
		restart()
		close(a.up)
		all.Wait()
		transport.CloseIdleConnections()
		if got := a.acknowledged.Load(); got != registrations {
			t.Fatalf("round %d: %d registrations came to an end; want %d", round, got, registrations)
		}
		a.checkEachThere(t)
		sum.add(a)
	}
	return sum
}

func tenantOf(round int) string { return fmt.Sprintf("ROUND-%d", round) }

// work registers devices until all are done. Who is not told that the device was made
// asks again, and may then learn that it exists.
func (a *assault) work(t *testing.T) {
	for {
		n := a.next.Add(1)
		if n > registrations {
			return
		}
		deadline := time.Now().Add(patience)
		for uncertain := false; ; uncertain = true {
			status, err := a.register(t.Context(), fmt.Sprint("D", n))
			switch {
			case status == http.StatusCreated:
				a.acknowledged.Add(1)
			case status == http.StatusConflict && uncertain:
				a.found.Add(1)
				a.acknowledged.Add(1)
			case status == http.StatusServiceUnavailable && err == nil:
				a.refused.Add(1)
			case status == 0 && !a.answers:
				a.broken.Add(1)
			default:
				t.Errorf("device %d: %d, %v", n, status, err)
				return
			}
			if status == http.StatusCreated || status == http.StatusConflict {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("device %d: still %d, %v", n, status, err)
				return
			}
			select {
			case <-a.up:
				time.Sleep(10 * time.Millisecond)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// register returns the status, 0 without an answer, and an error when a 503 does not
// say when to come back.
func (a *assault) register(ctx context.Context, device string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+a.p.management+"/v1/devices/"+a.tenant+"/"+device, strings.NewReader("{}"))
	if err != nil {
		return -1, err
	}
	req.SetBasicAuth("admin", secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil && resp.StatusCode != http.StatusCreated {
		return 0, err
	}
	if resp.StatusCode == http.StatusServiceUnavailable {
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || s < 1 {
			return resp.StatusCode, fmt.Errorf("Retry-After %q in %.200s", resp.Header.Get("Retry-After"), text)
		}
	}
	return resp.StatusCode, nil
}

// checkEachThere reads the devices as an operator does.
func (a *assault) checkEachThere(t *testing.T) {
	t.Helper()
	const size = 200
	seen := map[string]int{}
	for page := range registrations / size {
		query := url.Values{"pageSize": {fmt.Sprint(size)}, "pageOffset": {fmt.Sprint(page)}}
		var found struct {
			Total  int
			Result []struct{ ID string }
		}
		text := a.p.operator(t, http.MethodGet, "devices/"+a.tenant+"?"+query.Encode(), "", nil, http.StatusOK)
		if err := json.Unmarshal(text, &found); err != nil || found.Total != registrations {
			t.Fatalf("%s has %d devices, %v; want %d", a.tenant, found.Total, err, registrations)
		}
		for _, d := range found.Result {
			seen[d.ID]++
		}
	}
	for n := range registrations {
		if id := fmt.Sprint("D", n+1); seen[id] != 1 {
			t.Errorf("%s: %s is there %d times", a.tenant, id, seen[id])
		}
	}
}

// checkFeeds wants one change for each device, and no gap.
func checkFeeds(t *testing.T, feed registry.Feed, rounds int) {
	t.Helper()
	for round := range rounds {
		tenant := iot.TenantID(tenantOf(round))
		changes, more, err := feed.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{tenant: 0}}, 10*registrations)
		if err != nil || more {
			t.Fatalf("%s: %v, more %t", tenant, err, more)
		}
		made := map[iot.DeviceID]int{}
		for i, c := range changes {
			if c.Sequence != uint64(i+1) {
				t.Fatalf("%s: sequence %d is at place %d", tenant, c.Sequence, i+1)
			}
			if c.Kind == registry.DeviceChanged {
				made[c.Device]++
			}
		}
		if len(made) != registrations || len(changes) != registrations+1 {
			t.Errorf("%s: the feed has %d changes of %d devices; want %d and %d", tenant, len(changes), len(made), registrations+1, registrations)
		}
	}
}
