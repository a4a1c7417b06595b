package router

import (
	"net/netip"
	"sync"
)

// Connections that have not logged in cost nothing to make and a descriptor
// each, so there are only so many of them: a flood of silent ones must not take the
// descriptors that the rest of the process needs.
const (
	maxStrangers           = 4000 // of one router
	maxStrangersPerAddress = 1000 // of one address; of IPv6, of one /64
)

// strangers counts the connections that have not logged in yet. The zero value
// is ready.
type strangers struct {
	mu    sync.Mutex
	total int
	from  map[netip.Addr]int
}

// stranger marks the connection of one, which came through a door of that scope.
type stranger Scope

// originOf is the address that counts, of "address:port".
func originOf(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	ip := ap.Addr().Unmap()
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// admit counts a new connection, or reports false when there are too many.
func (s *strangers) admit(remote string) bool {
	from := originOf(remote)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= maxStrangers || s.from[from] >= maxStrangersPerAddress {
		return false
	}
	if s.from == nil {
		s.from = map[netip.Addr]int{}
	}
	s.total++
	s.from[from]++
	return true
}

// known uncounts a connection that has logged in or gone.
func (s *strangers) known(remote string) {
	from := originOf(remote)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.from[from]--; s.from[from] == 0 {
		delete(s.from, from)
	}
}
