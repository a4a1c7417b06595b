package mqtt

import (
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// maxCorrelation bounds a correlation id in bytes: it comes back in the topic
// of an error message.
const maxCorrelation = 512

// errBag: nothing of a topic with such a bag counts (contract: adapters 8.5).
var errBag = iot.Errorf(iot.ErrInvalid, "malformed topic name: property bag: want /?name=value&name=value, escaped as in a URL")

// settings are what a PUBLISH says about its message beside topic and payload:
// in the property bag and, from MQTT 5 on, in properties. Of two values for
// one name the first counts, and those of the bag come first.
type settings struct {
	contentType   string
	ttl           time.Duration // of events only
	hasTTL        bool
	onError       onError
	correlationID string // "" = none
	traceParent   string
	traceState    string
	properties    map[string]any // further application properties; nil = none

	given [keys]bool
}

// key is a name with a meaning of its own.
type key uint8

const (
	keyContentType key = iota
	keyTTL
	keyOnError
	keyCorrelationID
	keyTraceParent
	keyTraceState
	keys
)

var keyNames = [keys]string{"content-type", "hono-ttl", "on-error", "correlation-id", "traceparent", "tracestate"}

// keyOf finds a name in any case.
func keyOf(name string) (key, bool) {
	for k, known := range keyNames {
		if len(name) == len(known) && strings.EqualFold(name, known) {
			return key(k), true
		}
	}
	return 0, false
}

// splitBag cuts the property bag, which the last "/?" begins, off a topic. The
// query is what follows it.
func splitBag(topic string) (name, query string, err error) {
	switch at := strings.LastIndex(topic, "/?"); at {
	case -1:
		return topic, "", nil
	case 0:
		return "", "", errTopic
	default:
		return topic[:at], topic[at+len("/?"):], nil
	}
}

// addBag takes in a property bag. Names nobody knows are for nobody, but have
// to be well-formed too.
func (s *settings) addBag(query string) error {
	for query != "" {
		var pair string
		if at := strings.IndexAny(query, "&;"); at >= 0 {
			pair, query = query[:at], query[at+1:]
		} else {
			pair, query = query, ""
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil || !plainText(name) {
			return errBag
		}
		value, err = url.QueryUnescape(value)
		if err != nil || !plainText(value) {
			return errBag
		}
		if k, ok := keyOf(name); ok {
			if err := s.set(k, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// set gives k a value, unless it has one.
func (s *settings) set(k key, value string) error {
	if s.given[k] {
		return nil
	}
	s.given[k] = true
	switch k {
	case keyContentType:
		s.contentType = value
	case keyTTL:
		s.ttl, s.hasTTL = parseTTL(value)
		s.given[k] = s.hasTTL
	case keyOnError:
		s.onError = parseOnError(value)
	case keyCorrelationID:
		if len(value) > maxCorrelation {
			return iot.Errorf(iot.ErrInvalid, "correlation-id: at most %d bytes", maxCorrelation)
		}
		s.correlationID = value
	case keyTraceParent:
		s.traceParent = value
	case keyTraceState:
		s.traceState = value
	}
	return nil
}

// parseTTL reads whole seconds; false for what is negative or no number.
func parseTTL(text string) (time.Duration, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	return time.Duration(min(n, math.MaxUint32)) * time.Second, true
}
