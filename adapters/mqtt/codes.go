package mqtt

import (
	"errors"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// connack is how a CONNACK says no, in MQTT 3.1.1 and in MQTT 5.
type connack struct{ v3, v5 byte }

// Return codes of MQTT 3.1.1.
const (
	v3Identifier    = 2
	v3Unavailable   = 3
	v3NotAuthorized = 5
)

// connackOf says what the client is told of an error of its CONNECT (contract:
// adapters 8.3). Faults have no return code in MQTT 3.1.1, but for one.
func connackOf(err error) (connack, string) {
	var f *fault
	if errors.As(err, &f) {
		switch f.code {
		case packets.ErrClientIdentifierNotValid.Code:
			return connack{v3Identifier, f.code}, f.text
		}
		return connack{0, f.code}, f.text
	}
	row := status.Of(err)
	code := connack{row.MQTT311, row.MQTT}
	switch {
	case errors.Is(err, adapters.ErrInstanceConnections):
		code = connack{v3Unavailable, packets.ErrUseAnotherServer.Code}
	case errors.Is(err, adapters.ErrTenantConnections):
		code = connack{v3NotAuthorized, packets.ErrQuotaExceeded.Code}
	case errors.Is(err, iot.ErrQuota): // failed attempts: later it may go better
		code = connack{v3Unavailable, packets.ErrQuotaExceeded.Code}
	case errors.Is(err, iot.ErrNotFound): // the device's own registration
		code = connack{v3NotAuthorized, packets.ErrNotAuthorized.Code}
	}
	return code, status.Text(err)
}

// shown is what a client is told of an error.
func shown(err error) string { return status.Text(err) }

// disconnectOf is the reason code of a DISCONNECT after a PUBLISH that failed.
func disconnectOf(err error, qos byte) byte {
	switch {
	case qos > 1:
		return packets.ErrQosNotSupported.Code
	case errors.Is(err, errTopic), errors.Is(err, errEndpoint), errors.Is(err, errResponse), errors.Is(err, errSegment), errors.Is(err, errBag):
		return packets.ErrTopicNameInvalid.Code
	}
	switch status.Sentinel(err) {
	case iot.ErrTooLarge:
		return packets.ErrPacketTooLarge.Code
	case iot.ErrQuota:
		return packets.ErrQuotaExceeded.Code
	case iot.ErrUnauthenticated, iot.ErrForbidden, iot.ErrNotFound:
		return packets.ErrNotAuthorized.Code
	case iot.ErrUnavailable, iot.ErrNoCredit, iot.ErrTimeout:
		return packets.ErrServerBusy.Code
	case iot.ErrInvalid:
		return packets.ErrImplementationSpecificError.Code
	}
	return packets.ErrUnspecifiedError.Code
}
