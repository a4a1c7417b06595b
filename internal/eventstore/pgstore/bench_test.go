package pgstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/pgstore"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

// events makes records of 256 bytes, of one writer.
type events struct {
	writer, counter uint64
	message         [256]byte
}

// next returns n records of devices of tenants, both in turn.
func (e *events) next(n, tenants, devices int) []eventstore.Record {
	out := make([]eventstore.Record, n)
	for i := range out {
		e.counter++
		out[i] = eventstore.Record{ID: eventstore.RecordID{Writer: e.writer, Counter: e.counter},
			Tenant: iot.TenantID(fmt.Sprintf("tenant-%05d", i%tenants)), Device: iot.DeviceID(fmt.Sprint("device-", i/tenants%devices)), Message: e.message[:]}
	}
	return out
}

func appendAll(t testing.TB, log *eventstore.Log, records []eventstore.Record, holder string) []eventstore.Appended {
	t.Helper()
	got, err := log.Append(t.Context(), eventstore.AppendRequest{Records: records, Holder: holder})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got.Results {
		if r.Status != 200 {
			t.Fatalf("record %d: %+v", i, r)
		}
	}
	return got.Results
}

func rate(b *testing.B, n int) {
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkAppend measures appends of 1,000 records.
func BenchmarkAppend(b *testing.B) {
	db := pgtest.Start(b)
	for _, c := range []struct {
		name             string
		tenants, devices int
	}{{"1 tenant, 1 device", 1, 1}, {"1 tenant, 100 devices", 1, 100}, {"1000 tenants", 1000, 1}} {
		b.Run(c.name, func(b *testing.B) {
			log := eventstore.New(open(b, db.URL, pgstore.Options{Schema: pgtest.Schema()}), eventstore.Options{})
			e := &events{writer: 1}
			appendAll(b, log, e.next(1000, c.tenants, c.devices), "")
			for b.Loop() {
				appendAll(b, log, e.next(1000, c.tenants, c.devices), "")
			}
			rate(b, 1000)
		})
	}
}

// BenchmarkAppendOne measures appends of one record: what a device waits for.
func BenchmarkAppendOne(b *testing.B) {
	log := eventstore.New(open(b, pgtest.Start(b).URL, pgstore.Options{}), eventstore.Options{})
	e := &events{writer: 1}
	for b.Loop() {
		appendAll(b, log, e.next(1, 1, 1), "")
	}
}

// BenchmarkAppendAtOnce measures appends of 10 records of a tenant each, 10 at a
// time: what commits at the same time shares its flush.
func BenchmarkAppendAtOnce(b *testing.B) {
	db := pgtest.Start(b)
	for _, tenants := range []int{1, 1000} {
		b.Run(fmt.Sprint(tenants, " tenants"), func(b *testing.B) {
			log := eventstore.New(open(b, db.URL, pgstore.Options{Schema: pgtest.Schema()}), eventstore.Options{})
			var writers atomic.Uint64
			b.SetParallelism(5)
			b.RunParallel(func(pb *testing.PB) {
				e := &events{writer: writers.Add(1)}
				for n := int(e.writer); pb.Next(); n += 7 {
					records := e.next(10, 1, 10)
					for i := range records {
						records[i].Tenant = iot.TenantID(fmt.Sprint("tenant-", n%tenants))
					}
					appendAll(b, log, records, "")
				}
			})
			rate(b, 10)
		})
	}
}

// BenchmarkThrough measures 1,000 records of a tenant all the way: appended,
// read and accepted, or delivered from memory.
func BenchmarkThrough(b *testing.B) {
	db := pgtest.Start(b)
	for _, live := range []bool{false, true} {
		b.Run(map[bool]string{false: "append, read, settle", true: "append, settle"}[live], func(b *testing.B) {
			log := eventstore.New(open(b, db.URL, pgstore.Options{Schema: pgtest.Schema()}), eventstore.Options{})
			claim, err := log.Claim(b.Context(), eventstore.ClaimRequest{Tenant: "tenant-00000", Holder: "h"})
			if err != nil {
				b.Fatal(err)
			}
			fences, froms := map[eventstore.PartitionID]uint64{}, map[eventstore.PartitionID]uint64{}
			for _, c := range claim.Claims {
				fences[c.Partition], froms[c.Partition] = c.Fence, c.Next
			}
			e, holder := &events{writer: 1}, map[bool]string{true: "h"}[live]
			for b.Loop() {
				ends := map[eventstore.PartitionID]uint64{}
				for _, r := range appendAll(b, log, e.next(1000, 1, 1), holder) {
					ends[r.Partition] = r.Position
				}
				for id, end := range ends {
					take(b, log, id, fences[id], froms[id], end, live)
					froms[id] = end + 1
				}
			}
			rate(b, 1000)
		})
	}
}

func take(b *testing.B, log *eventstore.Log, id eventstore.PartitionID, fence, from, end uint64, live bool) {
	if !live {
		read, err := log.Read(b.Context(), eventstore.ReadRequest{Tenant: "tenant-00000", Partition: id, Fence: fence, From: from})
		if err != nil || read.Next != end+1 {
			b.Fatal(read, err)
		}
	}
	_, err := log.Settle(b.Context(), eventstore.SettleRequest{Tenant: "tenant-00000", Partition: id, Fence: fence,
		Settlements: []eventstore.Settlement{{From: from, To: end, Outcome: eventstore.Accepted}}})
	if err != nil {
		b.Fatal(err)
	}
}
