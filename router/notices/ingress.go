package notices

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// Limits where [IngressOptions] names none. A writer's batch stays below them.
const (
	DefaultMaxBody     = 1 << 20 // bytes
	DefaultMaxBatch    = 1000    // CloudEvents
	DefaultMaxInFlight = 64      // requests; further ones are told to come again
)

// IngressOptions say who may bring facts and who takes them. Name and Take are required.
type IngressOptions struct {
	Name string // of the installation whose facts are taken
	// Take takes facts; see [Follower.Take].
	Take func(ctx context.Context, facts []events.Fact) error
	// Token returns the identity of a bearer token; nil = client certificates
	// only. See [auth.Directory.Token].
	Token func(ctx context.Context, token string) (*auth.Identity, error)

	MaxBody     int64
	MaxBatch    int
	MaxInFlight int
	Logger      *slog.Logger
}

// Ingress is where facts come to a router: POST /events, in every form of
// CloudEvents over HTTP (contract: events, section 5). It answers 202 when all
// are taken; 400, 401, 403, 413, 415 and 422 mean that the same request will
// never be, 503 that it may be later. The listener verifies client certificates
// against the installation's CA, where it is given one.
type Ingress struct {
	o        IngressOptions
	slots    chan struct{}
	refusals atomic.Int64
}

// NewIngress returns the handler; it panics without Name and Take.
func NewIngress(o IngressOptions) *Ingress {
	if o.Name == "" || o.Take == nil {
		panic("notices: an ingress needs a name and somebody who takes facts")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = DefaultMaxBatch
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = DefaultMaxInFlight
	}
	return &Ingress{o: o, slots: make(chan struct{}, o.MaxInFlight)}
}

// Refused returns how many requests were not taken.
func (i *Ingress) Refused() int64 { return i.refusals.Load() }

// ServeHTTP implements [http.Handler].
func (i *Ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/events" {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "facts are posted", http.StatusMethodNotAllowed)
		return
	}
	if err := i.serve(r); err != nil {
		i.refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func (i *Ingress) serve(r *http.Request) error {
	id, err := i.caller(r)
	if err != nil {
		return err
	}
	select {
	case i.slots <- struct{}{}:
		defer func() { <-i.slots }()
	default:
		return errBusy
	}
	mode := cehttp.ModeOf(r.Header)
	if mode == cehttp.None {
		return iot.Errorf(status.ErrNotCloudEvent, "want a CloudEvent: binary, %s or %s", cehttp.StructuredType, cehttp.BatchType)
	}
	body, err := cehttp.ReadBody(r.Body, r.ContentLength, i.o.MaxBody)
	if errors.Is(err, iot.ErrInvalid) {
		// It broke off: whoever passes facts on is to bring this one again, which 400 forbids.
		return iot.Errorf(iot.ErrUnavailable, "body breaks off or is badly encoded")
	}
	if err != nil {
		return err
	}
	facts, err := i.facts(mode, r.Header, body)
	if err != nil {
		return err
	}
	if err := permit(id, facts); err != nil {
		return err
	}
	return i.o.Take(r.Context(), facts)
}

// facts reads what came: all of it, or nothing.
func (i *Ingress) facts(mode cehttp.Mode, h http.Header, body []byte) ([]events.Fact, error) {
	if mode != cehttp.Batched {
		e, err := cehttp.Read(h, body)
		if err != nil {
			return nil, err
		}
		f, err := i.fact(&e)
		return []events.Fact{f}, err
	}
	list, errs, err := cehttp.ReadBatch(body, i.o.MaxBatch)
	if err != nil {
		return nil, err
	}
	facts := make([]events.Fact, len(list))
	for n := range list {
		err := errs[n]
		if err == nil {
			facts[n], err = i.fact(&list[n])
		}
		if err != nil {
			return nil, iot.Errorf(status.Sentinel(err), "number %d of the batch: %s", n+1, status.Text(err))
		}
	}
	return facts, nil
}

func (i *Ingress) fact(e *event.Event) (events.Fact, error) {
	f, err := events.DecodeFact(e)
	if err != nil {
		return nil, err
	}
	if want := events.FactSource(i.o.Name, f.Tenant()); e.Source() != want {
		return nil, iot.Errorf(iot.ErrInvalid, "source is %.200q, want %s: facts of another installation are not for here", e.Source(), want)
	}
	return f, nil
}

// caller finds out who posts: a component by its certificate, or somebody with a token.
func (i *Ingress) caller(r *http.Request) (*auth.Identity, error) {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		if i.o.Token == nil {
			return nil, iot.Errorf(iot.ErrUnauthenticated, "tokens are not accepted here")
		}
		return i.o.Token(r.Context(), strings.TrimLeft(token, " "))
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "a bearer token, or a client certificate of the installation's CA, is required")
	}
	return auth.Component(r.TLS.VerifiedChains[0][0])
}

// permit asks for the right to send to each address that a fact goes to. Of
// components, functions post; the others have no reason to.
func permit(id *auth.Identity, facts []events.Fact) error {
	if id.MayPost() {
		return nil
	}
	if id.Kind == auth.Router && !slices.ContainsFunc(facts, func(f events.Fact) bool { return f.FactType() != events.TypeEventsAppended }) {
		return nil // routers tell each other of events that they stored
	}
	if id.Kind.Component() {
		return iot.Errorf(iot.ErrForbidden, "a component of kind %s does not post facts", id.Kind)
	}
	for _, f := range facts {
		address := deviceAddress
		switch f.FactType() {
		case events.TypeTenantChanged:
			address = tenantAddress
		case events.TypeDeviceProvisioned:
			address = "event/" + string(f.Tenant())
		}
		if !id.May(address, auth.Write) {
			return iot.Errorf(iot.ErrForbidden, "write on %.100s is not granted", address)
		}
	}
	return nil
}

var errBusy = &iot.Error{Sentinel: iot.ErrUnavailable, Text: "too many facts at once", RetryAfter: 1e9}

// statusOf is the answer to a fact that was not taken. What is a matter of the
// moment is 503, and 404, 409 and 412 are never said: brokers differ in whether they
// repeat those.
func statusOf(err error) int {
	switch code := status.Of(err).Status; code {
	case 400, 401, 403, 413, 415, 422, 429, 500:
		return code
	default:
		return http.StatusServiceUnavailable
	}
}

func (i *Ingress) refuse(w http.ResponseWriter, r *http.Request, err error) {
	i.refusals.Add(1)
	code := statusOf(err)
	d := events.ErrorDataOf(err)
	d.Status = code
	i.o.Logger.WarnContext(r.Context(), "facts not taken", "remote", r.RemoteAddr, "status", code, "err", err)
	switch code {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusRequestEntityTooLarge:
		w.Header().Set("Connection", "close") // what is left of the body is not read
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(max(1, d.RetryAfterSeconds)))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(d)
}
