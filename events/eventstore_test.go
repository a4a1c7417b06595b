package events_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

var (
	partition = eventstore.PartitionID{Generation: 1, Number: 5}
	record    = eventstore.Record{ID: eventstore.RecordID{Writer: 1 << 63, Counter: 2}, Expires: 5, Tenant: "T", Device: "D ü", Message: []byte{0, 0x53, 0x75, 0xff}}

	storeCalls = []events.Request{
		events.EventAppend{AppendRequest: eventstore.AppendRequest{Records: []eventstore.Record{record, record}, Holder: "router-0 ü"}},
		events.EventClaim{ClaimRequest: eventstore.ClaimRequest{Tenant: "T", Holder: "h", Ingress: "i", Partitions: []eventstore.PartitionID{partition}, ClaimMS: 5}},
		events.EventRead{ReadRequest: eventstore.ReadRequest{Tenant: "T", Partition: partition, Fence: 1 << 60, From: 3, MaxRecords: 4, MaxBytes: 5}},
		events.EventSettle{SettleRequest: eventstore.SettleRequest{Tenant: "T", Partition: partition, Fence: 1, Settlements: []eventstore.Settlement{
			{From: 1, To: 2, Attempt: 3, Outcome: eventstore.Modified, DeliveryFailed: true, UndeliverableHere: true, AtOnce: true, Reason: "r"}}}},
		events.EventRelease{ReleaseRequest: eventstore.ReleaseRequest{Tenant: "T", Partition: partition, Fence: 1, Undelivered: 7}},
		events.EventExpire{Until: noon, MaxRecords: 3},
		events.EventStats{TenantID: "T"},
		events.EventBrowse{BrowseRequest: eventstore.BrowseRequest{Tenant: "T", Partition: partition, Dead: true, From: 3, Max: 5}},
		events.EventRequeue{RequeueRequest: eventstore.RequeueRequest{Tenant: "T", Partition: partition, Positions: []uint64{1, 2}}},
		events.EventPurge{PurgeRequest: eventstore.PurgeRequest{Tenant: "T", Partition: partition, Dead: true}},
	}
)

// overJSON sends a CloudEvent through its structured form.
func overJSON(t *testing.T, e event.Event) event.Event {
	t.Helper()
	b, err := e.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	back, err := events.ParseJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func encoded(t testing.TB, req events.Request) event.Event {
	t.Helper()
	e, err := events.EncodeRequest(req, env)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestStoreCallsGoThroughTheEnvelope(t *testing.T) {
	for _, req := range storeCalls {
		e := encoded(t, req)
		if tenant, _ := e.Extensions()["tenantid"].(string); tenant != string(req.Tenant()) {
			t.Errorf("%s: tenantid is %q", req.EventType(), tenant)
		}
		e = overJSON(t, e)
		got, err := events.DecodeRequest(&e)
		if err != nil {
			t.Errorf("%s: %v", req.EventType(), err)
			continue
		}
		if d := cmp.Diff(req, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", req.EventType(), d)
		}
	}
}

func TestStoreRepliesGoThroughTheEnvelope(t *testing.T) {
	delivered := record
	delivered.Position, delivered.Attempt = 9, 3
	for i, rep := range []events.Reply{
		&events.EventAppendResult{AppendResult: eventstore.AppendResult{Results: []eventstore.Appended{{Partition: partition, Status: 429, Error: "e", RetryAfterSeconds: 3}},
			Holders: []eventstore.Holding{{Tenant: "T", Partition: partition, Ingress: "i", End: 4}}}},
		&events.EventClaimResult{ClaimResult: eventstore.ClaimResult{Claims: []eventstore.Claim{{Partition: partition, Fence: 1, Next: 2, End: 3, Retry: 4, Wanted: true, New: true}}, Others: 1, Pending: 2}},
		&events.EventReadResult{ReadResult: eventstore.ReadResult{Records: []eventstore.Record{delivered}, Next: 1 << 40, End: 1<<40 + 1, NextAt: second, Wanted: true}},
		&events.EventSettleResult{SettleResult: eventstore.SettleResult{NextAt: second, Wanted: true, Dead: []uint64{1}}},
		&events.EventReleaseResult{},
		&events.EventExpireResult{Expired: 1, More: true},
		&events.EventStatsResult{Stats: eventstore.Stats{Tenant: "T", Waiting: 1, Oldest: &noon, Partitions: []eventstore.PartitionStats{{Partition: partition, Oldest: &noon}}}},
		&events.EventBrowseResult{Events: []events.BrowsedEvent{{Position: 1, DeviceID: "D", At: noon, Expires: second, Attempts: 2, Reason: "r", Message: []byte{0}}}, Next: 2},
		&events.EventRequeueResult{Requeued: 1, More: true},
		&events.EventPurgeResult{Purged: 1, More: true},
	} {
		call := encoded(t, storeCalls[i])
		e, err := events.EncodeReply(&call, "//sluice.local/functions/eventstore", rep, noon)
		if err != nil {
			t.Fatal(err)
		}
		e = overJSON(t, e)
		got, err := events.DecodeReply(storeCalls[i], &e)
		if err != nil {
			t.Errorf("%s: %v", e.Type(), err)
			continue
		}
		if d := cmp.Diff(rep, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", e.Type(), d)
		}
	}
}

func TestAnEmptyRead(t *testing.T) {
	call := encoded(t, storeCalls[2])
	e, err := events.EncodeReply(&call, "//s/f", &events.EventReadResult{ReadResult: eventstore.ReadResult{Next: 1, End: 1}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	e = overJSON(t, e)
	rep, err := events.DecodeReply(storeCalls[2], &e)
	if err != nil {
		t.Fatal(err)
	}
	if got := rep.(*events.EventReadResult); len(got.Records) != 0 || got.Next != 1 || got.End != 1 || !got.NextAt.IsZero() || got.Wanted {
		t.Errorf("%+v", got)
	}
}

func TestWrongStoreCallsAreRefused(t *testing.T) {
	large := record
	large.Message = make([]byte, 700<<10)
	positioned := record
	positioned.Position = 1
	broken := record
	broken.Tenant = "\xff"
	data := func(b []byte) func(*event.Event) { return func(e *event.Event) { e.DataEncoded = b } }
	text := func(s string) func(*event.Event) { return data([]byte(s)) }
	lists := func(member, element string, n int) func(*event.Event) {
		return text(fmt.Sprintf(`{"tenant-id":"T","holder":"h","partition":"0-0","fence":1,%q:[%s]}`, member, strings.TrimSuffix(strings.Repeat(element+",", n), ",")))
	}
	for _, tt := range []struct {
		name   string
		call   int
		change func(*event.Event)
		says   string
		want   error
	}{
		{"JSON", 0, func(e *event.Event) { e.SetDataContentType("application/json") }, "datacontenttype", iot.ErrInvalid},
		{"broken off", 0, func(e *event.Event) { e.DataEncoded = e.DataEncoded[:len(e.DataEncoded)-1] }, "record 2", iot.ErrInvalid},
		{"no records", 0, data(nil), "data is missing", iot.ErrInvalid},
		{"length", 0, text("\xff\xff\xff\xff"), "record 1", iot.ErrInvalid},
		{"short", 0, text("\x00\x00\x00\x01x"), "record 1", iot.ErrInvalid},
		{"too many", 0, data(bytes.Repeat(record.Append(nil), 1001)), "1000 records", iot.ErrTooLarge},
		{"too large", 0, data(large.Append(large.Append(nil))), "bytes of records", iot.ErrTooLarge},
		{"position", 0, data(positioned.Append(nil)), "position", iot.ErrInvalid},
		{"UTF-8", 0, data(broken.Append(nil)), "UTF-8", iot.ErrInvalid},
		{"records", 1, func(e *event.Event) { e.SetDataContentType(events.RecordsType) }, "datacontenttype", iot.ErrInvalid},
		{"another tenant", 1, func(e *event.Event) { e.SetExtension("tenantid", "U") }, "tenantid", iot.ErrInvalid},
		{"no tenant attribute", 2, func(e *event.Event) { e.SetExtension("tenantid", nil) }, "tenantid", iot.ErrInvalid},
		{"no tenant", 2, text(`{"partition":"0-0","fence":1}`), "tenantid", iot.ErrInvalid},
		{"partition", 2, text(`{"tenant-id":"T","partition":"five","fence":1}`), "partition", iot.ErrInvalid},
		{"fence", 2, text(`{"tenant-id":"T","partition":"0-0","fence":-1}`), "fence", iot.ErrInvalid},
		{"read without partition", 2, text(`{"tenant-id":"T","fence":1}`), "partition", iot.ErrInvalid},
		{"settle without partition", 3, text(`{"tenant-id":"T","fence":1}`), "partition", iot.ErrInvalid},
		{"release without partition", 4, text(`{"tenant-id":"T","fence":1}`), "partition", iot.ErrInvalid},
		{"browse without partition", 7, text(`{"tenant-id":"T"}`), "partition", iot.ErrInvalid},
		{"requeue without partition", 8, text(`{"tenant-id":"T"}`), "partition", iot.ErrInvalid},
		{"purge without partition", 9, text(`{"tenant-id":"T","dead":true}`), "partition", iot.ErrInvalid},
		{"partitions", 1, lists("partitions", `"0-0"`, 1001), "1000 elements", iot.ErrTooLarge},
		{"settlements", 3, lists("settlements", `{}`, 1001), "1000 elements", iot.ErrTooLarge},
		{"positions", 8, lists("positions", `1`, 1001), "1000 elements", iot.ErrTooLarge},
		{"a list that is none", 8, text(`{"tenant-id":"T","partition":"0-0","positions":{}}`), "list", iot.ErrInvalid},
	} {
		e := encoded(t, storeCalls[tt.call])
		tt.change(&e)
		if _, err := events.DecodeRequest(&e); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v that says %q", tt.name, err, tt.want, tt.says)
		}
	}
	for name, records := range map[string][]eventstore.Record{"too large": {large, large}, "too many": make([]eventstore.Record, 1001)} {
		if _, err := events.EncodeRequest(events.EventAppend{AppendRequest: eventstore.AppendRequest{Records: records}}, env); !errors.Is(err, iot.ErrTooLarge) {
			t.Errorf("%s goes out: %v", name, err)
		}
	}
	long := record
	long.Device = iot.DeviceID(strings.Repeat("d", 1<<16))
	if _, err := events.EncodeRequest(events.EventAppend{AppendRequest: eventstore.AppendRequest{Records: []eventstore.Record{long}}}, env); !errors.Is(err, iot.ErrInvalid) {
		t.Errorf("a device id of 64 KiB goes out: %v", err)
	}
}

func TestWrongStoreRepliesAreRefused(t *testing.T) {
	call := encoded(t, storeCalls[2])
	for name, change := range map[string]func(*event.Event){
		"no next":      func(e *event.Event) { e.SetExtension(events.AttrNextPosition, nil) },
		"end":          func(e *event.Event) { e.SetExtension(events.AttrEndPosition, "-1") },
		"wanted":       func(e *event.Event) { e.SetExtension(events.AttrWanted, "perhaps") },
		"nextat":       func(e *event.Event) { e.SetExtension(events.AttrNextAt, "soon") },
		"JSON":         func(e *event.Event) { e.SetDataContentType("application/json") },
		"broken off":   func(e *event.Event) { e.DataEncoded = e.DataEncoded[:5] },
		"another type": func(e *event.Event) { e.SetType(events.TypeEventClaim + ".result") },
	} {
		e, err := events.EncodeReply(&call, "//s/f", &events.EventReadResult{ReadResult: eventstore.ReadResult{Records: []eventstore.Record{record}, Next: 1, End: 1}}, noon)
		if err != nil {
			t.Fatal(err)
		}
		change(&e)
		if _, err := events.DecodeReply(storeCalls[2], &e); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStoreFacts(t *testing.T) {
	for _, fact := range []events.Fact{
		events.EventsAppended{TenantID: "T", Partition: partition, End: 8, At: second},
		events.EventDeadLettered{TenantID: "T", Partition: partition, Position: 3, Attempts: 2, Reason: "no schema", At: second},
	} {
		e, err := events.EncodeFact(fact, "sluice.local")
		if err != nil {
			t.Fatal(err)
		}
		e = overJSON(t, e)
		got, err := events.DecodeFact(&e)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(fact, got); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(e.Data(), &members); err != nil {
			t.Fatal(err)
		}
		for name := range members {
			wrong := e
			left := map[string]json.RawMessage{}
			for n, v := range members {
				if n != name {
					left[n] = v
				}
			}
			wrong.DataEncoded, _ = json.Marshal(left)
			if _, err := events.DecodeFact(&wrong); !errors.Is(err, iot.ErrInvalid) {
				t.Errorf("%s without %s: %v", e.Type(), name, err)
			}
		}
		e.SetExtension("tenantid", "U")
		if _, err := events.DecodeFact(&e); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%s of another tenant: %v", e.Type(), err)
		}
	}
	one := events.EventsAppended{TenantID: "T", Partition: partition, End: 8, At: noon}
	later := one
	later.At = noon.Add(time.Hour)
	a, _ := events.EncodeFact(one, "i")
	b, _ := events.EncodeFact(later, "i")
	if want := events.DerivedID(events.TypeEventsAppended, "T", "1-5", "8"); a.ID() != want || b.ID() != want {
		t.Errorf("ids are %s and %s, want %s for the same occurrence", a.ID(), b.ID(), want)
	}
}

func FuzzDecodeStoreCall(f *testing.F) {
	for i, req := range storeCalls {
		e := encoded(f, req)
		f.Add(i, e.Data())
	}
	f.Fuzz(func(t *testing.T, call int, data []byte) {
		req := storeCalls[uint(call)%uint(len(storeCalls))]
		e := encoded(t, req)
		e.DataEncoded = data
		got, err := events.DecodeRequest(&e)
		if err != nil {
			if !errors.Is(err, iot.ErrInvalid) && !errors.Is(err, iot.ErrTooLarge) {
				t.Fatal(err)
			}
			return
		}
		again, err := events.EncodeRequest(got, env)
		if err != nil {
			t.Fatalf("%+v came in and does not go out: %v", got, err)
		}
		back, err := events.DecodeRequest(&again)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := got.(events.EventExpire); ok {
			return // times of many zones are one
		}
		if d := cmp.Diff(got, back); d != "" {
			t.Error(d)
		}
	})
}
