package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/internal/iot"
)

// MarshalJSON implements [json.Marshaler].
func (c PresenceChange) MarshalJSON() ([]byte, error) {
	type plain PresenceChange
	c.At = wireTime(c.At)
	return json.Marshal(plain(c))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (n *NotificationDerive) UnmarshalJSON(b []byte) error {
	type plain NotificationDerive
	if err := json.Unmarshal(b, (*plain)(n)); err != nil {
		return err
	}
	for i := range n.Changes {
		n.Changes[i].At = wireTime(n.Changes[i].At)
	}
	return n.Check()
}

// derivedData is the data of [NotificationDerived].
type derivedData struct {
	Events []event.Event `json:"events"`
}

// dataFrom implements sourced: the facts are CloudEvents of the installation
// that the answering function belongs to.
func (n *NotificationDerived) dataFrom(source string) (any, error) {
	installation, _, _ := strings.Cut(strings.TrimPrefix(source, "//"), "/")
	d := derivedData{Events: make([]event.Event, len(n.Events))}
	for i, f := range n.Events {
		var err error
		if d.Events[i], err = EncodeFact(f, installation); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// UnmarshalJSON implements [json.Unmarshaler].
func (n *NotificationDerived) UnmarshalJSON(b []byte) error {
	var d derivedData
	if err := json.Unmarshal(b, &d); err != nil {
		return err
	}
	if len(d.Events) > MaxPresenceChanges {
		return fmt.Errorf("%d events, at most %d are accepted", len(d.Events), MaxPresenceChanges)
	}
	*n = NotificationDerived{}
	for i := range d.Events {
		fact, err := DecodeFact(&d.Events[i])
		if err != nil {
			return fmt.Errorf("events[%d]: %w", i, err)
		}
		f, ok := fact.(PresenceFact)
		if !ok {
			return fmt.Errorf("events[%d] is a %s", i, fact.FactType())
		}
		n.Events = append(n.Events, f)
	}
	return nil
}

// ttdData is the data of [DeviceTTD].
type ttdData struct {
	TTDSeconds *int       `json:"ttd-seconds"`
	Until      *time.Time `json:"until,omitempty"`
}

// MarshalJSON implements [json.Marshaler].
func (d DeviceTTD) MarshalJSON() ([]byte, error) {
	data := ttdData{TTDSeconds: &d.TTDSeconds}
	if until := d.Until(); !until.IsZero() {
		until = wireTime(until)
		data.Until = &until
	}
	return json.Marshal(data)
}

func (d DeviceTTD) check() error {
	switch {
	case d.TTDSeconds < -1 || d.TTDSeconds > math.MaxInt32:
		return fmt.Errorf("ttd-seconds is %d, want -1 to %d", d.TTDSeconds, math.MaxInt32)
	case !isDate(d.At) || !isDate(d.Until()):
		return errors.New("time or until is out of range: want a year of four digits")
	}
	return checkFactIDs(d.TenantID, d.DeviceID, d.GatewayID)
}

func decodeTTD(e *event.Event) (Fact, error) {
	var data ttdData
	if err := json.Unmarshal(e.Data(), &data); err != nil {
		return nil, err
	}
	if data.TTDSeconds == nil {
		return nil, errors.New("member ttd-seconds is missing")
	}
	d := DeviceTTD{TTDSeconds: *data.TTDSeconds, At: wireTime(e.Time())}
	var err error
	if d.TenantID, d.DeviceID, d.GatewayID, err = deviceAttributes(e); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	until := d.Until()
	if (data.Until == nil) != until.IsZero() || data.Until != nil && !wireTime(*data.Until).Equal(until) {
		return nil, errors.New("member until does not follow from time and ttd-seconds")
	}
	return d, nil
}

// connectionData is the data of [DeviceConnected] and [DeviceDisconnected], and the
// payload of a connection event.
type connectionData struct {
	Cause    PresenceKind    `json:"cause"`
	RemoteID string          `json:"remote-id"`
	Source   string          `json:"source"`
	Data     json.RawMessage `json:"data,omitempty"`
}

func (c Connection) data(kind PresenceKind) connectionData {
	return connectionData{kind, c.RemoteID, c.Source, c.Data}
}

// MarshalJSON implements [json.Marshaler].
func (c DeviceConnected) MarshalJSON() ([]byte, error) { return json.Marshal(c.data(Connected)) }

// MarshalJSON implements [json.Marshaler].
func (c DeviceDisconnected) MarshalJSON() ([]byte, error) { return json.Marshal(c.data(Disconnected)) }

func (c Connection) check() error {
	if !isDate(c.At) {
		return errors.New("time is out of range: want a year of four digits")
	}
	if err := checkObject(c.Data); err != nil {
		return err
	}
	if err := checkTexts(text{"remote-id", c.RemoteID, required | free}, text{"source", c.Source, required}); err != nil {
		return err
	}
	return checkFactIDs(c.TenantID, c.DeviceID, c.GatewayID)
}

func (c Connection) attributes() factAttributes {
	return factAttributes{string(c.TenantID), string(c.DeviceID), string(c.GatewayID), ""}
}

func decodeConnection(e *event.Event) (Fact, error) {
	var data connectionData
	if err := json.Unmarshal(e.Data(), &data); err != nil {
		return nil, err
	}
	if string(data.Data) == "null" {
		data.Data = nil
	}
	c := Connection{RemoteID: data.RemoteID, Source: data.Source, Data: data.Data, At: wireTime(e.Time())}
	want := Connected
	if e.Type() == TypeDeviceDisconnected {
		want = Disconnected
	}
	if data.Cause != want {
		return nil, fmt.Errorf("member cause is %.40q, want %s", string(data.Cause), want)
	}
	var err error
	if c.TenantID, c.DeviceID, c.GatewayID, err = deviceAttributes(e); err != nil {
		return nil, err
	}
	if want == Connected {
		return DeviceConnected{c}, c.check()
	}
	return DeviceDisconnected{c}, c.check()
}

func checkFactIDs(t iot.TenantID, d, g iot.DeviceID) error {
	return checkTexts(text{"tenant-id", string(t), required}, text{"device-id", string(d), required}, text{"gateway-id", string(g), 0})
}

// deviceAttributes reads what a fact about a device says in attributes alone.
func deviceAttributes(e *event.Event) (iot.TenantID, iot.DeviceID, iot.DeviceID, error) {
	var out [3]string
	for i, name := range [...]string{AttrTenantID, AttrDeviceID, AttrGatewayID} {
		var err error
		if out[i], err = extension(e, name); err != nil {
			return "", "", "", fmt.Errorf("attribute %s is no string", name)
		}
	}
	return iot.TenantID(out[0]), iot.DeviceID(out[1]), iot.DeviceID(out[2]), nil
}
