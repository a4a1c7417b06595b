package eventstore

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// DefaultMaxAttempts is how often a delivery may fail before an event is given up.
const DefaultMaxAttempts = 10

// Options of a log; zero values are the defaults.
type Options struct {
	Now func() time.Time // default time.Now
	// Quota bounds what is kept of a tenant; nil = nothing does. It is asked
	// once a second for each tenant, and up to 50 times while it is full.
	Quota func(iot.TenantID) Quota
	// MaxTTL bounds how long any event is kept; 0 = nothing does.
	MaxTTL time.Duration
	// MaxAttempts is how often a delivery may fail before the event becomes a dead
	// letter; 0 = [DefaultMaxAttempts], below 0 = it never does.
	MaxAttempts int
}

// Quota bounds what is kept of a tenant, dead letters included; 0 = unlimited. Appends that are on
// their way at the same time may together go beyond it.
type Quota struct {
	Messages int64
	Bytes    int64 // of whole batches
}

// Log applies the rules to a store. Safe for concurrent use.
type Log struct {
	store Store
	o     Options
	usage usages

	dead deadSweep

	expired atomic.Int64
}

// New returns a log on a store.
func New(store Store, o Options) *Log {
	if o.Now == nil {
		o.Now = time.Now
	}
	switch {
	case o.MaxAttempts == 0:
		o.MaxAttempts = DefaultMaxAttempts
	case o.MaxAttempts < 0:
		o.MaxAttempts = 0
	}
	return &Log{store: store, o: o}
}

// Expired returns how many events were found to have expired, since the start.
func (l *Log) Expired() int64 { return l.expired.Load() }

func (l *Log) now() int64 { return l.o.Now().UnixMilli() }

// update applies one change.
func (l *Log) update(ctx context.Context, key Key, apply func(*Partition, *Writes) error) error {
	if errs := l.store.Update(ctx, []Change{{key, apply}}); errs != nil {
		return errs[0]
	}
	return nil
}

// Claim gives the caller its share of a tenant's partitions and renews what it
// has: iot.ErrInvalid for a request that names no tenant or holder.
func (l *Log) Claim(ctx context.Context, r ClaimRequest) (*ClaimResult, error) {
	if r.Tenant == "" || r.Holder == "" {
		return nil, iot.Errorf(iot.ErrInvalid, "a claim needs a tenant and a holder")
	}
	if r.ClaimMS < 0 || r.ClaimMS > maxClaim {
		return nil, iot.Errorf(iot.ErrInvalid, "claim-ms is %d, at most %d is possible", r.ClaimMS, maxClaim)
	}
	if r.ClaimMS == 0 {
		r.ClaimMS = DefaultClaim
	}
	stored, err := l.partitions(ctx, r.Tenant)
	if err != nil {
		return nil, err
	}
	now := l.now()
	until := now + r.ClaimMS
	s := shares{holder: r.Holder, now: now, states: slices.Clone(stored), asked: r.Partitions}
	d := s.decide()
	var changes []Change
	out := &ClaimResult{}
	claims := make([]Claim, len(stored))
	for i := range stored {
		id, p := stored[i].ID, &stored[i].State
		c := &claims[i]
		switch {
		case p.Holder == r.Holder:
			changes = append(changes, Change{Key{r.Tenant, id}, func(p *Partition, w *Writes) error {
				if *c = (Claim{}); p.Holder == r.Holder {
					p.Until, p.Seen, p.Ingress = until, now, r.Ingress
					if !p.wanted(now) {
						p.Wanted, p.WantedAt = "", 0
					}
					*c = p.claim(id, false)
				}
				w.Unchanged = c.Fence == 0
				return nil
			}})
		case slices.Contains(d.take, id):
			changes = append(changes, Change{Key{r.Tenant, id}, func(p *Partition, w *Writes) error {
				if *c = (Claim{}); p.Holder != r.Holder && p.free(r.Holder, now) {
					p.take(r.Holder, r.Ingress, until, now)
					*c = p.claim(id, true)
				}
				w.Unchanged = c.Fence == 0
				return nil
			}})
		case slices.Contains(d.want, id):
			changes = append(changes, Change{Key{r.Tenant, id}, func(p *Partition, w *Writes) error {
				w.Unchanged = p.Holder == "" || p.Holder == r.Holder || p.wanted(now) && p.Wanted != r.Holder
				if !w.Unchanged {
					p.Wanted, p.WantedAt = r.Holder, now
				}
				return nil
			}})
		case slices.Contains(d.drop, id):
			changes = append(changes, Change{Key{r.Tenant, id}, func(p *Partition, w *Writes) error {
				if w.Unchanged = p.Holder == "" || p.Wanted != r.Holder; !w.Unchanged {
					p.Wanted, p.WantedAt = "", 0
				}
				return nil
			}})
		}
	}
	if len(changes) > 0 {
		if err := errors.Join(l.store.Update(ctx, changes)...); err != nil {
			return nil, err
		}
	}
	for i, c := range claims {
		switch p := &stored[i].State; {
		case c.Fence != 0:
			out.Claims = append(out.Claims, c)
		case p.Holder != "" || !p.free(r.Holder, now) || p.Cursor < p.End && s.wants(stored[i].ID): // or it is kept for another, or left to one
			if out.Others++; p.Cursor < p.End {
				out.Pending++
				if at := p.Until + 1; at > now && (out.FreeAt == 0 || at < out.FreeAt) {
					out.FreeAt = at
				}
			}
		}
	}
	return out, nil
}

func (p *Partition) claim(id PartitionID, fresh bool) Claim {
	return Claim{Partition: id, Fence: p.Fence, Next: p.Mark, End: p.End, Retry: p.retry(), Wanted: p.Wanted != "" && p.Wanted != p.Holder, New: fresh}
}

// partitions returns all of a tenant, those of the first generation always.
func (l *Log) partitions(ctx context.Context, tenant iot.TenantID) ([]Stored, error) {
	stored, err := l.store.PartitionsOf(ctx, tenant)
	if err != nil {
		return nil, err
	}
	for _, id := range FirstGeneration() {
		if i, found := slices.BinarySearchFunc(stored, id, func(s Stored, id PartitionID) int { return s.ID.Compare(id) }); !found {
			stored = slices.Insert(stored, i, Stored{id, NewPartition()})
		}
	}
	return stored, nil
}

// Release gives a claim back; what was not settled comes again at once, for whoever claims it. With a
// Holder it gives back what others were asked for in its name, and what is kept for it.
func (l *Log) Release(ctx context.Context, r ReleaseRequest) error {
	if r.Holder != "" {
		return l.forgo(ctx, r.Tenant, r.Holder)
	}
	now := l.now()
	err := l.update(ctx, Key{r.Tenant, r.Partition}, func(p *Partition, _ *Writes) error {
		if err := p.fenced(r.Fence); err != nil {
			return err
		}
		undelivered := r.Undelivered
		if undelivered == 0 {
			undelivered = p.Mark
		}
		p.giveBack(undelivered, false, now)
		p.release(now)
		return nil
	})
	if errors.Is(err, iot.ErrExists) {
		return nil // it was taken: there is nothing left to give back
	}
	return err
}

// forgo lets nobody wait for a holder that waits for nothing any more.
func (l *Log) forgo(ctx context.Context, tenant iot.TenantID, holder string) error {
	stored, err := l.store.PartitionsOf(ctx, tenant)
	if err != nil {
		return err
	}
	var changes []Change
	for _, s := range stored {
		if s.State.Wanted != holder {
			continue
		}
		changes = append(changes, Change{Key{tenant, s.ID}, func(p *Partition, w *Writes) error {
			if w.Unchanged = p.Wanted != holder; !w.Unchanged {
				p.forgo()
			}
			return nil
		}})
	}
	if len(changes) == 0 {
		return nil
	}
	return errors.Join(l.store.Update(ctx, changes)...)
}

// nextAt is when the next event is due, as a time.
func (p *Partition) nextAt() time.Time {
	if next := p.retry(); next != 0 {
		return time.UnixMilli(next)
	}
	return time.Time{}
}
