package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/sluice-iot/sluice/internal/iot"
)

// patchTries bounds how often a patch is applied again because the resource
// changed meanwhile.
const patchTries = 10

// maxPatched bounds, in bytes of JSON, what patches can make of a resource one
// by one.
const maxPatched = 128 << 10

// PatchTenant changes the members of a tenant that a JSON merge patch names
// (RFC 7396). The result is checked as a whole, like that of
// [Service.UpdateTenant]. Without ifVersion the patch is applied again when
// another change came between; iot.ErrUnavailable when that never ends.
func (s *Service) PatchTenant(ctx context.Context, id iot.TenantID, patch json.RawMessage, ifVersion string) (version string, err error) {
	if err := s.CheckTenantID(id); err != nil {
		return "", err
	}
	if err := checkPatch("Tenant", patch); err != nil {
		return "", err
	}
	return patched(ifVersion, func() (string, error) {
		old, err := s.store.Tenant(ctx, id)
		if err != nil {
			return "", err
		}
		if ifVersion != "" && ifVersion != old.Version {
			return "", errVersion()
		}
		body, err := mergePatch(old.Tenant, patch)
		if err != nil {
			return "", err
		}
		t, err := DecodeTenant(body)
		if err != nil {
			return "", err
		}
		return s.UpdateTenant(ctx, id, t, old.Version)
	})
}

// PatchDevice changes the members of a device that a JSON merge patch names,
// as [Service.PatchTenant] does. A member status is ignored.
func (s *Service) PatchDevice(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, patch json.RawMessage, ifVersion string) (version string, err error) {
	if err := s.checkIDs(tenant, id); err != nil {
		return "", err
	}
	if err := checkPatch("Device", patch); err != nil {
		return "", err
	}
	return patched(ifVersion, func() (string, error) {
		old, err := s.store.Device(ctx, tenant, id)
		if err != nil {
			return "", err
		}
		if ifVersion != "" && ifVersion != old.Version {
			return "", errVersion()
		}
		body, err := mergePatch(old.Device, patch)
		if err != nil {
			return "", err
		}
		d, err := DecodeDevice(body)
		if err != nil {
			return "", err
		}
		return s.UpdateDevice(ctx, tenant, id, d, old.Version)
	})
}

func errVersion() error { return iot.Errorf(iot.ErrVersion, "resource version mismatch") }

// patched calls apply until no other change comes between, if that is allowed.
func patched(ifVersion string, apply func() (string, error)) (version string, err error) {
	for range patchTries {
		version, err = apply()
		if ifVersion != "" || !errors.Is(err, iot.ErrVersion) {
			return version, err
		}
	}
	return "", iot.Errorf(iot.ErrUnavailable, "the resource is being changed by others")
}

func checkPatch(what string, patch []byte) error {
	b := bytes.TrimSpace(patch)
	switch {
	case !validJSON(b):
		return invalid("body is not valid JSON")
	case b[0] != '{':
		return invalid("body is not a merge patch of a %s, want an object", what)
	}
	return nil
}

// mergePatch applies patch, valid JSON, to the JSON of v.
func mergePatch(v any, patch json.RawMessage) (json.RawMessage, error) {
	target, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	merged, err := merge(target, patch)
	if err == nil && len(merged) > maxPatched {
		err = iot.Errorf(iot.ErrTooLarge, "the patched resource would have %d bytes, at most %d are allowed", len(merged), maxPatched)
	}
	return merged, err
}

// merge is MergePatch of RFC 7396, section 2. Numbers keep their digits.
func merge(target, patch json.RawMessage) (json.RawMessage, error) {
	patch = bytes.TrimSpace(patch)
	if len(patch) == 0 || patch[0] != '{' {
		return patch, nil
	}
	var changes, members map[string]json.RawMessage
	if err := json.Unmarshal(patch, &changes); err != nil {
		return nil, invalid("body is not valid JSON")
	}
	if t := bytes.TrimSpace(target); len(t) > 0 && t[0] == '{' {
		if err := json.Unmarshal(t, &members); err != nil {
			return nil, err
		}
	}
	if members == nil {
		members = make(map[string]json.RawMessage, len(changes))
	}
	for name, change := range changes {
		if string(bytes.TrimSpace(change)) == "null" {
			delete(members, name)
			continue
		}
		merged, err := merge(members[name], change)
		if err != nil {
			return nil, err
		}
		members[name] = merged
	}
	return json.Marshal(members)
}
