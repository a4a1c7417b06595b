package hosttest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	storefunctions "github.com/sluice-iot/sluice/functions/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// narrow is a tenant that may store one event.
const narrow = "narrow"

// storing returns functions over a store of their own, in memory.
func storing() []events.Function {
	log := eventstore.New(&storetest.Memory{}, eventstore.Options{Quota: func(t iot.TenantID) eventstore.Quota {
		if t == narrow {
			return eventstore.Quota{Messages: 1}
		}
		return eventstore.Quota{}
	}})
	return storefunctions.New(log, storefunctions.Options{}).Functions()
}

// RunEventStore tests the calls about stored events among [Functions], which start has run
// in one process, for a caller that may ask what routers and functions may.
func RunEventStore(t *testing.T, start func(t *testing.T) events.Invoker) {
	s := &stored{inv: start(t)}
	t.Run("a life", s.life)
	t.Run("batches", s.batches)
	t.Run("repeated", s.repeated)
	t.Run("statuses", s.statuses)
	t.Run("fence", s.fence)
	t.Run("malformed", s.malformed)
	t.Run("operators", s.operators)
	t.Run("expiry", s.expiry)
}

type stored struct {
	inv    events.Invoker
	writer uint64
}

// records are of one writer, each of the given size in bytes.
func (s *stored) records(n, size int, tenant func(i int) iot.TenantID) []eventstore.Record {
	s.writer++
	list := make([]eventstore.Record, n)
	for i := range list {
		r := eventstore.Record{ID: eventstore.RecordID{Writer: s.writer, Counter: uint64(i + 1)}, Tenant: tenant(i), Device: iot.DeviceID(fmt.Sprint("dev ü", i))}
		r.Message = make([]byte, max(1, size-r.Size()))
		r.Message[0] = byte(i)
		list[i] = r
	}
	return list
}

func only(t iot.TenantID) func(int) iot.TenantID { return func(int) iot.TenantID { return t } }

func appendOf(records []eventstore.Record) events.EventAppend {
	return events.EventAppend{AppendRequest: eventstore.AppendRequest{Records: append([]eventstore.Record(nil), records...), Holder: "router-1"}}
}

func call[R events.Reply](t *testing.T, s *stored, req events.RequestOf[R]) R {
	t.Helper()
	rep, err := events.Call(t.Context(), s.inv, req)
	if err != nil {
		t.Fatalf("%s: %v", req.EventType(), err)
	}
	return rep
}

func (s *stored) refused(t *testing.T, want error, req events.Request) error {
	t.Helper()
	_, err := s.inv.Invoke(t.Context(), req)
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", req.EventType(), err, want)
	}
	return err
}

func (s *stored) waiting(t *testing.T, tenant iot.TenantID) int64 {
	t.Helper()
	return call(t, s, events.EventStats{TenantID: tenant}).Waiting
}

// life has one event appended, claimed, read, released, read again and accepted.
func (s *stored) life(t *testing.T) {
	expires := time.Now().Add(time.Hour).UnixMilli()
	list := s.records(1, 300, only("life ü"))
	list[0].Expires = expires
	where := eventstore.PartitionOf(list[0].Device)
	stored := call(t, s, appendOf(list))
	if d := cmp.Diff([]eventstore.Appended{{Partition: where, Position: 1, Status: 200}}, stored.Results); d != "" {
		t.Fatalf("append (-want +got)\n%s", d)
	}
	claim := events.EventClaim{ClaimRequest: eventstore.ClaimRequest{Tenant: "life ü", Holder: "router-1", Ingress: "https://r1/events", ClaimMS: 5000}}
	claimed := call(t, s, claim)
	if len(claimed.Claims) != eventstore.Partitions {
		t.Fatalf("%d claims, want all %d", len(claimed.Claims), eventstore.Partitions)
	}
	fence := claimed.Claims[where.Number].Fence
	read := events.EventRead{ReadRequest: eventstore.ReadRequest{Tenant: "life ü", Partition: where, Fence: fence, From: 1, MaxRecords: 10, MaxBytes: 1 << 20}}
	first := call(t, s, read)
	want := list[0]
	want.Position = 1
	if d := cmp.Diff(eventstore.ReadResult{Records: []eventstore.Record{want}, Next: 2, End: 2}, first.ReadResult); d != "" {
		t.Errorf("read (-want +got)\n%s", d)
	}
	settle := events.EventSettle{SettleRequest: eventstore.SettleRequest{Tenant: "life ü", Partition: where, Fence: fence,
		Settlements: []eventstore.Settlement{{From: 1, To: 1, Outcome: eventstore.Released, AtOnce: true}}}}
	settled := call(t, s, settle)
	if age := time.Since(settled.NextAt); age < -time.Second || age > time.Minute {
		t.Errorf("the event is due %s, want now", settled.NextAt)
	}
	again := call(t, s, read)
	want.Attempt = 1
	if d := cmp.Diff([]eventstore.Record{want}, again.Records); d != "" {
		t.Errorf("second read (-want +got)\n%s", d)
	}
	if again.NextAt.IsZero() {
		t.Error("what was handed out and may be lost is never due again")
	}
	settle.Settlements = []eventstore.Settlement{{From: 1, To: 1, Attempt: 1, Outcome: eventstore.Accepted}}
	for range 2 { // the second finds it settled
		if done := call(t, s, settle); !done.NextAt.IsZero() || done.Wanted || done.Dead != nil {
			t.Errorf("accepted: %+v", done)
		}
	}
	if n := s.waiting(t, "life ü"); n != 0 {
		t.Errorf("%d events wait", n)
	}
	more := s.records(1, 300, only("life ü"))
	if live := call(t, s, appendOf(more)).Results[0]; !live.Live || live.Position != 2 {
		t.Errorf("the holder appended: %+v, want position 2, live", live)
	}
	other := appendOf(s.records(1, 300, only("life ü")))
	other.Holder = "router-2"
	if d := cmp.Diff([]eventstore.Holding{{Tenant: "life ü", Partition: where, Ingress: "https://r1/events", End: 4}}, call(t, s, other).Holders); d != "" {
		t.Errorf("another appended (-want +got)\n%s", d)
	}
	call(t, s, events.EventRelease{ReleaseRequest: eventstore.ReleaseRequest{Tenant: "life ü", Partition: where, Fence: fence}})
	s.refused(t, iot.ErrExists, read)
	s.refused(t, iot.ErrExists, settle)
}

// batches are as large as a call may be, and no larger.
func (s *stored) batches(t *testing.T) {
	tenants := func(i int) iot.TenantID { return iot.TenantID(fmt.Sprintf("many-%03d", i%300)) }
	got := call(t, s, appendOf(s.records(eventstore.MaxRecords, 200, tenants))).Results
	if len(got) != eventstore.MaxRecords {
		t.Fatalf("%d results", len(got))
	}
	for i, r := range got {
		if r.Status != 200 || r.Position == 0 || r.Partition != eventstore.PartitionOf(iot.DeviceID(fmt.Sprint("dev ü", i))) {
			t.Fatalf("record %d: %+v", i, r)
		}
	}
	total := int64(0)
	for i := range 300 {
		total += s.waiting(t, tenants(i))
	}
	if total != eventstore.MaxRecords {
		t.Errorf("%d events wait", total)
	}
	s.refused(t, iot.ErrTooLarge, appendOf(s.records(eventstore.MaxRecords+1, 200, tenants)))

	whole := s.records(8, eventstore.MaxBatchBytes/8, only("whole"))
	call(t, s, appendOf(whole))
	s.readAll(t, whole)
	more := s.records(8, eventstore.MaxBatchBytes/8, only("whole"))
	more[7].Message = append(more[7].Message, 0)
	s.refused(t, iot.ErrTooLarge, appendOf(more))
	if n := s.waiting(t, "whole"); n != 8 {
		t.Errorf("%d events wait, want 8", n)
	}
}

// readAll expects records of one tenant, byte for byte.
func (s *stored) readAll(t *testing.T, want []eventstore.Record) {
	t.Helper()
	claims := call(t, s, events.EventClaim{ClaimRequest: eventstore.ClaimRequest{Tenant: want[0].Tenant, Holder: "router-1"}}).Claims
	got := map[eventstore.RecordID]eventstore.Record{}
	for _, c := range claims {
		read := call(t, s, events.EventRead{ReadRequest: eventstore.ReadRequest{Tenant: want[0].Tenant, Partition: c.Partition, Fence: c.Fence, From: c.Next}})
		for _, r := range read.Records {
			r.Position = 0
			got[r.ID] = r
		}
	}
	for _, r := range want {
		if d := cmp.Diff(r, got[r.ID]); d != "" {
			t.Errorf("record %d differs: %.500s", r.ID.Counter, d)
		}
	}
}

// repeated asks again, as who has lost the answer does.
func (s *stored) repeated(t *testing.T) {
	list := s.records(20, 200, only("repeated"))
	first := call(t, s, appendOf(list))
	again := call(t, s, appendOf(list))
	if d := cmp.Diff(first.Results, again.Results); d != "" {
		t.Errorf("the second answer differs (-first +second)\n%s", d)
	}
	if n := s.waiting(t, "repeated"); n != 20 {
		t.Errorf("%d events wait, want 20", n)
	}
}

// statuses are those of each record, or of the call where none was stored.
func (s *stored) statuses(t *testing.T) {
	first := s.records(1, 200, only(narrow))
	call(t, s, appendOf(first))
	full := s.records(3, 200, func(i int) iot.TenantID { return [...]iot.TenantID{narrow, "wide", "wide"}[i] })
	full[2].Message = make([]byte, eventstore.MaxMessageBytes+1)
	got := call(t, s, appendOf(full)).Results
	for i, want := range []int{429, 200, 413} {
		if got[i].Status != want || (got[i].Error == "") != (want == 200) || (got[i].RetryAfterSeconds > 0) != (want == 429) {
			t.Errorf("record %d: %+v, want status %d", i, got[i], want)
		}
	}
	if err := s.refused(t, iot.ErrQuota, appendOf(full[:1])); iot.RetryAfter(err) <= 0 {
		t.Errorf("refused for a quota: %v, and not when to come again", err)
	}
	s.refused(t, iot.ErrTooLarge, appendOf(full[2:]))
	s.refused(t, iot.ErrQuota, appendOf([]eventstore.Record{full[2], full[0]}))
}

// fence has one router lose a partition to another.
func (s *stored) fence(t *testing.T) {
	list := s.records(1, 200, only("fenced"))
	where := eventstore.PartitionOf(list[0].Device)
	call(t, s, appendOf(list))
	claim := events.EventClaim{ClaimRequest: eventstore.ClaimRequest{Tenant: "fenced", Holder: "router-1", Partitions: []eventstore.PartitionID{where}, ClaimMS: 1}}
	old := call(t, s, claim).Claims[0]
	claim.Holder = "router-2"
	var taken []eventstore.Claim
	for len(taken) == 0 { // until the claim of 1 ms has ended
		taken = call(t, s, claim).Claims
	}
	if taken[0].Fence <= old.Fence || !taken[0].New {
		t.Errorf("taken as %+v after %+v", taken[0], old)
	}
	s.refused(t, iot.ErrExists, events.EventRead{ReadRequest: eventstore.ReadRequest{Tenant: "fenced", Partition: where, Fence: old.Fence, From: 1}})
	s.refused(t, iot.ErrExists, events.EventSettle{SettleRequest: eventstore.SettleRequest{Tenant: "fenced", Partition: where, Fence: old.Fence,
		Settlements: []eventstore.Settlement{{From: 1, To: 1, Outcome: eventstore.Accepted}}}})
	call(t, s, events.EventRelease{ReleaseRequest: eventstore.ReleaseRequest{Tenant: "fenced", Partition: where, Fence: old.Fence}})
	if n := s.waiting(t, "fenced"); n != 1 {
		t.Errorf("%d events wait, want 1", n)
	}
}

func (s *stored) malformed(t *testing.T) {
	for name, change := range map[string]func(*eventstore.Record){
		"no counter": func(r *eventstore.Record) { r.ID.Counter = 0 },
		"no tenant":  func(r *eventstore.Record) { r.Tenant = "" },
		"no message": func(r *eventstore.Record) { r.Message = nil },
		"expiry":     func(r *eventstore.Record) { r.Expires = -1 },
	} {
		list := s.records(2, 200, only("malformed"))
		change(&list[1])
		if err := s.refused(t, iot.ErrInvalid, appendOf(list)); t.Failed() {
			t.Fatalf("%s: %v", name, err)
		}
	}
	s.refused(t, iot.ErrInvalid, appendOf(nil))
	settle := eventstore.SettleRequest{Tenant: "malformed", Settlements: []eventstore.Settlement{{From: 2, To: 1, Outcome: eventstore.Accepted}}}
	s.refused(t, iot.ErrInvalid, events.EventSettle{SettleRequest: settle})
	settle.Settlements = make([]eventstore.Settlement, eventstore.MaxRecords+1)
	s.refused(t, iot.ErrTooLarge, events.EventSettle{SettleRequest: settle})
	s.refused(t, iot.ErrInvalid, events.EventClaim{ClaimRequest: eventstore.ClaimRequest{Tenant: "malformed"}})
	s.refused(t, iot.ErrInvalid, events.EventStats{})
	if n := s.waiting(t, "malformed"); n != 0 {
		t.Errorf("%d events wait", n)
	}
}

// operators look into a partition, requeue and purge.
func (s *stored) operators(t *testing.T) {
	const tenant = "operated"
	list := s.records(1, 5000, only(tenant))
	where := eventstore.PartitionOf(list[0].Device)
	call(t, s, appendOf(list))
	claim := call(t, s, events.EventClaim{ClaimRequest: eventstore.ClaimRequest{Tenant: tenant, Holder: "router-1", Partitions: []eventstore.PartitionID{where}}}).Claims[0]
	call(t, s, events.EventRead{ReadRequest: eventstore.ReadRequest{Tenant: tenant, Partition: where, Fence: claim.Fence, From: 1}})
	settled := call(t, s, events.EventSettle{SettleRequest: eventstore.SettleRequest{Tenant: tenant, Partition: where, Fence: claim.Fence,
		Settlements: []eventstore.Settlement{{From: 1, To: 1, Outcome: eventstore.Rejected, Reason: "no schema <ü>"}}}})
	if d := cmp.Diff([]uint64{1}, settled.Dead); d != "" {
		t.Errorf("dead letters (-want +got)\n%s", d)
	}
	browse := events.EventBrowse{BrowseRequest: eventstore.BrowseRequest{Tenant: tenant, Partition: where, Dead: true}}
	dead := call(t, s, browse)
	if len(dead.Events) != 1 || dead.Events[0].At.IsZero() {
		t.Fatalf("dead letters: %+v", dead)
	}
	dead.Events[0].At = time.Time{}
	want := &events.EventBrowseResult{Events: []events.BrowsedEvent{{Position: 1, DeviceID: list[0].Device, Attempts: 1, Reason: "no schema <ü>", Message: list[0].Message}}}
	if d := cmp.Diff(want, dead); d != "" {
		t.Errorf("dead letters (-want +got)\n%s", d)
	}
	requeue := events.EventRequeue{RequeueRequest: eventstore.RequeueRequest{Tenant: tenant, Partition: where, Positions: []uint64{1, 1}}}
	if got := call(t, s, requeue); got.Requeued != 1 || got.More {
		t.Errorf("requeued: %+v", got)
	}
	s.refused(t, iot.ErrNotFound, requeue)
	browse.Dead = false
	if got := call(t, s, browse); len(got.Events) != 1 || got.Events[0].Position != 2 || got.Next != 0 {
		t.Errorf("what waits: %+v", got)
	}
	if got := call(t, s, events.EventStats{TenantID: tenant}); got.Waiting != 1 || got.DeadLetters != 0 || got.Oldest == nil || len(got.Partitions) != 1 {
		t.Errorf("stats: %+v", got)
	}
	purge := events.EventPurge{PurgeRequest: eventstore.PurgeRequest{Tenant: tenant, Partition: where}}
	if got := call(t, s, purge); got.Purged != 1 || got.More {
		t.Errorf("purged: %+v", got)
	}
	if n := s.waiting(t, tenant); n != 0 {
		t.Errorf("%d events wait", n)
	}
}

// expiry leaves out what has expired, and has it forgotten.
func (s *stored) expiry(t *testing.T) {
	list := s.records(1, 200, only("expired"))
	list[0].Expires = time.Now().Add(-time.Second).UnixMilli()
	if got := call(t, s, appendOf(list)).Results[0]; got.Status != 200 || got.Position != 0 {
		t.Errorf("an event that has expired: %+v, want it taken and not stored", got)
	}
	call(t, s, events.EventExpire{Until: time.Now(), MaxRecords: 10})
	s.refused(t, iot.ErrInvalid, events.EventExpire{Until: time.Now().Add(24 * time.Hour)})
}
