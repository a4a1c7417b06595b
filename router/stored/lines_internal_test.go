package stored

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

func waiting(tenant iot.TenantID, n, size int, since time.Time) item {
	return item{since: since, record: eventstore.Record{Tenant: tenant, ID: eventstore.RecordID{Counter: uint64(n)}, Message: make([]byte, size)}}
}

// A tenant that floods the store holds up no other, and each one's events stay in order.
func TestTenantsTakeTurns(t *testing.T) {
	var q lines
	now := time.Unix(100, 0)
	taken := 0
	for n := range 20_000 {
		if q.put(waiting("flood", n, 1000, now)) {
			taken++
		}
	}
	if most := maxTenantQueued / (1000 + overhead); taken != most {
		t.Errorf("one tenant has %d events in the queue, want %d", taken, most)
	}
	for n := range 100 {
		for k := range 3 {
			if !q.put(waiting(iot.TenantID(fmt.Sprint("t", k)), n, 1000, now)) {
				t.Fatal("another tenant has no room")
			}
		}
	}
	seen := map[iot.TenantID]int{}
	_, batch := q.next(now)
	for _, it := range batch {
		seen[it.record.Tenant]++
	}
	for k := range 3 {
		if name := iot.TenantID(fmt.Sprint("t", k)); seen[name] != 100 {
			t.Errorf("%s has %d events in the first append, want 100", name, seen[name])
		}
	}
	next := map[iot.TenantID]uint64{"flood": 0}
	for name, n := range seen {
		next[name] = uint64(n)
	}
	sum := len(batch)
	for len(batch) > 0 {
		_, batch = q.next(now)
		size := 0
		for _, it := range batch {
			if size += it.record.Size(); it.record.ID.Counter != next[it.record.Tenant] {
				t.Fatalf("%s: number %d, want %d", it.record.Tenant, it.record.ID.Counter, next[it.record.Tenant])
			}
			next[it.record.Tenant]++
		}
		if len(batch) > eventstore.MaxRecords || size > eventstore.MaxBatchBytes {
			t.Fatalf("an append of %d records, %d bytes", len(batch), size)
		}
		sum += len(batch)
	}
	if sum != taken+300 || !q.empty() || q.n != 0 || len(q.of) != 0 {
		t.Errorf("%d came out, want %d; left: %d, %d tenants", sum, taken+300, q.n, len(q.of))
	}
}

func TestWhatWaitedTooLongIsLate(t *testing.T) {
	var q lines
	now := time.Unix(100, 0)
	for n := range 5 {
		q.put(waiting("a", n, 10, now.Add(time.Duration(n)*time.Second)))
		q.put(waiting("b", n, 10, now.Add(time.Minute)))
	}
	late, batch := q.next(now.Add(3 * time.Second))
	if len(late) != 3 || len(batch) != 7 || !q.empty() || q.n != 0 {
		t.Errorf("%d are late, %d are not; left %d", len(late), len(batch), q.n)
	}
}

// One event may be larger than what a turn has, and as large as an append alone.
func TestLargeEventsGetTheirTurn(t *testing.T) {
	var q lines
	now := time.Unix(100, 0)
	for n := range 6 {
		q.put(waiting("large", n, 256<<10, now))
		q.put(waiting("small", n, 10, now))
	}
	for want := 12; want > 0; {
		_, batch := q.next(now)
		if len(batch) == 0 {
			t.Fatalf("%d are left, and none has a turn", want)
		}
		want -= len(batch)
	}
}
