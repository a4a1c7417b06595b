package storetest

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

var batches = []test{
	{"FromAndLimits", batchesFrom},
	{"Content", batchesContent},
	{"Trim", batchesTrim},
	{"TrimMany", batchesTrimMany},
	{"Drop", batchesDrop},
}

// five writes batches of three positions and 100 bytes.
func five(t *testing.T, s eventstore.Store, k eventstore.Key) {
	t.Helper()
	for _, n := range []int{1, 2, 2} { // one change may bring several
		update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) {
			for range n {
				add(p, w, 3, 100, 0)
			}
		})
	}
}

func batchesFrom(t *testing.T, s eventstore.Store) {
	k := key("T", 1)
	five(t, s, k)
	five(t, s, key("T", 2))
	five(t, s, key("U", 1))
	for _, x := range []struct {
		from     uint64
		maxBytes int
		want     string
	}{
		{0, 1, "[1-3]"}, {1, 0, "[1-3]"}, {1, -5, "[1-3]"}, {1, 100, "[1-3]"}, {1, 101, "[1-3 4-6]"}, {3, 1, "[1-3]"},
		{4, 1, "[4-6]"}, {5, 250, "[4-6 7-9 10-12]"}, {6, 300, "[4-6 7-9 10-12]"}, {13, 1 << 20, "[13-15]"},
		{15, 1, "[13-15]"}, {16, 1, "[]"}, {1 << 39, 1 << 20, "[]"}, {1, math.MaxInt32, "[1-3 4-6 7-9 10-12 13-15]"},
	} {
		same(t, fmt.Sprint("batches from ", x.from, ", ", x.maxBytes, " bytes"), spans(t, s, k, x.from, x.maxBytes), x.want)
	}
	same(t, "another partition", spans(t, s, key("T", 3), 1, 1000), "[]")
}

func batchesContent(t *testing.T, s eventstore.Store) {
	k := key("T", 1)
	var want []eventstore.Batch
	update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) {
		add(p, w, 1, 1, 0)
		add(p, w, 1000, eventstore.MaxBatchBody, 1_900_000_000_123)
		add(p, w, 2, 5000, 1_900_000_000_000)
		want = w.Batches
	})
	got, err := s.Batches(t.Context(), k, 1, math.MaxInt32)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d batches, %v", len(got), err)
	}
	for i, w := range want {
		g := got[i]
		if g.First != w.First || g.Last != w.Last || g.At != w.At || g.Expires != w.Expires || !bytes.Equal(g.Body, w.Body) {
			t.Errorf("batch %d-%d at %d until %d with %d bytes, want %d-%d at %d until %d with %d bytes, the same ones",
				g.First, g.Last, g.At, g.Expires, len(g.Body), w.First, w.Last, w.At, w.Expires, len(w.Body))
		}
	}
}

// What ends below the cursor is removed.
func batchesTrim(t *testing.T, s eventstore.Store) {
	k := key("T", 1)
	five(t, s, k)
	five(t, s, key("T", 2))
	for _, x := range []struct {
		cursor, head uint64
		bytes        int
		want         string
	}{
		{2, 3, 500, "[1-3 4-6 7-9 10-12 13-15]"}, {3, 3, 500, "[1-3 4-6 7-9 10-12 13-15]"}, {4, 6, 400, "[4-6 7-9 10-12 13-15]"},
		{9, 9, 300, "[7-9 10-12 13-15]"}, {13, 15, 100, "[13-15]"}, {16, 0, 0, "[]"},
	} {
		update(t, s, k, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Cursor = x.cursor })
		p := settled(t, s, k)
		same(t, fmt.Sprint("head and bytes with cursor ", x.cursor), []any{p.Head, p.Bytes}, []any{x.head, x.bytes})
		same(t, fmt.Sprint("batches with cursor ", x.cursor), spans(t, s, k, 1, 10_000), x.want)
	}
	same(t, "the other partition", spans(t, s, key("T", 2), 1, 10_000), "[1-3 4-6 7-9 10-12 13-15]")
	update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) { add(p, w, 2, 70, 0) })
	p := partition(t, s, k)
	same(t, "head and bytes afterwards", []any{p.End, p.Head, p.Bytes}, []any{18, 17, 70})
	same(t, "batches afterwards", spans(t, s, k, 1, 10_000), "[16-17]")

	// A change may bring a batch and be done with those before it.
	update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) {
		p.Cursor = p.End
		add(p, w, 1, 30, 0)
	})
	p = settled(t, s, k)
	same(t, "head and bytes of the last", []any{p.Cursor, p.Head, p.Bytes}, []any{18, 18, 30})
	same(t, "the last", spans(t, s, k, 1, 10_000), "[18-18]")
}

func batchesTrimMany(t *testing.T, s eventstore.Store) {
	k := key("T", 1)
	const many = 150
	for range many / 10 {
		update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) {
			for range 10 {
				add(p, w, 1, 10, 0)
			}
		})
	}
	update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) { p.Cursor = many })
	p := partition(t, s, k)
	if p.Bytes >= many*10 || p.Bytes%10 != 0 || p.Head != many-uint64(p.Bytes/10)+1 {
		t.Errorf("head %d and %d bytes after the first change: want the first batches removed", p.Head, p.Bytes)
	}
	p = settled(t, s, k)
	same(t, "head and bytes", []any{p.Head, p.Bytes}, []any{many, 10})
	same(t, "batches", spans(t, s, k, 1, 10_000), fmt.Sprintf("[%d-%d]", many, many))
}

func batchesDrop(t *testing.T, s eventstore.Store) {
	k := key("T", 1)
	five(t, s, k)
	five(t, s, key("T", 2))
	for _, x := range []struct {
		drop   []uint64
		cursor uint64
		head   uint64
		bytes  int
		want   string
	}{
		{[]uint64{7}, 1, 3, 400, "[1-3 4-6 10-12 13-15]"},
		{[]uint64{7, 5, 2, 99}, 1, 3, 400, "[1-3 4-6 10-12 13-15]"}, // none begins there
		{[]uint64{1}, 1, 6, 300, "[4-6 10-12 13-15]"},
		{[]uint64{4, 13}, 7, 12, 100, "[10-12]"}, // one goes for both reasons
		{[]uint64{10}, 7, 0, 0, "[]"},
		{[]uint64{10}, 7, 0, 0, "[]"},
	} {
		update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) { w.Drop, p.Cursor = x.drop, x.cursor })
		p := settled(t, s, k)
		same(t, fmt.Sprint("head and bytes after ", x.drop), []any{p.Head, p.Bytes}, []any{x.head, x.bytes})
		same(t, fmt.Sprint("batches after ", x.drop), spans(t, s, k, 1, 10_000), x.want)
	}
	same(t, "the other partition", spans(t, s, key("T", 2), 1, 10_000), "[1-3 4-6 7-9 10-12 13-15]")
	update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) { add(p, w, 1, 30, 0) })
	p := partition(t, s, k)
	same(t, "head and bytes of one more", []any{p.Head, p.Bytes}, []any{16, 30})
}
