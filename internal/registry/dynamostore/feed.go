package dynamostore

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func encodeChange(ch *registry.Change, now time.Time) item {
	i := feedKey(ch.Tenant, ch.Sequence).item()
	i["tenant"], i["kind"], i["change"] = str(string(ch.Tenant)), str(string(ch.Kind)), str(ch.Change)
	i["device"], i["enabled"], i["invalidate"] = str(string(ch.Device)), flag(ch.Enabled), flag(ch.InvalidateCache)
	i["at"], i["q"] = millis(ch.At), number(int64(ch.Sequence))
	i[expires] = number(now.Add(keepFeed).Unix())
	return i
}

func decodeChange(i item) registry.Change {
	return registry.Change{
		Tenant: iot.TenantID(i.str("tenant")), Sequence: uint64(i.num("q")), Kind: registry.ChangeKind(i.str("kind")),
		Device: iot.DeviceID(i.str("device")), Change: i.str("change"), Enabled: i.flag("enabled"),
		InvalidateCache: i.flag("invalidate"), At: i.time("at"),
	}
}

// Changes implements registry.Feed.
func (s *Store) Changes(ctx context.Context, after registry.Position, max int) ([]registry.Change, bool, error) {
	var all []registry.Change
	err := s.knownChanges(ctx, after.Sequences, max+1, &all)
	if err == nil && !after.Since.IsZero() && len(all) <= max {
		err = s.recentChanges(ctx, &after, max+1, &all)
	}
	if err != nil {
		return nil, false, err
	}
	if len(all) > max {
		return all[:max], true, nil
	}
	return all, false, nil
}

// knownChanges compares the counters first and reads the rows of tenants that moved.
func (s *Store) knownChanges(ctx context.Context, sequences map[iot.TenantID]uint64, enough int, all *[]registry.Change) error {
	tenants := slices.Sorted(maps.Keys(sequences))
	for some := range slices.Chunk(tenants, maxBatchGet) {
		keys := make([]key, len(some))
		for i, t := range some {
			keys[i] = counterKey(t)
		}
		counters := make(map[key]item, len(keys))
		if err := s.getAll(ctx, counters, keys...); err != nil {
			return err
		}
		for i, t := range some {
			if uint64(counters[keys[i]].num("q")) <= sequences[t] {
				continue
			}
			if err := s.rows(ctx, t, sequences[t]+1, time.Time{}, enough, all); err != nil || len(*all) >= enough {
				return err
			}
		}
	}
	return nil
}

// gapTries is how often rows are read again when one is missing.
const gapTries = 4

// rows appends a tenant's rows from a sequence on that are not from before
// since. A row that is missing before one that is there has expired, or its
// transaction is being applied just now: then it comes in a moment.
func (s *Store) rows(ctx context.Context, t iot.TenantID, from uint64, since time.Time, enough int, all *[]registry.Change) error {
	first := feedKey(t, from)
	limit := 0
	if since.IsZero() {
		limit = enough - len(*all)
	}
	before := len(*all)
	for try := 0; ; try++ {
		next, gap := from, false
		_, err := s.query(ctx, question{pk: first.pk, from: first.sk, limit: limit}, func(i item) (bool, error) {
			ch := decodeChange(i)
			gap = gap || ch.Sequence != next
			next = ch.Sequence + 1
			if !ch.At.Before(since) {
				*all = append(*all, ch)
			}
			return len(*all) >= enough, nil
		})
		if err != nil || !gap || try >= gapTries {
			return err
		}
		*all = (*all)[:before]
		if err := s.pause(ctx, try); err != nil {
			return err
		}
	}
}

// recentChanges finds the tenants that changed since a time by the buckets of
// the hours. Those are written by the clocks of the writers when they commit,
// which is after the time that a change carries; an hour more on both sides
// allows for clocks that differ.
func (s *Store) recentChanges(ctx context.Context, after *registry.Position, enough int, all *[]registry.Change) error {
	now := time.Now()
	since := after.Since.UTC().Truncate(time.Millisecond)
	start := since
	if oldest := now.Add(-keepFeed); start.Before(oldest) {
		start = oldest
	}
	if start.After(now) {
		start = now
	}
	firsts := make(map[iot.TenantID]uint64)
	for at := start.Add(-time.Hour); !at.After(now.Add(time.Hour)); at = at.Add(time.Hour) {
		_, err := s.query(ctx, question{pk: hourKey(hourOf(at), "").pk}, func(i item) (bool, error) {
			t, first := iot.TenantID(i.str("sk")), uint64(i.num("first"))
			if _, known := after.Sequences[t]; !known && (firsts[t] == 0 || first < firsts[t]) {
				firsts[t] = first
			}
			return false, nil
		})
		if err != nil {
			return err
		}
	}
	for _, t := range slices.Sorted(maps.Keys(firsts)) {
		if err := s.rows(ctx, t, firsts[t], since, enough, all); err != nil || len(*all) >= enough {
			return err
		}
	}
	return nil
}
