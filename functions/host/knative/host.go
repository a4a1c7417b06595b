package knative

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"knative.dev/pkg/network/handlers"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// Limits where [Config] names none.
const (
	DefaultMaxBody     = 1 << 20 // bytes
	DefaultMaxBatch    = 100     // CloudEvents
	DefaultMaxInFlight = 256     // requests
	DefaultQuietPeriod = time.Second
)

// Config says what is hosted. Name, Functions and Caller are required.
type Config struct {
	Name      string // of the installation
	Functions []events.Function
	Caller    CallerFunc
	Log       *slog.Logger // default: discard

	MaxBody     int64
	MaxBatch    int
	MaxInFlight int                         // further requests are told to come again
	Ready       func(context.Context) error // asked by /readyz; nil = ready once started
	QuietPeriod time.Duration               // draining ends after so long without a request; below 0 = at once
}

// Host is the handler of one function host. Safe for concurrent use.
type Host struct {
	cfg        Config
	dispatcher *events.Dispatcher
	keys       *events.Function
	drainer    *handlers.Drainer
	slots      chan struct{}
}

// New checks cfg and returns the handler; it listens nowhere.
func New(cfg Config) (*Host, error) {
	if cfg.Name == "" || cfg.Caller == nil {
		return nil, errors.New("function host: name and caller check are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.MaxBatch <= 0 {
		cfg.MaxBatch = DefaultMaxBatch
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = DefaultMaxInFlight
	}
	if cfg.QuietPeriod == 0 {
		cfg.QuietPeriod = DefaultQuietPeriod
	}
	d, err := events.NewDispatcher(cfg.Name, cfg.Log, cfg.Functions...)
	if err != nil {
		return nil, fmt.Errorf("function host: %w", err)
	}
	h := &Host{cfg: cfg, dispatcher: d, slots: make(chan struct{}, cfg.MaxInFlight)}
	for i := range cfg.Functions {
		if cfg.Functions[i].Type() == events.TypeAssertionKeys {
			h.keys = &cfg.Functions[i]
		}
	}
	h.drainer = &handlers.Drainer{Inner: h.routes(), HealthCheck: h.ready, QuietPeriod: max(cfg.QuietPeriod, time.Millisecond)}
	return h, nil
}

func (h *Host) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", h.call)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	if h.keys != nil {
		mux.HandleFunc("GET /.well-known/jwks.json", h.serveKeys)
		mux.HandleFunc("GET /validating-keys", h.serveKeys)
	}
	return mux
}

// ServeHTTP implements [http.Handler].
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.recover(w, r)
	if r.URL.Path == "/readyz" {
		// The drainer answers what looks like a probe of the platform, and so it
		// alone decides when the host stops being ready.
		r = r.Clone(r.Context())
		r.Header.Set("User-Agent", "kube-probe/readyz")
	}
	h.drainer.ServeHTTP(w, r)
}

// Drain makes the host unready and returns once no request came for the quiet
// period; requests that come meanwhile are answered.
func (h *Host) Drain() {
	if h.cfg.QuietPeriod > 0 {
		h.drainer.Drain()
	}
}

func (h *Host) ready(w http.ResponseWriter, r *http.Request) {
	if h.cfg.Ready != nil {
		if err := h.cfg.Ready(r.Context()); err != nil {
			http.Error(w, status.Text(err), http.StatusServiceUnavailable)
			return
		}
	}
	w.WriteHeader(http.StatusOK)
}

// recover answers a fault of the host itself; those of functions end earlier.
func (h *Host) recover(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	h.cfg.Log.ErrorContext(r.Context(), "function host panicked", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	h.answer(w, r, cehttp.Binary, h.dispatcher.Refuse(none(), status.ErrInternal))
}

// serveKeys answers with the JWK set: public, so nobody is asked who he is.
func (h *Host) serveKeys(w http.ResponseWriter, r *http.Request) {
	rep, err := h.keys.Call(r.Context(), h.cfg.Log, events.AssertionKeys{})
	if err != nil {
		http.Error(w, status.Text(err), status.Of(err).Status)
		return
	}
	body, err := jsonOf(rep)
	if err != nil {
		http.Error(w, status.ErrInternal.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "max-age="+strconv.Itoa(int(min(rep.MaxAge(), publicKeyAge)/time.Second)))
	_, _ = w.Write(body)
}

// publicKeyAge bounds what a proxy may keep: readers that meet an unknown key
// id ask again and must then see the new key.
const publicKeyAge = 5 * time.Minute

// errBusy tells a caller to come again.
var errBusy = &iot.Error{Sentinel: iot.ErrUnavailable, Text: "too many calls at once", RetryAfter: time.Second}
