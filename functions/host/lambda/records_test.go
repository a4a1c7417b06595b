package lambda_test

import (
	"encoding/base64"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	storefunctions "github.com/sluice-iot/sluice/functions/eventstore"
	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/functions/host/lambda"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
)

// storeByURL asks a handler with an event store by function URL, in binary mode.
func storeByURL[R events.Reply](t *testing.T, h *hosted, req events.RequestOf[R]) R {
	t.Helper()
	call, header := encode(t, req), http.Header{}
	body, err := cehttp.WriteRequest(header, &call)
	if err != nil {
		t.Fatal(err)
	}
	flat := map[string]string{}
	for k, v := range header {
		flat[strings.ToLower(k)] = v[0]
	}
	res := h.url(t, url("POST", "/", flat, base64.StdEncoding.EncodeToString(body), true, "sluice-router"))
	answer, back := []byte(res.Body), http.Header{}
	if res.IsBase64Encoded {
		if answer, err = base64.StdEncoding.DecodeString(res.Body); err != nil {
			t.Fatal(err)
		}
	}
	for k, v := range res.Headers {
		back.Set(k, v)
	}
	e, err := cehttp.Read(back, answer)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := events.DecodeReply(req, &e)
	if err != nil {
		t.Fatal(err)
	}
	return rep.(R)
}

// TestRecordsByURL takes a whole batch in and out by function URL.
func TestRecordsByURL(t *testing.T) {
	byRole, err := lambda.ParseRoles(roles)
	if err != nil {
		t.Fatal(err)
	}
	f := storefunctions.New(eventstore.New(&storetest.Memory{}, eventstore.Options{}), storefunctions.Options{})
	endpoint, err := host.New(host.Config{Name: "sluice.test", Functions: f.Functions(), Caller: byRole.Caller()})
	if err != nil {
		t.Fatal(err)
	}
	h := newHandler(t, func(c *lambda.Config) { c.Endpoint, c.Log = endpoint, slog.New(slog.DiscardHandler) })
	list := make([]eventstore.Record, 8)
	for i := range list {
		r := eventstore.Record{ID: eventstore.RecordID{Writer: 1, Counter: uint64(i + 1)}, Tenant: "T", Device: "D"}
		r.Message = make([]byte, eventstore.MaxBatchBytes/len(list)-r.Size())
		r.Message[0] = 0xff // no text
		list[i] = r
	}
	stored := storeByURL(t, h, events.EventAppend{AppendRequest: eventstore.AppendRequest{Records: list}})
	for i := range list {
		list[i].Position = stored.Results[i].Position
	}
	claimed := storeByURL(t, h, events.EventClaim{ClaimRequest: eventstore.ClaimRequest{Tenant: "T", Holder: "r"}})
	where := eventstore.PartitionOf("D")
	read := events.EventRead{ReadRequest: eventstore.ReadRequest{Tenant: "T", Partition: where, Fence: claimed.Claims[where.Number].Fence, From: 1}}
	var got []eventstore.Record
	for len(got) < len(list) {
		part := storeByURL(t, h, read)
		if got = append(got, part.Records...); len(part.Records) == 0 {
			break
		}
		read.From = part.Next
	}
	if d := cmp.Diff(list, got); d != "" {
		t.Errorf("records differ: %.500s", d)
	}
}
