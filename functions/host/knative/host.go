package knative

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"knative.dev/pkg/network/handlers"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/internal/status"
)

const (
	// DefaultQuietPeriod is how long no request must come before draining ends.
	DefaultQuietPeriod = time.Second
	// maxDrain bounds draining where requests never cease.
	maxDrain = 30 * time.Second
)

// The words of package host, under the names that this host's users know.
type (
	Kind       = host.Kind
	Caller     = host.Caller
	CallerFunc = host.CallerFunc
)

// The kinds of callers; see package host.
const (
	Adapter  = host.Adapter
	Router   = host.Router
	Function = host.Function
	Operator = host.Operator
)

// CertificateCaller is [host.CertificateCaller].
func CertificateCaller(r *http.Request) (Caller, error) { return host.CertificateCaller(r) }

// Config says what is hosted. Name, Functions and Caller are required. The
// members up to Management are those of [host.Config].
type Config struct {
	Name        string
	Functions   []events.Function
	Caller      CallerFunc
	Log         *slog.Logger
	MaxBody     int64
	MaxBatch    int
	MaxInFlight int
	Management  http.Handler

	Ready       func(context.Context) error // asked by /readyz; nil = ready once started
	QuietPeriod time.Duration               // draining ends after so long without a request; below 0 = at once
}

// Host is the handler of one function host. Safe for concurrent use.
type Host struct {
	log     *slog.Logger
	quiet   time.Duration
	isReady func(context.Context) error
	drainer *handlers.Drainer
}

// New checks cfg and returns the handler; it listens nowhere.
func New(cfg Config) (*Host, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.QuietPeriod == 0 {
		cfg.QuietPeriod = DefaultQuietPeriod
	}
	e, err := host.New(host.Config{
		Name: cfg.Name, Functions: cfg.Functions, Caller: cfg.Caller, Log: cfg.Log,
		MaxBody: cfg.MaxBody, MaxBatch: cfg.MaxBatch, MaxInFlight: cfg.MaxInFlight, Management: cfg.Management,
	})
	if err != nil {
		return nil, err
	}
	h := &Host{log: cfg.Log, quiet: cfg.QuietPeriod, isReady: cfg.Ready}
	h.drainer = &handlers.Drainer{Inner: e, HealthCheck: h.ready, QuietPeriod: max(cfg.QuietPeriod, time.Millisecond)}
	return h, nil
}

// ServeHTTP implements [http.Handler].
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		// Not by the drainer: a store that is down, or a host that drains, is
		// nothing that a restart would mend.
		w.WriteHeader(http.StatusOK)
		return
	case "/readyz":
		// The drainer answers what looks like a probe of the platform, and so it
		// alone decides when the host stops being ready.
		r = r.Clone(r.Context())
		r.Header.Set("User-Agent", "kube-probe/readyz")
	}
	h.drainer.ServeHTTP(w, r)
}

// Drain makes the host unready and returns once no request came for the quiet
// period, or after 30 s; requests that come meanwhile are answered.
func (h *Host) Drain() {
	if h.quiet <= 0 {
		return
	}
	enough := time.AfterFunc(maxDrain, h.drainer.Reset)
	defer enough.Stop()
	h.drainer.Drain()
}

func (h *Host) ready(w http.ResponseWriter, r *http.Request) {
	if h.isReady != nil {
		if err := h.isReady(r.Context()); err != nil {
			http.Error(w, status.Text(err), http.StatusServiceUnavailable)
			return
		}
	}
	w.WriteHeader(http.StatusOK)
}
