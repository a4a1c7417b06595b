package inproc

import (
	"context"
	"errors"

	"github.com/sluice-iot/sluice/events"
)

// Poster is a function of this process that takes facts, such as
// notices.Follower.Take. It must be safe for concurrent use.
type Poster func(ctx context.Context, facts []events.Fact) error

var _ events.Poster = Poster(nil)

// Post implements [events.Poster].
func (p Poster) Post(ctx context.Context, facts []events.Fact) error {
	if len(facts) == 0 {
		return nil
	}
	return p(ctx, facts)
}

// Both returns a poster that brings facts to each of posters, one after the
// other, whatever the others say: a router of this process, and subscribers elsewhere.
func Both(posters ...events.Poster) Poster {
	return func(ctx context.Context, facts []events.Fact) error {
		var errs []error
		for _, p := range posters {
			errs = append(errs, p.Post(ctx, facts))
		}
		return errors.Join(errs...)
	}
}
