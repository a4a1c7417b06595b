package attempts

import "net/netip"

// Address is what counts as one remote address: an IPv4 address, or the first
// 64 bits of an IPv6 address, because a client owns all of its network.
func Address(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	p, _ := a.Prefix(64) // 64 bits fit any IPv6 address
	return p.Addr()
}
