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

// rig is a log on a store, with a clock that only the test moves and one writer.
type rig struct {
	*eventstore.Log
	t     *testing.T
	store eventstore.Store
	now   time.Time
	count uint64 // of the writer
	seq   map[iot.DeviceID]int
}

// start returns a rig whose clock is ahead of every other, so that no
// database removes anything by itself.
func start(t *testing.T, s eventstore.Store, o eventstore.Options) *rig {
	r := &rig{t: t, store: s, now: time.Now().Add(48 * time.Hour).Truncate(time.Second), seq: map[iot.DeviceID]int{}}
	o.Now = func() time.Time { return r.now }
	r.Log = eventstore.New(s, o)
	return r
}

func (r *rig) in(d time.Duration) int64 { return r.now.Add(d).UnixMilli() }

// event is the next one of a device: its message says the device and a number. ttl 0 = it never expires.
func (r *rig) event(tenant iot.TenantID, device iot.DeviceID, ttl time.Duration) eventstore.Record {
	r.count++
	r.seq[device]++
	rec := eventstore.Record{ID: eventstore.RecordID{Writer: 7, Counter: r.count}, Tenant: tenant, Device: device, Message: fmt.Appendf(nil, "%s:%d", device, r.seq[device])}
	if ttl > 0 {
		rec.Expires = r.in(ttl)
	}
	return rec
}

// events are n events of one device that never expire.
func (r *rig) events(tenant iot.TenantID, device iot.DeviceID, n int) (list []eventstore.Record) {
	for range n {
		list = append(list, r.event(tenant, device, 0))
	}
	return list
}

// append appends records that must be taken. The slice is copied first, as what is appended is the log's.
func (r *rig) append(holder string, records ...eventstore.Record) []eventstore.Appended {
	r.t.Helper()
	out, err := r.Append(r.t.Context(), eventstore.AppendRequest{Records: append([]eventstore.Record(nil), records...), Holder: holder})
	if err != nil {
		r.t.Fatalf("Append: %v", err)
	}
	for i, a := range out.Results {
		if a.Status != 200 {
			r.t.Fatalf("record %d: %d %s", i, a.Status, a.Error)
		}
	}
	return out.Results
}

// claimAll is the answer of one claim.
func (r *rig) claimAll(tenant iot.TenantID, holder string) *eventstore.ClaimResult {
	r.t.Helper()
	out, err := r.Claim(r.t.Context(), eventstore.ClaimRequest{Tenant: tenant, Holder: holder, Ingress: "http://" + holder})
	if err != nil {
		r.t.Fatalf("Claim: %v", err)
	}
	return out
}

// claim returns one of the claims that a holder gets, which must be there.
func (r *rig) claim(tenant iot.TenantID, holder string, id eventstore.PartitionID) eventstore.Claim {
	r.t.Helper()
	for _, c := range r.claimAll(tenant, holder).Claims {
		if c.Partition == id {
			return c
		}
	}
	r.t.Fatalf("%s did not get %v", holder, id)
	return eventstore.Claim{}
}

// hand is a holder's hold of a partition.
type hand struct {
	r      *rig
	tenant iot.TenantID
	id     eventstore.PartitionID
	fence  uint64
	next   uint64
}

// hold claims the partition of a device.
func (r *rig) hold(tenant iot.TenantID, holder string, device iot.DeviceID) *hand {
	r.t.Helper()
	c := r.claim(tenant, holder, eventstore.PartitionOf(device))
	return &hand{r: r, tenant: tenant, id: c.Partition, fence: c.Fence, next: c.Next}
}

func (h *hand) tryRead(records, bytes int) (*eventstore.ReadResult, error) {
	return h.r.Read(h.r.t.Context(), eventstore.ReadRequest{Tenant: h.tenant, Partition: h.id, Fence: h.fence, From: h.next, MaxRecords: records, MaxBytes: bytes})
}

// read reads and goes on.
func (h *hand) read(records int) *eventstore.ReadResult {
	h.r.t.Helper()
	out, err := h.tryRead(records, 0)
	if err != nil {
		h.r.t.Fatalf("Read: %v", err)
	}
	h.next = out.Next
	return out
}

// texts are the messages that a read gives, each with its attempt where that is not 0.
func (h *hand) texts(records int) string {
	h.r.t.Helper()
	return texts(h.read(records).Records)
}

func texts(records []eventstore.Record) string {
	var out []string
	for i := range records {
		s := string(records[i].Message)
		if n := records[i].Attempt; n > 0 {
			s += fmt.Sprint("#", n)
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func (h *hand) trySettle(list ...eventstore.Settlement) (*eventstore.SettleResult, error) {
	return h.r.Settle(h.r.t.Context(), eventstore.SettleRequest{Tenant: h.tenant, Partition: h.id, Fence: h.fence, Settlements: list})
}

func (h *hand) settle(list ...eventstore.Settlement) *eventstore.SettleResult {
	h.r.t.Helper()
	out, err := h.trySettle(list...)
	if err != nil {
		h.r.t.Fatalf("Settle: %v", err)
	}
	return out
}

// outcome is a settlement of positions of one attempt.
func outcome(from, to uint64, attempt uint16, o eventstore.Outcome) eventstore.Settlement {
	return eventstore.Settlement{From: from, To: to, Attempt: attempt, Outcome: o}
}

func (h *hand) release(undelivered uint64) {
	h.r.t.Helper()
	err := h.r.Release(h.r.t.Context(), eventstore.ReleaseRequest{Tenant: h.tenant, Partition: h.id, Fence: h.fence, Undelivered: undelivered})
	if err != nil {
		h.r.t.Fatalf("Release: %v", err)
	}
}

// lost wants every use of the hold to be refused.
func (h *hand) lost() {
	h.r.t.Helper()
	_, err := h.tryRead(1, 0)
	_, err2 := h.trySettle(outcome(1, 1, 0, eventstore.Accepted))
	if !errors.Is(err, iot.ErrExists) || !errors.Is(err2, iot.ErrExists) {
		h.r.t.Errorf("a fence that is none any more: read %v, settle %v, want iot.ErrExists", err, err2)
	}
}

func (r *rig) stats(tenant iot.TenantID) *eventstore.Stats {
	r.t.Helper()
	s, err := r.Stats(r.t.Context(), tenant)
	if err != nil {
		r.t.Fatalf("Stats: %v", err)
	}
	return s
}

// counts are what a tenant has that waits, is in flight and is dead.
func (r *rig) counts(tenant iot.TenantID) string {
	r.t.Helper()
	s := r.stats(tenant)
	return fmt.Sprint(s.Waiting, " ", s.InFlight, " ", s.DeadLetters)
}
