package mqtt

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// onError is what a device wants to happen when its message fails.
type onError uint8

const (
	onErrorDefault    onError = iota // close, unless the error is reported
	onErrorDisconnect                // close
	onErrorIgnore                    // acknowledge as if nothing were
	onErrorSkipAck                   // go on without acknowledgement
)

// parseOnError takes what it does not know for the default.
func parseOnError(value string) onError {
	switch value {
	case "disconnect":
		return onErrorDisconnect
	case "ignore":
		return onErrorIgnore
	case "skip-ack":
		return onErrorSkipAck
	}
	return onErrorDefault
}

// pubackFailed is the reason code of the PUBACK for a message that failed.
const pubackFailed = 0x80

// reaction is what follows a PUBLISH that failed, in this order: the error is
// reported to the device's error topic, then the PUBLISH acknowledged or the
// connection closed.
type reaction struct{ report, puback, close bool }

// react decides it (contract: adapters 8.7). A terminal error closes in every
// mode; only a PUBLISH with quality of service 1 has a PUBACK.
func react(mode onError, qos byte, subscribed, terminal bool) reaction {
	r := reaction{report: subscribed}
	r.close = terminal || mode == onErrorDisconnect || mode == onErrorDefault && !subscribed
	r.puback = !r.close && mode != onErrorSkipAck && qos == 1
	return r
}

// failure is a PUBLISH that failed.
type failure struct {
	*publication
	who      owner
	packetID uint16 // 0 = none
	err      error
	at       time.Time
}

// report makes the error message for a subscription (contract: adapters 8.8).
func (f *failure) report(sub *subscription) (topic string, payload []byte) {
	code := status.HTTP(f.err)
	correlation := f.correlation()
	payload, err := json.Marshal(struct {
		Code          int    `json:"code"`
		Message       string `json:"message"`
		Timestamp     string `json:"timestamp"`
		CorrelationID string `json:"correlation-id"`
	}{code, status.Text(f.err), f.at.UTC().Format("2006-01-02T15:04:05.000Z"), correlation})
	if err != nil {
		panic("mqtt: error message: " + err.Error()) // a number and strings always marshal
	}
	segments := [...]string{sub.spelling, sub.tenant, f.segment(sub), f.endpointName(), escapeSegment(correlation, false), strconv.Itoa(code)}
	return strings.Join(segments[:], "/"), payload
}

// correlation is what the device knows the PUBLISH by.
func (f *failure) correlation() string {
	switch {
	case f.correlationID != "":
		return f.correlationID
	case f.packetID != 0:
		return strconv.Itoa(int(f.packetID))
	}
	return "-1"
}

// segment is the device that the topic of the report names: none where the
// subscription is for this one alone and leaves it out.
func (f *failure) segment(sub *subscription) string {
	device := f.device
	if device == "" {
		device = f.who.device
	}
	if sub.device == "" && device == sub.key.device {
		return ""
	}
	return string(device)
}

// endpointName is the endpoint as the client writes it.
func (f *failure) endpointName() string {
	switch {
	case f.endpoint == "":
		return "unknown"
	case f.endpoint != iot.CommandResponse:
		return f.spelling
	case f.spelling == "c":
		return "c-s"
	}
	return "command-response"
}
