package adapters

import (
	"errors"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// Figures of uploads stand in arrays, one dimension per tag (contract:
// adapters 16), so that finding them builds no key.
const (
	uploadTypes = 2 // telemetry, event

	statusForwarded     = 0
	statusUnprocessable = 1 // the device or its message is at fault
	statusUndeliverable = 2 // we, or the applications, are
	uploadStatuses      = 3

	unknownQoS = 2 // the place of one that does not exist
	uploadQoS  = 3

	uploadTTDs = 3 // none, expired, command
)

// The tags by index.
var (
	typeTags   = [uploadTypes]string{string(iot.Telemetry), string(iot.Event)}
	statusTags = [uploadStatuses]string{statusForwarded: "forwarded", statusUnprocessable: "unprocessable", statusUndeliverable: "undeliverable"}
	qosTags    = [uploadQoS]string{iot.AtMostOnce: "0", iot.AtLeastOnce: "1", unknownQoS: "unknown"}
)

// What becomes of the wait for a command that follows an upload: the tag ttd of its
// figures, as [Upload.TTDOutcome]. "" stands for none.
const (
	TTDExpired = "expired" // none came
	TTDCommand = "command" // the response to the upload has one
	// TTDPending leaves a successful upload uncounted until [Pipeline.Answered].
	TTDPending = "pending"
)

var ttdTags = [uploadTTDs]string{"none", TTDExpired, TTDCommand}

// ttdIndex is the place of an outcome's figures.
func ttdIndex(outcome string) int {
	switch outcome {
	case TTDExpired:
		return 1
	case TTDCommand:
		return 2
	}
	return 0
}

// uploadFigures are what is counted of the uploads with the same tags.
type uploadFigures struct{ duration, payload summary }

// typeIndex is the place of an endpoint's figures; false where uploads to it
// are not counted.
func typeIndex(e iot.Endpoint) (int, bool) {
	switch e {
	case iot.Telemetry:
		return 0, true
	case iot.Event:
		return 1, true
	}
	return 0, false
}

func qosIndex(q iot.QoS) int {
	if q == iot.AtMostOnce || q == iot.AtLeastOnce {
		return int(q)
	}
	return unknownQoS
}

// uploadStatus sorts the outcome of an upload by who is at fault.
func uploadStatus(err error) int {
	switch {
	case err == nil:
		return statusForwarded
	case errors.Is(err, iot.ErrNoCredit), errors.Is(err, iot.ErrUnavailable), errors.Is(err, iot.ErrTimeout):
		return statusUndeliverable
	case status.For(status.Upload, err).HTTP < 500:
		return statusUnprocessable
	}
	return statusUndeliverable
}

// meteredSize is what a payload of n bytes counts (contract: adapters 4.1): a
// multiple of the tenant's minimum-message-size.
func meteredSize(n, minimum int) float64 {
	if n <= 0 || minimum <= 0 {
		return float64(n)
	}
	return float64((n-1)/minimum+1) * float64(minimum)
}

// Uploaded counts an upload of a device of tenant that the adapter began to
// process at start and that ended with err; nil = the device was told that all
// is well. [Pipeline.Publish] and [Pipeline.Submit] call it; an adapter does
// for what it refuses of an admitted device itself. A command response counts
// as a command's.
func (m *Meter) Uploaded(tenant *events.TenantObject, up *Upload, start time.Time, err error) {
	if m == nil {
		return
	}
	if up.Endpoint == iot.CommandResponse {
		m.countCommand(tenant, directionResponse, uploadStatus(err), len(up.Payload), start)
		return
	}
	kind, ok := typeIndex(up.Endpoint)
	if !ok {
		return
	}
	size := meteredSize(len(up.Payload), tenant.MinimumMessageSize)
	outcome, qos, ttd := uploadStatus(err), qosIndex(up.QoS), ttdIndex(up.TTDOutcome)
	took := time.Since(start)
	now := start.Sub(m.made) + took
	s, t := m.lock(tenant.ID, now)
	defer s.mu.Unlock()
	f := t.uploads[kind][outcome][qos][ttd]
	if f == nil {
		f = &uploadFigures{}
		t.uploads[kind][outcome][qos][ttd] = f
	}
	f.duration.record(now, took.Seconds())
	f.payload.record(now, size)
}

// The outcomes of a delivery to a router, as far as a [Downstream] tells them.
const (
	outcomeAccepted  = 0
	outcomeRejected  = 1
	outcomeAborted   = 2 // neither: released, modified, lost, or no router
	deliveryOutcomes = 3
)

var outcomeTags = [deliveryOutcomes]string{outcomeAccepted: "accepted", outcomeRejected: "rejected", outcomeAborted: "aborted"}

// deliveryFigures are what is counted of deliveries to routers.
type deliveryFigures struct {
	duration [deliveryOutcomes]summary
	noCredit uint64
	timeouts uint64
}

// delivered counts what became of a message given to the [Downstream] at
// start. One sent at most once has no outcome.
func (m *Meter) delivered(msg *iot.Message, start time.Time, err error) {
	if m == nil || err == nil && msg.QoS == iot.AtMostOnce {
		return
	}
	kind, ok := typeIndex(msg.Endpoint)
	if !ok {
		return
	}
	took := time.Since(start)
	now := start.Sub(m.made) + took
	s, t := m.lock(msg.Tenant, now)
	defer s.mu.Unlock()
	f := t.deliveries[kind]
	if f == nil {
		f = &deliveryFigures{}
		t.deliveries[kind] = f
	}
	switch {
	case err == nil:
		f.duration[outcomeAccepted].record(now, took.Seconds())
	case errors.Is(err, iot.ErrNoCredit):
		f.noCredit++
	case errors.Is(err, iot.ErrTimeout):
		f.timeouts++
	case errors.Is(err, iot.ErrInvalid), errors.Is(err, iot.ErrForbidden), errors.Is(err, iot.ErrTooLarge):
		f.duration[outcomeRejected].record(now, took.Seconds())
	default:
		f.duration[outcomeAborted].record(now, took.Seconds())
	}
}
