package management_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events/invoke/inproc"
	storefunctions "github.com/sluice-iot/sluice/functions/eventstore"
	"github.com/sluice-iot/sluice/functions/management"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// withEvents serves the API over an event store of its own.
func withEvents(t *testing.T) (*api, *eventstore.Log) {
	t.Helper()
	log := eventstore.New(&storetest.Memory{}, eventstore.Options{})
	inv, err := inproc.NewEncoded(slog.New(slog.DiscardHandler), storefunctions.New(log, storefunctions.Options{}).Functions()...)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, management.Options{Events: inv}), log
}

// messages are events as adapters make them, and others.
func messages(t *testing.T) [][]byte {
	t.Helper()
	var out [][]byte
	for _, m := range []amqp.Message{
		{Header: &amqp.Header{Durable: true}, Properties: &amqp.Properties{To: "event/T", ContentType: "text/plain"},
			MessageAnnotations:    amqp.Map{{Key: amqp.Symbol("device_id"), Value: "D"}},
			ApplicationProperties: amqp.Map{{Key: "orig_adapter", Value: "hono-http"}}, Data: [][]byte{[]byte("hello"), []byte(" you")}},
		{Properties: &amqp.Properties{MessageID: "i", To: "event/T"}, Data: [][]byte{{}}},
		{Data: [][]byte{make([]byte, 1000)}, Properties: &amqp.Properties{Subject: strings.Repeat("s", 300), ContentType: amqp.Symbol(strings.Repeat("c", 300))}},
	} {
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return append(out, []byte{0, 0x53, 0x77, 0xa1, 1, 'v'}, []byte("no message"))
}

// storeEvents appends events of one device of a tenant, and has the first dead of them rejected.
func storeEvents(t *testing.T, log *eventstore.Log, tenant iot.TenantID, dead int, messages ...[]byte) eventstore.PartitionID {
	t.Helper()
	ctx := t.Context()
	list := make([]eventstore.Record, len(messages))
	for i, m := range messages {
		list[i] = eventstore.Record{ID: eventstore.RecordID{Writer: 1, Counter: uint64(i + 1)}, Tenant: tenant, Device: "D", Message: m}
	}
	if _, err := log.Append(ctx, eventstore.AppendRequest{Records: list}); err != nil {
		t.Fatal(err)
	}
	where := eventstore.PartitionOf("D")
	if dead == 0 {
		return where
	}
	claimed, err := log.Claim(ctx, eventstore.ClaimRequest{Tenant: tenant, Holder: "router-1"})
	if err != nil {
		t.Fatal(err)
	}
	fence := claimed.Claims[where.Number].Fence
	if _, err := log.Read(ctx, eventstore.ReadRequest{Tenant: tenant, Partition: where, Fence: fence, From: 1}); err != nil {
		t.Fatal(err)
	}
	rejected := eventstore.SettleRequest{Tenant: tenant, Partition: where, Fence: fence,
		Settlements: []eventstore.Settlement{{From: 1, To: uint64(dead), Outcome: eventstore.Rejected, Reason: "no <schema>"}}}
	for n := 0; n < dead; { // a change takes only so many
		settled, err := log.Settle(ctx, rejected)
		if err != nil {
			t.Fatal(err)
		}
		n += len(settled.Dead)
	}
	return where
}

func TestNoEventStore(t *testing.T) {
	a := start(t, management.Options{})
	for _, s := range []step{{"GET", "/v1/events/T", "", 404}, {"GET", "/v1/events/T/0-1", "", 404}, {"POST", "/v1/events/T/requeue", "", 404}, {"DELETE", "/v1/events/T?dead=true", "", 404}} {
		if _, reply := a.want(s.want, s.method, s.path, s.body); !strings.Contains(reply, "stores no events") {
			t.Errorf("%s %s: %s", s.method, s.path, reply)
		}
	}
}

func TestBrowseEvents(t *testing.T) {
	a, log := withEvents(t)
	all := messages(t)
	where := storeEvents(t, log, "T", 1, all...)
	var page struct {
		Events []struct {
			Position    uint64  `json:"position"`
			ContentType string  `json:"content-type"`
			Payload     *[]byte `json:"payload"`
			Message     []byte  `json:"message"`
			Reason      string  `json:"reason"`
			Attempts    int     `json:"attempts"`
		} `json:"events"`
		Next uint64 `json:"next"`
	}
	get := func(query string) {
		t.Helper()
		_, reply := a.want(200, "GET", fmt.Sprintf("/v1/events/T/%s%s", where, query), "")
		page.Events, page.Next = nil, 0
		if err := json.Unmarshal([]byte(reply), &page); err != nil {
			t.Fatal(err)
		}
	}
	get("?dead=true")
	if len(page.Events) != 1 || page.Next != 0 {
		t.Fatalf("dead letters: %+v", page)
	}
	if e := page.Events[0]; e.Position != 1 || string(*e.Payload) != "hello you" || e.ContentType != "text/plain" || e.Reason != "no <schema>" || e.Attempts != 1 {
		t.Errorf("dead letter: %+v", e)
	}
	get("?from=2&max=2&dead=false")
	if len(page.Events) != 2 || page.Next != 4 {
		t.Fatalf("a page: %+v", page)
	}
	if e := page.Events[0]; e.Position != 2 || e.Payload == nil || len(*e.Payload) != 0 || e.ContentType != "" || e.Message != nil {
		t.Errorf("without content: %+v", e)
	}
	if e := page.Events[1]; len(*e.Payload) != 1000 || len(e.ContentType) != 300 {
		t.Errorf("long: %+v", e)
	}
	get("?from=4")
	if len(page.Events) != 2 || page.Next != 0 {
		t.Fatalf("the last page: %+v", page)
	}
	for i, e := range page.Events {
		if d := cmp.Diff(all[3+i], e.Message); d != "" || e.Payload != nil {
			t.Errorf("another body: %+v", e)
		}
	}
	for _, query := range []string{"?dead=yes", "?max=0", "?max=1001", "?max=a", "?from=-1", "?from=x"} {
		a.want(400, "GET", fmt.Sprintf("/v1/events/T/%s%s", where, query), "")
	}
	a.want(400, "GET", "/v1/events/T/five", "")
}

func TestStatsRequeueAndPurge(t *testing.T) {
	a, log := withEvents(t)
	many := make([][]byte, 200)
	for i := range many {
		many[i] = []byte{0, 0x53, 0x75, 0xa0, 0}
	}
	where := storeEvents(t, log, "T", 60, many...)
	stats := func() (s eventstore.Stats) {
		t.Helper()
		_, reply := a.want(200, "GET", "/v1/events/T", "")
		if err := json.Unmarshal([]byte(reply), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	expect := func(waiting, dead int64) {
		t.Helper()
		if s := stats(); s.Waiting != waiting || s.DeadLetters != dead {
			t.Errorf("%+v, want %d that wait and %d dead letters", s, waiting, dead)
		}
	}
	did := func(reply string, events int) {
		t.Helper()
		if want := fmt.Sprintf(`{"events":%d,"more":false}`, events); reply != want {
			t.Errorf("got %s, want %s", reply, want)
		}
	}
	expect(140, 60)
	if p := stats().Partitions; len(p) == 0 || stats().Oldest == nil {
		t.Errorf("%+v", stats())
	}
	_, reply := a.want(200, "POST", "/v1/events/T/requeue", fmt.Sprintf(`{"partition":%q,"positions":[3,5]}`, where))
	did(reply, 2)
	a.want(404, "POST", "/v1/events/T/requeue", fmt.Sprintf(`{"partition":%q,"positions":[3]}`, where))
	expect(142, 58)
	for _, body := range []string{`[]`, `null`, `{}`, `{"partition":null}`, `{"partition":"x"}`, `{"partition":"0-1","positions":[]}`, `{"partition":"0-1","positions":null}`,
		`{"partition":"0-1","positions":[-1]}`, `{"partition":"0-1","position":1}`, `{"positions":[1]}`, `{"partition":5}`} {
		a.want(400, "POST", "/v1/events/T/requeue", body)
	}
	_, reply = a.want(200, "POST", "/v1/events/T/requeue", fmt.Sprintf(`{"partition":%q}`, where))
	did(reply, 58)
	expect(200, 0)
	_, reply = a.want(200, "POST", "/v1/events/T/requeue", "")
	did(reply, 0)
	a.want(400, "DELETE", "/v1/events/T", "")
	a.want(400, "DELETE", "/v1/events/T?dead=all", "")
	_, reply = a.want(200, "DELETE", "/v1/events/T?dead=true", "")
	did(reply, 0)
	_, reply = a.want(200, "DELETE", "/v1/events/T?dead=false", "")
	did(reply, 200)
	expect(0, 0)

	storeEvents(t, log, "U", 70, many[:70]...) // more than one change takes
	_, reply = a.want(200, "DELETE", "/v1/events/U?dead=true", "")
	did(reply, 70)
	a.want(405, "DELETE", "/v1/events/T/0-1", "")
}

func TestEventScopes(t *testing.T) {
	a, _ := withEvents(t)
	for _, s := range []struct {
		who          string
		status       int
		method, path string
	}{
		{"reader", 200, "GET", "/v1/events/T"}, {"reader", 200, "GET", "/v1/events/T/0-1"}, {"reader", 403, "GET", "/v1/events/U"}, {"reader", 403, "GET", "/v1/events/U/0-1"},
		{"reader", 403, "POST", "/v1/events/T/requeue"}, {"reader", 403, "DELETE", "/v1/events/T?dead=true"},
		{"owner", 200, "POST", "/v1/events/T/requeue"}, {"owner", 200, "DELETE", "/v1/events/T?dead=true"}, {"owner", 403, "DELETE", "/v1/events/U?dead=true"},
		{"exporter", 403, "GET", "/v1/events/T"}, {"exporter", 403, "GET", "/v1/events/T/0-1"},
	} {
		a.want(s.status, s.method, s.path, "", "Authorization", "Bearer "+s.who)
	}
}

func TestEventStoreIsDown(t *testing.T) {
	store := &storetest.Memory{}
	store.Fail(iot.Errorf(iot.ErrUnavailable, "the store is down"))
	inv, err := inproc.New(slog.New(slog.DiscardHandler), storefunctions.New(eventstore.New(store, eventstore.Options{}), storefunctions.Options{}).Functions()...)
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, management.Options{Events: inv})
	for _, s := range []step{{"GET", "/v1/events/T", "", 503}, {"GET", "/v1/events/T/0-1", "", 503}, {"POST", "/v1/events/T/requeue", "", 503}, {"DELETE", "/v1/events/T?dead=true", "", 503}} {
		a.want(s.want, s.method, s.path, s.body)
	}
}

// FuzzPayload shows whatever lies in the store.
func FuzzPayload(f *testing.F) {
	f.Add([]byte{0, 0x53, 0x75, 0xa0, 1, 'x'})
	f.Add([]byte{0, 0x53, 0x73, 0xc0, 9, 7, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0xa3, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x75, 0xb0, 0, 0, 0, 0})
	f.Add([]byte{0, 0x53, 0x72, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) { management.Payload(b) })
}
