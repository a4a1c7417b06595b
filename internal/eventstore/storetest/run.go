package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Run puts a backend through the suite. open returns an empty store, for one test each, and
// sees to its end with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) eventstore.Store) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"Update", updates}, {"Batches", batches}, {"Lists", lists},
		{"Append", appends}, {"Claim", claims}, {"Deliver", deliveries}, {"Operate", operations}, {"Random", random},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, x := range group.tests {
				t.Run(x.name, func(t *testing.T) { x.run(t, open(t)) })
			}
		})
	}
}

type test struct {
	name string
	run  func(t *testing.T, s eventstore.Store)
}

func key(tenant iot.TenantID, number uint16) eventstore.Key {
	return eventstore.Key{Tenant: tenant, Partition: eventstore.PartitionID{Number: number}}
}

// update applies one change that must succeed.
func update(t *testing.T, s eventstore.Store, k eventstore.Key, f func(p *eventstore.Partition, w *eventstore.Writes)) {
	t.Helper()
	errs := s.Update(t.Context(), []eventstore.Change{{Key: k, Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
		f(p, w)
		return nil
	}}})
	if errs != nil {
		t.Fatalf("Update: %v", errs)
	}
}

// add appends a batch as the log does.
func add(p *eventstore.Partition, w *eventstore.Writes, records, bytes int, expires int64) {
	b := eventstore.Batch{First: p.End, Last: p.End + uint64(records) - 1, At: 1000 + int64(p.End), Expires: expires, Body: make([]byte, bytes)}
	for i := range b.Body {
		b.Body[i] = byte(p.End) + byte(i)
	}
	if p.End = b.Last + 1; p.Head == 0 {
		p.Head = b.Last
	}
	p.Bytes += int64(bytes)
	w.Batches = append(w.Batches, b)
}

func partition(t *testing.T, s eventstore.Store, k eventstore.Key) eventstore.Partition {
	t.Helper()
	p, err := s.Partition(t.Context(), k)
	if err != nil {
		t.Fatalf("Partition: %v", err)
	}
	return p
}

// spans returns where batches begin and end, as text.
func spans(t *testing.T, s eventstore.Store, k eventstore.Key, from uint64, maxBytes int) string {
	t.Helper()
	found, err := s.Batches(t.Context(), k, from, maxBytes)
	if err != nil {
		t.Fatalf("Batches: %v", err)
	}
	out := []string{}
	for _, b := range found {
		out = append(out, fmt.Sprint(b.First, "-", b.Last))
	}
	return fmt.Sprint(out)
}

// settled makes harmless changes until all that may be removed is: a
// backend may remove the first ones only.
func settled(t *testing.T, s eventstore.Store, k eventstore.Key) eventstore.Partition {
	t.Helper()
	for range 1000 {
		p := partition(t, s, k)
		if p.Head == 0 || p.Cursor <= p.Head {
			return p
		}
		update(t, s, k, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Seen++ })
	}
	t.Fatal("batches that are done are never removed")
	return eventstore.Partition{}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("%s: got %.2000s, want %.2000s", what, g, w)
	}
}

func sorted[T any](list []T, compare func(a, b T) int) []T {
	slices.SortFunc(list, compare)
	return list
}
