package http

import (
	"context"
	"log/slog"
	nethttp "net/http"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// ServeHTTP implements [nethttp.Handler].
func (a *Adapter) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	a.sayGoodbye(w, r)
	if err := a.cors(w, r); err != nil {
		a.fail(w, status.Upload, err)
		return
	}
	if r.URL.Path == webSocketPath && a.o.WebSocket != nil {
		a.webSocket(w, r)
		return
	}
	t, err := parseTarget(r.URL.Path)
	if t.endpoint != iot.CommandResponse {
		expose(w, r)
	}
	if err != nil {
		a.fail(w, status.Upload, err)
		return
	}
	methods := t.methods(!a.o.NoAuthentication)
	switch {
	case methods == "" || r.Method == nethttp.MethodPut && t.segments == 1:
		a.fail(w, status.Upload, iot.Errorf(iot.ErrNotFound, "device id is missing: want %s", t.form()))
	case r.Method == nethttp.MethodOptions:
		options(w, r, methods, t.endpoint)
	case !takes(methods, r.Method):
		w.Header().Set("Allow", methods+", OPTIONS")
		writeError(w, nethttp.StatusMethodNotAllowed, "method is not allowed: want "+strings.ReplaceAll(methods, ", ", " or "))
	case t.endpoint == iot.CommandResponse:
		a.respond(w, r, t)
	default:
		a.upload(w, r, t)
	}
}

// sayGoodbye tells the client that its connection ends when the adapter stops.
func (a *Adapter) sayGoodbye(w nethttp.ResponseWriter, r *nethttp.Request) {
	if r.ProtoMajor == 1 && a.leaving.Load() {
		w.Header().Set("Connection", "close") // HTTP/2 has its own way to say so
	}
}

// upload takes one message in. Who sends it is settled before its body is read.
func (a *Adapter) upload(w nethttp.ResponseWriter, r *nethttp.Request, t target) {
	start := time.Now()
	who, err := a.admit(r, &t)
	if err != nil {
		a.refuse(w, r, t, "", err)
		return
	}
	done, err := a.follow(r, who, start)
	var up *adapters.Upload
	if err == nil {
		up, err = a.decode(w, r, t)
	}
	if err == nil {
		if ttd := a.ttd(r, who); ttd > 0 {
			a.uploadAndWait(w, r, t, who, up, ttd, done)
			return
		}
		err = a.o.Pipeline.Publish(r.Context(), who, up)
	}
	done()
	if err != nil {
		a.refuse(w, r, t, who.Tenant(), err)
		return
	}
	accepted(w)
}

// uploadAndWait answers with a command, if one comes within ttd seconds. A gateway
// that sends for itself waits for what any of its devices is told (contract: adapters 7.7).
// done is called before the answer.
func (a *Adapter) uploadAndWait(w nethttp.ResponseWriter, r *nethttp.Request, t target, who adapters.Admission, up *adapters.Upload, ttd int, done func()) {
	start := time.Now()
	extend(w, ttd)
	up.TTD, up.TTDOutcome = &ttd, adapters.TTDPending
	d, ok, err := a.publishAndWait(r.Context(), adapters.Subscribe{Who: who, All: t.segments == 1}, up)
	done()
	if err != nil {
		a.refuse(w, r, t, who.Tenant(), err)
		return
	}
	a.sayGoodbye(w, r) // the stop may have begun in the meantime
	up.TTDOutcome = adapters.TTDExpired
	switch {
	case !ok:
		accepted(w)
	case command(w, d, who.Gateway() != ""):
		up.TTDOutcome = adapters.TTDCommand
	}
	a.o.Pipeline.Answered(who, up, start, nil)
}

// refuse answers err and logs what is not the device's fault.
func (a *Adapter) refuse(w nethttp.ResponseWriter, r *nethttp.Request, t target, tenant iot.TenantID, err error) {
	op := status.Upload
	if t.endpoint == iot.CommandResponse {
		op = status.Any
	}
	code := a.fail(w, op, err)
	level := slog.LevelDebug
	if status.Sentinel(err) == status.ErrInternal && code >= 500 {
		level = slog.LevelError
	}
	a.o.Logger.Log(r.Context(), level, "upload refused", "endpoint", t.endpoint, "tenant", tenant, "status", code, "err", err)
}

// admit finds out who sends. The tenant of the URI, where one is given, has to
// be the device's own (contract: adapters 7.2).
func (a *Adapter) admit(r *nethttp.Request, t *target) (adapters.Admission, error) {
	p := peerOf(r)
	if a.o.NoAuthentication {
		if t.tenant == "" {
			return adapters.Admission{}, iot.Errorf(iot.ErrNotFound, "tenant is missing: want %s", t.form())
		}
		l := adapters.Login{Tenant: events.TenantRef{ID: iot.TenantID(t.tenant)}}
		return a.o.Pipeline.Admit(r.Context(), l.Request(iot.DeviceID(t.device), p.remote))
	}
	l, err := p.logIn(r, t, a.foreignPage(r))
	if err != nil {
		return adapters.Admission{}, err
	}
	if t.tenant != "" && t.tenant != string(l.Tenant.ID) {
		if err := a.sameTenant(r.Context(), &l, p, t.tenant); err != nil {
			return adapters.Admission{}, err
		}
	}
	return a.o.Pipeline.Admit(r.Context(), l.Request(iot.DeviceID(t.device), p.remote))
}

// sameTenant authenticates first, because only a device that is known learns
// why it is refused, and because it is the answer that says which tenant it is
// that an alias or a certificate's issuer stands for.
func (a *Adapter) sameTenant(ctx context.Context, l *adapters.Login, p *peer, tenant string) error {
	who, err := a.o.Pipeline.Admit(ctx, l.Request("", p.remote))
	if err == nil && who.Tenant() != iot.TenantID(tenant) {
		err = iot.Errorf(iot.ErrForbidden, "not authorized for this tenant")
	}
	return err
}
