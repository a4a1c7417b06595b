package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/iot"
)

// DecodeTenant reads a tenant from a request body. Members that a tenant does
// not have, spelled exactly, are refused, at every level but the free-form
// ones. The error is iot.ErrInvalid. The rules are applied later, by [Service].
func DecodeTenant(body []byte) (iot.Tenant, error) {
	var t iot.Tenant
	return t, decode("Tenant", body, &t)
}

// DecodeDevice reads a device from a request body, as [DecodeTenant] does. A
// member status, which is read only, is ignored.
func DecodeDevice(body []byte) (iot.Device, error) {
	var d struct {
		iot.Device
		Status json.RawMessage `json:"status"`
	}
	err := decode("Device", body, &d)
	return d.Device, err
}

// DecodeCredentials reads an array of credentials from a request body.
func DecodeCredentials(body []byte) ([]iot.Credential, error) {
	var set []iot.Credential
	if b := bytes.TrimSpace(body); !validJSON(b) {
		return nil, invalid("body is not valid JSON")
	} else if b[0] != '[' {
		return nil, invalid("body is not an array of credentials")
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, invalid("body is not an array of credentials")
	}
	set = make([]iot.Credential, len(raw))
	for i := range raw {
		if err := set[i].UnmarshalJSON(raw[i]); err != nil {
			return nil, invalid("[%d]: %s", i, explain(err))
		}
	}
	return set, nil
}

func decode(what string, body []byte, dst any) error {
	b := bytes.TrimSpace(body)
	switch {
	case !validJSON(b):
		return invalid("body is not valid JSON")
	case b[0] != '{':
		return invalid("body is not a %s object", what)
	}
	if err := checkMembers(b, reflect.TypeOf(dst).Elem(), what); err != nil {
		return invalid("%s", err)
	}
	if err := json.Unmarshal(b, dst); err != nil {
		return invalid("%s: %s", what, explain(err))
	}
	return nil
}

// validJSON reports whether text is JSON, which is UTF-8 (RFC 8259, section 8.1).
// Free-form members are kept as they came, and those who read them refuse others.
func validJSON(text []byte) bool { return utf8.Valid(text) && json.Valid(text) }

// explain says what a decoding error means without the names of Go types.
func explain(err error) string {
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) {
		return fmt.Sprintf("member %s has the wrong type (%s)", typed.Field, typed.Value)
	}
	if text := err.Error(); strings.Contains(text, "base64") {
		return "a binary member is not valid base64"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

var opaque = []reflect.Type{reflect.TypeFor[iot.Timestamp](), reflect.TypeFor[json.RawMessage]()}

// checkMembers compares the member names of a JSON value with those of a Go
// type, which encoding/json does not do exactly: it ignores case. What a member
// must not be is said by tags of its field: null:"refuse", empty:"refuse" for
// text, and absent:"refuse".
func checkMembers(raw json.RawMessage, t reflect.Type, path string) error {
	if slices.Contains(opaque, t) || string(raw) == "null" {
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return checkMembers(raw, t.Elem(), path)
	case reflect.Slice:
		return checkElements(raw, t.Elem(), path)
	case reflect.Struct:
		return checkStruct(raw, t, path)
	}
	return nil
}

func checkElements(raw json.RawMessage, t reflect.Type, path string) error {
	var elements []json.RawMessage
	if t.Kind() != reflect.Struct || json.Unmarshal(raw, &elements) != nil {
		return nil // of the wrong type or nothing to check: the decoder says so
	}
	for i, e := range elements {
		at := fmt.Sprintf("%s[%d]", path, i)
		if string(e) == "null" {
			return fmt.Errorf("%s: is null, want an object", at)
		}
		if err := checkMembers(e, t, at); err != nil {
			return err
		}
	}
	return nil
}

// field is a member that a Go type has.
type field struct {
	name                       string
	of                         reflect.Type
	notNull, notEmpty, present bool
}

// fields are those of the types that were asked for; finding them takes longer
// than checking a small object.
var fields sync.Map // reflect.Type -> []field

func fieldsOf(t reflect.Type) []field {
	if known, ok := fields.Load(t); ok {
		return known.([]field)
	}
	var all []field
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			refused := func(what string) bool { return f.Tag.Get(what) == "refuse" }
			all = append(all, field{name, f.Type, refused("null"), refused("empty"), refused("absent")})
		}
	}
	fields.Store(t, all)
	return all
}

func checkStruct(raw json.RawMessage, t reflect.Type, path string) error {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return nil
	}
	for _, f := range fieldsOf(t) {
		value, ok := members[f.name]
		at := path + "." + f.name
		switch {
		case !ok && f.present:
			return fmt.Errorf("%s: is missing", at)
		case !ok:
			continue
		case string(value) == "null" && f.notNull:
			return fmt.Errorf("%s: must not be null", at)
		case string(value) == `""` && f.notEmpty:
			return fmt.Errorf("%s: must not be empty", at)
		}
		delete(members, f.name)
		if err := checkMembers(value, f.of, at); err != nil {
			return err
		}
	}
	for name := range members {
		return fmt.Errorf("%s: unknown member %.40q", path, name)
	}
	return nil
}

// freeForm checks a free-form member, which must be an object; null and {}
// count as absent.
func freeForm(path string, raw *json.RawMessage) error {
	b := bytes.TrimSpace(*raw)
	if len(b) == 0 || string(b) == "null" {
		*raw = nil
		return nil
	}
	if b[0] != '{' || !validJSON(b) {
		return invalid("%s: is not an object", path)
	}
	if b[len(b)-1] == '}' && len(bytes.TrimSpace(b[1:len(b)-1])) == 0 {
		*raw = nil
	}
	return nil
}
