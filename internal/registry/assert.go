package registry

import (
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Assert decides whether the device of a snapshot may act now, by itself or
// through the snapshot's gateway (contract: messaging, section 4), and returns
// the devices that may act for it: its via list and the members of its
// viaGroups, in this order, without duplicates. A pure function of s.
//
// iot.ErrNotFound when the device does not exist or is disabled, which wins
// over problems of the gateway; iot.ErrForbidden when the gateway does not
// exist, is disabled or may not act for the device. Whether the tenant is
// enabled is the caller's to check.
func Assert(s *Snapshot) (via []iot.DeviceID, err error) {
	if s.Device == nil || !s.Device.Device.IsEnabled() {
		return nil, iot.Errorf(iot.ErrNotFound, "device is disabled or not registered")
	}
	if s.GatewayID != "" {
		if s.Gateway == nil || !s.Gateway.Device.IsEnabled() {
			return nil, iot.Errorf(iot.ErrForbidden, "gateway is disabled or not registered")
		}
		if !MayActFor(s.GatewayID, &s.Gateway.Device, &s.Device.Device) {
			return nil, iot.Errorf(iot.ErrForbidden, "gateway is not authorised to act for the device")
		}
	}
	return Via(&s.Device.Device, s.Members), nil
}

// MayActFor reports whether the gateway with the given id may act for device:
// it is in the device's via list or member of one of its viaGroups.
func MayActFor(id iot.DeviceID, gateway, device *iot.Device) bool {
	if slices.Contains(device.Via, id) {
		return true
	}
	return slices.ContainsFunc(gateway.MemberOf, func(group string) bool {
		return slices.Contains(device.ViaGroups, group)
	})
}

// Via merges a device's via list with the members of its viaGroups, keeping
// the order and dropping repeats. It returns nil when there is none.
func Via(device *iot.Device, members []iot.DeviceID) []iot.DeviceID {
	if len(device.Via)+len(members) == 0 {
		return nil
	}
	all := make([]iot.DeviceID, 0, len(device.Via)+len(members))
	seen := make(map[iot.DeviceID]struct{}, cap(all))
	for _, list := range [][]iot.DeviceID{device.Via, members} {
		for _, id := range list {
			if _, dup := seen[id]; !dup {
				seen[id] = struct{}{}
				all = append(all, id)
			}
		}
	}
	return all
}

// MayProvision reports whether the snapshot's gateway may register the
// snapshot's missing device (contract: registry, section 9.2).
func MayProvision(s *Snapshot) bool {
	return s.Device == nil && s.Gateway != nil &&
		s.Gateway.Device.IsEnabled() && s.Gateway.Device.Has(iot.AuthorityAutoProvisioning)
}
