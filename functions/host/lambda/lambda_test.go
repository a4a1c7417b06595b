package lambda_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	awsevents "github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/functions/host/lambda"
	"github.com/sluice-iot/sluice/internal/iot"
)

// rotations counts what a schedule did.
type rotations struct{ got []events.AssertionRotate }

func functions(r *rotations) []events.Function {
	return []events.Function{
		events.NewFunction(func(ctx context.Context, req events.TenantGet) (*events.TenantGot, error) {
			switch req.ID {
			case "panic":
				panic("hunter2")
			case "none":
				return nil, iot.Errorf(iot.ErrNotFound, "no such tenant")
			case "busy":
				return nil, &iot.Error{Sentinel: iot.ErrUnavailable, Text: "busy", RetryAfter: 2 * time.Second}
			case "wait":
				<-ctx.Done()
				return nil, ctx.Err()
			case "huge":
				return &events.TenantGot{TenantObject: events.TenantObject{ID: req.ID, Ext: map[string]any{"x": strings.Repeat("x", lambda.MaxPayloadBytes)}}}, nil
			}
			return &events.TenantGot{TenantObject: events.TenantObject{ID: req.ID}, CacheFor: time.Minute}, nil
		}),
		events.NewFunction(func(context.Context, events.Admit) (*events.Admitted, error) { return &events.Admitted{}, nil }),
		events.NewFunction(func(context.Context, events.CredentialsGet) (*events.CredentialsGot, error) {
			return &events.CredentialsGot{Credential: iot.Credential{Type: "psk"}}, nil
		}),
		events.NewFunction(func(context.Context, events.AssertionSign) (*events.AssertionSigned, error) {
			return &events.AssertionSigned{Assertion: "token"}, nil
		}),
		events.NewFunction(func(context.Context, events.AssertionKeys) (*events.KeySet, error) {
			return &events.KeySet{Keys: []json.RawMessage{[]byte(`{"kid":"k"}`)}, CacheFor: 24 * time.Hour}, nil
		}),
		events.NewFunction(func(_ context.Context, req events.AssertionRotate) (*events.AssertionRotated, error) {
			r.got = append(r.got, req)
			return &events.AssertionRotated{KID: "k"}, nil
		}),
	}
}

type hosted struct {
	*lambda.Handler
	rotations rotations
	logged    bytes.Buffer
}

const roles = "adapter=arn:aws:iam::123456789012:role/iot/sluice-adapter,router=arn:aws:iam::123456789012:role/sluice-router"

func newHandler(t *testing.T, change func(*lambda.Config)) *hosted {
	t.Helper()
	h := &hosted{}
	log := slog.New(slog.NewTextHandler(&h.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	byRole, err := lambda.ParseRoles(roles)
	if err != nil {
		t.Fatal(err)
	}
	management := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/panic":
			panic("hunter2")
		case "/v1/huge":
			_, err := io.WriteString(w, strings.Repeat("x", lambda.MaxPayloadBytes+1))
			if err == nil {
				t.Error("the recorder keeps what Lambda cannot carry")
			}
			return
		case "/v1/binary":
			_, _ = w.Write([]byte{0xff, 0})
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Add("X-Two", "a")
		w.Header().Add("X-Two", "b")
		w.WriteHeader(201)
		fmt.Fprintf(w, "%s %s %s %s %s %s %s %d %s", r.Method, r.URL.Path, r.URL.Query().Get("q"), r.Host, r.RemoteAddr, r.Header.Get("If-Match"), r.Header.Get("Authorization"), r.ContentLength, body)
	})
	endpoint, err := host.New(host.Config{Name: "sluice.test", Functions: functions(&h.rotations), Caller: byRole.Caller(), Log: log, Management: management, MaxBody: 4000})
	if err != nil {
		t.Fatal(err)
	}
	cfg := lambda.Config{Endpoint: endpoint, Log: log, Accept: lambda.Accept{lambda.Direct: "", lambda.HTTP: "", lambda.Queue: "", lambda.Bus: "", lambda.Schedule: ""}}
	if change != nil {
		change(&cfg)
	}
	if h.Handler, err = lambda.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if strings.Contains(h.logged.String(), "hunter2") {
			t.Errorf("a secret is logged: %s", h.logged.String())
		}
	})
	return h
}

func encode(t *testing.T, req events.Request) event.Event {
	t.Helper()
	e, err := events.EncodeRequest(req, events.Envelope{Source: "//sluice.test/x/0", ID: events.NewID(), Time: time.Now(), Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func jsonOf(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDirect(t *testing.T) {
	h := newHandler(t, nil)
	unknown := encode(t, events.TenantGet{ID: "T"})
	unknown.SetType("io.sluice.nothing.known")
	for _, tt := range []struct {
		name    string
		payload []byte
		status  int // 0 = the invocation fails
		code    string
	}{
		{"reply", jsonOf(t, encode(t, events.TenantGet{ID: "T"})), 200, ""},
		{"error", jsonOf(t, encode(t, events.TenantGet{ID: "none"})), 404, "not-found"},
		{"panic", jsonOf(t, encode(t, events.TenantGet{ID: "panic"})), 500, "internal"},
		{"reply too long", jsonOf(t, encode(t, events.TenantGet{ID: "huge"})), 413, "too-large"},
		{"unknown type", jsonOf(t, unknown), 422, "unsupported"},
		{"other version", []byte(`{"specversion":"0.3"}`), 400, "invalid"},
		{"incomplete", []byte(`{"specversion":"1.0"}`), 400, "invalid"},
		{"no CloudEvent", []byte(`{"a":1}`), 415, "unsupported"},
		{"no object", []byte(`[1]`), 415, "unsupported"},
		{"no JSON", []byte(`{`), 415, "unsupported"},
		{"keys", jsonOf(t, encode(t, events.AssertionKeys{})), 200, ""},
		{"admission", jsonOf(t, encode(t, events.Admit{Adapter: "a"})), 200, ""},
		{"sign", jsonOf(t, encode(t, events.AssertionSign{TenantID: "T", DeviceID: "D"})), 0, ""},
		{"rotate", jsonOf(t, encode(t, events.AssertionRotate{})), 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := h.Invoke(t.Context(), tt.payload)
			if tt.status == 0 {
				if !errors.Is(err, iot.ErrForbidden) {
					t.Errorf("got %s, %v, want ErrForbidden", out, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var e event.Event
			if err := e.UnmarshalJSON(out); err != nil {
				t.Fatalf("%v: %.200s", err, out)
			}
			var d events.ErrorData
			_ = json.Unmarshal(e.Data(), &d)
			if got := events.StatusCode(&e); got != tt.status || d.Code != tt.code && tt.code != "" || strings.Contains(string(out), "hunter2") {
				t.Errorf("got %d %.200s, want %d %s", got, out, tt.status, tt.code)
			}
		})
	}
	if len(h.rotations.got) > 0 {
		t.Error("a direct call rotated the keys")
	}
	routers := newHandler(t, func(c *lambda.Config) { c.Direct = []host.Kind{host.Router} })
	if _, err := routers.Invoke(t.Context(), jsonOf(t, encode(t, events.Admit{}))); !errors.Is(err, iot.ErrForbidden) {
		t.Errorf("a deployment for routers admits: %v", err)
	}
}

func TestTheFunctionAnswersBeforeItsTimeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		out, err := h.Invoke(ctx, jsonOf(t, encode(t, events.TenantGet{ID: "wait"})))
		var e event.Event
		if err != nil || e.UnmarshalJSON(out) != nil || events.StatusCode(&e) != 504 || ctx.Err() != nil {
			t.Errorf("got %s, %v", out, err)
		}
	})
}

// url is the request of a function URL or of API Gateway's HTTP API.
func url(method, path string, header map[string]string, body string, encoded bool, role string) map[string]any {
	context := map[string]any{
		"domainName": "abc.lambda-url.eu-north-1.on.aws", "stage": "$default",
		"http": map[string]any{"method": method, "path": path, "sourceIp": "192.0.2.1"},
	}
	if role != "" {
		context["authorizer"] = map[string]any{"iam": map[string]any{"accountId": "123456789012", "userArn": "arn:aws:sts::123456789012:assumed-role/" + role + "/i-1"}}
	}
	return map[string]any{"version": "2.0", "rawPath": path, "rawQueryString": "q=a+b", "headers": header, "requestContext": context, "body": body, "isBase64Encoded": encoded}
}

func (h *hosted) url(t *testing.T, in any) (r awsevents.APIGatewayV2HTTPResponse) {
	t.Helper()
	out, err := h.Invoke(t.Context(), jsonOf(t, in))
	if err != nil || json.Unmarshal(out, &r) != nil {
		t.Fatalf("%s, %v", out, err)
	}
	return r
}

func TestCallsByURL(t *testing.T) {
	h := newHandler(t, nil)
	call := encode(t, events.TenantGet{ID: "T"})
	structured := map[string]string{"content-type": cehttp.StructuredType}
	batched := map[string]string{"content-type": cehttp.BatchType}
	header := http.Header{}
	body, err := cehttp.WriteRequest(header, &call)
	if err != nil {
		t.Fatal(err)
	}
	binary := map[string]string{}
	for k, v := range header {
		binary[strings.ToLower(k)] = v[0]
	}
	js := string(jsonOf(t, call))
	for _, tt := range []struct {
		name   string
		in     any
		status int
		want   string // in the body
	}{
		{"binary", url("POST", "/", binary, string(body), false, "sluice-router"), 200, `"tenant-id":"T"`},
		{"binary, in Base64", url("POST", "/", binary, base64.StdEncoding.EncodeToString(body), true, "sluice-adapter"), 200, `"tenant-id":"T"`},
		{"not Base64", url("POST", "/", binary, "?", true, "sluice-adapter"), 400, "Base64"},
		{"structured", url("POST", "/", structured, js, false, "sluice-router"), 200, `"tenant-id":"T"`},
		{"batched", url("POST", "/", batched, "["+js+","+js+"]", false, "sluice-router"), 200, `"tenant-id":"T"`},
		{"too long", url("POST", "/", structured, js+strings.Repeat(" ", 4000), false, "sluice-router"), 413, "4000"},
		{"longer than Lambda carries", url("POST", "/", structured, js+strings.Repeat(" ", lambda.MaxPayloadBytes), false, "sluice-router"), 413, "6291456"},
		{"nobody", url("POST", "/", structured, js, false, ""), 401, "IAM"},
		{"another role", url("POST", "/", structured, js, false, "other"), 401, "no component"},
		{"a role that may not", url("POST", "/", structured, string(jsonOf(t, encode(t, events.Admit{}))), false, "sluice-router"), 403, ""},
		{"rotate", url("POST", "/", structured, string(jsonOf(t, encode(t, events.AssertionRotate{}))), false, "sluice-router"), 403, ""},
		{"error", url("POST", "/", structured, string(jsonOf(t, encode(t, events.TenantGet{ID: "busy"}))), false, "sluice-router"), 503, `"unavailable"`},
		{"panic", url("POST", "/", structured, string(jsonOf(t, encode(t, events.TenantGet{ID: "panic"}))), false, "sluice-router"), 500, `"internal"`},
		{"keys", url("GET", "/.well-known/jwks.json", nil, "", false, ""), 200, `{"keys":[{"kid":"k"}]}`},
		{"elsewhere", url("GET", "/x", nil, "", false, ""), 404, ""},
		{"management panics", url("GET", "/v1/panic", nil, "", false, ""), 500, ""},
		{"management says too much", url("GET", "/v1/huge", nil, "", false, ""), 413, "6291456"},
		{"management says bytes", url("GET", "/v1/binary", nil, "", false, ""), 200, "/wA="},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := h.url(t, tt.in)
			if r.StatusCode != tt.status || !strings.Contains(r.Body, tt.want) {
				t.Errorf("got %d %.300s, want %d with %s", r.StatusCode, r.Body, tt.status, tt.want)
			}
			if tt.name == "error" && r.Headers["Retry-After"] != "2" {
				t.Errorf("headers %v", r.Headers)
			}
			if r.IsBase64Encoded != (tt.name == "management says bytes") {
				t.Error("Base64")
			}
		})
	}
}

func TestManagement(t *testing.T) {
	h := newHandler(t, nil)
	header := map[string]string{"if-match": "v1", "authorization": "Basic s3cr3t"}
	r := h.url(t, url("PUT", "/v1/devices/T/a%2Fb", header, "{}", false, ""))
	if want := "PUT /v1/devices/T/a/b a b abc.lambda-url.eu-north-1.on.aws 192.0.2.1:0 v1 Basic s3cr3t 2 {}"; r.StatusCode != 201 || r.Body != want || r.Headers["X-Two"] != "a,b" {
		t.Errorf("got %+v, want %s", r, want)
	}
	staged := url("PUT", "/prod/v1/tenants/T", header, "{}", false, "")
	staged["requestContext"].(map[string]any)["stage"] = "prod"
	if r := h.url(t, staged); !strings.HasPrefix(r.Body, "PUT /v1/tenants/T ") {
		t.Errorf("with a stage: %s", r.Body)
	}
	rest := map[string]any{
		"httpMethod": "PUT", "path": "/v1/tenants/T ü", "multiValueHeaders": map[string][]string{"If-Match": {"v1"}},
		"multiValueQueryStringParameters": map[string][]string{"q": {"a&b"}},
		"requestContext":                  map[string]any{"stage": "prod", "identity": map[string]any{"sourceIp": "2001:db8::2"}},
		"body":                            "e30=", "isBase64Encoded": true,
	}
	out, err := h.Invoke(t.Context(), jsonOf(t, rest))
	var old awsevents.APIGatewayProxyResponse
	if err != nil || json.Unmarshal(out, &old) != nil {
		t.Fatalf("%s, %v", out, err)
	}
	if want := "PUT /v1/tenants/T ü a&b  [2001:db8::2]:0 v1  2 {}"; old.StatusCode != 201 || old.Body != want || len(old.MultiValueHeaders["X-Two"]) != 2 {
		t.Errorf("got %+v, want %s", old, want)
	}
	if strings.Contains(h.logged.String(), "s3cr3t") {
		t.Error("an Authorization header is logged")
	}
}

// poster takes facts, except those about some devices.
type poster struct{ devices []iot.DeviceID }

func (p *poster) Post(_ context.Context, facts []events.Fact) error {
	for _, f := range facts {
		device := f.(events.RegistryChanged).DeviceID
		p.devices = append(p.devices, device)
		switch device {
		case "fails":
			return iot.Errorf(iot.ErrUnavailable, "router down")
		case "panics":
			panic("hunter2")
		}
	}
	return nil
}

func fact(t *testing.T, device iot.DeviceID) event.Event {
	t.Helper()
	e, err := events.EncodeFact(events.RegistryChanged{Type: events.TypeDeviceChanged, TenantID: "T", Sequence: 7, DeviceID: device, Change: "UPDATE", At: time.Now()}, "sluice.test")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestQueue(t *testing.T) {
	p := &poster{}
	h := newHandler(t, func(c *lambda.Config) { c.Queued, c.Facts = []host.Kind{host.Function, host.Router}, p })
	fact := func(device iot.DeviceID) string { return string(jsonOf(t, fact(t, device))) }
	text := func(req events.Request) string { return string(jsonOf(t, encode(t, req))) }
	var in awsevents.SQSEvent
	for id, body := range map[string]string{
		"taken": fact("1"), "fails": fact("fails"), "panics": fact("panics"), "garbage": "{", "a call": text(events.AssertionKeys{}), "a call that fails": text(events.TenantGet{ID: "none"}),
		"a secret": text(events.CredentialsGet{TenantID: "T", Type: "psk", AuthID: "a"}), "rotate": text(events.AssertionRotate{}), "sign": text(events.AssertionSign{}),
		"a fact that is none": `{"specversion":"1.0","type":"x"}`,
	} {
		in.Records = append(in.Records, awsevents.SQSMessage{MessageId: id, Body: body, EventSource: "aws:sqs"})
	}
	out, err := h.Invoke(t.Context(), jsonOf(t, in))
	var r awsevents.SQSEventResponse
	if err != nil || json.Unmarshal(out, &r) != nil {
		t.Fatalf("%s, %v", out, err)
	}
	failed := map[string]bool{}
	for _, f := range r.BatchItemFailures {
		failed[f.ItemIdentifier] = true
	}
	for id, want := range map[string]bool{
		"taken": false, "a call": false, "fails": true, "panics": true, "garbage": true, "a call that fails": true, "a secret": true, "rotate": true, "sign": true, "a fact that is none": true,
	} {
		if failed[id] != want {
			t.Errorf("%s: failed %t, want %t", id, failed[id], want)
		}
	}
	if len(p.devices) != 3 || len(h.rotations.got) != 0 {
		t.Errorf("facts %v, %d rotations", p.devices, len(h.rotations.got))
	}
	out, err = newHandler(t, nil).Invoke(t.Context(), jsonOf(t, awsevents.SQSEvent{Records: []awsevents.SQSMessage{{MessageId: "1", Body: fact("1"), EventSource: "aws:sqs"}}}))
	if err != nil || string(out) != `{"batchItemFailures":[{"itemIdentifier":"1"}]}` {
		t.Errorf("where nobody takes facts: %s, %v", out, err)
	}
}

func TestBus(t *testing.T) {
	p := &poster{}
	h := newHandler(t, func(c *lambda.Config) { c.Facts = p })
	event := func(typ string, detail any) []byte {
		return jsonOf(t, map[string]any{"version": "0", "id": "e", "source": "io.sluice", "detail-type": typ, "time": "2026-11-22T20:00:00Z", "detail": detail})
	}
	if out, err := h.Invoke(t.Context(), event(events.TypeDeviceChanged, fact(t, "D"))); err != nil || out != nil || len(p.devices) != 1 {
		t.Errorf("%s, %v, %v", out, err, p.devices)
	}
	for _, detail := range []any{map[string]any{}, "x", encode(t, events.AssertionRotate{}), encode(t, events.Admit{})} {
		if _, err := h.Invoke(t.Context(), event(events.TypeAssertionRotate, detail)); err == nil {
			t.Errorf("%v is taken", detail)
		}
	}
	if len(h.rotations.got) != 0 {
		t.Error("the bus rotated the keys")
	}
}

func TestSchedule(t *testing.T) {
	h := newHandler(t, nil)
	payload := jsonOf(t, map[string]any{"version": "0", "id": "e", "source": "aws.events", "detail-type": "Scheduled Event", "time": "2026-11-22T20:00:00Z", "detail": map[string]any{}})
	if _, err := h.Invoke(t.Context(), payload); err != nil {
		t.Fatal(err)
	}
	if got := h.rotations.got; len(got) != 1 || got[0].OverlapSeconds != 172800 || !got[0].At.Equal(time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)) {
		t.Errorf("got %+v", got)
	}
}

func TestAScheduleMaintains(t *testing.T) {
	payload := jsonOf(t, map[string]any{"version": "0", "source": "aws.events", "detail-type": "Scheduled Event", "time": "2026-11-22T20:00:00Z", "detail": map[string]any{}})
	broken := errors.New("store down")
	ended, end := context.WithCancel(t.Context())
	for name, tt := range map[string]struct {
		ctx  context.Context
		fail func() error
		want error
	}{
		"done":    {t.Context(), func() error { return nil }, nil},
		"failed":  {t.Context(), func() error { return broken }, broken},
		"no time": {ended, func() error { end(); return context.Canceled }, nil},
	} {
		calls := 0
		h := newHandler(t, func(c *lambda.Config) {
			c.Maintain = func(context.Context) error {
				calls++
				return tt.fail()
			}
		})
		if _, err := h.Invoke(tt.ctx, payload); !errors.Is(err, tt.want) || calls != 1 || len(h.rotations.got) != 1 {
			t.Errorf("%s: %v after %d calls", name, err, calls)
		}
	}
}

// TestAScheduleWithoutKeys is that of a function that signs nothing, such as the event store.
func TestAScheduleWithoutKeys(t *testing.T) {
	endpoint, err := host.New(host.Config{Name: "sluice.test", Caller: host.FirstOf(), Functions: []events.Function{
		events.NewFunction(func(context.Context, events.TenantGet) (*events.TenantGot, error) { return &events.TenantGot{}, nil })}})
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for _, maintain := range []func(context.Context) error{nil, func(context.Context) error { calls++; return nil }} {
		h, err := lambda.New(lambda.Config{Endpoint: endpoint, Accept: lambda.Accept{lambda.Schedule: ""}, Maintain: maintain})
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.Invoke(t.Context(), []byte(`{"source":"aws.events","detail-type":"Scheduled Event","time":"2026-11-22T20:00:00Z"}`))
		if (err == nil) != (maintain != nil) {
			t.Errorf("with something to look after: %t, got %v", maintain != nil, err)
		}
	}
	if calls != 1 {
		t.Errorf("the store was looked after %d times", calls)
	}
}

func by(ctx context.Context, alias string) context.Context {
	arn := "arn:aws:lambda:eu-north-1:123456789012:function:sluice"
	if alias != "" {
		arn += ":" + alias
	}
	return lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{InvokedFunctionArn: arn})
}

func TestAccept(t *testing.T) {
	accept, err := lambda.ParseAccept("direct, http:url,schedule:cron")
	if err != nil {
		t.Fatal(err)
	}
	h := newHandler(t, func(c *lambda.Config) { c.Accept = accept })
	scheduled := []byte(`{"source":"aws.scheduler","detail-type":"Scheduled Event","time":"2026-11-22T20:00:00Z"}`)
	direct := jsonOf(t, encode(t, events.TenantGet{ID: "T"}))
	keys := jsonOf(t, url("GET", "/.well-known/jwks.json", nil, "", false, ""))
	queue := []byte(`{"Records":[{"eventSource":"aws:sqs"}]}`)
	for _, tt := range []struct {
		alias   string
		payload []byte
		taken   bool
	}{
		{"", direct, true}, {"live", direct, true}, {"", keys, false}, {"url", keys, true}, {"cron", keys, false},
		{"", scheduled, false}, {"live", scheduled, false}, {"cron", scheduled, true}, {"", queue, false},
	} {
		if _, err := h.Invoke(by(t.Context(), tt.alias), tt.payload); (err == nil) != tt.taken {
			t.Errorf("%.60s by %q: %v", tt.payload, tt.alias, err)
		}
	}
	if len(h.rotations.got) != 1 {
		t.Errorf("%d rotations", len(h.rotations.got))
	}
	if _, err := newHandler(t, func(c *lambda.Config) { c.Accept = nil }).Invoke(t.Context(), scheduled); !errors.Is(err, iot.ErrForbidden) {
		t.Errorf("by default: %v", err)
	}
	for _, text := range []string{"", "direct,kafka"} {
		if _, err := lambda.ParseAccept(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	for _, text := range []string{"", "adapter", "adapter=sluice", "stranger=arn:aws:iam::1:role/r", "adapter=arn:aws:iam::1:user/u"} {
		if _, err := lambda.ParseRoles(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	if kinds, err := lambda.ParseKinds("adapter, router"); err != nil || len(kinds) != 2 || kinds[1] != host.Router {
		t.Errorf("got %v, %v", kinds, err)
	}
	if _, err := lambda.ParseKinds("operator"); err == nil {
		t.Error("an operator is no component")
	}
	if _, err := lambda.New(lambda.Config{}); err == nil {
		t.Error("no endpoint")
	}
}
