package adapters

import (
	"strings"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/iot"
)

// maxRequestID bounds a request id in bytes: a device says it, and what is in it
// becomes an address.
const maxRequestID = 4096

// ownReply is the bit of a request id's flag that says that the reply id began
// with the device, which was cut off.
const ownReply = 1

// ResponseTo says where the response to a command goes.
type ResponseTo struct{ CorrelationID, ReplyID string }

// RequestID is what a device has to name in its response to c (contract: adapters
// 6.2, messaging 9.6):
//
//	flag, one decimal digit: bit 0 = the reply id began with the device and a slash
//	length of the correlation id in UTF-16 units, two lower-case hex digits
//	correlation id, then the reply id without device and slash
//
// The error says why none can be built: iot.ErrInvalid. A one-way command has none.
func (c *Command) RequestID() (string, error) {
	n := units(c.CorrelationID)
	switch {
	case c.OneWay():
		return "", iot.Errorf(iot.ErrInvalid, "a one-way command has no request id")
	case c.Device == "":
		return "", iot.Errorf(iot.ErrInvalid, "command without device id")
	case n == 0 || n > 255:
		return "", iot.Errorf(iot.ErrInvalid, "correlation id of a command: want 1 to 255 characters, got %d", n)
	case !utf8.ValidString(c.CorrelationID) || !utf8.ValidString(c.ReplyID):
		return "", iot.Errorf(iot.ErrInvalid, "correlation id or reply id of a command is no UTF-8")
	}
	flag := byte('0')
	rest, own := strings.CutPrefix(c.ReplyID, string(c.Device)+"/")
	if own {
		flag += ownReply
	}
	size := 3 + len(c.CorrelationID) + len(rest)
	if size > maxRequestID {
		return "", iot.Errorf(iot.ErrInvalid, "reply id of a command is too long: its request id has %d bytes, want at most %d", size, maxRequestID)
	}
	const digits = "0123456789abcdef"
	b := make([]byte, 0, size)
	b = append(b, flag, digits[n>>4], digits[n&15])
	b = append(b, c.CorrelationID...)
	return string(append(b, rest...)), nil
}

// ParseRequestID is the inverse of [Command.RequestID] for a response of device.
// iot.ErrInvalid for what is none.
func ParseRequestID(id string, device iot.DeviceID) (ResponseTo, error) {
	if len(id) < 4 || len(id) > maxRequestID || !utf8.ValidString(id) {
		return ResponseTo{}, iot.Errorf(iot.ErrInvalid, "request id: want 4 to %d bytes of UTF-8", maxRequestID)
	}
	flag, high, low := id[0], hexDigit(id[1]), hexDigit(id[2])
	switch {
	case flag < '0' || flag > '0'+ownReply:
		return ResponseTo{}, iot.Errorf(iot.ErrInvalid, "request id: want it to begin with 0 or 1")
	case high < 0 || low < 0 || high+low == 0:
		return ResponseTo{}, iot.Errorf(iot.ErrInvalid, "request id: want the length of the correlation id in two hex digits")
	}
	correlation, rest, ok := cutUnits(id[3:], high<<4|low)
	if flag == '0'+ownReply {
		ok = ok && device != ""
		rest = string(device) + "/" + rest
	}
	if !ok || rest == "" {
		return ResponseTo{}, iot.Errorf(iot.ErrInvalid, "request id: it ends too early")
	}
	return ResponseTo{CorrelationID: correlation, ReplyID: rest}, nil
}

// hexDigit is the value of a lower-case hex digit, -1 of anything else.
func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// units is the length of s in UTF-16, in which others count.
func units(s string) (n int) {
	for _, r := range s {
		n += unitsOf(r)
	}
	return n
}

func unitsOf(r rune) int {
	if r > 0xffff {
		return 2
	}
	return 1
}

// cutUnits splits s after n units of UTF-16; false where that is not possible.
func cutUnits(s string, n int) (before, after string, ok bool) {
	for i, r := range s {
		if n <= 0 {
			return s[:i], s[i:], n == 0
		}
		n -= unitsOf(r)
	}
	return s, "", n == 0
}
