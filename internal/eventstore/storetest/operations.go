package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

var operations = []test{
	{"Stats", operateStats},
	{"Browse", operateBrowse},
	{"Requeue", operateRequeue},
	{"Purge", operatePurge},
	{"Expire", operateExpire},
	{"ExpireInFlight", operateExpireInFlight},
	{"ExpireDead", operateExpireDead},
}

func operateStats(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	same(t, "of nobody", r.counts("T"), "0 0 0")
	first := r.now.UTC()
	r.append("", r.events("T", "d", 3)...)
	r.now = r.now.Add(time.Minute)
	r.append("", r.events("T", "d", 2)...)
	r.append("", r.events("T", "f", 1)...)
	h := r.hold("T", "A", "d")
	h.read(2)
	h.settle(outcome(1, 1, 0, eventstore.Rejected))
	st := r.stats("T")
	same(t, "counts", r.counts("T"), "5 1 1")
	if st.Oldest == nil || !st.Oldest.Equal(first) || st.Bytes < 100 {
		t.Errorf("oldest is %v, want %v; %d bytes", st.Oldest, first, st.Bytes)
	}
	for _, p := range st.Partitions {
		if p.Partition == h.id && fmt.Sprint(p.Waiting, p.InFlight, p.DeadLetters, p.Holder) != "4 1 1A" {
			t.Errorf("the partition: %+v", p)
		}
	}
	h.read(0)
	h.settle(outcome(2, 3, 0, eventstore.Accepted))
	if st = r.stats("T"); st.Oldest == nil || !st.Oldest.Equal(first.Add(time.Minute)) {
		t.Errorf("oldest is %v, want a minute later", st.Oldest)
	}
	h.settle(outcome(4, 5, 0, eventstore.Accepted))
	f := &hand{r: r, tenant: "T", id: eventstore.PartitionOf("f"), fence: 1, next: 1}
	f.read(0)
	f.settle(outcome(1, 1, 0, eventstore.Accepted))
	if st = r.stats("T"); st.Oldest != nil || st.Waiting != 0 {
		t.Errorf("oldest is %v of %d", st.Oldest, st.Waiting)
	}
}

func operateBrowse(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	for n := range 6 {
		r.append("", r.event("T", "d", time.Duration(n%2)*time.Minute), r.event("T", "d", 0))
	}
	h := r.hold("T", "A", "d")
	browse := func(from uint64, max int) (string, uint64) {
		t.Helper()
		list, next, err := r.Browse(t.Context(), eventstore.BrowseRequest{Tenant: "T", Partition: h.id, From: from, Max: max})
		if err != nil {
			t.Fatal(err)
		}
		var records []eventstore.Record
		for _, b := range list {
			b.Record.Attempt = b.Attempts
			records = append(records, b.Record)
		}
		return texts(records), next
	}
	all, next := browse(0, 0)
	same(t, "all", fmt.Sprint(all, next), "d:1 d:2 d:3 d:4 d:5 d:6 d:7 d:8 d:9 d:10 d:11 d:120")
	some, next := browse(0, 4)
	rest, end := browse(next, 8)
	same(t, "in pages", fmt.Sprint(some, " ", rest, next, end), strings.TrimSuffix(all, "0")+"5 0")
	h.read(3)
	h.settle(outcome(2, 2, 0, eventstore.Accepted), outcome(3, 3, 0, eventstore.Released))
	some, _ = browse(0, 4)
	same(t, "some were taken", some, "d:1 d:3#1 d:4 d:5")
	r.now = r.now.Add(time.Minute)
	some, _ = browse(2, 4)
	same(t, "some have expired", some, "d:4 d:5 d:6 d:8")
	some, next = browse(100, 4)
	same(t, "behind the end", fmt.Sprint(some, next), "0")
	same(t, "it takes nothing", r.counts("T"), "11 2 0")
}

func operateRequeue(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", append(r.events("T", "d", 3), r.event("T", "d", time.Minute), r.event("T", "d", 0))...)
	h := r.hold("T", "A", "d")
	h.read(0)
	h.settle(outcome(1, 4, 0, eventstore.Rejected))
	requeue := func(positions ...uint64) string {
		t.Helper()
		n, more, err := r.Requeue(t.Context(), eventstore.RequeueRequest{Tenant: "T", Partition: h.id, Positions: positions})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(n, more)
	}
	if _, _, err := r.Requeue(t.Context(), eventstore.RequeueRequest{Tenant: "T", Partition: h.id, Positions: []uint64{5}}); !errors.Is(err, iot.ErrNotFound) {
		t.Errorf("one that is not dead: %v", err)
	}
	same(t, "the second, asked for twice", requeue(2, 2)[:1], "1")
	same(t, "it comes", h.texts(0), "d:2")
	same(t, "counts", r.counts("T"), "2 2 3")
	r.now = r.now.Add(time.Minute)
	same(t, "all, of which one has expired", requeue(), "2 false")
	same(t, "they come", h.texts(0), "d:1 d:3")
	same(t, "none is left", requeue(), "0 false")
	same(t, "counts", r.counts("T"), "4 4 0")
	h.settle(outcome(5, 8, 0, eventstore.Accepted))
	same(t, "counts at the end", r.counts("T"), "0 0 0")
}

func operatePurge(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	for range 10 {
		r.append("", r.events("T", "d", 2)...)
	}
	h := r.hold("T", "A", "d")
	h.read(7)
	h.settle(outcome(1, 2, 0, eventstore.Rejected), outcome(3, 3, 0, eventstore.Released), outcome(5, 5, 0, eventstore.Accepted))
	purge := func(dead bool) string {
		t.Helper()
		n, more, err := r.Purge(t.Context(), eventstore.PurgeRequest{Tenant: "T", Partition: h.id, Dead: dead})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(n, more)
	}
	same(t, "what waits", purge(false), "17 false")
	same(t, "once more", purge(false), "0 false")
	same(t, "counts", r.counts("T"), "0 0 2")
	same(t, "bytes", r.stats("T").Bytes, 0)
	h.settle(outcome(4, 4, 0, eventstore.Released)) // too late
	r.now = r.now.Add(time.Minute)
	same(t, "what is read", h.texts(0), "")
	same(t, "the dead", purge(true), "2 false")
	same(t, "counts", r.counts("T"), "0 0 0")
	r.append("", r.events("T", "d", 1)...)
	same(t, "a new one", h.texts(0), "d:21")
}

// Whole batches that have expired go, whether anybody reads or not.
func operateExpire(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	for n := range 6 {
		tenant := iot.TenantID(fmt.Sprint("T", n%2))
		r.append("", r.event(tenant, "d", time.Minute), r.event(tenant, "d", time.Hour)) // all expire
		r.append("", r.event(tenant, "d", time.Minute), r.event(tenant, "d", 0))         // one does not
	}
	expire := func(max int) (int64, bool) {
		t.Helper()
		n, more, err := r.Expire(t.Context(), max)
		if err != nil {
			t.Fatal(err)
		}
		return n, more
	}
	n, more := expire(0)
	same(t, "too early", fmt.Sprint(n, more), "0 false")
	r.now = r.now.Add(150 * time.Minute)
	n, more = expire(4)
	same(t, "four batches", fmt.Sprint(n, more), "8 true")
	n, more = expire(0)
	same(t, "the rest", fmt.Sprint(n, more), "4 false")
	n, _ = expire(0)
	same(t, "no more", n, 0)
	same(t, "counted", r.Expired(), 12)
	same(t, "counts", r.counts("T0"), "6 0 0") // three of them have expired, which a read finds out
	h := r.hold("T0", "A", "d")
	same(t, "what is read", len(h.read(0).Records), 3)
	same(t, "counts then", r.counts("T0"), "3 3 0")
	same(t, "counted then", r.Expired(), 15)
	h.settle(outcome(1, 12, 0, eventstore.Accepted))
	same(t, "bytes at the end", settled(t, s, eventstore.Key{Tenant: "T0", Partition: h.id}).Bytes, 0)
}

func operateExpireInFlight(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", r.events("T", "d", 2)...)
	r.append("", r.event("T", "d", time.Minute), r.event("T", "d", time.Minute))
	h := r.hold("T", "A", "d")
	h.read(3)
	h.settle(outcome(3, 3, 0, eventstore.Released))
	r.now = r.now.Add(3 * time.Hour)
	n, _, err := r.Expire(t.Context(), 0)
	same(t, "expired", fmt.Sprint(n, err), "2 <nil>")
	h.settle(outcome(3, 3, 0, eventstore.Rejected), outcome(1, 1, 0, eventstore.Rejected))
	same(t, "counts", r.counts("T"), "1 1 1")
	same(t, "what is read", h.texts(0), "")
	h.settle(outcome(2, 2, 0, eventstore.Accepted))
	same(t, "counts at the end", r.counts("T"), "0 0 1")
}

// Dead letters count for the quota until they expire, as other events do, and are not seen then.
func operateExpireDead(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{Quota: func(iot.TenantID) eventstore.Quota { return eventstore.Quota{Messages: 60} }})
	for _, tenant := range []iot.TenantID{"T", "U"} {
		for range 10 {
			r.append("", r.event(tenant, "d", time.Minute), r.event(tenant, "d", time.Hour), r.event(tenant, "d", 0), r.event(tenant, "d", time.Minute), r.event(tenant, "d", time.Second))
		}
		h := r.hold(tenant, "A", "d")
		h.read(0)
		r.now = r.now.Add(time.Second)
		same(t, "one that has expired is no dead letter", len(h.settle(outcome(1, 50, 0, eventstore.Rejected)).Dead), 40)
		same(t, "counts", r.counts(tenant), "0 0 40")
	}
	k := eventstore.Key{Tenant: "U", Partition: eventstore.PartitionOf("d")}
	letters, err := s.DeadLetters(t.Context(), k, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for i := range letters {
		size += len(letters[i].Record)
	}
	same(t, "bytes", int(settled(t, s, k).DeadBytes), size)
	left := func() string {
		t.Helper()
		list, _, err := r.Browse(t.Context(), eventstore.BrowseRequest{Tenant: "U", Partition: k.Partition, Dead: true})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(len(list), " of ", settled(t, s, k).Dead)
	}
	expire := func() (n int64) {
		t.Helper()
		for more := true; more; {
			var some int64
			if some, more, err = r.Expire(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			n += some
		}
		return n
	}
	same(t, "none has expired", fmt.Sprint(expire(), " ", left()), "0 40 of 40")
	r.now = r.now.Add(time.Minute)
	same(t, "some have", left(), "20 of 40")
	out, err := r.Append(t.Context(), eventstore.AppendRequest{Records: r.events("U", "d", 30)})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "within the quota, and beyond", []int{out.Results[19].Status, out.Results[20].Status}, []int{200, 429})
	same(t, "they go", fmt.Sprint(expire(), " ", left()), "40 20 of 20")
	same(t, "when the next ones do", settled(t, s, k).DeadNext > r.now.UnixMilli(), true)
	r.now = r.now.Add(time.Second)
	r.append("", r.events("U", "d", 10)...)
	r.now = r.now.Add(time.Hour)
	same(t, "those go, too", fmt.Sprint(expire(), " ", left()), "20 10 of 10")
	same(t, "the rest never does", settled(t, s, k).DeadNext, 0)
	if _, _, err := r.Purge(t.Context(), eventstore.PurgeRequest{Tenant: "U", Partition: k.Partition, Dead: true}); err != nil {
		t.Fatal(err)
	}
	same(t, "dead bytes after a purge", settled(t, s, k).DeadBytes, 0)
}
