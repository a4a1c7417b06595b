package adapters

import (
	"encoding/hex"
	"math/rand/v2"
)

// traceparentLen is the length of a W3C traceparent of version 00.
const traceparentLen = 55

// traceContext returns the device's W3C trace context where it is valid, else
// the root of a new trace that nobody samples. Every message carries one
// (contract: messaging 1.7).
func traceContext(parent, state string) (traceparent, tracestate string) {
	if !validTraceparent(parent) {
		return rootTraceparent(), ""
	}
	if len(state) > 512 || !printable(state) {
		state = ""
	}
	return "00-" + parent[3:traceparentLen], state
}

// validTraceparent checks version-traceid-parentid-flags in lower-case hex
// (W3C Trace Context, 3.2). Later versions may append fields, which go.
func validTraceparent(s string) bool {
	switch {
	case len(s) < traceparentLen, s[2] != '-', s[35] != '-', s[52] != '-':
		return false
	case !isHex(s[:2]), !isHex(s[3:35]), !isHex(s[36:52]), !isHex(s[53:55]):
		return false
	case allZero(s[3:35]), allZero(s[36:52]), s[:2] == "ff":
		return false
	case s[:2] == "00":
		return len(s) == traceparentLen
	}
	return len(s) == traceparentLen || s[traceparentLen] == '-'
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func allZero(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// rootTraceparent makes identifiers that are unique, which is all they need to
// be. The lowest bits are set because all zeroes are invalid.
func rootTraceparent() string {
	var id [24]byte
	for i := 0; i < len(id); i += 8 {
		n := rand.Uint64() | 1
		for j := range 8 {
			id[i+j] = byte(n >> (8 * j))
		}
	}
	var b [traceparentLen]byte
	copy(b[:], "00-")
	hex.Encode(b[3:35], id[:16])
	b[35] = '-'
	hex.Encode(b[36:52], id[16:])
	copy(b[52:], "-00")
	return string(b[:])
}
