package auth

import (
	"context"
	"errors"
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

// guesses bounds how often secrets are guessed.
type guesses struct {
	logins  *attempts.Logins[nameAt]
	refused atomic.Int64
}

func newGuesses() *guesses {
	return &guesses{logins: attempts.NewLogins[nameAt](failuresPerName, failuresPerAddress, maxWatched)}
}

// attempt calls prove unless too many attempts failed. Where they did, nothing is
// computed, and what is right is refused like what is wrong. Who has no address is
// not limited.
func (d *Directory) attempt(ctx context.Context, name string, from netip.Addr, prove func() error) error {
	g, at := d.guesses, nameAt{}
	if from.IsValid() {
		at = nameAt{name: attempts.HashName(name), address: from}
		if e := d.current.Load().entries[name]; e != nil {
			at.secret = e.verifier
		}
	}
	if err := g.logins.Begin(ctx, at, from); err != nil {
		return g.refuse(err)
	}
	failed := false
	defer func() { g.logins.End(at, from, failed) }()
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
