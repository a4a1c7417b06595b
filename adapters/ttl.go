package adapters

import (
	"encoding/json"
	"math"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// The keys of defaults that say how long a message is of use, in seconds.
const (
	keyTTL         = "ttl"
	keyTTLQoS0     = "ttl-telemetry-qos0"
	keyTTLQoS1     = "ttl-telemetry-qos1"
	keyTTLResponse = "ttl-command-response"
)

// maxTTL is the longest time that the header's field, unsigned 32 bit
// milliseconds, holds.
const maxTTL = math.MaxUint32 * time.Millisecond

// ttlLimits are a tenant's upper bounds in seconds; nil or negative = none.
type ttlLimits struct {
	Event    *float64 `json:"max-ttl"`
	QoS0     *float64 `json:"max-ttl-telemetry-qos0"`
	QoS1     *float64 `json:"max-ttl-telemetry-qos1"`
	Response *float64 `json:"max-ttl-command-response"`
}

// parseTTLLimits reads the tenant's resource limits. Limits fail open: what
// cannot be read limits nothing (contract: adapters 4.1).
func parseTTLLimits(raw json.RawMessage) ttlLimits {
	var l ttlLimits
	if len(raw) > 0 && json.Unmarshal(raw, &l) != nil {
		return ttlLimits{}
	}
	return l
}

// ttl computes the header's ttl (contract: messaging 15.3): the device's value,
// else the default, bounded by the tenant's limit; the limit itself where
// there is neither. 0 = none.
func (e *entry) ttl(endpoint iot.Endpoint, qos iot.QoS, own *time.Duration, useDefaults bool) time.Duration {
	fallback, limit := "", e.settings.limits.Event
	switch {
	case endpoint == iot.CommandResponse:
		fallback, limit = keyTTLResponse, e.settings.limits.Response
	case endpoint == iot.Telemetry && qos == iot.AtMostOnce:
		fallback, limit = keyTTLQoS0, e.settings.limits.QoS0
	case endpoint == iot.Telemetry:
		fallback, limit = keyTTLQoS1, e.settings.limits.QoS1
	}
	candidate := time.Duration(-1)
	if own != nil && *own >= 0 {
		candidate = *own
	} else if useDefaults {
		candidate = e.defaults.ttlOf(keyTTL, fallback)
	}
	if limit != nil && *limit > -1 {
		// A message of ttl 0 never ends, which is longer than any limit.
		bound := seconds(*limit)
		if candidate <= 0 || candidate > bound {
			candidate = bound
		}
	}
	return min(max(candidate, 0), maxTTL)
}

// ttlOf returns the first value that is set, -1 where none is.
func (d *defaults) ttlOf(names ...string) time.Duration {
	for _, name := range names {
		if n, ok := d.ttl[name]; ok && n >= 0 {
			return seconds(float64(n))
		}
	}
	return -1
}

// seconds converts without overflow.
func seconds(n float64) time.Duration {
	if n >= maxTTL.Seconds() {
		return maxTTL
	}
	return time.Duration(n) * time.Second
}
