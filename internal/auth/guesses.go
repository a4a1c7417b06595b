package auth

import (
	"context"
	"errors"
	"hash/maphash"
	"net/netip"
	"sync/atomic"

	"github.com/sluice-iot/sluice/internal/attempts"
	"github.com/sluice-iot/sluice/internal/iot"
)

// How often a minute log-ins with a secret may fail, and how many names and
// addresses are remembered for it.
const (
	failuresPerName    = 10   // with one name from one address
	failuresPerAddress = 1000 // many applications may share one
	maxWatched         = 10_000
)

// nameAt is a name used at an address. A hash stands for the name, which may be
// of any length. What failed before an entry was added or got another secret does not
// count after that.
type nameAt struct {
	name    uint64
	secret  *verifier // nil = there is none by the name
	address netip.Addr
}

var nameSeed = maphash.MakeSeed()

// guesses bounds how often secrets are guessed.
type guesses struct {
	byName    *attempts.Limit[nameAt]
	byAddress *attempts.Limit[netip.Addr]
	refused   atomic.Int64
}

func newGuesses() *guesses {
	return &guesses{byName: attempts.New[nameAt](failuresPerName, maxWatched), byAddress: attempts.New[netip.Addr](failuresPerAddress, maxWatched)}
}

// attempt calls prove unless too many attempts failed. Where they did, nothing is
// computed, and what is right is refused like what is wrong. Who has no address is
// not limited.
func (d *Directory) attempt(ctx context.Context, name string, from netip.Addr, prove func() error) error {
	g, at := d.guesses, nameAt{}
	if from.IsValid() {
		at = nameAt{name: maphash.String(nameSeed, name), address: from}
		if e := d.current.Load().entries[name]; e != nil {
			at.secret = e.verifier
		}
	}
	// The name comes first: its few places may wait for the address's many,
	// never the other way round.
	if err := g.byName.Begin(ctx, at); err != nil {
		return g.refuse(err)
	}
	if err := g.byAddress.Begin(ctx, from); err != nil {
		g.byName.End(at, false)
		return g.refuse(err)
	}
	failed := false
	defer func() {
		g.byAddress.End(from, failed)
		g.byName.End(at, failed)
	}()
	err := prove()
	failed = errors.Is(err, iot.ErrUnauthenticated)
	return err
}

func (g *guesses) refuse(err error) error {
	if errors.Is(err, iot.ErrQuota) {
		g.refused.Add(1)
		return err
	}
	return errTooManyLogins() // its time ended while others were checked
}

// Refused counts the log-ins that were not looked at because too many before them
// had failed.
func (d *Directory) Refused() int64 { return d.guesses.refused.Load() }
