package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

var appends = []test{
	{"Positions", appendPositions},
	{"Repeated", appendRepeated},
	{"RepeatedAmongOthers", appendRepeatedAmong},
	{"Refused", appendRefused},
	{"Large", appendLarge},
	{"TTL", appendTTL},
	{"QuotaOfMessages", appendQuota},
	{"QuotaOfBytes", appendQuotaBytes},
	{"QuotaWhileTaken", appendQuotaTaken},
	{"Live", appendLive},
	{"Holders", appendHolders},
}

// Positions of a partition are dense, and follow the order of the records.
func appendPositions(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	next := map[eventstore.Key]uint64{}
	for round := range 3 {
		var records []eventstore.Record
		for i := range 60 {
			records = append(records, r.event(iot.TenantID(fmt.Sprint("T", i%3)), iot.DeviceID(fmt.Sprint("d", i%7)), 0))
		}
		for i, a := range r.append("", records...) {
			k := eventstore.Key{Tenant: records[i].Tenant, Partition: eventstore.PartitionOf(records[i].Device)}
			next[k]++
			if a.Partition != k.Partition || a.Position != next[k] || a.Live {
				t.Fatalf("round %d record %d: %+v, want position %d of %v", round, i, a, next[k], k)
			}
		}
	}
	for i := range 3 {
		same(t, "counts", r.counts(iot.TenantID(fmt.Sprint("T", i))), "60 0 0")
	}
	list, err := r.Tenants(t.Context(), "T0", 10)
	same(t, "tenants", fmt.Sprint(list, err), "[T1 T2] <nil>")
}

// An append whose answer was lost comes again, with the records under the same ids.
func appendRepeated(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", r.events("T", "d", 5)...)
	first := append(r.events("T", "d", 3), r.events("T", "e", 2)...)
	want := r.append("", first...)
	same(t, "the answer to a repeat", r.append("", first...), want)
	other := eventstore.Record{ID: eventstore.RecordID{Writer: 8, Counter: 1}, Tenant: "T", Device: "d", Message: []byte("other")}
	r.append("", other)
	same(t, "the answer to a later repeat", r.append("", first...), want)
	same(t, "counts", r.counts("T"), "11 0 0")
	h := r.hold("T", "A", "d")
	same(t, "what is read", h.texts(0), "d:1 d:2 d:3 d:4 d:5 d:6 d:7 d:8 other")

	// Once it is taken, it is still not stored again.
	h.settle(outcome(1, 9, 0, eventstore.Accepted))
	for i, a := range r.append("", first[:3]...) {
		if a.Position != 0 && a.Position != want[i].Position {
			t.Errorf("record %d is at %d, want nowhere, or %d", i, a.Position, want[i].Position)
		}
	}
	same(t, "what is read then", h.texts(0), "")
}

// Some of an append's partitions were stored, some were not.
func appendRepeatedAmong(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	h := r.hold("T", "A", "d")
	first := r.events("T", "d", 2)
	r.append("A", first...) // the answer is lost: that the two may be delivered live, too
	got := r.append("A", append(first, r.events("T", "d", 2)...)...)
	for i, a := range got {
		if a.Position != uint64(i+1) || a.Live {
			t.Errorf("record %d: %+v, want position %d, not live: those before were not read", i, a, i+1)
		}
	}
	same(t, "what is read", h.texts(0), "d:1 d:2 d:3 d:4")
	same(t, "the next one is live", r.append("A", r.event("T", "d", 0))[0].Live, true)
}

func appendRefused(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	good := r.event("T", "d", 0)
	for name, x := range map[string]struct {
		spoil func(*eventstore.Record)
		want  error
	}{
		"no tenant":       {func(r *eventstore.Record) { r.Tenant = "" }, iot.ErrInvalid},
		"no message":      {func(r *eventstore.Record) { r.Message = nil }, iot.ErrInvalid},
		"no counter":      {func(r *eventstore.Record) { r.ID.Counter = 0 }, iot.ErrInvalid},
		"negative expiry": {func(r *eventstore.Record) { r.Expires = -1 }, iot.ErrInvalid},
		"long device":     {func(r *eventstore.Record) { r.Device = iot.DeviceID(make([]byte, 1<<16)) }, iot.ErrInvalid},
	} {
		bad := good
		x.spoil(&bad)
		if _, err := r.Append(t.Context(), eventstore.AppendRequest{Records: []eventstore.Record{good, bad}}); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	if _, err := r.Append(t.Context(), eventstore.AppendRequest{Records: make([]eventstore.Record, 1001)}); !errors.Is(err, iot.ErrTooLarge) {
		t.Errorf("1,001 records: %v", err)
	}
	large := []eventstore.Record{good, good, good, good, good}
	for i := range large {
		large[i].Message = make([]byte, 220<<10)
	}
	if _, err := r.Append(t.Context(), eventstore.AppendRequest{Records: large}); !errors.Is(err, iot.ErrTooLarge) {
		t.Errorf("more than 1 MiB: %v", err)
	}
	same(t, "counts", r.counts("T"), "0 0 0")

	// One that is too large by itself leaves the others alone.
	large[1].Message = make([]byte, eventstore.MaxMessageBytes+1)
	out, err := r.Append(t.Context(), eventstore.AppendRequest{Records: []eventstore.Record{large[1], good}})
	if err != nil || out.Results[0].Status != 413 || out.Results[1].Status != 200 {
		t.Errorf("one too large: %+v, %v", out, err)
	}
	same(t, "counts then", r.counts("T"), "1 0 0")
}

// A batch is no larger than a backend takes.
func appendLarge(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	var want string
	for range 2 {
		records := r.events("T", "d", 4)
		for i := range records {
			want += string(records[i].Message) + " "
			records[i].Message = append(records[i].Message, make([]byte, 250<<10)...)
		}
		r.append("", records...)
	}
	h := r.hold("T", "A", "d")
	var got string
	for range 20 {
		out := h.read(0)
		size := 0
		for _, rec := range out.Records {
			size += rec.Size()
			got += string(rec.Message[:len(rec.Message)-250<<10]) + " "
		}
		if size > eventstore.MaxBatchBytes {
			t.Errorf("a read of %d bytes", size)
		}
		if out.Next == out.End {
			break
		}
	}
	same(t, "what is read", got, want)
	h.settle(outcome(1, 8, 0, eventstore.Accepted))
	p := settled(t, s, eventstore.Key{Tenant: "T", Partition: h.id})
	same(t, "bytes that are left", p.Bytes, 0)
}

// An event that has expired is never read, whatever has become of it.
func appendTTL(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{MaxTTL: time.Hour})
	dead := r.event("T", "d", time.Minute)
	dead.Expires = r.in(-time.Second)
	same(t, "one that had expired", r.append("", dead)[0].Position, 0)
	r.append("", r.event("T", "d", 10*time.Second), r.event("T", "d", 30*time.Second), r.event("T", "d", 0), r.event("T", "d", 99*time.Hour))
	h := r.hold("T", "A", "d")
	from := h.next
	same(t, "at once", h.texts(0), "d:2 d:3 d:4 d:5")
	h.settle(outcome(1, 4, 0, eventstore.Released))
	r.now = r.now.Add(9999 * time.Millisecond)
	same(t, "in the last ms", h.texts(0), "d:2#1 d:3#1 d:4#1 d:5#1")
	h.settle(outcome(1, 4, 1, eventstore.Released))
	r.now = r.now.Add(time.Millisecond)
	h.next = from
	same(t, "rests", h.texts(0), "")
	r.now = r.now.Add(10 * time.Second)
	same(t, "later", h.texts(0), "d:3#2 d:4#2 d:5#2")
	same(t, "counted as expired", r.Expired(), 1)
	h.settle(outcome(2, 4, 2, eventstore.Released))
	r.now = r.now.Add(time.Hour)
	same(t, "after the longest ttl", h.texts(0), "")
	same(t, "counts", r.counts("T"), "0 0 0")
	same(t, "counted as expired", r.Expired(), 4)
}

func appendQuota(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{Quota: func(tenant iot.TenantID) eventstore.Quota {
		if tenant == "free" {
			return eventstore.Quota{}
		}
		return eventstore.Quota{Messages: 5}
	}})
	r.append("", r.events("free", "d", 20)...)
	r.append("", r.events("T", "d", 3)...)
	out, err := r.Append(t.Context(), eventstore.AppendRequest{Records: append(r.events("T", "e", 4), r.events("free", "d", 1)...)})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, a := range out.Results {
		got += fmt.Sprint(a.Status, " ")
		if (a.Status == 429) != (a.RetryAfterSeconds > 0) {
			t.Errorf("%d with retry after %d s", a.Status, a.RetryAfterSeconds)
		}
	}
	same(t, "results", got, "200 200 429 429 200 ")
	same(t, "counts", r.counts("T"), "5 0 0")
	h := r.hold("T", "A", "d")
	h.read(0)
	h.settle(outcome(1, 2, 0, eventstore.Accepted))
	r.now = r.now.Add(2 * time.Second)
	r.append("", r.events("T", "e", 2)...)
	out, err = r.Append(t.Context(), eventstore.AppendRequest{Records: r.events("T", "d", 1)})
	if err != nil || out.Results[0].Status != 429 {
		t.Errorf("beyond the quota again: %+v, %v", out, err)
	}
}

func appendQuotaBytes(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{Quota: func(iot.TenantID) eventstore.Quota { return eventstore.Quota{Bytes: 10_000} }})
	taken := 0
	for range 30 {
		rec := r.event("T", "d", 0)
		rec.Message = append(rec.Message, make([]byte, 900)...)
		out, err := r.Append(t.Context(), eventstore.AppendRequest{Records: []eventstore.Record{rec}})
		if err != nil {
			t.Fatal(err)
		}
		if out.Results[0].Status == 200 {
			taken++
		}
	}
	same(t, "taken", taken, 10)
	if _, _, err := r.Purge(t.Context(), eventstore.PurgeRequest{Tenant: "T", Partition: eventstore.PartitionOf("d")}); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(2 * time.Second)
	r.append("", r.events("T", "d", 1)...)
}

// What applications have taken counts no more, however lately they did.
func appendQuotaTaken(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{Quota: func(iot.TenantID) eventstore.Quota { return eventstore.Quota{Messages: 5} }})
	h := r.hold("T", "A", "d")
	for n := range uint64(20) {
		r.append("", r.events("T", "d", 4)...)
		h.read(0)
		h.settle(outcome(4*n+1, 4*n+4, 0, eventstore.Accepted))
		r.now = r.now.Add(20 * time.Millisecond)
	}
	r.append("", r.events("T", "d", 2)...)
	r.now = r.now.Add(20 * time.Millisecond)
	out, err := r.Append(t.Context(), eventstore.AppendRequest{Records: r.events("T", "d", 5)})
	got := ""
	for _, a := range out.Results {
		got += fmt.Sprint(a.Status, " ")
	}
	same(t, "results", fmt.Sprint(got, err), "200 200 200 429 429 <nil>")
}

// Live says that whoever appends may deliver: it holds the partition and
// has read all that is before.
func appendLive(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	live := func(holder string) bool { t.Helper(); return r.append(holder, r.event("T", "d", 0))[0].Live }
	same(t, "nobody holds it", live("A"), false)
	h := r.hold("T", "A", "d")
	same(t, "not read yet", live("A"), false)
	same(t, "what is read", h.texts(1), "d:1")
	same(t, "not all read yet", live("A"), false)
	same(t, "what is read", h.texts(0), "d:2 d:3")
	same(t, "all read", live("A"), true)
	same(t, "by another", live("B"), false)
	same(t, "by nobody", live(""), false)
	same(t, "behind another's", live("A"), false)
	h.next = 5 // the live one it had
	same(t, "what is read", h.texts(0), "d:5 d:6 d:7")
	same(t, "all read again", live("A"), true)
	same(t, "in flight", r.counts("T"), "8 8 0")

	// A live one is settled as one that was read.
	h.settle(outcome(1, 7, 0, eventstore.Accepted), outcome(8, 8, 0, eventstore.Released))
	r.now = r.now.Add(time.Second)
	same(t, "what comes again", h.texts(0), "d:8#1")
	h.release(0)
	same(t, "after the release", live("A"), false)
}

// Who holds what was appended to is told, so that it can be woken.
func appendHolders(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	h := r.hold("T", "A", "d")
	appendBy := func(holder string) *eventstore.AppendResult {
		t.Helper()
		out, err := r.Append(t.Context(), eventstore.AppendRequest{Records: r.events("T", "d", 2), Holder: holder})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	same(t, "to the holder", appendBy("A").Holders, []eventstore.Holding(nil))
	same(t, "to another", appendBy("B").Holders, []eventstore.Holding{{Tenant: "T", Partition: h.id, Ingress: "http://A", End: 5}})
	h.release(0)
	same(t, "when nobody holds it", appendBy("B").Holders, []eventstore.Holding{{Tenant: "T", Partition: h.id, End: 7}})
	same(t, "a moment later", appendBy("B").Holders, []eventstore.Holding(nil))
	r.now = r.now.Add(time.Second)
	same(t, "a second later", appendBy("B").Holders, []eventstore.Holding{{Tenant: "T", Partition: h.id, End: 11}})
	same(t, "to one without an ingress", func() []eventstore.Holding {
		if _, err := r.Claim(t.Context(), eventstore.ClaimRequest{Tenant: "T", Holder: "C"}); err != nil {
			t.Fatal(err)
		}
		return appendBy("B").Holders
	}(), []eventstore.Holding(nil))
}
