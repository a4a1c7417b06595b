package pgstore

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Old changes are removed beside a new one, at most once in pruneEvery by each
// process: so many as it has made since, and a few more, so that it never
// falls behind; at most pruneMost at once.
const (
	pruneEvery = time.Minute
	pruneLeast = 1000
	pruneMost  = 20_000
)

// pruner knows when this process removed old changes the last time.
type pruner struct {
	mu    sync.Mutex
	last  time.Time // in the time of the changes
	count int       // changes made since
}

// pruning is one removal; the zero value is none.
type pruning struct {
	before time.Time
	limit  int
}

// due counts changes and says whether their transaction is to remove old ones.
func (p *pruner) due(changes []registry.Change) pruning {
	if len(changes) == 0 {
		return pruning{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count += len(changes)
	at := changes[len(changes)-1].At
	if at.Sub(p.last) < pruneEvery {
		return pruning{}
	}
	limit := min(pruneLeast+2*p.count, pruneMost)
	p.last, p.count = at, 0
	return pruning{before: at.Add(-registry.FeedRetention), limit: limit}
}

func (p pruning) queue(b *pgx.Batch) {
	if p.limit == 0 {
		return
	}
	// What another process removes at the moment is skipped, not waited for.
	b.Queue(`DELETE FROM feed WHERE position = ANY (ARRAY(SELECT position FROM feed WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))`,
		millis(p.before), p.limit)
}

// changesOf is one statement, so that the answer is from one state. $1 and $2
// are the known tenants and their sequences, $3 the time for all others (0 =
// none of them), $4 the limit. The position of the first change since a time
// is looked for among the times: "+ 0" keeps the planner from walking the
// positions from the oldest change on.
const changesOf = `SELECT tenant, sequence, kind, device, change, enabled, invalidate, at FROM (
	(SELECT 0 AS part, k.number, f.*
		FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY k (tenant, sequence, number)
		CROSS JOIN LATERAL (SELECT * FROM feed x WHERE x.tenant = k.tenant AND x.sequence > k.sequence ORDER BY x.sequence LIMIT $4) f
		ORDER BY k.number, f.sequence LIMIT $4)
	UNION ALL
	(SELECT 1, f.position, f.* FROM feed f
		WHERE $3::bigint <> 0 AND f.at >= $3 AND f.position >= (SELECT min(position + 0) FROM feed WHERE at >= $3) AND f.tenant <> ALL ($1)
		ORDER BY f.position LIMIT $4)
	) both_parts ORDER BY part, number, sequence LIMIT $4`

// Changes implements registry.Feed.
func (s *Store) Changes(ctx context.Context, after registry.Position, max int) ([]registry.Change, bool, error) {
	tenants := slices.DeleteFunc(slices.Sorted(maps.Keys(after.Sequences)), func(t iot.TenantID) bool { return !storable(string(t)) })
	names, sequences := make([]string, len(tenants)), make([]int64, len(tenants))
	for i, t := range tenants {
		names[i], sequences[i] = string(t), int64(min(after.Sequences[t], math.MaxInt64))
	}
	var changes []registry.Change
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		changes = nil
		rows, err := c.Query(ctx, changesOf, names, sequences, millis(after.Since), max+1)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			ch, err := scanChange(rows)
			if err != nil {
				return err
			}
			changes = append(changes, ch)
		}
		return rows.Err()
	})
	if len(changes) > max {
		return changes[:max], true, err
	}
	return changes, false, err
}

func scanChange(rows pgx.Rows) (registry.Change, error) {
	var ch registry.Change
	var at int64
	err := rows.Scan((*string)(&ch.Tenant), &ch.Sequence, (*string)(&ch.Kind), (*string)(&ch.Device), &ch.Change, &ch.Enabled, &ch.InvalidateCache, &at)
	ch.At = instant(at)
	return ch, err
}
