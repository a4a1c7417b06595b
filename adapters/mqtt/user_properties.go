package mqtt

import (
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Bounds of the user properties of one PUBLISH that become application
// properties: their number, and the bytes of their names and values.
const (
	maxUserProperties     = 64
	maxUserPropertiesSize = 4096
)

var errUserProperties = iot.Errorf(iot.ErrInvalid, "user properties: at most %d with %d bytes in all", maxUserProperties, maxUserPropertiesSize)

// reserved are names by which applications know what the platform itself says
// of a message (contract: messaging 1.7, 7.1, 12.3). A device does not get to
// use them.
func reserved(name string) bool {
	switch name {
	case "", "device_id", "tenant_id", "gateway_id", "resource", "qos", "ttd", "orig_adapter", "orig_address",
		"reg_assertion", "cache_control", "hono_registration_status":
		return true
	}
	return strings.HasPrefix(name, "x-opt-")
}

// addProperties takes in the properties of an MQTT 5 PUBLISH, after its bag.
// User properties named like the bag's keys count like those and go before the
// properties of MQTT itself, further ones become application properties.
func (s *settings) addProperties(p *packets.Properties) error {
	count, size := 0, 0
	for i := range p.User {
		name, value := p.User[i].Key, p.User[i].Val
		if k, ok := keyOf(name); ok {
			if err := s.set(k, value); err != nil {
				return err
			}
			continue
		}
		if reserved(name) {
			continue
		}
		count++
		size += len(name) + len(value)
		if count > maxUserProperties || size > maxUserPropertiesSize {
			return errUserProperties
		}
		s.addProperty(name, value)
	}
	if p.ContentType != "" && !s.given[keyContentType] {
		s.contentType = p.ContentType
	}
	if p.MessageExpiryInterval > 0 && !s.hasTTL {
		s.ttl, s.hasTTL = time.Duration(p.MessageExpiryInterval)*time.Second, true
	}
	return nil
}

func (s *settings) addProperty(name, value string) {
	if s.properties == nil {
		s.properties = make(map[string]any)
	}
	if _, twice := s.properties[name]; !twice {
		s.properties[name] = value
	}
}

// publication is what a PUBLISH says about its message.
type publication struct {
	address string // the topic with its bag, as the client wrote it
	target
	settings
}

// readPublication reads topic and properties of a PUBLISH, a will's too. With
// an error it holds what was understood, which is what the report of the error
// and the reaction to it go by. Its strings are parts of the packet.
func readPublication(topic string, p *packets.Properties) (publication, error) {
	pub := publication{address: topic}
	name, query, err := splitBag(topic)
	if err == nil {
		err = pub.addBag(query)
	}
	if err == nil {
		pub.target, err = parseTopic(name)
	}
	if properties := pub.addProperties(p); err == nil {
		err = properties
	}
	return pub, err
}

// upload makes the upload of a PUBLISH. A payload of no bytes is an empty one,
// not a missing one (contract: adapters 5.1). The quality of service is checked
// where the upload is.
func (p *publication) upload(qos byte, retain bool, payload []byte) *adapters.Upload {
	if payload == nil {
		payload = []byte{}
	}
	up := &adapters.Upload{
		Endpoint:    p.endpoint,
		QoS:         iot.QoS(qos),
		Address:     p.address,
		ContentType: p.contentType,
		Retain:      retain,
		Properties:  p.properties,
		Payload:     payload,
		TraceParent: p.traceParent,
		TraceState:  p.traceState,
	}
	if p.hasTTL && p.endpoint == iot.Event {
		up.TTL = &p.ttl
	}
	return up
}
