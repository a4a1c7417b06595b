package events

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/internal/iot"
)

// changesData is the data of [RegistryChanges].
type changesData struct {
	After struct {
		Tenants map[iot.TenantID]string `json:"tenants,omitempty"` // sequence, in the form of the attribute
		Time    *time.Time              `json:"time,omitempty"`
	} `json:"after"`
	Max int `json:"max"`
}

// Check returns iot.ErrInvalid for a question that is not answered: a function
// asks, because in one process nothing is encoded.
func (c RegistryChanges) Check() error {
	switch {
	case c.Max < 1 || c.Max > MaxChanges:
		return iot.Errorf(iot.ErrInvalid, "max is %d, want 1 to %d", c.Max, MaxChanges)
	case len(c.Sequences) > MaxPositions:
		return iot.Errorf(iot.ErrInvalid, "after.tenants names %d tenants, at most %d are accepted", len(c.Sequences), MaxPositions)
	}
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (c RegistryChanges) MarshalJSON() ([]byte, error) {
	d := changesData{Max: c.Max}
	if len(c.Sequences) > 0 {
		d.After.Tenants = make(map[iot.TenantID]string, len(c.Sequences))
		for t, n := range c.Sequences {
			d.After.Tenants[t] = Sequence(n)
		}
	}
	if !c.Since.IsZero() {
		at := wireTime(c.Since)
		d.After.Time = &at
	}
	return json.Marshal(d)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (c *RegistryChanges) UnmarshalJSON(b []byte) error {
	var d changesData
	if err := json.Unmarshal(b, &d); err != nil {
		return err
	}
	*c = RegistryChanges{Max: d.Max}
	if d.After.Time != nil {
		c.Since = wireTime(*d.After.Time)
	}
	if len(d.After.Tenants) > 0 {
		c.Sequences = make(map[iot.TenantID]uint64, len(d.After.Tenants))
	}
	for t, s := range d.After.Tenants {
		n, err := ParseSequence(s)
		if err != nil {
			return fmt.Errorf("after.tenants: %w", err)
		}
		c.Sequences[t] = n
	}
	return c.Check()
}

// foundData is the data of [ChangesFound].
type foundData struct {
	Changes []event.Event `json:"changes"`
	More    bool          `json:"more"`
	Now     time.Time     `json:"now"`
}

// dataFrom implements sourced: the changes are CloudEvents of the installation
// that the answering function belongs to.
func (f *ChangesFound) dataFrom(source string) (any, error) {
	installation, _, _ := strings.Cut(strings.TrimPrefix(source, "//"), "/")
	d := foundData{Changes: make([]event.Event, len(f.Changes)), More: f.More, Now: wireTime(f.Now)}
	for i, c := range f.Changes {
		var err error
		if d.Changes[i], err = EncodeFact(c, installation); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// UnmarshalJSON implements [json.Unmarshaler].
func (f *ChangesFound) UnmarshalJSON(b []byte) error {
	var d foundData
	if err := json.Unmarshal(b, &d); err != nil {
		return err
	}
	if d.Now.IsZero() {
		return fmt.Errorf("member now is missing")
	}
	if len(d.Changes) > MaxChanges {
		return fmt.Errorf("%d changes, at most %d are accepted", len(d.Changes), MaxChanges)
	}
	*f = ChangesFound{More: d.More, Now: wireTime(d.Now)}
	for i := range d.Changes {
		fact, err := DecodeFact(&d.Changes[i])
		if err != nil {
			return fmt.Errorf("changes[%d]: %w", i, err)
		}
		c, ok := fact.(RegistryChanged)
		if !ok {
			return fmt.Errorf("changes[%d] is a %s", i, fact.FactType())
		}
		f.Changes = append(f.Changes, c)
	}
	return nil
}
