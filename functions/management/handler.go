package management

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Options tunes a [Handler]; the zero value has the reference's defaults
// (contract: registry, section 1.2).
type Options struct {
	MaxBody int64         // bytes of a request body; 0 = 2048
	Origin  string        // CORS origin that is allowed; "" = "*"
	Realm   string        // of HTTP Basic; "" = "Hono"
	Timeout time.Duration // for one request; 0 = 10 s
	Log     *slog.Logger  // nil = none
}

// Handler serves the API. Safe for concurrent use.
type Handler struct {
	registry  *registry.Service
	operators Authenticator
	options   Options
}

// New returns the API over a registry.
func New(s *registry.Service, operators Authenticator, o Options) *Handler {
	if o.MaxBody <= 0 {
		o.MaxBody = 2048
	}
	if o.Origin == "" {
		o.Origin = "*"
	}
	if o.Realm == "" {
		o.Realm = "Hono"
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{registry: s, operators: operators, options: o}
}

// call is one request to one resource.
type call struct {
	*http.Request
	tenant iot.TenantID
	device iot.DeviceID
	body   []byte // for POST and PUT, checked for size and media type
}

// answer is what an operation replies with on success.
type answer struct {
	status   int
	version  string // for ETag; "" = none
	location string
	body     any // nil = no body
}

type operation struct {
	action Action
	body   bodyRule
	do     func(h *Handler, ctx context.Context, c *call) (answer, error)
}

// resource is the operations of one path, by method.
type resource map[string]operation

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.recover(w, r)
	h.allowOrigin(w, r)
	res, c, found := route(r)
	if r.Method == http.MethodOptions {
		h.preflight(w, res, found)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.options.Timeout)
	defer cancel()
	c.Request = r.WithContext(ctx)
	a, err := h.serve(w, res, c, found)
	if err != nil {
		h.fail(w, c, err)
		return
	}
	h.reply(w, c, a)
}

func (h *Handler) serve(w http.ResponseWriter, res resource, c *call, found bool) (answer, error) {
	who, err := h.authenticate(c.Request)
	if err != nil {
		return answer{}, err
	}
	if !found {
		return answer{}, iot.Errorf(iot.ErrNotFound, "no such resource")
	}
	op, ok := res[c.Method]
	if !ok {
		return answer{}, &methodError{allowed: res.methods()}
	}
	scope := c.tenant
	if scope == "" {
		scope = AllTenants
	}
	if !who.May(scope, op.action) {
		return answer{}, iot.Errorf(iot.ErrForbidden, "the operator's scopes do not allow this")
	}
	if c.body, err = h.readBody(w, c.Request, op.body); err != nil {
		return answer{}, err
	}
	return op.do(h, c.Context(), c)
}

// route finds the resource of a path of at most four segments:
// /v1/tenants[/T], /v1/devices/T[/D], /v1/credentials/T/D.
func route(r *http.Request) (resource, *call, bool) {
	c := &call{Request: r}
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), "/v1/")
	segments := strings.Split(strings.TrimSuffix(path, "/"), "/")
	if !ok || len(segments) > 3 {
		return nil, c, false
	}
	names := make([]string, len(segments)-1)
	for i, s := range segments[1:] {
		name, err := url.PathUnescape(s)
		if err != nil || name == "" {
			return nil, c, false
		}
		names[i] = name
	}
	if len(names) > 0 {
		c.tenant = iot.TenantID(names[0])
	}
	if len(names) > 1 {
		c.device = iot.DeviceID(names[1])
	}
	res, ok := resources[pathOf{segments[0], len(names)}]
	return res, c, ok
}

// pathOf is a kind of path: its first segment and how many names follow.
type pathOf struct {
	kind  string
	names int
}

var resources = map[pathOf]resource{
	{"tenants", 0}: {
		http.MethodPost: {Write, optional, (*Handler).createTenant},
	},
	{"tenants", 1}: {
		http.MethodPost:   {Write, optional, (*Handler).createTenant},
		http.MethodGet:    {Read, none, (*Handler).readTenant},
		http.MethodPut:    {Write, required, (*Handler).updateTenant},
		http.MethodDelete: {Write, none, (*Handler).deleteTenant},
	},
	{"devices", 1}: {
		http.MethodPost:   {Write, optional, (*Handler).createDevice},
		http.MethodDelete: {Write, none, (*Handler).deleteDevices},
	},
	{"devices", 2}: {
		http.MethodPost:   {Write, optional, (*Handler).createDevice},
		http.MethodGet:    {Read, none, (*Handler).readDevice},
		http.MethodPut:    {Write, required, (*Handler).updateDevice},
		http.MethodDelete: {Write, none, (*Handler).deleteDevice},
	},
	{"credentials", 2}: {
		http.MethodGet: {Read, none, (*Handler).readCredentials},
		http.MethodPut: {Write, required, (*Handler).putCredentials},
	},
}

func (r resource) methods() string {
	all := make([]string, 0, len(r))
	for m := range r {
		all = append(all, m)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func (h *Handler) recover(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v)
	}
	h.fail(w, &call{Request: r}, fmt.Errorf("panic: %v", v))
}
