package eventstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestExpireManyDead has more tenants with dead letters, and more of those in one partition, than one
// call deals with.
func TestExpireManyDead(t *testing.T) {
	now := time.Now()
	log := eventstore.New(&storetest.Memory{}, eventstore.Options{Now: func() time.Time { return now }})
	count, kept := uint64(0), int64(0)
	bury := func(tenant iot.TenantID, n int) {
		t.Helper()
		records := make([]eventstore.Record, n)
		for i := range records {
			count++
			records[i] = eventstore.Record{ID: eventstore.RecordID{Writer: 1, Counter: count}, Tenant: tenant, Device: "d", Message: []byte("m")}
			if i%3 > 0 {
				records[i].Expires = now.Add(time.Duration(i%3) * time.Hour).UnixMilli()
			} else {
				kept++
			}
		}
		if _, err := log.Append(t.Context(), eventstore.AppendRequest{Records: records}); err != nil {
			t.Fatal(err)
		}
		out, err := log.Claim(t.Context(), eventstore.ClaimRequest{Tenant: tenant, Holder: "A"})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range out.Claims {
			read, err := log.Read(t.Context(), eventstore.ReadRequest{Tenant: tenant, Partition: c.Partition, Fence: c.Fence, From: c.Next})
			if err != nil {
				t.Fatal(err)
			}
			if len(read.Records) == 0 {
				continue
			}
			if _, err := log.Settle(t.Context(), eventstore.SettleRequest{Tenant: tenant, Partition: c.Partition, Fence: c.Fence,
				Settlements: []eventstore.Settlement{{From: read.Records[0].Position, To: read.Next - 1, Outcome: eventstore.Rejected}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := range 150 {
		bury(iot.TenantID(fmt.Sprintf("t%03d", n)), 3)
	}
	for range 3 {
		bury("t070", 900)
	}
	total := int64(count)
	for _, rest := range []int64{total - (total-kept)/2, kept} {
		now = now.Add(61 * time.Minute)
		calls := 0
		for more := true; more; calls++ {
			n, again, err := log.Expire(t.Context(), 0)
			if err != nil || calls > 50 {
				t.Fatalf("after %d calls: %v", calls, err)
			}
			total, more = total-n, again
		}
		if total != rest || calls < 4 {
			t.Errorf("%d dead letters are left after %d calls, want %d", total, calls, rest)
		}
	}
	if n, more, err := log.Expire(t.Context(), 0); n != 0 || !more || err != nil {
		t.Errorf("a new round: %d, %v, %v", n, more, err)
	}
	stats, err := log.Stats(t.Context(), "t070")
	if err != nil || stats.DeadLetters != 901 {
		t.Errorf("%+v, %v; want 901 dead letters", stats, err)
	}
}
