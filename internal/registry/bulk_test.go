package registry_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// FuzzDecodeBulkItem expects every text to be an item or iot.ErrInvalid.
func FuzzDecodeBulkItem(f *testing.F) {
	for _, s := range []string{
		`{"op":"create","id":"d","device":{"via":"g"},"credentials":[{"type":"psk","auth-id":"a","secrets":[{"key":"AA=="}]}],"generate":true,"auth-id":"x"}`,
		`{"op":"enable","id":"d"}`, `{"op":"delete","id":"d","if-match":"v"}`, `{"op":"put","device":null}`, `{}`, `null`, ``, `[]`, `{"op":1}`, `{"Op":"create"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		item, err := registry.DecodeBulkItem(text)
		if err != nil {
			if !errors.Is(err, iot.ErrInvalid) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if item.Op == 0 || item.Op == registry.SetEnabledOp && item.Device.Enabled == nil {
			t.Fatalf("%q: %+v", text, item)
		}
		item.PlainPasswords()
	})
}

// FuzzDecodeExportLine expects the same of the lines of an export.
func FuzzDecodeExportLine(f *testing.F) {
	for _, s := range []string{
		`{"id":"d","device":{},"status":{"created":"2026-01-01T00:00:00Z","auto-provisioned":true},"credentials":[]}`,
		`{"end":true,"devices":1}`, `{"end":true}`, `{"format":"sluice-tenant","version":1,"tenant-id":"T","tenant":{}}`, `{}`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		item, end, _, err := registry.DecodeExportLine(text)
		if err != nil && !errors.Is(err, iot.ErrInvalid) || err == nil && !end && item.Op != registry.PutOp {
			t.Fatalf("%q: %+v, %v", text, item, err)
		}
		if _, _, err := registry.DecodeExportHeader(text); err != nil && !errors.Is(err, iot.ErrInvalid) {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// FuzzParseFilter expects every text to be a filter of a search, or iot.ErrInvalid.
func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{
		`{"field":"/ext/a~1b","op":"eq","value":"x*"}`, `{"field":"/enabled","value":true}`, `{"field":"/n","value":-1.5e3}`, `{"field":"/~2","value":1}`,
		`{"field":"/","value":""}`, `{"field":"/a","value":1e999}`, `{"field":"/a","value":[]}`, `{"field":"/a","direction":"desc"}`, `{}`, ``, `null`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := registry.ParseFilter(text)
		switch {
		case err != nil && !errors.Is(err, iot.ErrInvalid):
			t.Fatalf("%q: %v", text, err)
		case err == nil && (len(filter.Path) == 0 || len(filter.Path) > 32 || filter.Value == nil):
			t.Fatalf("%q: %+v", text, filter)
		case err == nil:
			selection := registry.NewSelection(registry.Search{Filters: []registry.Filter{filter}, Limit: 1})
			if err := selection.Offer(registry.Candidate{ID: "x", Doc: []byte(`{"ext":{"a":[1,"x",{"b":true}]}}`)}); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
		}
		if order, err := registry.ParseOrder(text); err != nil && !errors.Is(err, iot.ErrInvalid) || err == nil && len(order.Path) == 0 {
			t.Fatalf("%q: %+v, %v", text, order, err)
		}
	})
}

func TestParsePointers(t *testing.T) {
	for pointer, want := range map[string]string{
		"/id": "id", "/ext/a": "ext|a", "/a~1b": "a/b", "/a~0b": "a~b", "/a~01": "a~1", "/": "", "/a//b": "a||b", "/a.b": "a.b",
	} {
		f, err := registry.ParseFilter(`{"field":"` + pointer + `","value":1}`)
		if got := strings.Join(f.Path, "|"); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", pointer, got, err, want)
		}
	}
}
