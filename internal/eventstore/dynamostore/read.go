package dynamostore

import (
	"context"
	"strings"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Partition implements eventstore.Store.
func (s *Store) Partition(ctx context.Context, k eventstore.Key) (eventstore.Partition, error) {
	if storable(k.Tenant) != nil {
		return eventstore.NewPartition(), nil
	}
	st, err := s.load(ctx, k)
	return st.state, err
}

// PartitionsOf implements eventstore.Store: they lie under one key.
func (s *Store) PartitionsOf(ctx context.Context, tenant iot.TenantID) (all []eventstore.Stored, err error) {
	if storable(tenant) != nil {
		return nil, nil
	}
	err = s.query(ctx, question{pk: statesPK(tenant)}, func(i item) (bool, error) {
		id, err := partitionOf(i.str("sk"))
		if err != nil {
			return true, corrupt(i.key(), err)
		}
		st, err := decodeState(i)
		if err != nil {
			return true, err
		}
		s.saw(eventstore.Key{Tenant: tenant, Partition: id}, st.state.End)
		all = append(all, eventstore.Stored{ID: id, State: st.state})
		return false, nil
	})
	return all, err
}

// Tenants implements eventstore.Store: they are listed under one key, which is
// written once for each tenant.
func (s *Store) Tenants(ctx context.Context, after iot.TenantID, max int) (all []iot.TenantID, err error) {
	if max <= 0 {
		return nil, nil
	}
	from := string(after)
	if len(from) > maxSK { // no listed one is as long
		from = strings.ToValidUTF8(from[:maxSK], "")
	}
	q := question{pk: tenantsPK, after: from, limit: func() int { return min(max-len(all), 1000) }}
	err = s.query(ctx, q, func(i item) (bool, error) {
		all = append(all, iot.TenantID(i.str("sk")))
		return len(all) == max, nil
	})
	return all, err
}

// Batches implements eventstore.Store.
func (s *Store) Batches(ctx context.Context, k eventstore.Key, from uint64, maxBytes int) ([]eventstore.Batch, error) {
	if storable(k.Tenant) != nil {
		return nil, nil
	}
	end, err := s.end(ctx, k)
	if err != nil {
		return nil, err
	}
	patience, cancel := context.WithTimeoutCause(ctx, s.patience, errBusy)
	defer cancel()
	g := gaps{s: s, k: k}
	for try := 0; ; try++ {
		g.next = max(from, 1)
		all, complete, err := s.batches(patience, k, from, maxBytes, end, &g)
		if err == nil && !complete {
			err = s.pause(patience, try)
		}
		if err != nil || complete {
			return all, s.impatient(ctx, err)
		}
	}
}

// batches reads once; complete is false when a batch was about to show.
func (s *Store) batches(ctx context.Context, k eventstore.Key, from uint64, maxBytes int, end uint64, g *gaps) (all []eventstore.Batch, complete bool, err error) {
	size, enough, hidden := 0, false, false
	q := question{pk: batchesPK(k), from: position(from),
		// Not many more than are wanted, whatever their size: what is read costs.
		limit: func() int { return min(max((maxBytes-size)/1024, 1), 1000) }}
	err = s.query(ctx, q, func(i item) (bool, error) {
		b := eventstore.Batch{First: i.position("f"), Last: lastOf(i), At: i.num("at"), Expires: i.num("x"), Body: i.bytes("d")}
		ok, err := g.check(ctx, b.First, b.Last)
		if err != nil || !ok {
			hidden = true
			return true, err
		}
		all = append(all, b)
		size += len(b.Body)
		enough = size >= maxBytes
		return enough, nil
	})
	if err != nil || hidden {
		return nil, false, err
	}
	if !enough {
		ok, err := g.check(ctx, end, 0)
		if err != nil || !ok {
			return nil, false, err
		}
	}
	return all, true, nil
}

// DeadLetters implements eventstore.Store. A letter that a transaction under way removes is still seen by a
// plain read, beside a state that counts it no longer; so those that were found are
// asked for once more in transactions.
func (s *Store) DeadLetters(ctx context.Context, k eventstore.Key, from uint64, max int) (all []eventstore.DeadLetter, err error) {
	if max <= 0 || storable(k.Tenant) != nil {
		return nil, nil
	}
	patience, cancel := context.WithTimeoutCause(ctx, s.patience, errBusy)
	defer cancel()
	for try := 0; ; try++ {
		settled := false
		if all, err = s.deadLetters(patience, k, from, max); err == nil {
			settled, err = s.settled(patience, k, all)
		}
		if err == nil && !settled {
			err = s.pause(patience, try)
		}
		if err != nil {
			return nil, s.impatient(ctx, err)
		}
		if settled {
			return all, nil
		}
	}
}

func (s *Store) deadLetters(ctx context.Context, k eventstore.Key, from uint64, max int) (all []eventstore.DeadLetter, err error) {
	q := question{pk: deadPK(k), from: position(from), limit: func() int { return min(max-len(all), 1000) }}
	err = s.query(ctx, q, func(i item) (bool, error) {
		all = append(all, eventstore.DeadLetter{Position: lastOf(i), At: i.num("at"), Attempts: uint16(i.num("n")), Reason: i.str("r"), Record: i.bytes("d")})
		return len(all) == max, nil
	})
	return all, err
}

// settled reports whether all letters are there and no transaction is about to remove one.
func (s *Store) settled(ctx context.Context, k eventstore.Key, all []eventstore.DeadLetter) (bool, error) {
	for len(all) > 0 {
		var keys []key
		for size := 0; len(all) > 0 && len(keys) < maxGets && (len(keys) == 0 || size+len(all[0].Record) < maxTransaction/2); all = all[1:] {
			size += len(all[0].Record)
			keys = append(keys, key{deadPK(k), position(all[0].Position)})
		}
		if n, calm, err := s.count(ctx, keys); err != nil || !calm || n < len(keys) {
			return false, err
		}
	}
	return true, nil
}
