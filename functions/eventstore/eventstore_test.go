package eventstore_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	functions "github.com/sluice-iot/sluice/functions/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// poster keeps facts, or waits until it has to give up.
type poster struct {
	facts []events.Fact
	stuck bool
}

func (p *poster) Post(ctx context.Context, facts []events.Fact) error {
	if p.stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	p.facts = append(p.facts, facts...)
	return nil
}

func record(counter uint64, expires int64) eventstore.Record {
	return eventstore.Record{ID: eventstore.RecordID{Writer: 1, Counter: counter}, Expires: expires, Tenant: "T", Device: "D", Message: []byte("m")}
}

func appendOf(list ...eventstore.Record) events.EventAppend {
	return events.EventAppend{AppendRequest: eventstore.AppendRequest{Records: list}}
}

var where = eventstore.PartitionOf("D")

// read appends events, claims their partition and reads them.
func read(t *testing.T, f *functions.Functions, n int) (fence uint64) {
	t.Helper()
	list := make([]eventstore.Record, n)
	for i := range list {
		list[i] = record(uint64(i+1), 0)
	}
	if _, err := f.Append(t.Context(), appendOf(list...)); err != nil {
		t.Fatal(err)
	}
	claimed, err := f.Claim(t.Context(), events.EventClaim{ClaimRequest: eventstore.ClaimRequest{Tenant: "T", Holder: "r"}})
	if err != nil {
		t.Fatal(err)
	}
	fence = claimed.Claims[where.Number].Fence
	got, err := f.Read(t.Context(), events.EventRead{ReadRequest: eventstore.ReadRequest{Tenant: "T", Partition: where, Fence: fence, From: 1}})
	if err != nil || len(got.Records) != n {
		t.Fatalf("%+v, %v", got, err)
	}
	return fence
}

func settle(fence uint64, list ...eventstore.Settlement) events.EventSettle {
	return events.EventSettle{SettleRequest: eventstore.SettleRequest{Tenant: "T", Partition: where, Fence: fence, Settlements: list}}
}

func TestDeadLettersBecomeFacts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &poster{}
		f := functions.New(eventstore.New(&storetest.Memory{}, eventstore.Options{MaxAttempts: 1}), functions.Options{Facts: p})
		fence := read(t, f, 4)
		req := settle(fence,
			eventstore.Settlement{From: 1, To: 1, Outcome: eventstore.Accepted},
			eventstore.Settlement{From: 2, To: 2, Outcome: eventstore.Rejected, Reason: "no schema"},
			eventstore.Settlement{From: 3, To: 3, Outcome: eventstore.Modified, DeliveryFailed: true},
			eventstore.Settlement{From: 4, To: 4, Outcome: eventstore.Released})
		got, err := f.Settle(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]uint64{2, 3}, got.Dead); d != "" {
			t.Errorf("dead letters (-want +got)\n%s", d)
		}
		at := time.UnixMilli(time.Now().UnixMilli()).UTC()
		want := []events.Fact{
			events.EventDeadLettered{TenantID: "T", Partition: where, Position: 2, Attempts: 1, Reason: "no schema", At: at},
			events.EventDeadLettered{TenantID: "T", Partition: where, Position: 3, Attempts: 1, Reason: "delivered too often without success", At: at},
		}
		if d := cmp.Diff(want, p.facts); d != "" {
			t.Errorf("facts (-want +got)\n%s", d)
		}
		for _, fact := range p.facts {
			if _, err := events.EncodeFact(fact, "i"); err != nil {
				t.Error(err)
			}
		}
		if got, err := f.Settle(t.Context(), req); err != nil || got.Dead != nil || len(p.facts) != 2 {
			t.Errorf("settled again: %+v, %v, %d facts", got, err, len(p.facts))
		}
	})
}

func TestRequeuedEventsWakeTheirHolder(t *testing.T) {
	p := &poster{}
	f := functions.New(eventstore.New(&storetest.Memory{}, eventstore.Options{}), functions.Options{Facts: p})
	fence := read(t, f, 2)
	if _, err := f.Settle(t.Context(), settle(fence, eventstore.Settlement{From: 1, To: 2, Outcome: eventstore.Rejected})); err != nil {
		t.Fatal(err)
	}
	p.facts = nil
	got, err := f.Requeue(t.Context(), events.EventRequeue{RequeueRequest: eventstore.RequeueRequest{Tenant: "T", Partition: where}})
	if err != nil || got.Requeued != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if a, ok := p.facts[0].(events.EventsAppended); len(p.facts) != 1 || !ok || a.TenantID != "T" || a.Partition != where || a.End != 5 {
		t.Errorf("told %+v; want that two more follow the first two", p.facts)
	}
}

func TestAStuckPosterKeepsNobodyLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged strings.Builder
		f := functions.New(eventstore.New(&storetest.Memory{}, eventstore.Options{}),
			functions.Options{Facts: &poster{stuck: true}, Log: slog.New(slog.NewTextHandler(&logged, nil))})
		fence, start := read(t, f, 1), time.Now()
		got, err := f.Settle(t.Context(), settle(fence, eventstore.Settlement{From: 1, To: 1, Outcome: eventstore.Rejected}))
		if err != nil || len(got.Dead) != 1 {
			t.Errorf("%+v, %v", got, err)
		}
		if took := time.Since(start); took != 500*time.Millisecond || !strings.Contains(logged.String(), "not taken") {
			t.Errorf("after %s, logged %q", took, logged.String())
		}
	})
}

func TestAppendThatStoresNothingFails(t *testing.T) {
	store := &storetest.Memory{}
	quota := eventstore.Quota{}
	f := functions.New(eventstore.New(store, eventstore.Options{Quota: func(iot.TenantID) eventstore.Quota { return quota }}), functions.Options{})
	store.Fail(&iot.Error{Sentinel: iot.ErrUnavailable, Text: "disk full", RetryAfter: 3 * time.Second})
	_, err := f.Append(t.Context(), appendOf(record(1, 0)))
	if !errors.Is(err, iot.ErrUnavailable) || err.Error() != "disk full" || iot.RetryAfter(err) != 3*time.Second {
		t.Errorf("%v, again after %s", err, iot.RetryAfter(err))
	}
	large := record(2, 0)
	large.Message = make([]byte, eventstore.MaxMessageBytes+1)
	if _, err := f.Append(t.Context(), appendOf(large, record(3, 0))); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("with one that is too large: %v, want what may be tried again", err)
	}
	store.Fail(nil)
	got, err := f.Append(t.Context(), appendOf(large, record(3, 0)))
	if err != nil || got.Results[0].Status != 413 || got.Results[1].Status != 200 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := f.Append(t.Context(), appendOf()); !errors.Is(err, iot.ErrInvalid) {
		t.Errorf("no record: %v", err)
	}
}

func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := functions.New(eventstore.New(&storetest.Memory{}, eventstore.Options{}), functions.Options{})
		soon := time.Now().Add(time.Minute).UnixMilli()
		if _, err := f.Append(t.Context(), appendOf(record(1, soon), record(2, soon))); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Expire(t.Context(), events.EventExpire{}); err != nil || got.Expired != 0 || got.More {
			t.Errorf("too early: %+v, %v", got, err)
		}
		time.Sleep(3 * time.Hour)
		if got, err := f.Expire(t.Context(), events.EventExpire{Until: time.Now(), MaxRecords: 1000}); err != nil || got.Expired != 2 || got.More {
			t.Errorf("%+v, %v", got, err)
		}
		for _, q := range []events.EventExpire{{Until: time.Now().Add(time.Hour)}, {MaxRecords: -1}, {MaxRecords: 1001}} {
			if _, err := f.Expire(t.Context(), q); !errors.Is(err, iot.ErrInvalid) {
				t.Errorf("%+v: %v", q, err)
			}
		}
	})
}

func TestCallsAboutNobody(t *testing.T) {
	f := functions.New(eventstore.New(&storetest.Memory{}, eventstore.Options{}), functions.Options{})
	byType := map[string]events.Function{}
	for _, one := range f.Functions() {
		byType[one.Type()] = one
	}
	for _, req := range []events.Request{events.EventClaim{}, events.EventRead{}, events.EventSettle{}, events.EventRelease{},
		events.EventStats{}, events.EventBrowse{}, events.EventRequeue{}, events.EventPurge{}} {
		if _, err := byType[req.EventType()].Call(t.Context(), slog.New(slog.DiscardHandler), req); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%s: %v", req.EventType(), err)
		}
	}
}

// TestOperators requeues and purges many dead letters, a part at each call.
func TestOperators(t *testing.T) {
	f := functions.New(eventstore.New(&storetest.Memory{}, eventstore.Options{}), functions.Options{})
	const n = 150
	fence := read(t, f, n)
	if _, err := f.Settle(t.Context(), settle(fence, eventstore.Settlement{From: 1, To: n, Outcome: eventstore.Rejected})); err != nil {
		t.Fatal(err)
	}
	stats := func() *events.EventStatsResult {
		got, err := f.Stats(t.Context(), events.EventStats{TenantID: "T"})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for stats().Waiting > 0 { // one settlement buries no more than a change takes
		if _, err := f.Settle(t.Context(), settle(fence, eventstore.Settlement{From: 1, To: n, Outcome: eventstore.Rejected})); err != nil {
			t.Fatal(err)
		}
	}
	browse := events.EventBrowse{BrowseRequest: eventstore.BrowseRequest{Tenant: "T", Partition: where, Dead: true, Max: 100}}
	seen := 0
	for {
		page, err := f.Browse(t.Context(), browse)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(page.Events)
		if browse.From = page.Next; page.Next == 0 {
			break
		}
	}
	if seen != n || stats().DeadLetters != n {
		t.Errorf("%d dead letters are seen, %+v", seen, stats())
	}
	positions := events.EventRequeue{RequeueRequest: eventstore.RequeueRequest{Tenant: "T", Partition: where}}
	for i := range 100 {
		positions.Positions = append(positions.Positions, uint64(i+1))
	}
	if got, err := f.Requeue(t.Context(), positions); err != nil || got.Requeued != 100 || got.More {
		t.Errorf("by position: %+v, %v", got, err)
	}
	some, err := f.Requeue(t.Context(), events.EventRequeue{RequeueRequest: eventstore.RequeueRequest{Tenant: "T", Partition: where}})
	if err != nil || some.Requeued != 50 || some.More {
		t.Errorf("the rest: %+v, %v", some, err)
	}
	if got := stats(); got.Waiting != n || got.DeadLetters != 0 {
		t.Errorf("%+v", got)
	}
	got, err := f.Purge(t.Context(), events.EventPurge{PurgeRequest: eventstore.PurgeRequest{Tenant: "T", Partition: where}})
	if err != nil || got.Purged != n || got.More {
		t.Errorf("purged: %+v, %v", got, err)
	}
}
