package http

import (
	"context"
	"log/slog"
	nethttp "net/http"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// ServeHTTP implements [nethttp.Handler].
func (a *Adapter) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	if r.ProtoMajor == 1 && a.leaving.Load() {
		w.Header().Set("Connection", "close") // HTTP/2 has its own way to say so
	}
	if err := a.cors(w, r); err != nil {
		a.fail(w, err)
		return
	}
	if r.URL.Path == webSocketPath && a.o.WebSocket != nil {
		a.webSocket(w, r)
		return
	}
	t, err := parseTarget(r.URL.Path)
	if err != nil {
		a.fail(w, err)
		return
	}
	method := t.method(!a.o.NoAuthentication)
	switch {
	case method == "" || r.Method == nethttp.MethodPut && t.segments == 1:
		a.fail(w, iot.Errorf(iot.ErrNotFound, "device id is missing: want /%s/{tenant}/{device}", t.endpoint))
	case r.Method == nethttp.MethodOptions:
		a.options(w, r, t)
	case r.Method != method:
		w.Header().Set("Allow", method+", OPTIONS")
		writeError(w, nethttp.StatusMethodNotAllowed, "method is not allowed: want "+method)
	default:
		a.upload(w, r, t)
	}
}

// upload takes one message in. Who sends it is settled before its body is read.
func (a *Adapter) upload(w nethttp.ResponseWriter, r *nethttp.Request, t target) {
	who, err := a.admit(r, &t)
	if err != nil {
		a.refuse(w, r, t, "", err)
		return
	}
	up, err := a.decode(w, r, t)
	if err == nil {
		err = a.o.Pipeline.Publish(r.Context(), who, up)
	}
	if err != nil {
		a.refuse(w, r, t, who.Tenant(), err)
		return
	}
	accepted(w)
}

// refuse answers err and logs what is not the device's fault.
func (a *Adapter) refuse(w nethttp.ResponseWriter, r *nethttp.Request, t target, tenant iot.TenantID, err error) {
	code := a.fail(w, err)
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
			return adapters.Admission{}, iot.Errorf(iot.ErrNotFound, "tenant is missing: want /%s/{tenant}/{device}", t.endpoint)
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
