package observe

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// checkTimeout bounds one round of checks; one that takes longer counts as down.
const checkTimeout = 2 * time.Second

// Check reports whether a part works, with facts for people that may be nil. It
// must return when ctx ends, and must not show secrets.
type Check func(ctx context.Context) (up bool, data map[string]any)

// Health is the state of the program in three questions: has it started, can it take
// work (readiness), must it be restarted (liveness). Safe for concurrent use.
type Health struct {
	started atomic.Bool

	mu        sync.Mutex
	readiness []namedCheck
	liveness  []namedCheck
}

type namedCheck struct {
	name  string
	check Check
}

// NewHealth returns a state that has not started.
func NewHealth() *Health { return &Health{} }

// Started says that every listener is open; until then the program is not ready.
func (h *Health) Started() { h.started.Store(true) }

// Stopping says that the program takes no more work, so that nobody sends it some.
func (h *Health) Stopping() { h.started.Store(false) }

// Readiness adds a check, or replaces the one by that name.
func (h *Health) Readiness(name string, c Check) { h.set(&h.readiness, name, c) }

// Liveness adds a check, or replaces the one by that name. A failing one gets the
// program restarted: what a restart does not mend belongs to readiness.
func (h *Health) Liveness(name string, c Check) { h.set(&h.liveness, name, c) }

// Remove takes away the checks by that name.
func (h *Health) Remove(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gone := func(c namedCheck) bool { return c.name == name }
	h.readiness = slices.DeleteFunc(slices.Clone(h.readiness), gone)
	h.liveness = slices.DeleteFunc(slices.Clone(h.liveness), gone)
}

// set copies, because a round of checks may be using the list.
func (h *Health) set(list *[]namedCheck, name string, c Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := slices.Clone(*list)
	if i := slices.IndexFunc(next, func(o namedCheck) bool { return o.name == name }); i >= 0 {
		next[i].check = c
	} else {
		next = append(next, namedCheck{name, c})
		slices.SortFunc(next, func(a, b namedCheck) int { return strings.Compare(a.name, b.name) })
	}
	*list = next
}

// document is a MicroProfile Health answer.
type document struct {
	Status string   `json:"status"`
	Checks []result `json:"checks"`
}

type result struct {
	Name   string         `json:"name"`
	Status string         `json:"status"`
	Data   map[string]any `json:"data,omitempty"`
}

func status(up bool) string {
	if up {
		return "UP"
	}
	return "DOWN"
}

func (h *Health) startedResult(context.Context) (bool, map[string]any) {
	return h.started.Load(), map[string]any{"version": Version()}
}

// run asks all checks at once.
func run(ctx context.Context, checks []namedCheck) (doc document, up bool) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	doc.Checks = make([]result, len(checks))
	ups := make([]bool, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			ok, data := c.check(ctx)
			ups[i] = ok
			doc.Checks[i] = result{Name: c.name, Status: status(ok), Data: data}
		})
	}
	wg.Wait()
	up = !slices.Contains(ups, false)
	doc.Status = status(up)
	return doc, up
}

func (h *Health) handler(checks func() []namedCheck) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		doc, up := run(r.Context(), checks())
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if !up {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(doc) // the client is gone; nobody to tell
	})
}

func (h *Health) snapshot(list *[]namedCheck) []namedCheck {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *list
}

// NewHandler returns the handler of the health listener: /started, /readiness (also
// /readyz), /liveness (also /healthz) and, unless metrics is nil, /prometheus (also
// /metrics). More routes may be added to it before it serves.
func NewHandler(h *Health, metrics http.Handler) *http.ServeMux {
	started := namedCheck{"started", h.startedResult}
	ready := h.handler(func() []namedCheck { return append([]namedCheck{started}, h.snapshot(&h.readiness)...) })
	live := h.handler(func() []namedCheck { return h.snapshot(&h.liveness) })
	mux := http.NewServeMux()
	mux.Handle("GET /started", h.handler(func() []namedCheck { return []namedCheck{started} }))
	for _, path := range []string{"/readiness", "/readyz"} {
		mux.Handle("GET "+path, ready)
	}
	for _, path := range []string{"/liveness", "/healthz"} {
		mux.Handle("GET "+path, live)
	}
	if metrics != nil {
		for _, path := range []string{"/prometheus", "/metrics"} {
			mux.Handle("GET "+path, metrics)
		}
	}
	return mux
}
