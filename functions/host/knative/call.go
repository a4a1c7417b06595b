package knative

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
func (h *Host) call(w http.ResponseWriter, r *http.Request) {
	caller, err := h.cfg.Caller(r)
	if err != nil {
		h.cfg.Log.WarnContext(r.Context(), "caller refused", "remote", r.RemoteAddr, "err", err)
		http.Error(w, status.Text(err), status.Of(err).Status)
		return
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		h.refuse(w, r, cehttp.Binary, errBusy)
		return
	}
	mode := cehttp.ModeOf(r.Header)
	if mode == cehttp.None {
		h.refuse(w, r, cehttp.Binary, iot.Errorf(status.ErrNotCloudEvent, "want a CloudEvent: binary, %s or %s", cehttp.StructuredType, cehttp.BatchType))
		return
	}
	body, err := cehttp.ReadBody(r.Body, r.ContentLength, h.cfg.MaxBody)
	if err != nil {
		w.Header().Set("Connection", "close") // what is left of the body is not read
		h.refuse(w, r, mode, err)
		return
	}
	if mode == cehttp.Batched {
		h.batch(w, r, caller, body)
		return
	}
	call, err := cehttp.Read(r.Header, body)
	if err != nil {
		h.refuse(w, r, mode, err)
		return
	}
	if h.dispatcher.Serves(call.Type()) {
		if err := caller.permit(call.Type()); err != nil {
			h.cfg.Log.WarnContext(r.Context(), "call refused", "instance", caller.Instance, "kind", string(caller.Kind), "type", call.Type())
			http.Error(w, status.Text(err), status.Of(err).Status)
			return
		}
	}
	h.answer(w, r, mode, h.dispatcher.Serve(r.Context(), &call, nil))
}

// batch answers each call of a batch in its place, one after the other.
func (h *Host) batch(w http.ResponseWriter, r *http.Request, caller Caller, body []byte) {
	calls, errs, err := cehttp.ReadBatch(body, h.cfg.MaxBatch)
	if err != nil {
		h.refuse(w, r, cehttp.Structured, err)
		return
	}
	out := make([]event.Event, len(calls))
	for i := range calls {
		if errs[i] != nil {
			out[i] = h.dispatcher.Refuse(none(), errs[i])
			continue
		}
		out[i] = h.dispatcher.Serve(r.Context(), &calls[i], caller.permit)
	}
	if err := cehttp.WriteBatch(w, out); err != nil {
		h.cfg.Log.WarnContext(r.Context(), "batch not answered", "err", err)
	}
}

// refuse answers what never became a call.
func (h *Host) refuse(w http.ResponseWriter, r *http.Request, mode cehttp.Mode, err error) {
	h.answer(w, r, mode, h.dispatcher.Refuse(none(), err))
}

// none stands for the call that could not be read.
func none() *event.Event {
	e := event.New()
	return &e
}

func (h *Host) answer(w http.ResponseWriter, r *http.Request, mode cehttp.Mode, e event.Event) {
	if mode == cehttp.Batched {
		mode = cehttp.Structured
	}
	code := events.StatusCode(&e)
	if e.Type() == events.TypeError {
		var d events.ErrorData
		if json.Unmarshal(e.Data(), &d) == nil && d.RetryAfterSeconds > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(d.RetryAfterSeconds))
		}
	}
	if err := cehttp.WriteResponse(w, mode, code, &e); err != nil {
		h.cfg.Log.WarnContext(r.Context(), "call not answered", "type", e.Type(), "err", err)
	}
}

func jsonOf(v any) ([]byte, error) { return json.Marshal(v) }
