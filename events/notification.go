package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// Extension attributes of facts (contract: events, section 1).
const (
	AttrDeviceID     = "deviceid"
	AttrGatewayID    = "gatewayid"
	AttrPartitionKey = "partitionkey"
	AttrSequence     = "sequence"
)

// FactSource is the source of the facts about a tenant.
func FactSource(installation string, tenant iot.TenantID) string {
	return "//" + installation + "/tenants/" + url.PathEscape(string(tenant))
}

// EncodeFact makes the CloudEvent of a fact of the named installation; the same
// fact always gives the same one. iot.ErrInvalid for a fact that is not complete
// or whose identifiers cannot be attributes.
func EncodeFact(f Fact, installation string) (event.Event, error) {
	a, err := attributesOf(f)
	if err != nil {
		return event.Event{}, err
	}
	e := newEvent(f.FactType(), FactSource(installation, f.Tenant()), factID(f), f.Time())
	if a.device != "" {
		e.SetSubject(a.device)
	}
	for _, x := range a.list() {
		if x[1] != "" {
			e.SetExtension(x[0], x[1])
		}
	}
	return e, setJSON(&e, f)
}

// factAttributes are what the attributes of a fact say; "" = absent.
type factAttributes struct{ tenant, device, gateway, sequence string }

func (a *factAttributes) list() [5][2]string {
	var key string
	if a.device != "" {
		key = a.tenant + "/" + a.device
	}
	return [...][2]string{{AttrTenantID, a.tenant}, {AttrDeviceID, a.device}, {AttrGatewayID, a.gateway},
		{AttrPartitionKey, key}, {AttrSequence, a.sequence}}
}

// attributesOf checks a fact; iot.ErrInvalid as in [EncodeFact].
func attributesOf(f Fact) (a factAttributes, err error) {
	switch f := f.(type) {
	case RegistryChanged:
		err = f.check()
		a = factAttributes{string(f.TenantID), string(f.DeviceID), "", Sequence(f.Sequence)}
	case DeviceProvisioned:
		err = f.check()
		a = factAttributes{string(f.TenantID), string(f.DeviceID), string(f.GatewayID), ""}
	case EventsAppended:
		err = f.check()
		a = factAttributes{tenant: string(f.TenantID)}
	case EventDeadLettered:
		err = f.check()
		a = factAttributes{tenant: string(f.TenantID)}
	case DeviceTTD:
		err = f.check()
		a = factAttributes{string(f.TenantID), string(f.DeviceID), string(f.GatewayID), ""}
	case DeviceConnected:
		err = f.check()
		a = f.attributes()
	case DeviceDisconnected:
		err = f.check()
		a = f.attributes()
	default:
		return a, fmt.Errorf("events: %T is no fact that can be encoded", f)
	}
	if err == nil && f.Time().IsZero() {
		err = errors.New("its time is missing")
	}
	for _, text := range []string{a.tenant, a.device, a.gateway} {
		if err == nil && !isText(text) {
			err = errors.New("an identifier holds control characters or invalid UTF-8")
		}
	}
	if err != nil {
		err = iot.Errorf(iot.ErrInvalid, "%s: %s", f.FactType(), err)
	}
	return a, err
}

func factID(f Fact) string { return DerivedID(append([]string{f.FactType()}, f.key()...)...) }

// DecodeFact is the inverse of [EncodeFact]; times come back with milliseconds.
// Attributes and data must agree. status.ErrUnknownType for a type that is no
// fact read here, iot.ErrInvalid with the reason for everything else.
func DecodeFact(e *event.Event) (Fact, error) {
	if e.SpecVersion() != SpecVersion {
		return nil, iot.Errorf(iot.ErrInvalid, "specversion is %.20q, want %s", e.SpecVersion(), SpecVersion)
	}
	if err := e.Validate(); err != nil {
		return nil, iot.Errorf(iot.ErrInvalid, "not a valid CloudEvent: %s", strings.TrimSpace(err.Error()))
	}
	decode := factDecoders[e.Type()]
	if decode == nil {
		return nil, iot.Errorf(status.ErrUnknownType, "no fact has the type %.80q", e.Type())
	}
	if !isJSON(e.DataContentType()) {
		return nil, iot.Errorf(iot.ErrInvalid, "datacontenttype is %.80q, want application/json", e.DataContentType())
	}
	if e.Time().IsZero() {
		return nil, iot.Errorf(iot.ErrInvalid, "%s: attribute time is missing", e.Type())
	}
	f, err := decode(e)
	if err == nil {
		err = sameAttributes(e, f)
	}
	if err != nil {
		return nil, iot.Errorf(iot.ErrInvalid, "%s: %s", e.Type(), plainJSONError(err))
	}
	return f, nil
}

var factDecoders = map[string]func(*event.Event) (Fact, error){
	TypeTenantChanged: decodeChange, TypeDeviceChanged: decodeChange, TypeCredentialsChanged: decodeChange,
	TypeDevicesDeleted: decodeChange, TypeDeviceProvisioned: decodeProvisioned,
	TypeEventsAppended: decodeAppended, TypeEventDeadLettered: decodeDeadLettered,
	TypeDeviceTTD: decodeTTD, TypeDeviceConnected: decodeConnection, TypeDeviceDisconnected: decodeConnection,
}

// notificationTypes are Hono's names for the facts (contract: messaging, section 14).
var notificationTypes = map[string]string{
	TypeTenantChanged: "tenant-change-v1", TypeDeviceChanged: "device-change-v1",
	TypeCredentialsChanged: "credentials-change-v1", TypeDevicesDeleted: "all-devices-of-tenant-deleted-v1",
}

// notification is Hono's JSON.
type notification struct {
	Type            string       `json:"type"`
	Source          string       `json:"source"`
	CreationTime    string       `json:"creation-time"`
	Change          string       `json:"change,omitempty"`
	TenantID        iot.TenantID `json:"tenant-id"`
	DeviceID        iot.DeviceID `json:"device-id,omitempty"`
	Enabled         *bool        `json:"enabled,omitempty"`
	InvalidateCache *bool        `json:"invalidate-cache-on-update,omitempty"`
}

// MarshalJSON implements [json.Marshaler]: Hono's notification.
func (c RegistryChanged) MarshalJSON() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	n := notification{Type: notificationTypes[c.Type], Source: "device-registry",
		CreationTime: c.At.UTC().Format("2006-01-02T15:04:05Z"), TenantID: c.TenantID, DeviceID: c.DeviceID, Change: c.Change}
	if c.Change != "" {
		n.Enabled = &c.Enabled
	}
	if c.Type == TypeTenantChanged {
		n.InvalidateCache = &c.InvalidateCache
	}
	return json.Marshal(n)
}

// check says what is missing, or is there and must not be.
func (c RegistryChanged) check() error {
	ofDevice := c.Type == TypeDeviceChanged || c.Type == TypeCredentialsChanged
	changing := c.Type == TypeTenantChanged || c.Type == TypeDeviceChanged
	switch {
	case notificationTypes[c.Type] == "":
		return fmt.Errorf("no change of the registry has the type %.80q", c.Type)
	case c.TenantID == "":
		return fmt.Errorf("tenant-id is missing")
	case c.Sequence == 0 || c.Sequence > math.MaxInt64:
		return fmt.Errorf("sequence is %d, want 1 to %d", c.Sequence, math.MaxInt64)
	case ofDevice != (c.DeviceID != ""):
		return fmt.Errorf("device-id is %.80q: expected one exactly where a device or its credentials changed", c.DeviceID)
	case !changing && (c.Change != "" || c.Enabled):
		return fmt.Errorf("change and enabled do not belong here")
	case changing && c.Change != "CREATE" && c.Change != "UPDATE" && c.Change != "DELETE":
		return fmt.Errorf("change is %.20q, want CREATE, UPDATE or DELETE", c.Change)
	case c.Change == "DELETE" && c.Enabled:
		return fmt.Errorf("enabled is true after a deletion")
	case c.Type != TypeTenantChanged && c.InvalidateCache:
		return fmt.Errorf("invalidate-cache-on-update belongs to tenants")
	}
	return nil
}

func decodeChange(e *event.Event) (Fact, error) {
	var n notification
	if err := json.Unmarshal(e.Data(), &n); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	c := RegistryChanged{Type: e.Type(), TenantID: n.TenantID, DeviceID: n.DeviceID, Change: n.Change, At: wireTime(e.Time())}
	if n.Type != notificationTypes[c.Type] {
		return nil, fmt.Errorf("member type is %.80q, want %s", n.Type, notificationTypes[c.Type])
	}
	if n.Source != "device-registry" {
		return nil, fmt.Errorf("member source is %.80q, want device-registry", n.Source)
	}
	if _, err := time.Parse("2006-01-02T15:04:05Z0700", n.CreationTime); err != nil {
		if _, err := time.Parse(time.RFC3339, n.CreationTime); err != nil {
			return nil, fmt.Errorf("member creation-time is %.40q, want a time such as 2024-01-01T12:00:00Z", n.CreationTime)
		}
	}
	if c.Change != "" && n.Enabled == nil {
		return nil, fmt.Errorf("member enabled is missing")
	}
	if c.Type == TypeTenantChanged && n.InvalidateCache == nil {
		return nil, fmt.Errorf("member invalidate-cache-on-update is missing")
	}
	c.Enabled, c.InvalidateCache = n.Enabled != nil && *n.Enabled, n.InvalidateCache != nil && *n.InvalidateCache
	sequence, err := extension(e, AttrSequence)
	if err != nil {
		return nil, fmt.Errorf("attribute sequence: %w", err)
	}
	if c.Sequence, err = ParseSequence(sequence); err != nil {
		return nil, err
	}
	return c, c.check()
}

func (p DeviceProvisioned) check() error {
	switch {
	case p.TenantID == "" || p.DeviceID == "":
		return fmt.Errorf("tenant-id or device-id is missing")
	case p.Method != ByCertificate && p.Method != ByGateway:
		return fmt.Errorf("method is %.20q, want %s or %s", p.Method, ByCertificate, ByGateway)
	case (p.GatewayID != "") != (p.Method == ByGateway):
		return fmt.Errorf("gateway-id is %.80q: expected one exactly where a gateway provisioned the device", p.GatewayID)
	}
	return nil
}

func decodeProvisioned(e *event.Event) (Fact, error) {
	var p DeviceProvisioned
	if err := json.Unmarshal(e.Data(), &p); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	p.At = wireTime(e.Time())
	return p, p.check()
}

// sameAttributes holds the attributes of e against those that f has.
func sameAttributes(e *event.Event, f Fact) error {
	want, err := attributesOf(f)
	if err != nil {
		return err
	}
	extensions := e.Extensions()
	for _, x := range want.list() {
		v, there := extensions[x[0]]
		got, isString := v.(string)
		if there && !isString {
			return fmt.Errorf("attribute %s is no string", x[0])
		}
		if got != x[1] {
			return fmt.Errorf("attribute %s is %.80q, but the data say %.80q", x[0], got, x[1])
		}
	}
	path := strings.TrimPrefix(FactSource("", f.Tenant()), "//")
	switch {
	case e.Subject() != want.device:
		return fmt.Errorf("subject is %.80q, but the data say %.80q", e.Subject(), want.device)
	case e.ID() != factID(f):
		return fmt.Errorf("id is %.80q, want %s, which follows from type and key", e.ID(), factID(f))
	case !strings.HasPrefix(e.Source(), "//") || !strings.HasSuffix(e.Source(), path):
		return fmt.Errorf("source is %.200q, want //INSTALLATION%s", e.Source(), path)
	}
	return nil
}
