package mqtt

import (
	"strings"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/iot"
)

// maxSegment bounds an id in bytes; the registry's own bound is below it.
const maxSegment = 512

// The errors of a topic (contract: adapters 8.4).
var (
	errTopic    = iot.Errorf(iot.ErrInvalid, "malformed topic name")
	errEndpoint = iot.Errorf(iot.ErrNotFound, "no such endpoint")
	errResponse = iot.Errorf(iot.ErrInvalid, "malformed topic name: want command/[tenant]/[device]/res/{request id}/{status}")
	errSegment  = iot.Errorf(iot.ErrInvalid, "tenant and device: at most %d bytes each", maxSegment)
)

// target is where a PUBLISH goes (contract: adapters 1.2, 8.4). Its strings
// are parts of the topic.
type target struct {
	endpoint iot.Endpoint // "" where the topic leads nowhere
	spelling string       // the endpoint as the client writes it, such as t
	tenant   iot.TenantID // "" = not given
	device   iot.DeviceID // "" = not given

	request, status string // of a command response, unchecked; see respond
}

// parseTopic reads a topic without property bag. With an error the target
// holds what was understood before, for the report of it.
func parseTopic(topic string) (target, error) {
	var s [6]string
	if !plainText(topic) || strings.ContainsAny(topic, "+#") {
		return target{}, errTopic
	}
	n := segments(topic, s[:])
	if s[0] == "" {
		return target{}, errTopic
	}
	t := target{endpoint: endpoint(s[0]), spelling: s[0]}
	if t.endpoint == "" {
		return target{}, errEndpoint
	}
	if len(s[1]) > maxSegment || len(s[2]) > maxSegment {
		return t, errSegment
	}
	t.tenant, t.device = iot.TenantID(s[1]), iot.DeviceID(s[2])
	if t.endpoint != iot.CommandResponse {
		return t, nil // what follows the device leads nowhere else
	}
	if n < len(s) {
		return t, errResponse
	}
	// The segment before the request id says res or s and is not looked at.
	t.request, t.status = s[4], s[5]
	return t, nil
}

// endpoint is the one that devices reach by this name; "" = none.
func endpoint(name string) iot.Endpoint {
	switch name {
	case "telemetry", "t":
		return iot.Telemetry
	case "event", "e":
		return iot.Event
	case "command", "c":
		return iot.CommandResponse
	}
	return ""
}

// segments splits s at slashes into dst and returns how many there are, which
// may be more than dst holds. Empty ones at the end do not count.
func segments(s string, dst []string) int {
	s = strings.TrimRight(s, "/")
	for n := 0; ; n++ {
		head, rest, more := strings.Cut(s, "/")
		if n < len(dst) {
			dst[n] = head
		}
		if !more {
			return n + 1
		}
		s = rest
	}
}

// plainText reports whether s is UTF-8 without control characters.
func plainText(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, isControl) < 0
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }

// escapeSegment escapes as in a URL what would end a segment of a topic or must not
// be in one, and with percent the sign of escapes, so that it can be taken back.
func escapeSegment(s string, percent bool) string {
	bad := func(r rune) bool {
		return r == '/' || r == '+' || r == '#' || isControl(r) || percent && r == '%'
	}
	if utf8.ValidString(s) && strings.IndexFunc(s, bad) < 0 {
		return s
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if !bad(r) {
			b.WriteRune(r)
			continue
		}
		for _, c := range []byte(string(r)) {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
