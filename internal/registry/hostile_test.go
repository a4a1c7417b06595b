package registry_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func TestFilterTextIsBounded(t *testing.T) {
	s := newService(t, registry.Options{})
	addTenant(t, s, "T", `{}`)
	addDevice(t, s, "T", "D", `{"ext":{"s":"aaab"}}`)
	for length, want := range map[int]error{1024: nil, 1025: iot.ErrInvalid} {
		q := registry.Search{Limit: 1, Filters: []registry.Filter{{Path: path("/ext/s"), Value: strings.Repeat("*", length-1) + "b"}}}
		_, err := s.SearchDevices(t.Context(), "T", q)
		wantErr(t, err, want)
		q.Filters[0].Path = path("/id")
		_, err = s.SearchTenantsAmong(t.Context(), []iot.TenantID{"b"}, q)
		wantErr(t, err, map[bool]error{true: want, false: iot.ErrNotFound}[want != nil])
	}
}

func TestBodiesAreUTF8(t *testing.T) {
	const ext = "{\"ext\":{\"a\":\"\xff\"}}"
	_, tenant := registry.DecodeTenant([]byte(ext))
	_, device := registry.DecodeDevice([]byte(ext))
	_, credentials := registry.DecodeCredentials([]byte("[{\"type\":\"custom\",\"auth-id\":\"a\",\"ext\":{\"a\":\"\xc0\x80\"},\"secrets\":[{}]}]"))
	_, item := registry.DecodeBulkItem([]byte(`{"op":"put","id":"D","device":` + ext + `}`))
	_, _, _, line := registry.DecodeExportLine([]byte(`{"id":"D","device":` + ext + `}`))
	for _, err := range []error{tenant, device, credentials, item, line} {
		wantErr(t, err, iot.ErrInvalid)
	}
	s := newService(t, registry.Options{})
	addTenant(t, s, "T", `{}`)
	_, err := s.PatchTenant(t.Context(), "T", json.RawMessage(ext), "")
	wantErr(t, err, iot.ErrInvalid)
}
