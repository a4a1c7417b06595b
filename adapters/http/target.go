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
	segments int    // 1 = /endpoint, 3 = /endpoint/tenant/device
}

// maxSegment bounds an id; the registry's own bound is below it.
const maxSegment = 512

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
	t := target{endpoint: iot.Endpoint(endpoint), segments: 1}
	if t.endpoint != iot.Telemetry && t.endpoint != iot.Event {
		return target{}, iot.Errorf(iot.ErrNotFound, "no such endpoint")
	}
	if rest == "" {
		return t, nil
	}
	tenant, device, ok := strings.Cut(rest, "/")
	if !ok || strings.Contains(device, "/") {
		return target{}, iot.Errorf(iot.ErrNotFound, "want /%s or /%s/{tenant}/{device}", endpoint, endpoint)
	}
	if len(tenant) > maxSegment || len(device) > maxSegment {
		return target{}, iot.Errorf(iot.ErrInvalid, "tenant and device: at most %d bytes each", maxSegment)
	}
	return target{endpoint: t.endpoint, tenant: tenant, device: device, segments: 3}, nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// method is the one that uploads to t; "" where there is none.
func (t target) method(authenticated bool) string {
	switch {
	case t.segments == 3:
		return nethttp.MethodPut
	case authenticated:
		return nethttp.MethodPost
	}
	return ""
}
