package sqlitestore_test

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// load makes appends of 256 B messages.
type load struct {
	log     *eventstore.Log
	tenants []iot.TenantID
	devices []iot.DeviceID
	message []byte
	count   uint64
	records []eventstore.Record
}

func newLoad(b *testing.B, tenants, devices int) *load {
	l := &load{log: eventstore.New(open(b, filepath.Join(b.TempDir(), "events.db")), eventstore.Options{}), message: make([]byte, 256)}
	for n := range tenants {
		l.tenants = append(l.tenants, iot.TenantID(fmt.Sprint("tenant-", n)))
	}
	for n := range devices {
		l.devices = append(l.devices, iot.DeviceID(fmt.Sprint("device-", n)))
	}
	return l
}

func (l *load) append(b *testing.B, n int, expires int64) {
	l.records = l.records[:0]
	for range n {
		l.count++
		l.records = append(l.records, eventstore.Record{ID: eventstore.RecordID{Writer: 1, Counter: l.count}, Expires: expires,
			Tenant: l.tenants[l.count%uint64(len(l.tenants))], Device: l.devices[l.count%uint64(len(l.devices))], Message: l.message})
	}
	out, err := l.log.Append(b.Context(), eventstore.AppendRequest{Records: l.records, Holder: "h"})
	if err != nil || out.Results[n-1].Status != 200 {
		b.Fatal(err, out)
	}
}

// perEvent reports what a benchmark of so many events cost.
func perEvent(b *testing.B, events int, before time.Duration) {
	total := float64(b.N) * float64(events)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/total, "ns/event")
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/total, "cpu-ns/event")
	b.ReportMetric(0, "ns/op")
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkAppend(b *testing.B) {
	for _, x := range []struct {
		tenants, records int
		expires          bool
	}{{1, 1000, false}, {1, 1000, true}, {1, 100, false}, {100, 1000, false}, {1000, 1000, false}} {
		b.Run(fmt.Sprintf("tenants=%d/records=%d/ttl=%v", x.tenants, x.records, x.expires), func(b *testing.B) {
			l := newLoad(b, x.tenants, 10)
			expires := int64(0)
			if x.expires {
				expires = time.Now().Add(time.Hour).UnixMilli()
			}
			l.append(b, x.records, expires)
			before := cpu(b)
			b.ReportAllocs()
			for b.Loop() {
				l.append(b, x.records, expires)
			}
			perEvent(b, x.records, before)
		})
	}
}

// One caller that waits for each event: the time of a sync.
func BenchmarkAppendOne(b *testing.B) {
	l := newLoad(b, 1, 10)
	before := cpu(b)
	for b.Loop() {
		l.append(b, 1, 0)
	}
	perEvent(b, 1, before)
}

// Callers that come one by one, with one event each, are committed together.
func BenchmarkAppendOneOfMany(b *testing.B) {
	log := eventstore.New(open(b, filepath.Join(b.TempDir(), "events.db")), eventstore.Options{})
	writer := make(chan uint64, 1024)
	for n := range cap(writer) {
		writer <- uint64(n)
	}
	message := make([]byte, 256)
	b.SetParallelism(64)
	before := cpu(b)
	b.RunParallel(func(pb *testing.PB) {
		id := <-writer
		device := iot.DeviceID(fmt.Sprint("device-", id))
		for n := uint64(1); pb.Next(); n++ {
			out, err := log.Append(b.Context(), eventstore.AppendRequest{Records: []eventstore.Record{{ID: eventstore.RecordID{Writer: id, Counter: n}, Tenant: "T", Device: device, Message: message}}})
			if err != nil || out.Results[0].Status != 200 {
				b.Error(err, out)
				return
			}
		}
	})
	perEvent(b, 1, before)
}

// Events that are appended, read and accepted by thousands.
func BenchmarkThrough(b *testing.B) {
	for _, live := range []bool{false, true} {
		b.Run(fmt.Sprintf("live=%v", live), func(b *testing.B) {
			l := newLoad(b, 1, 10)
			claims, err := l.log.Claim(b.Context(), eventstore.ClaimRequest{Tenant: l.tenants[0], Holder: "h"})
			if err != nil {
				b.Fatal(err)
			}
			before := cpu(b)
			b.ReportAllocs()
			for b.Loop() {
				l.append(b, 1000, 0)
				for i := range claims.Claims {
					c := &claims.Claims[i]
					l.take(b, c, live)
				}
			}
			perEvent(b, 1000, before)
		})
	}
}

func (l *load) take(b *testing.B, c *eventstore.Claim, live bool) {
	next := c.Next
	if live {
		for i := range l.records {
			if r := &l.records[i]; eventstore.PartitionOf(r.Device) == c.Partition {
				next = r.Position + 1
			}
		}
	} else {
		out, err := l.log.Read(b.Context(), eventstore.ReadRequest{Tenant: l.tenants[0], Partition: c.Partition, Fence: c.Fence, From: next})
		if err != nil {
			b.Fatal(err)
		}
		next = out.Next
	}
	if next == c.Next {
		return
	}
	_, err := l.log.Settle(b.Context(), eventstore.SettleRequest{Tenant: l.tenants[0], Partition: c.Partition, Fence: c.Fence,
		Settlements: []eventstore.Settlement{{From: c.Next, To: next - 1, Outcome: eventstore.Accepted}}})
	if err != nil {
		b.Fatal(err)
	}
	c.Next = next
}
