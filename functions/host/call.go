package host

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// call answers POST /. Who is not admitted gets no CloudEvent: the refusal is
// about the component, and its caller must not take it for one about a device.
func (e *Endpoint) call(w http.ResponseWriter, r *http.Request) {
	caller, err := e.cfg.Caller(r)
	if err != nil {
		e.cfg.Log.WarnContext(r.Context(), "caller refused", "remote", r.RemoteAddr, "err", err)
		http.Error(w, status.Text(err), status.Of(err).Status)
		return
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	default:
		e.refuse(w, r, cehttp.Binary, errBusy)
		return
	}
	mode := cehttp.ModeOf(r.Header)
	if mode == cehttp.None {
		e.refuse(w, r, cehttp.Binary, iot.Errorf(status.ErrNotCloudEvent, "want a CloudEvent: binary, %s or %s", cehttp.StructuredType, cehttp.BatchType))
		return
	}
	body, err := cehttp.ReadBody(r.Body, r.ContentLength, e.cfg.MaxBody)
	if err != nil {
		w.Header().Set("Connection", "close") // what is left of the body is not read
		e.refuse(w, r, mode, err)
		return
	}
	if mode == cehttp.Batched {
		e.batch(w, r, caller, body)
		return
	}
	call, err := cehttp.Read(r.Header, body)
	if err != nil {
		e.refuse(w, r, mode, err)
		return
	}
	if e.permit(w, r, caller, call.Type()) {
		e.answer(w, r, mode, e.dispatcher.Serve(r.Context(), &call, nil))
	}
}

// permit reports whether the caller may ask typ, and answers where not. What
// nobody serves here is not forbidden.
func (e *Endpoint) permit(w http.ResponseWriter, r *http.Request, caller Caller, typ string) bool {
	if !e.dispatcher.Serves(typ) {
		return true
	}
	err := caller.permit(typ)
	if err != nil {
		e.cfg.Log.WarnContext(r.Context(), "call refused", "instance", caller.Instance, "kind", string(caller.Kind), "type", typ)
		http.Error(w, status.Text(err), status.Of(err).Status)
	}
	return err == nil
}

// batch answers each call of a batch in its place, one after the other. With a
// call that the caller may not make nothing of it is done: the refusal is about
// the component, so it has no place among the answers.
func (e *Endpoint) batch(w http.ResponseWriter, r *http.Request, caller Caller, body []byte) {
	calls, errs, err := cehttp.ReadBatch(body, e.cfg.MaxBatch)
	if err != nil {
		e.refuse(w, r, cehttp.Structured, err)
		return
	}
	for i := range calls {
		if errs[i] == nil && !e.permit(w, r, caller, calls[i].Type()) {
			return
		}
	}
	out := make([]event.Event, len(calls))
	for i := range calls {
		if errs[i] != nil {
			out[i] = e.Refuse(errs[i])
			continue
		}
		out[i] = e.dispatcher.Serve(r.Context(), &calls[i], nil)
	}
	if err := cehttp.WriteBatch(w, out); err != nil {
		e.cfg.Log.WarnContext(r.Context(), "batch not answered", "err", err)
	}
}

// refuse answers what never became a call.
func (e *Endpoint) refuse(w http.ResponseWriter, r *http.Request, mode cehttp.Mode, err error) {
	e.answer(w, r, mode, e.Refuse(err))
}

func (e *Endpoint) answer(w http.ResponseWriter, r *http.Request, mode cehttp.Mode, reply event.Event) {
	if mode == cehttp.Batched {
		mode = cehttp.Structured
	}
	code := events.StatusCode(&reply)
	if reply.Type() == events.TypeError {
		var d events.ErrorData
		if json.Unmarshal(reply.Data(), &d) == nil && d.RetryAfterSeconds > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(d.RetryAfterSeconds))
		}
	}
	if err := cehttp.WriteResponse(w, mode, code, &reply); err != nil {
		e.cfg.Log.WarnContext(r.Context(), "call not answered", "type", reply.Type(), "err", err)
	}
}
