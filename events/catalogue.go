package events

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Kind is one type of call in the catalogue.
type Kind struct {
	Type   string // CloudEvent type of the request
	Secret bool   // carries credentials or keys: only by direct call over TLS or in-process, never logged
	Status int    // statuscode of a success, where the reply names no other

	media         string // of the request's data
	decodeRequest func(e *event.Event) (Request, error)
	newReply      func() Reply
}

// ReplyType is the CloudEvent type of the kind's reply.
func (k Kind) ReplyType() string { return k.Type + ".result" }

var catalogue = []Kind{
	kind[TenantGet, TenantGot](false),
	kind[CredentialsGet, CredentialsGot](true),
	kind[RegistrationAssert, RegistrationAsserted](false),
	kind[Admit, Admitted](true),
	kind[AssertionSign, AssertionSigned](true),
	kind[AssertionKeys, KeySet](false),
	kind[AssertionRotate, AssertionRotated](false),
	kind[RegistryChanges, ChangesFound](false),
	kind[NotificationDerive, NotificationDerived](false),
	kind[EventAppend, EventAppendResult](false),
	kind[EventClaim, EventClaimResult](false),
	kind[EventRead, EventReadResult](false),
	kind[EventSettle, EventSettleResult](false),
	kind[EventRelease, EventReleaseResult](false),
	kind[EventExpire, EventExpireResult](false),
	kind[EventStats, EventStatsResult](false),
	kind[EventBrowse, EventBrowseResult](false),
	kind[EventRequeue, EventRequeueResult](false),
	kind[EventPurge, EventPurgeResult](false),
}

// Catalogue lists every type of call (contract: events, section 4).
func Catalogue() []Kind { return slices.Clone(catalogue) }

// FactTypes lists the types of facts that [EncodeFact] writes.
func FactTypes() []string { return slices.Sorted(maps.Keys(factDecoders)) }

// Lookup returns the kind of a CloudEvent type.
func Lookup(typ string) (Kind, bool) {
	for _, k := range catalogue {
		if k.Type == typ {
			return k, true
		}
	}
	return Kind{}, false
}

// replyPointer is a pointer to R that is a Reply.
type replyPointer[R any] interface {
	*R
	Reply
}

func kind[Q RequestOf[P], R any, P replyPointer[R]](secret bool) Kind {
	var zero Q
	media := jsonType
	if _, ok := any(zero).(recordsRequest); ok {
		media = RecordsType
	}
	return Kind{
		Type: zero.EventType(), Secret: secret, Status: 200, media: media,
		decodeRequest: func(e *event.Event) (Request, error) {
			var q Q
			if r, ok := any(q).(recordsRequest); ok {
				return r.decodeFrom(e)
			}
			data := e.Data()
			if len(data) == 0 { // a call without data, such as assertion.keys
				return q, nil
			}
			if err := json.Unmarshal(data, &q); err != nil {
				return nil, fmt.Errorf("data: %w", err)
			}
			return q, nil
		},
		newReply: func() Reply { return P(new(R)) },
	}
}

// The following are what a request or reply keeps outside its JSON data. Each
// is implemented by the types that need it.
type (
	// tenanted takes the tenant from the attribute tenantid.
	tenanted interface {
		withTenant(iot.TenantID) Request
	}
	// timed is an occurrence whose time matters: attribute time.
	timed interface {
		eventTime() time.Time
		withTime(time.Time) Request
	}
	// subjected is about one device: attribute subject.
	subjected interface{ subject() iot.DeviceID }
	// referring names its tenant in a way that may be an alias, so that the
	// attribute tenantid stays away.
	referring interface{ refersToTenant() }
	// adapted names an adapter type: attribute adapter.
	adapted interface{ adapterType() string }
	// confined requests name their tenant in the data, and in the attribute tenantid
	// as well: both are the same.
	confined interface{ ofOneTenant() }
	// recordsRequest and recordsReply have data of [RecordsType], not JSON.
	recordsRequest interface {
		encodeTo(e *event.Event) error
		decodeFrom(e *event.Event) (Request, error)
	}
	recordsReply interface {
		encodeTo(e *event.Event) error
		decodeFrom(e *event.Event) error
	}
	// attributed replies keep something in attributes of their own.
	attributed interface {
		setAttributes(e *event.Event)
		readAttributes(e *event.Event) error
	}
	// dataless calls carry no data.
	dataless interface{ noData() }
	// aging replies keep the attribute maxage.
	aging interface{ setMaxAge(time.Duration) }
	// coded replies have more than one status of success.
	coded interface {
		statusCode() int
		setStatusCode(int)
	}
	// sourced replies hold CloudEvents of the installation that source belongs to.
	sourced interface {
		dataFrom(source string) (any, error)
	}
	// ofTenant replies know the real id of the tenant.
	ofTenant interface{ tenantID() iot.TenantID }
)

func (Admit) refersToTenant()         {}
func (a Admit) subject() iot.DeviceID { return a.DeviceID }
func (a Admit) adapterType() string   { return a.Adapter }
func (a *Admitted) tenantID() iot.TenantID {
	return a.TenantObject.ID
}
func (a *Admitted) setMaxAge(d time.Duration) { a.CacheFor = d }
