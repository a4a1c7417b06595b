package http

import (
	nethttp "net/http"
	"strconv"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// respond takes what a device answers to a command.
func (a *Adapter) respond(w nethttp.ResponseWriter, r *nethttp.Request, t target) {
	start, err := time.Now(), t.response(r.Method)
	var who adapters.Admission
	if err == nil {
		who, err = a.admit(r, &t)
	}
	if err != nil {
		a.refuse(w, r, t, "", err)
		return
	}
	done, err := a.follow(r, who, start)
	var up *adapters.Upload
	if err == nil {
		up, err = a.decodeResponse(w, r, t, who.Device())
	}
	if err == nil {
		err = a.o.Pipeline.Publish(r.Context(), who, up)
	}
	done()
	if err != nil {
		a.refuse(w, r, t, who.Tenant(), err)
		return
	}
	accepted(w)
}

// decodeResponse makes the upload of a command response of device, whose body it
// reads last (contract: adapters 7.4).
func (a *Adapter) decodeResponse(w nethttp.ResponseWriter, r *nethttp.Request, t target, device iot.DeviceID) (*adapters.Upload, error) {
	code, err := strconv.Atoi(parameter(r, headerStatus, "hono-cmd-status"))
	if err != nil {
		return nil, iot.Errorf(iot.ErrInvalid, "hono-cmd-status is missing or no number: want 200 to 299 or 400 to 599")
	}
	id, err := takeBack(t.request)
	if err != nil {
		return nil, err
	}
	to, err := adapters.ParseRequestID(id, device)
	if err != nil {
		return nil, err
	}
	up := newUpload(r, t.endpoint, iot.AtLeastOnce)
	up.To, up.Status = to, code
	up.Payload, err = a.body(w, r)
	return up, err
}
