package attempts

import (
	"context"
	"errors"
	"hash/maphash"
	"net/netip"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Logins bounds failed log-ins by the name that is used, which K holds, and by the
// address that they come from. Zero keys and addresses are not limited. Safe for
// concurrent use.
type Logins[K comparable] struct {
	names     *Limit[K]
	addresses *Limit[netip.Addr]
}

// NewLogins returns limits of that many failures in a [Window]; of names and of
// addresses it remembers at most max each.
func NewLogins[K comparable](perName, perAddress, max int) *Logins[K] {
	return &Logins[K]{names: New[K](perName, max), addresses: New[netip.Addr](perAddress, max)}
}

// Begin takes room for one attempt; see [Limit.Begin]. After an error there is
// nothing to end.
func (l *Logins[K]) Begin(ctx context.Context, name K, from netip.Addr) error {
	// The name comes first: its few places may wait for the address's many,
	// never the other way round.
	if err := l.names.Begin(ctx, name); err != nil {
		return err
	}
	if err := l.addresses.Begin(ctx, from); err != nil {
		l.names.End(name, false)
		return err
	}
	return nil
}

// End reports how an attempt that [Logins.Begin] let through went.
func (l *Logins[K]) End(name K, from netip.Addr, failed bool) {
	l.addresses.End(from, failed)
	l.names.End(name, failed)
}

// Try calls prove unless too many attempts failed; one has failed whose error wraps
// iot.ErrUnauthenticated. Where too many did, nothing is computed, and what is right
// is refused like what is wrong.
func (l *Logins[K]) Try(ctx context.Context, name K, from netip.Addr, prove func() error) error {
	if err := l.Begin(ctx, name, from); err != nil {
		return err
	}
	failed := false
	defer func() { l.End(name, from, failed) }()
	err := prove()
	failed = errors.Is(err, iot.ErrUnauthenticated)
	return err
}

// NameAt is a name used at an address. A hash stands for the name, which may be of
// any length.
type NameAt struct {
	hash    uint64
	address netip.Addr
}

var nameSeed = maphash.MakeSeed()

// HashName is what stands for a name in this process.
func HashName(name string) uint64 { return maphash.String(nameSeed, name) }

// At returns the key of a name at an address.
func At(name string, address netip.Addr) NameAt { return NameAt{HashName(name), address} }

// Remote is what a peer's address, with a port or without, counts for; the zero Addr
// where it is none.
func Remote(text string) netip.Addr {
	if a, err := netip.ParseAddrPort(text); err == nil {
		return Address(a.Addr())
	}
	a, _ := netip.ParseAddr(text) // of a host that knows no port
	return Address(a)
}
