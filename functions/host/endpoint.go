package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// Limits where [Config] names none.
const (
	DefaultMaxBody     = 2 << 20 // bytes: 1 MiB of records, and as Base64 in structured mode
	DefaultMaxBatch    = 100     // CloudEvents
	DefaultMaxInFlight = 256     // requests
)

// Config says what is hosted. Name, Functions and Caller are required.
type Config struct {
	Name      string // of the installation
	Functions []events.Function
	Caller    CallerFunc
	Log       *slog.Logger // default: discard

	MaxBody     int64 // bytes of a call or batch
	MaxBatch    int
	MaxInFlight int // further requests are told to come again

	// Management, if not nil, answers what lies below /v1; it knows its own users.
	Management http.Handler
}

// Endpoint answers POST / and the GET requests for public keys. Safe for
// concurrent use.
type Endpoint struct {
	cfg        Config
	dispatcher *events.Dispatcher
	keys       *events.Function
	slots      chan struct{}
	mux        *http.ServeMux
}

// New checks cfg and returns the endpoint.
func New(cfg Config) (*Endpoint, error) {
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
	d, err := events.NewDispatcher(cfg.Name, cfg.Log, cfg.Functions...)
	if err != nil {
		return nil, fmt.Errorf("function host: %w", err)
	}
	e := &Endpoint{cfg: cfg, dispatcher: d, slots: make(chan struct{}, cfg.MaxInFlight), mux: http.NewServeMux()}
	for i := range cfg.Functions {
		if cfg.Functions[i].Type() == events.TypeAssertionKeys {
			e.keys = &cfg.Functions[i]
		}
	}
	e.mux.HandleFunc("POST /{$}", e.call)
	if e.keys != nil {
		e.mux.HandleFunc("GET /.well-known/jwks.json", e.serveKeys)
		e.mux.HandleFunc("GET /validating-keys", e.serveKeys)
	}
	if cfg.Management != nil {
		e.mux.Handle("/v1/", cfg.Management)
	}
	return e, nil
}

// Handle adds a route, before the endpoint serves.
func (e *Endpoint) Handle(pattern string, h http.Handler) { e.mux.Handle(pattern, h) }

// Dispatcher runs the functions for hosts that take CloudEvents otherwise than
// by HTTP.
func (e *Endpoint) Dispatcher() *events.Dispatcher { return e.dispatcher }

// ServeHTTP implements [http.Handler].
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer e.recover(w, r)
	e.mux.ServeHTTP(w, r)
}

// recover answers a fault of the host itself; those of functions end earlier.
func (e *Endpoint) recover(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	e.cfg.Log.ErrorContext(r.Context(), "function host panicked", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	e.answer(w, r, cehttp.Binary, e.Refuse(status.ErrInternal))
}

// Refuse makes the answer to what never became a call.
func (e *Endpoint) Refuse(err error) event.Event {
	none := event.New()
	return e.dispatcher.Refuse(&none, err)
}

// serveKeys answers with the JWK set: public, so nobody is asked who he is.
func (e *Endpoint) serveKeys(w http.ResponseWriter, r *http.Request) {
	body, age, err := e.publicKeys(r.Context())
	if err != nil {
		http.Error(w, status.Text(err), status.Of(err).Status)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "max-age="+strconv.Itoa(int(min(age, publicKeyAge)/time.Second)))
	_, _ = w.Write(body)
}

func (e *Endpoint) publicKeys(ctx context.Context) (body []byte, age time.Duration, err error) {
	rep, err := e.keys.Call(ctx, e.cfg.Log, events.AssertionKeys{})
	if err != nil {
		return nil, 0, err
	}
	body, err = json.Marshal(rep)
	return body, rep.MaxAge(), err
}

// publicKeyAge bounds what a proxy may keep: readers that meet an unknown key
// id ask again and must then see the new key.
const publicKeyAge = 5 * time.Minute

// errBusy tells a caller to come again.
var errBusy = &iot.Error{Sentinel: iot.ErrUnavailable, Text: "too many calls at once", RetryAfter: time.Second}
