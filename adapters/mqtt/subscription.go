package mqtt

import (
	"slices"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// maxSubscriptions bounds what one client may subscribe to. A gateway with
// more devices than this takes one filter for all.
const maxSubscriptions = 128

// Reason codes of a SUBACK or UNSUBACK of MQTT 5; MQTT 3.1.1 knows the first only.
const (
	subackFailure       = 0x80
	subackOther         = 0x83 // implementation specific error
	subackNotAuthorized = 0x87
	subackFilter        = 0x8f // topic filter invalid
	subackQuota         = 0x97
	subackShared        = 0x9e
	unsubackNone        = 0x11 // no subscription existed
)

// refusal says why a filter is not granted: the reason code of MQTT 5 and its
// reason string.
type refusal struct {
	code byte
	text string
}

func (r *refusal) Error() string { return r.text }

var (
	errErrorFilter   = &refusal{subackFilter, "want error/[tenant]/[device or +]/#"}
	errCommandFilter = &refusal{subackFilter, "want command/[tenant]/[device or +]/req/#"}
	errFilter        = &refusal{subackFilter, "no such endpoint: want error/[tenant]/[device or +]/# or command/[tenant]/[device or +]/req/#"}
	errFilterAddress = &refusal{subackFilter, "tenant and device are missing: a client that is not authenticated names both"}
	errFilterTenant  = &refusal{subackNotAuthorized, "not authorized for this tenant"}
	errFilterQoS     = &refusal{subackOther, "error messages are sent with quality of service 0 only"}
	errCommandQoS    = &refusal{subackOther, "commands are sent with quality of service 0 or 1"}
	errSubscriptions = &refusal{subackQuota, "too many subscriptions"}
	errShared        = &refusal{subackShared, "shared subscriptions are not available"}
)

// owner is the authenticated device of a connection; the zero value is a
// client that is not authenticated.
type owner struct {
	tenant iot.TenantID
	device iot.DeviceID
	alias  iot.TenantID // by which the client calls its tenant, too; "" in keys
}

// named is the tenant that the client means by a name; "" is its own.
func (o owner) named(tenant iot.TenantID) iot.TenantID {
	if tenant == "" || !o.anonymous() && tenant == o.alias {
		return o.tenant
	}
	return tenant
}

func (o owner) anonymous() bool { return o.device == "" }

// purpose is what a client subscribes for.
type purpose uint8

const (
	forErrors purpose = iota
	forCommands
)

// subscription is one filter of a client (contract: adapters 8.8, 8.9). What
// is sent for it is spelled as the filter is.
type subscription struct {
	key      subscriptionKey
	spelling string // first segment: error, e, command or c
	tenant   string // as in the filter, "" = left out
	device   string // as in the filter, "" = left out, + = any
	verb     string // of a command filter: req or q
	qos      byte

	// Of a command filter that is granted.
	c      *conn
	handle *adapters.CommandSubscription
}

// subscriptionKey names a subscription: another filter with the same key
// replaces it. All devices of a gateway share the key of the gateway itself.
type subscriptionKey struct {
	purpose purpose
	owner
}

// behalf reports whether the subscription is for one device other than the
// authenticated one, which the registration has to allow.
func (s *subscription) behalf(who owner) bool { return !who.anonymous() && s.key.device != who.device }

// parseFilter reads a filter. Errors are of type *refusal. The strings of the
// subscription are parts of the filter.
func parseFilter(filter string, qos byte, who owner) (subscription, error) {
	var s [5]string
	n := segments(filter, s[:])
	if strings.HasSuffix(filter, "/") {
		n = 0 // nothing follows #
	}
	sub := subscription{spelling: s[0], tenant: s[1], device: s[2], qos: qos}
	switch s[0] {
	case "error", "e":
		if n != 4 || s[3] != "#" || !plainText(filter) {
			return sub, errErrorFilter
		}
	case "command", "c":
		if n != 5 || s[3] != "req" && s[3] != "q" || s[4] != "#" || !plainText(filter) {
			return sub, errCommandFilter
		}
		sub.key.purpose, sub.verb = forCommands, s[3]
	case "$share":
		return sub, errShared
	default:
		return sub, errFilter
	}
	if err := sub.own(who); err != nil {
		return sub, err
	}
	switch {
	case sub.key.purpose == forCommands && qos > 1:
		return sub, errCommandQoS
	case sub.key.purpose == forErrors && qos != 0:
		return sub, errFilterQoS
	}
	return sub, nil
}

// own finds whom the subscription is for.
func (s *subscription) own(who owner) error {
	switch {
	case len(s.tenant) > maxSegment || len(s.device) > maxSegment,
		strings.ContainsAny(s.tenant, "+#"),
		s.device != "+" && strings.ContainsAny(s.device, "+#"):
		if s.key.purpose == forCommands {
			return errCommandFilter
		}
		return errErrorFilter
	case who.anonymous() && (s.tenant == "" || s.device == "" || s.device == "+"):
		return errFilterAddress
	case !who.anonymous() && s.tenant != "" && s.tenant != string(who.tenant) && s.tenant != string(who.alias):
		return errFilterTenant
	}
	s.key.owner = owner{tenant: who.named(iot.TenantID(s.tenant)), device: iot.DeviceID(s.device)}
	if s.device == "" || s.device == "+" {
		s.key.device = who.device
	}
	return nil
}

// wish is one filter of a SUBSCRIBE.
type wish struct {
	subscription
	filter  string
	err     error
	like    int                // index of the later wish that stands for this one too, -1 = none
	who     adapters.Admission // of whom the commands are for
	granted *subscription      // nil = not yet, or not at all
}

// readSubscribe reads the filters of a SUBSCRIBE in their order. Of several
// with one key the last is tried and answers for the others. The filters are
// copied: what is made of them outlives the packet.
func readSubscribe(filters packets.Subscriptions, who owner) []wish {
	wishes := make([]wish, len(filters))
	last := make(map[subscriptionKey]int)
	for i := range slices.Backward(filters) {
		w := &wishes[i]
		w.like, w.filter = -1, strings.Clone(filters[i].Filter)
		if w.subscription, w.err = parseFilter(w.filter, filters[i].Qos, who); w.err != nil {
			continue
		}
		if later, ok := last[w.key]; ok {
			w.like = later
			continue
		}
		last[w.key] = i
	}
	return wishes
}

// subscriptions are those of one client. Not safe for concurrent use.
type subscriptions struct{ list []*subscription }

// room reports whether there is a place for one more, or for one that replaces
// another, beside others that are about to be added.
func (s *subscriptions) room(k subscriptionKey, others int) error {
	if s.index(k) < 0 && len(s.list)+others >= maxSubscriptions {
		return errSubscriptions
	}
	return nil
}

// add keeps sub, in the place of one with the same key, which it returns.
func (s *subscriptions) add(sub *subscription) (old *subscription) {
	at := s.index(sub.key)
	if at < 0 {
		s.list = append(s.list, sub)
		return nil
	}
	old, s.list[at] = s.list[at], sub
	return old
}

// remove ends the subscription of a filter, which it returns with the reason code
// of the UNSUBACK.
func (s *subscriptions) remove(filter string, who owner) (old *subscription, code byte) {
	sub, err := parseFilter(filter, 0, who)
	if err != nil {
		return nil, subackFailure
	}
	at := s.index(sub.key)
	if at < 0 {
		return nil, unsubackNone
	}
	old = s.list[at]
	s.list = slices.Delete(s.list, at, at+1)
	return old, 0
}

// errorsOf finds where errors of messages of a device are reported to: to a
// subscription for this device, else to the client's own. An address that is
// left out is the client's.
func (s *subscriptions) errorsOf(tenant iot.TenantID, device iot.DeviceID, who owner) *subscription {
	of := owner{tenant: who.named(tenant), device: device}
	if device == "" {
		of.device = who.device
	}
	at := s.index(subscriptionKey{forErrors, of})
	if at < 0 && !who.anonymous() {
		at = s.index(subscriptionKey{forErrors, owner{tenant: who.tenant, device: who.device}})
	}
	if at < 0 {
		return nil
	}
	return s.list[at]
}

func (s *subscriptions) index(k subscriptionKey) int {
	return slices.IndexFunc(s.list, func(sub *subscription) bool { return sub.key == k })
}
