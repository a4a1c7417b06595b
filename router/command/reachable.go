package command

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// ReachablePath begins the paths that [Reachable] serves.
const ReachablePath = "/v1/reachable/"

const (
	// defaultReachable and maxReachable are how many devices one page lists.
	defaultReachable = 100
	maxReachable     = 1000
	// maxListings is how many lists are made at a time: each looks through all
	// devices of a tenant.
	maxListings = 2
	// reachableWait is how long an answer may take.
	reachableWait = 10 * time.Second
)

// ReachableOptions say who may ask. Directory and Permit are required.
type ReachableOptions struct {
	Directory *Directory
	// Permit returns why a request may not learn which of a tenant's devices can be
	// reached: iot.ErrUnauthenticated, iot.ErrForbidden, iot.ErrQuota or another error.
	Permit func(r *http.Request, tenant iot.TenantID) error
	Realm  string       // of WWW-Authenticate; "" = Sluice
	Logger *slog.Logger // nil = discard
}

// Reachable answers which devices can be reached by commands now, and until when:
//
//	GET /v1/reachable/{tenant}?after=DEVICE&max=100
//	GET /v1/reachable/{tenant}/{device}
//
// The first lists the subscriptions of a tenant's devices and gateways, by their
// ids, in pages; a device that only a gateway reaches is not there. The second says
// of a device what a command to it would find. It is what this router knows.
type Reachable struct {
	o     ReachableOptions
	mux   *http.ServeMux
	turns chan struct{}
}

// NewReachable returns the handler.
func NewReachable(o ReachableOptions) *Reachable {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Realm == "" {
		o.Realm = "Sluice"
	}
	h := &Reachable{o: o, mux: http.NewServeMux(), turns: make(chan struct{}, maxListings)}
	h.mux.HandleFunc("GET "+ReachablePath+"{tenant}", h.serve(h.list))
	h.mux.HandleFunc("GET "+ReachablePath+"{tenant}/{device}", h.serve(h.one))
	return h
}

// ServeHTTP implements [http.Handler].
func (h *Reachable) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// serve makes a handler of what answers a request of somebody who may make it.
func (h *Reachable) serve(answer func(ctx context.Context, r *http.Request, tenant iot.TenantID) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), reachableWait)
		defer cancel()
		tenant := iot.TenantID(r.PathValue("tenant"))
		err := h.o.Permit(r.WithContext(ctx), tenant)
		var body any
		if err == nil {
			body, err = answer(ctx, r, tenant)
		}
		if err != nil {
			h.fail(w, r, err)
			return
		}
		h.write(w, http.StatusOK, body)
	}
}

// reachability is what is known of one device.
type reachability struct {
	Device    iot.DeviceID `json:"device-id"`
	Reachable *bool        `json:"reachable,omitempty"` // where one device is asked for
	Via       iot.DeviceID `json:"via,omitempty"`       // the gateway that takes the device's commands
	Adapter   string       `json:"adapter,omitempty"`   // adapter type; where it is not known the instance
	Since     *time.Time   `json:"since,omitempty"`
	Until     *time.Time   `json:"until,omitempty"`   // absent = until further notice
	Gateway   bool         `json:"gateway,omitempty"` // takes the commands of all devices it may act for
}

// page is a part of a list.
type page struct {
	Result []reachability `json:"result"`
	Next   iot.DeviceID   `json:"next,omitempty"` // after, of the next page; absent = there is none
}

func (h *Reachable) list(ctx context.Context, r *http.Request, tenant iot.TenantID) (any, error) {
	after, most, err := pageOf(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
	case <-ctx.Done():
		return nil, iot.Errorf(iot.ErrUnavailable, "too many lists at once")
	}
	entries, more := h.o.Directory.List(tenant, after, most)
	p := page{Result: make([]reachability, 0, len(entries))}
	present := map[string]bool{}
	for i := range entries {
		e := &entries[i]
		if more && i == len(entries)-1 {
			p.Next = e.Device
		}
		if e.Foreign {
			// Such a row outlives its process for a while.
			here, asked := present[e.Instance]
			if !asked {
				here = h.o.Directory.Present(e.Instance)
				present[e.Instance] = here
			}
			if !here {
				continue
			}
		}
		p.Result = append(p.Result, reachability{Device: e.Device, Adapter: nameOf(e.Adapter, e.Instance), Since: timeOf(e.At), Until: timeOf(e.Until),
			Gateway: e.All && !e.Foreign})
	}
	return p, nil
}

func (h *Reachable) one(ctx context.Context, r *http.Request, tenant iot.TenantID) (any, error) {
	route, err := h.o.Directory.Find(ctx, tenant, iot.DeviceID(r.PathValue("device")))
	if err != nil {
		return nil, err
	}
	reachable := route.Instance != "" && (!route.Foreign || h.o.Directory.Present(route.Instance))
	a := reachability{Device: route.Device, Reachable: &reachable}
	if reachable {
		a.Via, a.Adapter = route.Gateway, nameOf(route.Adapter, route.Instance)
		a.Since, a.Until = timeOf(route.At), timeOf(route.Until)
	}
	return a, nil
}

// pageOf reads the parameters of a list.
func pageOf(query string) (after iot.DeviceID, most int, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", 0, iot.Errorf(iot.ErrInvalid, "the query of the URL is malformed")
	}
	most = defaultReachable
	for name, v := range values {
		switch {
		case name != "after" && name != "max":
			return "", 0, iot.Errorf(iot.ErrInvalid, "unknown query parameter %.40q: expected after and max", name)
		case len(v) > 1:
			return "", 0, iot.Errorf(iot.ErrInvalid, "query parameter %s is given %d times", name, len(v))
		case name == "max":
			if most, err = strconv.Atoi(v[0]); err != nil || most < 1 || most > maxReachable {
				return "", 0, iot.Errorf(iot.ErrInvalid, "query parameter max is %.40q: expected 1 to %d", v[0], maxReachable)
			}
		default:
			after = iot.DeviceID(v[0])
		}
	}
	return after, most, nil
}

func nameOf(adapter, instance string) string {
	if adapter != "" {
		return adapter
	}
	return instance
}

// timeOf is a time for people, nil where there is none.
func timeOf(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := time.UnixMilli(ms).UTC()
	return &t
}

// fail answers as the management API does.
func (h *Reachable) fail(w http.ResponseWriter, r *http.Request, err error) {
	code, text := status.HTTP(err), status.Text(err)
	wait := iot.RetryAfter(err)
	switch {
	case code == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Basic realm="+strconv.Quote(h.o.Realm))
	case code == http.StatusServiceUnavailable:
		wait = max(wait, time.Second)
	}
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	}
	if code >= 500 && !errors.Is(r.Context().Err(), context.Canceled) {
		h.o.Logger.Error("reachable devices are not told", "tenant", strings.ToValidUTF8(r.PathValue("tenant"), "?"), "err", err)
	}
	h.write(w, code, struct {
		Error string `json:"error"`
	}{text})
}

func (h *Reachable) write(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		h.o.Logger.Error("answer does not encode", "err", err)
		code, text = http.StatusInternalServerError, []byte(`{"error":"internal error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n')) // who asked may be gone
}
