package identity

import (
	"context"
	"strings"

	"github.com/sluice-iot/sluice/internal/config"
)

// sweepStep is how many devices one step of a sweep removes.
const sweepStep = 1000

// What a store may leave to be done later, by whoever has the time.
type (
	sweeper interface {
		Sweep(ctx context.Context, max int) (more bool, err error)
	}
	reindexer interface {
		Pending() []string
		Reindex(ctx context.Context) error
	}
)

// Sweep removes what deleted devices left, where the store leaves that for later,
// until nothing is left.
func (i *Identity) Sweep(ctx context.Context) error {
	_, _, err := sweep(ctx, i.store)
	return err
}

// sweep tells in how many steps it was done, and ok = false where there is never
// anything to do.
func sweep(ctx context.Context, store Store) (steps int, ok bool, err error) {
	s, ok := store.(sweeper)
	for more := ok; more && err == nil; steps++ {
		more, err = s.Sweep(ctx, sweepStep)
	}
	return steps, ok, err
}

// Maintain opens the store that cfg names and does what it left for later. say
// is told of each thing in a line. data may be nil where the store is not SQLite.
func Maintain(ctx context.Context, cfg *config.Config, data *config.DataFolder, say func(what, state string)) error {
	store, err := openStore(ctx, cfg, data)
	if err != nil {
		return err
	}
	if err = sweepAloud(ctx, store, say); err == nil {
		err = reindexAloud(ctx, store, cfg, say)
	}
	if closed := store.Close(); err == nil {
		err = closed
	}
	return err
}

func sweepAloud(ctx context.Context, store Store, say func(what, state string)) error {
	steps, ok, err := sweep(ctx, store)
	switch {
	case err != nil:
		return err
	case !ok:
		say("deleted devices", "this store leaves nothing of them")
	case steps > 1:
		say("deleted devices", "what they had left is removed")
	default:
		say("deleted devices", "nothing of them is left")
	}
	return nil
}

func reindexAloud(ctx context.Context, store Store, cfg *config.Config, say func(what, state string)) error {
	s, ok := store.(reindexer)
	if !ok {
		say("indexes", "this store completes them when it is opened; now: "+list(cfg.Registry.Indexes))
		return nil
	}
	pending := s.Pending()
	if len(pending) == 0 {
		say("indexes", "complete")
		return nil
	}
	say("indexes", "reading every device for "+list(pending))
	if err := s.Reindex(ctx); err != nil {
		return err
	}
	say("indexes", "complete; processes use the new ones from their next start on")
	return nil
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
