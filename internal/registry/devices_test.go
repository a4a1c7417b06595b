package registry_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func TestDeviceShapes(t *testing.T) {
	s := newService(t, registry.Options{})
	addTenant(t, s, "T", `{}`)
	const same = "same"
	for i, c := range []struct{ name, in, want string }{ // want "" = refused
		{"empty", `{}`, same},
		{"defaults are left out", `{"via":[],"viaGroups":[],"memberOf":[],"authorities":[],"ext":{}}`, `{}`},
		{"via", `{"via":["G","H"],"viaGroups":["g"]}`, same},
		{"single strings", `{"via":"G","viaGroups":"g"}`, `{"via":["G"],"viaGroups":["g"]}`},
		{"single memberOf", `{"memberOf":"g"}`, `{"memberOf":["g"]}`},
		{"memberOf and via", `{"memberOf":["g"],"via":["G"]}`, ""},
		{"memberOf and viaGroups", `{"memberOf":["g"],"viaGroups":["h"]}`, ""},
		{"memberOf and empty via", `{"memberOf":["g"],"via":[]}`, `{"memberOf":["g"]}`},
		{"via of numbers", `{"via":[1]}`, ""},
		{"via with null", `{"via":[null]}`, ""},
		{"authorities", `{"authorities":["a","auto-provisioning-enabled","a"]}`, `{"authorities":["a","auto-provisioning-enabled"]}`},
		{"mappers", `{"downstream-message-mapper":"d","upstream-message-mapper":"u"}`, same},
		{"legacy mapper", `{"mapper":"m"}`, ""},
		{"command endpoint", `{"command-endpoint":{"uri":"http://x/{{deviceId}}","headers":{"a":"b"},"payload-properties":{"c":"d"}}}`, same},
		{"command endpoint with number", `{"command-endpoint":{"headers":{"a":1}}}`, ""},
		{"null command endpoint", `{"command-endpoint":null}`, ""},
		{"unknown in command endpoint", `{"command-endpoint":{"url":"x"}}`, ""},
		{"status is ignored", `{"status":{"created":"never","x":1}}`, `{}`},
		{"free form", `{"defaults":{"ttl":5},"ext":{"a":{}}}`, same},
		{"ext is no object", `{"ext":1}`, ""},
		{"unknown", `{"x":1}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := registry.DecodeDevice([]byte(c.in))
			id := iot.DeviceID(fmt.Sprint("D", i))
			if err == nil {
				_, _, err = s.CreateDevice(t.Context(), "T", id, d)
			}
			if c.want == "" {
				wantErr(t, err, iot.ErrInvalid)
				return
			}
			must(t, err)
			r, err := s.Device(t.Context(), "T", id)
			must(t, err)
			got, err := json.Marshal(r.Device)
			must(t, err)
			if want := strings.ReplaceAll(c.want, same, c.in); string(got) != want {
				t.Fatalf("\n got %s\nwant %s", got, want)
			}
		})
	}
}

func TestDeviceLimits(t *testing.T) {
	s := newService(t, registry.Options{MaxDevicesPerTenant: 1})
	addTenant(t, s, "own", `{"registration-limits":{"max-devices":2}}`)
	addTenant(t, s, "zero", `{"registration-limits":{"max-devices":0}}`)
	addTenant(t, s, "none", `{"registration-limits":{}}`)
	for tenant, max := range map[iot.TenantID]int{"own": 2, "zero": 0, "none": 1} {
		for range max {
			addDevice(t, s, tenant, "", `{}`)
		}
		_, _, err := s.CreateDevice(t.Context(), tenant, "", iot.Device{})
		wantErr(t, err, iot.ErrForbidden)
	}
}

func TestAssert(t *testing.T) {
	s := newService(t, registry.Options{})
	addTenant(t, s, "T", `{"enabled":false}`)
	for id, body := range map[iot.DeviceID]string{
		"D": `{"via":["G","off","gone"],"viaGroups":["g"]}`, "disabled": `{"enabled":false,"via":["G"]}`, "alone": `{}`,
		"G": `{}`, "M": `{"memberOf":["h","g"]}`, "other": `{"memberOf":["h"]}`, "off": `{"enabled":false}`,
		"P": `{"authorities":["auto-provisioning-enabled"]}`, "Poff": `{"enabled":false,"authorities":["auto-provisioning-enabled"]}`,
	} {
		addDevice(t, s, "T", id, body)
	}
	for _, c := range []struct {
		device, gateway iot.DeviceID
		want            error
		via             []iot.DeviceID
		provision       bool
	}{
		{"D", "", nil, []iot.DeviceID{"G", "off", "gone", "M"}, false},
		{"D", "D", nil, []iot.DeviceID{"G", "off", "gone", "M"}, false},
		{"D", "G", nil, []iot.DeviceID{"G", "off", "gone", "M"}, false},
		{"D", "M", nil, []iot.DeviceID{"G", "off", "gone", "M"}, false},
		{"alone", "", nil, nil, false},
		{"alone", "G", iot.ErrForbidden, nil, false},
		{"D", "other", iot.ErrForbidden, nil, false},
		{"D", "off", iot.ErrForbidden, nil, false},
		{"D", "gone", iot.ErrForbidden, nil, false},
		{"disabled", "", iot.ErrNotFound, nil, false},
		{"disabled", "gone", iot.ErrNotFound, nil, false},
		{"missing", "", iot.ErrNotFound, nil, false},
		{"missing", "gone", iot.ErrNotFound, nil, false},
		{"missing", "G", iot.ErrNotFound, nil, false},
		{"missing", "P", iot.ErrNotFound, nil, true},
		{"missing", "Poff", iot.ErrNotFound, nil, false},
		{"D", "P", iot.ErrForbidden, nil, false},
	} {
		t.Run(fmt.Sprintf("%s via %s", c.device, c.gateway), func(t *testing.T) {
			snap, err := s.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}, Device: c.device, Gateway: c.gateway})
			must(t, err)
			via, err := registry.Assert(&snap)
			wantErr(t, err, c.want)
			if d := cmp.Diff(c.via, via); d != "" {
				t.Fatal(d)
			}
			if got := registry.MayProvision(&snap); got != c.provision {
				t.Fatalf("MayProvision is %t", got)
			}
		})
	}
}

func TestIdentifiers(t *testing.T) {
	s := newService(t, registry.Options{TenantIDPattern: `[a-z]+|[0-9]+`})
	for id, want := range map[iot.TenantID]error{"abc": nil, "123": nil, "a1": iot.ErrInvalid, "": iot.ErrInvalid, "a\n": iot.ErrInvalid} {
		if err := s.CheckTenantID(id); (err == nil) != (want == nil) {
			t.Errorf("tenant %q: got %v, want %v", id, err, want)
		}
	}
	for id, want := range map[iot.DeviceID]error{"a-Z_0.:=": nil, "a b": iot.ErrInvalid, "": iot.ErrInvalid, "ä": iot.ErrInvalid,
		iot.DeviceID(strings.Repeat("x", 257)): iot.ErrInvalid} {
		if err := s.CheckDeviceID(id); (err == nil) != (want == nil) {
			t.Errorf("device %q: got %v, want %v", id, err, want)
		}
	}
	if _, err := registry.New(nil, registry.Options{DeviceIDPattern: "("}); err == nil {
		t.Error("a bad pattern was accepted")
	}
}
