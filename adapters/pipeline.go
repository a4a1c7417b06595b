package adapters

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-iot/sluice/internal/iot"
)

// DefaultMaxPayload is the largest payload in bytes where none is configured
// (contract: adapters 18).
const DefaultMaxPayload = 2048

// EmptyNotification is the content type of an upload without payload that only
// says how long the device listens (contract: adapters 5.1).
const EmptyNotification = "application/vnd.eclipse-hono-empty-notification"

// octetStream is the content type of a payload that nobody named one for.
const octetStream = "application/octet-stream"

// Options configure [NewPipeline].
type Options struct {
	Type       string      // adapter type, such as hono-http
	Admissions *Admissions // required
	Downstream Downstream  // required
	MaxPayload int         // bytes; 0 = DefaultMaxPayload
	NoDefaults bool        // leave telemetry and events without the tenant's and device's defaults
	Meter      *Meter      // nil = nothing is counted
	Commands   *Commands   // nil = devices cannot subscribe for commands
	Presence   *Presence   // tells when devices can be reached; nil = nobody is told
}

// Pipeline takes a device's upload from the protocol to the applications. It
// has no state of its own. Safe for concurrent use.
type Pipeline struct{ o Options }

// NewPipeline returns the pipeline of one adapter.
func NewPipeline(o Options) *Pipeline {
	if o.Type == "" || o.Admissions == nil || o.Downstream == nil {
		panic("adapters: NewPipeline needs Type, Admissions and Downstream")
	}
	orDefault(&o.MaxPayload, DefaultMaxPayload)
	return &Pipeline{o}
}

// MaxPayload is the largest payload in bytes: do not read more than one byte
// beyond it.
func (p *Pipeline) MaxPayload() int { return p.o.MaxPayload }

// Ready reports whether messages can leave.
func (p *Pipeline) Ready() bool { return p.o.Downstream.Ready() }

// Admit lets a device in, or says why not; see [Admissions.Admit]. It sets
// r.Admit.Adapter.
//
// A request for a device other than the authenticated one names it in
// r.Admit.DeviceID; whether the two differ is found by the function.
func (p *Pipeline) Admit(ctx context.Context, r *Request) (Admission, error) {
	r.Admit.Adapter = p.o.Type
	return p.o.Admissions.Admit(ctx, r)
}

// Upload is one message as the device sent it.
type Upload struct {
	Endpoint        iot.Endpoint
	QoS             iot.QoS
	Address         string // URI or topic the device used
	ContentType     string // without parameters; "" = not given
	ContentEncoding string
	TTL             *time.Duration // nil = not given
	TTD             *int           // effective seconds; nil = none
	Retain          bool
	Properties      map[string]any // further application properties; win over defaults
	Payload         []byte         // nil = no body section, empty = an empty one
	TraceParent     string         // W3C trace context of the device, checked here
	TraceState      string

	// Of a command response alone.
	To     ResponseTo
	Status int // 200 to 299 or 400 to 599

	// TTDOutcome is how the wait for a command ended that TTD announced; "" = there
	// was none. See [TTDPending].
	TTDOutcome string
}

// Publish checks up, makes the message of it and sends it. It returns nil when
// the device may be told that all is well: with AtMostOnce once the message is
// on its way, with AtLeastOnce once an application accepted it, or an event was stored. Errors are
//
//	iot.ErrInvalid      content type, payload or QoS do not fit, or the application rejected it
//	iot.ErrTooLarge     payload above MaxPayload, or above what the router takes
//	iot.ErrNoCredit     nobody consumes, or events are not stored
//	iot.ErrTimeout      no outcome in time
//	iot.ErrUnavailable  not processed, or no router
//
// and those of Admit, where the router no longer took the admission's
// assertion and the device was admitted anew. Neither up nor its payload is
// kept.
func (p *Pipeline) Publish(ctx context.Context, who Admission, up *Upload) error {
	start := time.Now()
	err := p.publish(ctx, who, up)
	p.count(who, up, start, err)
	return err
}

// count counts an upload, unless the adapter will.
func (p *Pipeline) count(who Admission, up *Upload, start time.Time, err error) {
	if err != nil || up.TTDOutcome != TTDPending {
		p.o.Meter.Uploaded(who.TenantObject(), up, start, err)
	}
}

// Answered counts an upload that Publish or Submit left uncounted because its
// TTDOutcome was [TTDPending]. The adapter calls it once the device has its answer,
// with the TTDOutcome that it came to, the time at which the upload began, and the
// error that the device was told of, nil = none.
func (p *Pipeline) Answered(who Admission, up *Upload, start time.Time, err error) {
	p.o.Meter.Uploaded(who.TenantObject(), up, start, err)
}

func (p *Pipeline) publish(ctx context.Context, who Admission, up *Upload) error {
	if err := p.check(up); err != nil {
		return err
	}
	p.usedGateway(who)
	m := p.message(who, up)
	err := p.send(ctx, who, m)
	if !errors.Is(err, iot.ErrForbidden) {
		return downstreamError(eventError(up, err))
	}
	if who, err = p.o.Admissions.renew(ctx, who); err != nil {
		return err
	}
	err = p.send(ctx, who, p.again(who, up, m))
	return downstreamError(eventError(up, refusedAgain(err)))
}

func (p *Pipeline) send(ctx context.Context, who Admission, m *iot.Message) error {
	start := time.Now()
	err := p.o.Downstream.Send(ctx, m)
	p.sent(who, m, start, err)
	return err
}

// sent notes what became of a message that was given to the [Downstream] at start.
func (p *Pipeline) sent(who Admission, m *iot.Message, start time.Time, err error) {
	p.o.Meter.delivered(m, start, err)
	if err == nil {
		p.tellUplink(who, m)
	}
}

// Submit is [Pipeline.Publish] for who does not wait. done is called exactly
// once with Publish's outcome, maybe before Submit returns, on any goroutine,
// and must not block. up and its payload belong to the pipeline until then.
// Messages leave in the order in which they are submitted.
func (p *Pipeline) Submit(who Admission, up *Upload, done func(error)) {
	start := time.Now()
	if err := p.check(up); err != nil {
		p.submitted(who, up, start, err, done)
		return
	}
	p.usedGateway(who)
	m := p.message(who, up)
	p.o.Downstream.Start(m, func(err error) {
		p.sent(who, m, start, err)
		if !errors.Is(err, iot.ErrForbidden) {
			p.submitted(who, up, start, downstreamError(eventError(up, err)), done)
			return
		}
		p.o.Admissions.renewThen(who, func(anew Admission, err error) {
			if err != nil {
				p.submitted(who, up, start, err, done)
				return
			}
			p.submitAgain(anew, up, m, start, done)
		})
	})
}

// submitted tells done how a message ended that was submitted at start.
func (p *Pipeline) submitted(who Admission, up *Upload, start time.Time, err error, done func(error)) {
	p.count(who, up, start, err)
	done(err)
}

// submitAgain sends m with a new assertion after the router no longer took the
// one that it had.
func (p *Pipeline) submitAgain(who Admission, up *Upload, m *iot.Message, start time.Time, done func(error)) {
	m = p.again(who, up, m)
	sent := time.Now()
	p.o.Downstream.Start(m, func(err error) {
		p.sent(who, m, sent, err)
		p.submitted(who, up, start, downstreamError(eventError(up, refusedAgain(err))), done)
	})
}

// again is m with the assertion of a new admission.
func (p *Pipeline) again(who Admission, up *Upload, m *iot.Message) *iot.Message {
	again := p.message(who, up)
	again.ID, again.Created, again.TraceParent = m.ID, m.Created, m.TraceParent
	return again
}

// refusedAgain turns the refusal of a fresh assertion into our own failure.
func refusedAgain(err error) error {
	if errors.Is(err, iot.ErrForbidden) {
		return &shownError{shown: iot.Errorf(iot.ErrUnavailable, TextUnavailable), cause: fmt.Errorf("router refused a fresh assertion: %v", err)}
	}
	return err
}

// eventError says what no credit means for an event: it needs no consumer.
func eventError(up *Upload, err error) error {
	if up.Endpoint == iot.Event && errors.Is(err, iot.ErrNoCredit) {
		return &shownError{shown: iot.Errorf(iot.ErrNoCredit, TextNoEvents), cause: err}
	}
	return err
}

// check applies the rules that need no look-up (contract: adapters 5.1, 5.2).
func (p *Pipeline) check(up *Upload) error {
	switch {
	case up.Endpoint != iot.Telemetry && up.Endpoint != iot.Event && up.Endpoint != iot.CommandResponse:
		return iot.Errorf(iot.ErrNotFound, "no such endpoint")
	case up.QoS != iot.AtMostOnce && up.QoS != iot.AtLeastOnce:
		return iot.Errorf(iot.ErrInvalid, "unsupported quality of service: want 0 or 1")
	case up.Endpoint == iot.Event && up.QoS == iot.AtMostOnce:
		return iot.Errorf(iot.ErrInvalid, "events are sent with quality of service 1 only")
	case !isSymbol(up.ContentType), !isSymbol(up.ContentEncoding):
		return iot.Errorf(iot.ErrInvalid, "content type and encoding: want at most 255 printable ASCII characters")
	case len(up.Payload) > p.o.MaxPayload:
		return iot.Errorf(iot.ErrTooLarge, "payload is larger than %d bytes", p.o.MaxPayload)
	case up.Endpoint == iot.CommandResponse:
		return up.checkResponse()
	case len(up.Payload) == 0 && up.ContentType == "":
		return iot.Errorf(iot.ErrInvalid, "content type is missing: an upload without payload needs one")
	case len(up.Payload) > 0 && up.ContentType == EmptyNotification:
		return iot.Errorf(iot.ErrInvalid, "content type %s does not go with a payload", EmptyNotification)
	}
	return nil
}

// checkResponse applies the rules for responses (contract: adapters 6.3).
func (up *Upload) checkResponse() error {
	switch {
	case up.Status < 200 || up.Status > 299 && up.Status < 400 || up.Status > 599:
		return iot.Errorf(iot.ErrInvalid, "status of a command response is %d, want 200 to 299 or 400 to 599", up.Status)
	case up.To.ReplyID == "" || up.To.CorrelationID == "":
		return iot.Errorf(iot.ErrInvalid, "command response without reply id or correlation id")
	}
	return nil
}

// message makes what goes to the applications (contract: messaging 7.1).
func (p *Pipeline) message(who Admission, up *Upload) *iot.Message {
	useDefaults := up.Endpoint == iot.CommandResponse || !p.o.NoDefaults
	m := &iot.Message{
		Endpoint: up.Endpoint, Tenant: who.Tenant(), Device: who.Device(), Gateway: who.Gateway(),
		QoS: up.QoS, ID: newID(), Created: time.Now(),
		Adapter: p.o.Type, Address: strings.ToValidUTF8(up.Address, "\uFFFD"),
		Assertion:   who.e.assertion,
		ContentType: up.ContentType, ContentEncoding: up.ContentEncoding,
		TTL:     who.e.ttl(up.Endpoint, up.QoS, up.TTL, useDefaults),
		TTD:     up.TTD,
		Retain:  up.Retain,
		Payload: up.Payload,
	}
	if up.Endpoint == iot.CommandResponse {
		m.ReplyID, m.CorrelationID, m.Status = up.To.ReplyID, up.To.CorrelationID, up.Status
	}
	d := who.e.defaults
	if !useDefaults {
		d = &defaults{}
	}
	d.fill(m)
	m.Properties = d.merged(up.Properties)
	if m.ContentType == "" && len(m.Payload) > 0 {
		m.ContentType = octetStream
	}
	m.TraceParent, m.TraceState = traceContext(up.TraceParent, up.TraceState)
	return m
}

// newID is a UUID of version 7. It has to be unique and need not be a secret, so that
// the generator will do that takes its seed from the system and not each number.
func newID() string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().UnixMilli())<<16|rand.Uint64()&0x0fff|0x7000)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()&^(3<<62)|2<<62)
	return id.String()
}
