package mqtt

import (
	"strconv"
	"strings"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

var errStatus = iot.Errorf(iot.ErrInvalid, "status of a command response: want a number, 200 to 299 or 400 to 599")

// respond makes up a command response where the publication is one (contract:
// adapters 6.2, 6.3). The device that a topic leaves out is the client's own.
func (p *publication) respond(up *adapters.Upload, who owner) (err error) {
	if p.endpoint != iot.CommandResponse {
		return nil
	}
	device := p.device
	if device == "" {
		device = who.device
	}
	if up.Status, err = strconv.Atoi(p.status); err != nil {
		return errStatus
	}
	up.To, err = adapters.ParseRequestID(unescapeRequest(p.request), device)
	return err
}

// unescapeRequest takes back what escapeSegment did to a request id. What is no
// escape stays as it is.
func unescapeRequest(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
