package http

import (
	nethttp "net/http"
	"strings"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/iot"
)

// target is what a request's path names (contract: adapters 7.1).
type target struct {
	endpoint iot.Endpoint
	tenant   string // "" = the device's own
	device   string // "" = the device itself
	segments int    // of an upload: 1 = /endpoint, 3 = /endpoint/tenant/device

	// of a command response: what follows /command/res/, which is request once
	// [target.response] knows by the method what is in it
	rest, request string
}

// maxSegment bounds an id; the registry's own bound is below it. maxRequest bounds
// the id of a request, which applications choose a part of.
const (
	maxSegment = 512
	maxRequest = 5600 // what escaping makes of the 4096 that a request id has at most
)

// parseTarget splits a path whose escapes are decoded already, so that an
// escaped slash separates like a plain one. An empty segment inside means "not
// given", empty ones at the end do not count. Errors are ErrInvalid for what
// is no path and ErrNotFound for one that leads nowhere.
func parseTarget(path string) (target, error) {
	if !strings.HasPrefix(path, "/") || !utf8.ValidString(path) || strings.ContainsFunc(path, isControl) {
		return target{}, iot.Errorf(iot.ErrInvalid, "malformed path")
	}
	path = strings.TrimRight(path[1:], "/")
	endpoint, rest, _ := strings.Cut(path, "/")
	if endpoint == "command" {
		return parseResponse(rest)
	}
	t := target{endpoint: iot.Endpoint(endpoint), segments: 1}
	if t.endpoint != iot.Telemetry && t.endpoint != iot.Event {
		return target{}, errNoEndpoint
	}
	if rest == "" {
		return t, nil
	}
	tenant, device, ok := strings.Cut(rest, "/")
	if !ok || strings.Contains(device, "/") {
		return target{}, iot.Errorf(iot.ErrNotFound, "want /%s or %s", endpoint, t.form())
	}
	if len(tenant) > maxSegment || len(device) > maxSegment {
		return target{}, errLongSegment
	}
	return target{endpoint: t.endpoint, tenant: tenant, device: device, segments: 3}, nil
}

var (
	errNoEndpoint  = iot.Errorf(iot.ErrNotFound, "no such endpoint")
	errLongSegment = iot.Errorf(iot.ErrInvalid, "tenant and device: at most %d bytes each", maxSegment)
	errLongRequest = iot.Errorf(iot.ErrInvalid, "request id: at most %d bytes", maxRequest)
	errNoRequest   = iot.Errorf(iot.ErrNotFound, "want /command/res/{request-id} or "+formResponse)
	errNoTarget    = iot.Errorf(iot.ErrNotFound, "tenant, device or request id is missing: want "+formResponse)
)

const formResponse = "/command/res/{tenant}/{device}/{request-id}"

// parseResponse takes what follows /command/.
func parseResponse(path string) (target, error) {
	kind, rest, _ := strings.Cut(path, "/")
	switch {
	case kind != "res":
		return target{}, errNoEndpoint
	case rest == "":
		return target{}, errNoRequest
	}
	return target{endpoint: iot.CommandResponse, rest: rest}, nil
}

// response tells the parts of a command response apart: a device that posts names
// the request alone. A request's id may have slashes. Errors are ErrNotFound where a
// part is missing and ErrInvalid for one that is too long.
func (t *target) response(method string) error {
	t.request = t.rest
	if method != nethttp.MethodPost {
		var ok bool
		t.tenant, t.request, _ = strings.Cut(t.rest, "/")
		t.device, t.request, ok = strings.Cut(t.request, "/")
		if !ok || t.device == "" || t.request == "" {
			return errNoTarget
		}
	}
	switch {
	case len(t.tenant) > maxSegment || len(t.device) > maxSegment:
		return errLongSegment
	case len(t.request) > maxRequest:
		return errLongRequest
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// form is the path that names tenant and device.
func (t *target) form() string {
	if t.endpoint == iot.CommandResponse {
		return formResponse
	}
	return "/" + string(t.endpoint) + "/{tenant}/{device}"
}

// methods are those that t takes, with a comma and a space between them; "" where
// there is none.
func (t *target) methods(authenticated bool) string {
	switch {
	case t.segments == 3, t.rest != "" && (!authenticated || t.rest[0] == '/'):
		return nethttp.MethodPut
	case t.rest != "":
		return nethttp.MethodPost + ", " + nethttp.MethodPut
	case authenticated:
		return nethttp.MethodPost
	}
	return ""
}

// takes reports whether a method is one of methods.
func takes(methods, method string) bool {
	for m := range strings.SplitSeq(methods, ", ") {
		if m == method {
			return true
		}
	}
	return false
}
