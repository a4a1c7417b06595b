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

// Others are the routers of other processes, and subscribers.
type Others interface {
	events.Poster
	// Copy brings facts to subscribers only. That one did not get its copy is no error.
	Copy(ctx context.Context, facts []events.Fact)
	// Tell brings each fact to one router, whichever takes it.
	Tell(ctx context.Context, facts []events.Fact) error
}

// Both returns a poster that brings changes of the registry to own and to
// others, whatever either says. Of a provisioned device one router is told, because it
// sends an event: own, or another where own has nobody to send it to. Facts about the
// presence of devices are for subscribers only.
func Both(own Poster, others Others) Poster {
	return func(ctx context.Context, facts []events.Fact) error {
		var changes, provisioned, copies []events.Fact
		for _, f := range facts {
			switch f.(type) {
			case events.DeviceProvisioned:
				provisioned = append(provisioned, f)
				copies = append(copies, f)
			case events.PresenceFact:
				copies = append(copies, f)
			default:
				changes = append(changes, f)
			}
		}
		var errs []error
		if len(changes) > 0 {
			errs = append(errs, own(ctx, changes), others.Post(ctx, changes))
		}
		for i := range provisioned {
			one := provisioned[i : i+1]
			if err := own(ctx, one); err != nil {
				if otherErr := others.Tell(ctx, one); otherErr != nil {
					errs = append(errs, err, otherErr)
				}
			}
		}
		if len(copies) > 0 {
			others.Copy(ctx, copies)
		}
		return errors.Join(errs...)
	}
}
