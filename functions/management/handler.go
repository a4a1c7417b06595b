package management

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/attempts"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// The defaults of [Options].
const (
	DefaultMaxBody = 2048
	DefaultMaxBulk = 256 << 20
	DefaultTimeout = 10 * time.Second
)

// Options tunes a [Handler]; the zero value has the reference's defaults
// (contract: registry, section 1.2).
type Options struct {
	MaxBody int64         // bytes of a request body; 0 = [DefaultMaxBody]
	MaxBulk int64         // bytes of the body of a bulk request or an import; 0 = [DefaultMaxBulk]
	Origin  string        // CORS origin that is allowed; "" = "*"
	Realm   string        // of HTTP Basic; "" = "Hono"
	Timeout time.Duration // for one request, or one portion of a long one; 0 = [DefaultTimeout]
	// Open asks nobody who he is: whoever reaches the API may do everything.
	// The caller sees to it that only the right ones can.
	Open bool
	// Events answers about stored events, as functions/eventstore does; nil = there are none.
	Events events.Invoker
	Log    *slog.Logger // nil = none
}

// Handler serves the API. Safe for concurrent use.
type Handler struct {
	operators Authenticator
	options   Options
	api       *server

	logins *attempts.Logins[attempts.NameAt]
}

// server has the operations of the document.
type server struct {
	registry *registry.Service
	options  Options
	streams  streams
}

var _ api.StrictServerInterface = (*server)(nil)

// New returns the API over a registry. operators may be nil with Options.Open.
func New(s *registry.Service, operators Authenticator, o Options) *Handler {
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.MaxBulk <= 0 {
		o.MaxBulk = DefaultMaxBulk
	}
	if o.Origin == "" {
		o.Origin = "*"
	}
	if o.Realm == "" {
		o.Realm = "Hono"
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{
		operators: operators, options: o,
		api:    &server{registry: s, options: o},
		logins: attempts.NewLogins[attempts.NameAt](failuresPerName, failuresPerAddress, maxWatched),
	}
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.recover(w, r)
	h.allowOrigin(w, r)
	r = r.WithContext(r.Context()) // a copy, for the path's values
	res := route(r)
	if r.Method == http.MethodOptions {
		h.preflight(w, res)
		return
	}
	answer, err := h.serve(w, r, res)
	if err == nil {
		err = answer(w)
	}
	if err != nil {
		h.fail(w, r, err)
	}
}

// serve returns what writes the answer.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, res *resource) (func(http.ResponseWriter) error, error) {
	op, err := h.admit(r, res)
	if err != nil {
		return nil, err
	}
	// A part that cannot be read would be passed over, and a filter with it.
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return nil, iot.Errorf(iot.ErrInvalid, "the query of the URL is malformed")
	}
	ctx := context.WithValue(r.Context(), operatorKey{}, op.who)
	if op.op.Stream {
		if err := h.checkStream(w, r, op.op); err != nil {
			return nil, err
		}
		return op.op.Serve(ctx, h.api, r, nil)
	}
	body, err := h.readBody(w, r, op.op)
	if err != nil {
		return nil, err
	}
	if op.op.May == mayExport { // takes as long as there are devices
		return op.op.Serve(ctx, h.api, r, body)
	}
	ctx, cancel := context.WithTimeout(ctx, h.options.Timeout)
	defer cancel()
	return op.op.Serve(ctx, h.api, r, body)
}

// admitted is an operation and who may have it done.
type admitted struct {
	op  *api.Operation
	who Operator
}

// admit decides whether a request's operation may be done: who asks for it
// comes before whether it is there.
func (h *Handler) admit(r *http.Request, res *resource) (admitted, error) {
	var op *api.Operation
	if res != nil {
		op = res.operations[r.Method]
	}
	if op != nil && op.Public {
		return admitted{op: op}, nil
	}
	who, err := h.authenticate(r)
	switch {
	case err != nil:
		return admitted{}, err
	case res == nil:
		return admitted{}, iot.Errorf(iot.ErrNotFound, "no such resource")
	case op == nil:
		return admitted{}, &methodError{allowed: res.methods()}
	case !allowed(who, op, iot.TenantID(r.PathValue("tenantId"))):
		return admitted{}, iot.Errorf(iot.ErrForbidden, "the operator's scopes do not allow this: it takes %s", op.May)
	}
	return admitted{op, who}, nil
}

func (h *Handler) recover(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v)
	}
	h.fail(w, r, fmt.Errorf("panic: %v", v))
}
