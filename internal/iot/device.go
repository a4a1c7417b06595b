package iot

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// AuthorityAutoProvisioning lets a gateway register the devices it acts for.
const AuthorityAutoProvisioning = "auto-provisioning-enabled"

// Device is a device as the management API shows it, without its status
// (contract: registry, section 4.1). A device with MemberOf, or named in
// another one's Via, acts as a gateway.
type Device struct {
	Enabled                 *bool               `json:"enabled,omitempty"` // nil = never sent, effective true
	Defaults                json.RawMessage     `json:"defaults,omitempty"`
	Ext                     json.RawMessage     `json:"ext,omitempty"`
	Via                     OneOrMany[DeviceID] `json:"via,omitempty"`
	ViaGroups               OneOrMany[string]   `json:"viaGroups,omitempty"`
	MemberOf                OneOrMany[string]   `json:"memberOf,omitempty"`
	Authorities             []string            `json:"authorities,omitempty"` // a set
	DownstreamMessageMapper string              `json:"downstream-message-mapper,omitempty"`
	UpstreamMessageMapper   string              `json:"upstream-message-mapper,omitempty"`
	CommandEndpoint         *CommandEndpoint    `json:"command-endpoint,omitempty" null:"refuse"`
}

// IsEnabled reports the effective value of Enabled.
func (d *Device) IsEnabled() bool { return d.Enabled == nil || *d.Enabled }

// Has reports whether the device has an authority.
func (d *Device) Has(authority string) bool { return slices.Contains(d.Authorities, authority) }

// CommandEndpoint is where commands for a device are posted to (section 4.2).
type CommandEndpoint struct {
	URI               string            `json:"uri,omitempty"`
	Headers           map[string]string `json:"headers,omitempty"`
	PayloadProperties map[string]string `json:"payload-properties,omitempty"`
}

// DeviceStatus is what the registry itself knows of a device (section 4.3).
type DeviceStatus struct {
	Created                          Timestamp `json:"created"`
	Updated                          Timestamp `json:"updated,omitzero"` // zero until the first update
	AutoProvisioned                  bool      `json:"auto-provisioned,omitempty"`
	AutoProvisioningNotificationSent bool      `json:"auto-provisioning-notification-sent,omitempty"`
}

// OneOrMany is a JSON array of strings, which a request may also write as one
// string.
type OneOrMany[T ~string] []T

// UnmarshalJSON implements [json.Unmarshaler].
func (l *OneOrMany[T]) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*l = nil
		return nil
	}
	if len(b) > 0 && b[0] == '"' {
		var one T
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		*l = OneOrMany[T]{one}
		return nil
	}
	var many []*T
	if err := json.Unmarshal(b, &many); err != nil {
		return errors.New("want a string or an array of strings")
	}
	*l = make(OneOrMany[T], 0, len(many))
	for i, s := range many {
		if s == nil {
			return fmt.Errorf("element %d is null, want a string", i)
		}
		*l = append(*l, *s)
	}
	return nil
}

// Timestamp is an instant in the registry's JSON: read as an ISO 8601
// date-time with offset, written in UTC truncated to seconds (section 2.2).
// The zero value stands for absent.
type Timestamp struct{ time.Time }

// UnmarshalJSON implements [json.Unmarshaler].
func (t *Timestamp) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("want a date-time string, got %.40s", b)
	}
	if s == nil {
		*t = Timestamp{}
		return nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00"} {
		if at, err := time.Parse(layout, *s); err == nil {
			t.Time = at.UTC()
			return nil
		}
	}
	return fmt.Errorf("%.40q is no date-time with offset, such as 2006-01-02T15:04:05Z", *s)
}

// MarshalJSON implements [json.Marshaler].
func (t Timestamp) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"2006-01-02T15:04:05Z"`), nil
}
