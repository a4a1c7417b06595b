package http_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	sdk "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

func sample() event.Event {
	e := event.New()
	e.SetType("io.sluice.registration.assert")
	e.SetSource("//sluice.local/adapters/mqtt-0.7f3a")
	e.SetID("0199b0c2")
	e.SetTime(time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC))
	e.SetSubject("4711")
	e.SetDataSchema("https://sluice.io/schemas/x.json")
	e.SetExtension("tenantid", "DEMO")
	e.SetExtension("timeoutms", int32(9800))
	e.SetExtension("oneway", true)
	e.SetDataContentType("application/json")
	e.DataEncoded = []byte(`{"device-id":"4711"}`)
	return e
}

func TestBinaryOnTheWire(t *testing.T) {
	e, h := sample(), nethttp.Header{}
	body, err := http.WriteRequest(h, &e)
	if err != nil {
		t.Fatal(err)
	}
	want := nethttp.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Type": {"io.sluice.registration.assert"}, "Ce-Source": {"//sluice.local/adapters/mqtt-0.7f3a"},
		"Ce-Id": {"0199b0c2"}, "Ce-Time": {"2026-11-22T20:00:00.000Z"}, "Ce-Subject": {"4711"}, "Ce-Dataschema": {"https://sluice.io/schemas/x.json"},
		"Ce-Tenantid": {"DEMO"}, "Ce-Timeoutms": {"9800"}, "Ce-Oneway": {"true"}, "Content-Type": {"application/json"},
	}
	if d := cmp.Diff(want, h); d != "" || string(body) != `{"device-id":"4711"}` {
		t.Errorf("body %s (-want +got)\n%s", body, d)
	}
}

func TestPercentEncoding(t *testing.T) {
	for _, tt := range []struct{ value, wire string }{
		{"plain:x/y=~", "plain:x/y=~"},
		{"a b", "a%20b"},
		{`"q"`, "%22q%22"},
		{"100%", "100%25"},
		{"%20", "%2520"},
		{"Ü€", "%C3%9C%E2%82%AC"},
	} {
		e, h := sample(), nethttp.Header{}
		e.SetSubject(tt.value)
		if _, err := http.WriteRequest(h, &e); err != nil {
			t.Fatal(err)
		}
		if got := h.Get("Ce-Subject"); got != tt.wire {
			t.Errorf("%q is %q on the wire, want %q", tt.value, got, tt.wire)
		}
		back, err := http.Read(h, nil)
		if err != nil || back.Subject() != tt.value {
			t.Errorf("%q came back as %q, %v", tt.value, back.Subject(), err)
		}
	}
	for wire, value := range map[string]string{"%zz": "%zz", "%4": "%4", "%": "%", "%c3%9c": "Ü"} {
		h := nethttp.Header{"Ce-Specversion": {"1.0"}, "Ce-Subject": {wire}}
		if e, err := http.Read(h, nil); err != nil || e.Subject() != value {
			t.Errorf("%q is read as %q, %v, want %q", wire, e.Subject(), err, value)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	ok := "1.0"
	for name, tt := range map[string]struct {
		h    nethttp.Header
		body string
		want error
	}{
		"no CloudEvent":        {nethttp.Header{"Content-Type": {"application/json"}}, "{}", status.ErrNotCloudEvent},
		"version 0.3":          {nethttp.Header{"Ce-Specversion": {"0.3"}}, "", iot.ErrInvalid},
		"not UTF-8":            {nethttp.Header{"Ce-Specversion": {ok}, "Ce-Subject": {"%ff"}}, "", iot.ErrInvalid},
		"control character":    {nethttp.Header{"Ce-Specversion": {ok}, "Ce-Tenantid": {"a%01b"}}, "", iot.ErrInvalid},
		"twice":                {nethttp.Header{"Ce-Specversion": {ok}, "Ce-Id": {"a", "b"}}, "", iot.ErrInvalid},
		"bad time":             {nethttp.Header{"Ce-Specversion": {ok}, "Ce-Time": {"noon"}}, "", iot.ErrInvalid},
		"bad name":             {nethttp.Header{"Ce-Specversion": {ok}, "Ce-A-B": {"x"}}, "", iot.ErrInvalid},
		"datacontenttype":      {nethttp.Header{"Ce-Specversion": {ok}, "Ce-Datacontenttype": {"x"}}, "", iot.ErrInvalid},
		"structured, no JSON":  {nethttp.Header{"Content-Type": {http.StructuredType}}, "{", iot.ErrInvalid},
		"structured, array":    {nethttp.Header{"Content-Type": {http.StructuredType}}, "[]", iot.ErrInvalid},
		"structured, version":  {nethttp.Header{"Content-Type": {http.StructuredType}}, `{"specversion":"0.3"}`, iot.ErrInvalid},
		"structured, Base64":   {nethttp.Header{"Content-Type": {http.StructuredType}}, `{"specversion":"1.0","id":"a","type":"t","source":"s","data_base64":5}`, iot.ErrInvalid},
		"structured, bad time": {nethttp.Header{"Content-Type": {http.StructuredType}}, `{"specversion":"1.0","id":"a","type":"t","source":"s","time":"noon"}`, iot.ErrInvalid},
	} {
		if _, err := http.Read(tt.h, []byte(tt.body)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestModeOf(t *testing.T) {
	for ct, want := range map[string]http.Mode{
		"application/cloudevents+json":                      http.Structured,
		"Application/CloudEvents+JSON; charset=utf-8":       http.Structured,
		"application/cloudevents-batch+json; charset=utf-8": http.Batched,
		"application/json":                                  http.None,
		"":                                                  http.None,
	} {
		if got := http.ModeOf(nethttp.Header{"Content-Type": {ct}}); got != want {
			t.Errorf("%q: %v, want %v", ct, got, want)
		}
	}
}

// TestTheSDKReadsWhatWeWrite and the other way round, in both modes.
func TestTheSDKReadsWhatWeWrite(t *testing.T) {
	for _, mode := range []http.Mode{http.Binary, http.Structured} {
		e := sample()
		rec := httptest.NewRecorder()
		if err := http.WriteResponse(rec, mode, 200, &e); err != nil {
			t.Fatal(err)
		}
		got, err := sdk.NewEventFromHTTPResponse(rec.Result())
		if err != nil {
			t.Fatal(err)
		}
		same(t, e, *got)
	}
}

func TestWeReadWhatTheSDKWrites(t *testing.T) {
	for name, ctx := range map[string]context.Context{
		"binary":     binding.WithForceBinary(t.Context()),
		"structured": binding.WithForceStructured(t.Context()),
	} {
		e := sample()
		req, err := sdk.NewHTTPRequestFromEvent(ctx, "http://localhost/", e)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Fatal(err)
		}
		got, err := http.Read(req.Header, body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		same(t, e, got)
	}
}

// same compares by the JSON form, in which a header's text and a number differ
// no more than they may.
func same(t *testing.T, want, got event.Event) {
	t.Helper()
	for _, e := range []*event.Event{&want, &got} {
		e.SetExtension("timeoutms", "9800")
		e.SetExtension("oneway", "true")
		e.DataBase64 = false
	}
	w, err := want.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	g, err := got.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(w), string(g)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestBatch(t *testing.T) {
	rec := httptest.NewRecorder()
	if err := http.WriteBatch(rec, []event.Event{sample(), sample()}); err != nil {
		t.Fatal(err)
	}
	if got := http.ModeOf(rec.Header()); got != http.Batched {
		t.Errorf("mode %v", got)
	}
	list, errs, err := http.ReadBatch(rec.Body.Bytes(), 2)
	if err != nil || len(list) != 2 || errs[0] != nil || list[1].ID() != "0199b0c2" {
		t.Errorf("%d CloudEvents, %v, %v", len(list), errs, err)
	}
	if _, _, err := http.ReadBatch(rec.Body.Bytes(), 1); !errors.Is(err, iot.ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
	if _, _, err := http.ReadBatch([]byte("{}"), 1); !errors.Is(err, iot.ErrInvalid) {
		t.Errorf("no array: %v", err)
	}
	_, errs, err = http.ReadBatch([]byte(`[{"specversion":"2"},5]`), 2)
	if err != nil || errs[0] == nil || errs[1] == nil {
		t.Errorf("bad elements: %v, %v", errs, err)
	}
}

func TestReadBody(t *testing.T) {
	for _, tt := range []struct {
		body   string
		length int64
		ok     bool
	}{
		{"12345", 5, true}, {"12345", -1, true}, {"", 0, true}, {"123456", 6, false}, {"123456", -1, false},
	} {
		got, err := http.ReadBody(strings.NewReader(tt.body), tt.length, 5)
		if (err == nil) != tt.ok || (tt.ok && string(got) != tt.body) || (!tt.ok && !errors.Is(err, iot.ErrTooLarge)) {
			t.Errorf("%q of length %d: %q, %v", tt.body, tt.length, got, err)
		}
	}
	for _, tt := range []struct {
		err  error
		want error
	}{
		{io.ErrUnexpectedEOF, iot.ErrInvalid}, {errors.New("malformed chunked encoding"), iot.ErrInvalid},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, iot.ErrTimeout},
	} {
		_, err := http.ReadBody(io.MultiReader(strings.NewReader("1"), iotest.ErrReader(tt.err)), -1, 5)
		if !errors.Is(err, tt.want) || !errors.Is(err, tt.err) || strings.Contains(status.Text(err), tt.err.Error()) {
			t.Errorf("a body that ends with %v: %v, told as %q", tt.err, err, status.Text(err))
		}
	}
	unread := bytes.NewBufferString("123456")
	if _, err := http.ReadBody(unread, 6, 5); err == nil || unread.Len() != 6 {
		t.Errorf("%d bytes are left of a body that states to be too long, %v", unread.Len(), err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("", "1.0", "a%20b", "2026-11-22T20:00:00Z", []byte("{}"))
	f.Add(http.StructuredType, "", "", "", []byte(`{"specversion":"1.0","id":"a","type":"t","source":"s"}`))
	f.Fuzz(func(t *testing.T, ct, version, subject, at string, body []byte) {
		h := nethttp.Header{"Content-Type": {ct}, "Ce-Subject": {subject}, "Ce-Time": {at}}
		if version != "" {
			h["Ce-Specversion"] = []string{version}
		}
		e, err := http.Read(h, body)
		if err != nil || e.Validate() != nil {
			return
		}
		if err := http.WriteResponse(httptest.NewRecorder(), http.Binary, 200, &e); err != nil {
			t.Errorf("what was read does not write: %v", err)
		}
	})
}
