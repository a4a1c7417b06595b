package router

import (
	"errors"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/forward"
)

// Names on the wire (contract: events 4.1, messaging 7.1).
const (
	annotationAssertion = "x-opt-reg-assertion"
	annotationDevice    = "device_id"
	annotationTenant    = "tenant_id"
	propertyDevice      = "device_id"
	propertyAssertion   = "reg_assertion"
)

// capabilityAssertion is offered to senders of the 2018 mode: they attach
// assertions only where it is (contract: messaging 18.2).
const capabilityAssertion amqp.Symbol = "hono-reg-assertion"

// DescriptionNoDevice tells a sender that its assertion was refused, and with
// it the device; it is what Hono's messaging component said.
const DescriptionNoDevice = "device non-existent/disabled"

// gate verifies the registration assertion of every message that one sender
// sends to an address of one tenant, and takes it out: it is for this hop.
type gate struct {
	tenant   iot.TenantID
	required bool
	property bool // the token is in the application property of 2018
	verifier *assertion.Verifier
	now      func() time.Time
}

var errNoDevice = &amqp.Error{Condition: amqp.CondPreconditionFailed, Description: DescriptionNoDevice}

// Admit implements [forward.Gate].
func (g *gate) Admit(message, scratch []byte) (forward.Parts, []byte, *amqp.Error) {
	if g.property {
		return g.admitProperty(message, scratch)
	}
	s, err := amqp.ScanSections(message)
	if err != nil {
		return forward.Parts{}, scratch, malformed(err)
	}
	annotations := s.DeliveryAnnotations.Of(message)
	token, err := amqp.MapValue(annotations, annotationAssertion)
	if err != nil {
		return forward.Parts{}, scratch, malformed(err)
	}
	if token == nil {
		if g.required {
			return forward.Parts{}, scratch, errNoDevice
		}
		return forward.Parts{Tail: message}, scratch, nil
	}
	if refused := g.verify(token, message, &s); refused != nil {
		return forward.Parts{}, scratch, refused
	}
	at := len(scratch)
	scratch, err = amqp.AppendWithoutEntry(scratch, annotations, annotationAssertion)
	if err != nil {
		return forward.Parts{}, scratch, malformed(err)
	}
	return forward.Parts{
		Head: s.Header.Of(message),
		Mid:  scratch[at:],
		Tail: message[s.DeliveryAnnotations.End:],
	}, scratch, nil
}

// admitProperty is Admit in the mode of 2018: the token is an application
// property, and is dropped from there.
func (g *gate) admitProperty(message, scratch []byte) (forward.Parts, []byte, *amqp.Error) {
	s, err := amqp.ScanSections(message)
	if err != nil {
		return forward.Parts{}, scratch, malformed(err)
	}
	properties := s.ApplicationProperties.Of(message)
	device, err := amqp.MapValueOnce(properties, propertyDevice)
	if err != nil || device == nil {
		return forward.Parts{}, scratch, &amqp.Error{Condition: amqp.CondDecodeError, Description: "malformed message"}
	}
	token, err := amqp.MapValueOnce(properties, propertyAssertion)
	if err != nil || token == nil {
		return forward.Parts{}, scratch, errNoDevice
	}
	optional := gate{tenant: g.tenant, verifier: g.verifier, now: g.now} // annotations were the receiver's to add
	if refused := optional.verify(token, message, &s); refused != nil {
		return forward.Parts{}, scratch, refused
	}
	at := len(scratch)
	if scratch, err = amqp.AppendWithoutEntry(scratch, properties, propertyAssertion); err != nil {
		return forward.Parts{}, scratch, malformed(err)
	}
	return forward.Parts{
		Head: message[:s.ApplicationProperties.Start],
		Mid:  scratch[at:],
		Tail: message[s.ApplicationProperties.End:],
	}, scratch, nil
}

func malformed(err error) *amqp.Error {
	return &amqp.Error{Condition: amqp.CondDecodeError, Description: err.Error()}
}

// verify holds the token against the address, the annotations and the property
// that applications read.
func (g *gate) verify(token amqp.Raw, message []byte, s *amqp.Sections) *amqp.Error {
	claims, err := g.verifier.Verify(token.Text(), g.now())
	if errors.Is(err, iot.ErrUnavailable) {
		return &amqp.Error{Condition: amqp.CondInternalError, Description: "assertions cannot be verified now"}
	}
	if err != nil || claims.Tenant != g.tenant {
		return errNoDevice
	}
	annotations := s.MessageAnnotations.Of(message)
	for _, c := range [...]struct {
		section []byte
		key     string
		want    string
		must    bool
	}{
		{annotations, annotationTenant, string(claims.Tenant), g.required},
		{annotations, annotationDevice, string(claims.Device), g.required},
		{s.ApplicationProperties.Of(message), propertyDevice, string(claims.Device), true},
	} {
		v, err := amqp.MapValueOnce(c.section, c.key)
		if err != nil {
			return malformed(err)
		}
		if v == nil && !c.must {
			continue
		}
		if string(v.Text()) != c.want {
			return errNoDevice
		}
	}
	return nil
}
