package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

var lists = []test{
	{"Tenants", listTenants},
	{"PartitionsOf", listPartitions},
	{"Expired", listExpired},
	{"DeadLetters", listDead},
}

func listTenants(t *testing.T, s eventstore.Store) {
	want := []iot.TenantID{"A", "B", "a", "a#0-1", "a-1", "a/b", "aB", "ab", "b", "ä", "日本"}
	page := func(after iot.TenantID, max int) []iot.TenantID {
		t.Helper()
		list, err := s.Tenants(t.Context(), after, max)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	same(t, "an empty store", len(page("", 10)), 0)
	for i, at := range []int{3, 0, 7, 10, 1, 2, 9, 8, 6, 5, 4} {
		for n := range uint16(1 + i%3) {
			update(t, s, key(want[at], n), func(p *eventstore.Partition, _ *eventstore.Writes) { p.Fence++ })
		}
	}
	same(t, "all", page("", 100), want)
	for _, max := range []int{1, 3, 4} {
		var got []iot.TenantID
		after := iot.TenantID("")
		for {
			list := page(after, max)
			if got = append(got, list...); len(list) < max {
				break
			}
			after = list[len(list)-1]
		}
		same(t, fmt.Sprint("by ", max), got, want)
	}
	same(t, "after one that is not there", page("aa", 2), []iot.TenantID{"ab", "b"})
}

func listPartitions(t *testing.T, s eventstore.Store) {
	want := []eventstore.PartitionID{{Number: 0}, {Number: 2}, {Number: 9}, {Number: 10}, {Generation: 1, Number: 0}, {Generation: 1, Number: 300}, {Generation: 10}, {Generation: 65535, Number: 65535}}
	for _, i := range []int{5, 3, 0, 7, 2, 1, 6, 4} {
		for _, tenant := range []iot.TenantID{"T", "T1", "t"} {
			k := eventstore.Key{Tenant: tenant, Partition: want[i]}
			update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) { p.Holder = string(tenant) + want[i].String() })
		}
	}
	stored, err := s.PartitionsOf(t.Context(), "T")
	if err != nil {
		t.Fatal(err)
	}
	var got []eventstore.PartitionID
	for _, x := range stored {
		got = append(got, x.ID)
		same(t, "the state", x.State.Holder, "T"+x.ID.String())
	}
	same(t, "partitions", got, want)
	for _, other := range []iot.TenantID{"", "T1/", "U"} {
		if stored, err := s.PartitionsOf(t.Context(), other); err != nil || len(stored) != 0 {
			t.Errorf("partitions of %q: %v, %v", other, stored, err)
		}
	}
}

func listExpired(t *testing.T, s eventstore.Store) {
	const hour = 3_600_000
	// Later than any clock says, so that no database removes anything by itself.
	now := time.Now().Add(48 * time.Hour).UnixMilli()
	for n, expires := range []int64{0, now - 3*hour, now - 2*hour - 1, now - hour/2, now + 1, now + hour/3, now + 5*hour} {
		update(t, s, key(iot.TenantID(fmt.Sprint("T", n%2)), uint16(n)), func(p *eventstore.Partition, w *eventstore.Writes) {
			add(p, w, 2, 10, 0)
			add(p, w, 3, 10, expires)
		})
	}
	list := func(until int64, max int) string {
		t.Helper()
		found, err := s.Expired(t.Context(), until, max)
		if err != nil {
			t.Fatal(err)
		}
		out := []string{}
		for _, b := range sorted(found, func(a, b eventstore.ExpiredBatch) int {
			return cmp.Compare(a.Key.Partition.Number, b.Key.Partition.Number)
		}) {
			out = append(out, fmt.Sprint(b.Key.Tenant, "/", b.Key.Partition, ":", b.First, "-", b.Last))
		}
		return fmt.Sprint(out)
	}
	same(t, "long before", list(now-5*hour, 10), "[]")
	if got := strings.Replace(list(now, 10), " T1/0-3:3-5", "", 1); got != "[T1/0-1:3-5 T0/0-2:3-5]" {
		t.Errorf("expired by now: %s, want those of over an hour ago, perhaps the one of half an hour ago", got)
	}
	same(t, "an hour and a half later", list(now+3*hour/2, 10), "[T1/0-1:3-5 T0/0-2:3-5 T1/0-3:3-5 T0/0-4:3-5 T1/0-5:3-5]")
	same(t, "no more than two", strings.Count(list(now+2*hour, 2), ":"), 2)
	for n := range uint16(3) {
		update(t, s, key(iot.TenantID(fmt.Sprint("T", n%2)), n), func(p *eventstore.Partition, w *eventstore.Writes) {
			w.Drop, p.Done = []uint64{3}, []eventstore.Span{{From: 3, To: 5}}
		})
	}
	same(t, "after some were removed", list(now+2*hour, 10), "[T1/0-3:3-5 T0/0-4:3-5 T1/0-5:3-5]")
}

func listDead(t *testing.T, s eventstore.Store) {
	k := key("T", 1)
	list := func(k eventstore.Key, from uint64, max int) []eventstore.DeadLetter {
		t.Helper()
		found, err := s.DeadLetters(t.Context(), k, from, max)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	at := func(from uint64, max int) (out []uint64) {
		t.Helper()
		for _, d := range list(k, from, max) {
			out = append(out, d.Position)
		}
		return out
	}
	same(t, "none", len(list(k, 0, 10)), 0)
	update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) {
		for _, n := range []uint64{300, 5, 20} {
			w.Dead = append(w.Dead, eventstore.DeadLetter{Position: n, At: int64(n), Attempts: uint16(n), Reason: fmt.Sprint("r", n), Record: []byte{byte(n)}})
		}
	})
	long := eventstore.DeadLetter{Position: 7, At: 1 << 42, Attempts: 65535, Reason: strings.Repeat("ü", 250), Record: make([]byte, eventstore.MaxMessageBytes+500)}
	long.Record[1000] = 9
	update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) { w.Dead = []eventstore.DeadLetter{long} })
	update(t, s, key("T", 2), func(p *eventstore.Partition, w *eventstore.Writes) {
		w.Dead = []eventstore.DeadLetter{{Position: 6, Record: []byte("o")}}
	})
	same(t, "all", at(0, 10), []uint64{5, 7, 20, 300})
	same(t, "from 6", at(6, 10), []uint64{7, 20, 300})
	same(t, "two from 7", at(7, 2), []uint64{7, 20})
	same(t, "from 301", at(301, 2), []uint64(nil))
	if got := list(k, 7, 1)[0]; got.At != long.At || got.Attempts != long.Attempts || got.Reason != long.Reason || !slices.Equal(got.Record, long.Record) {
		t.Errorf("the long one differs: at %d, attempts %d, %d bytes", got.At, got.Attempts, len(got.Record))
	}
	update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) {
		w.Dead = []eventstore.DeadLetter{{Position: 20, At: 9, Attempts: 1, Reason: "again", Record: []byte("n")}}
		w.DropDead = []uint64{5, 6, 301}
	})
	same(t, "some removed, one replaced", list(k, 8, 10)[0], eventstore.DeadLetter{Position: 20, At: 9, Attempts: 1, Reason: "again", Record: []byte("n")})
	same(t, "those that are left", at(0, 10), []uint64{7, 20, 300})
	same(t, "the other partition", len(list(key("T", 2), 0, 10)), 1)
}
