package service_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
	"github.com/sluice-iot/sluice/router/service"
)

const pskBody = `{"type":"psk","auth-id":"a"}`

var registered = &events.RegistrationAsserted{
	Registration: events.Registration{DeviceID: "4711", Via: []iot.DeviceID{"g2", "g1"}, Defaults: map[string]any{"ttl": 30.}},
	Assertion:    "a.b.c", CacheFor: 23 * time.Hour,
}

// TestAnswers shows what each API asks its function, and every field of the
// reply with its exact type.
func TestAnswers(t *testing.T) {
	tenant := &events.TenantGot{TenantObject: events.TenantObject{ID: "T", Enabled: false, MinimumMessageSize: 4}, CacheFor: 180 * time.Second}
	hashed := &events.CredentialsGot{DeviceID: "d", Credential: iot.Credential{Type: "hashed-password", AuthID: "a",
		Secrets: []iot.Secret{{PwdHash: "x"}}}, CacheFor: 180 * time.Second}
	psk := &events.CredentialsGot{DeviceID: "d", Credential: iot.Credential{Type: "psk", AuthID: "a", Secrets: []iot.Secret{{Key: []byte{1}}}}}
	made := &events.CredentialsGot{DeviceID: "d", Credential: iot.Credential{Type: "x509-cert", AuthID: "CN=a", Secrets: []iot.Secret{{}}},
		Provisioned: true, CacheFor: 180 * time.Second}
	const tenantBody = `{"tenant-id":"T","enabled":false,"minimum-message-size":4}`
	for _, tt := range []struct {
		name, address, subject string
		properties             amqp.Map
		body                   any
		call                   events.Request
		reply                  events.Reply
		want                   amqp.Map
		to, json               string
	}{
		{"tenant by id", "tenant", "get", nil, section(`{"tenant-id":"T"}`), events.TenantGet{ID: "T"}, tenant,
			with("status", int32(200), "cache_control", "max-age = 180", "tenant_id", "T"), "tenant/T", tenantBody},
		{"tenant by alias", "tenant", "get", nil, section(`{"tenant-id":"alias"}`), events.TenantGet{ID: "alias"}, tenant,
			with("status", int32(200), "cache_control", "max-age = 180", "tenant_id", "T"), "tenant/T", tenantBody},
		{"tenant by trust anchor", "tenant", "get", nil, `{"subject-dn":"CN=ca,O=x"}`, events.TenantGet{SubjectDN: "CN=ca,O=x"}, tenant,
			with("status", int32(200), "cache_control", "max-age = 180", "tenant_id", "T"), "tenant/T", tenantBody},
		{"tenant by both", "tenant", "get", nil, []byte(`{"subject-dn":"CN=ca","tenant-id":"T"}`), events.TenantGet{ID: "T"}, tenant,
			with("status", int32(200), "cache_control", "max-age = 180", "tenant_id", "T"), "tenant/T", tenantBody},
		{"tenant by property", "tenant", "get", with("tenant_id", "T"), nil, events.TenantGet{ID: "T"}, tenant,
			with("status", int32(200), "cache_control", "max-age = 180", "tenant_id", "T"), "tenant/T", tenantBody},
		{"tenant by property, empty body", "tenant", "get", with("tenant_id", "T"), section(""), events.TenantGet{ID: "T"}, tenant,
			with("status", int32(200), "cache_control", "max-age = 180", "tenant_id", "T"), "tenant/T", tenantBody},
		{"registration", "registration/T", "assert", with("device_id", "4711"), nil, events.RegistrationAssert{TenantID: "T", DeviceID: "4711"}, registered,
			with("status", int32(200), "cache_control", "max-age = 300", "tenant_id", "T", "device_id", "4711"), "registration/T/4711",
			`{"device-id":"4711","via":["g2","g1"],"defaults":{"ttl":30}}`},
		{"registration by a gateway", "registration/T", "assert", with("device_id", "4711", "gateway_id", "g1"), section("ignored"),
			events.RegistrationAssert{TenantID: "T", DeviceID: "4711", GatewayID: "g1"}, registered,
			with("status", int32(200), "cache_control", "max-age = 300", "tenant_id", "T", "device_id", "4711"), "registration/T/4711",
			`{"device-id":"4711","via":["g2","g1"],"defaults":{"ttl":30}}`},
		{"credentials", "credentials/T", "get", nil, section(`{"type":"hashed-password","auth-id":"a"}`),
			events.CredentialsGet{TenantID: "T", Type: "hashed-password", AuthID: "a"}, hashed,
			with("status", int32(200), "cache_control", "max-age = 180", "tenant_id", "T"), "credentials/T",
			`{"auth-id":"a","device-id":"d","secrets":[{"pwd-hash":"x"}],"type":"hashed-password"}`},
		{"credentials with client context", "credentials/T", "get", with("device_id", "echo"), section(`{"type":"psk","auth-id":"a","client-id":"c","n":1}`),
			events.CredentialsGet{TenantID: "T", Type: "psk", AuthID: "a", Context: map[string]any{"client-id": "c", "n": 1.}}, psk,
			with("status", int32(200), "cache_control", "no-cache", "tenant_id", "T", "device_id", "echo"), "credentials/T/echo",
			`{"auth-id":"a","device-id":"d","secrets":[{"key":"AQ=="}],"type":"psk"}`},
		{"credentials provisioned", "credentials/T", "get", nil, section(`{"type":"x509-cert","auth-id":"CN=a","client-certificate":"AQI="}`),
			events.CredentialsGet{TenantID: "T", Type: "x509-cert", AuthID: "CN=a", ClientCertificate: []byte{1, 2}}, made,
			with("status", int32(201), "cache_control", "max-age = 180", "tenant_id", "T"), "credentials/T",
			`{"auth-id":"CN=a","device-id":"d","secrets":[{}],"type":"x509-cert"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, invoker(func(ctx context.Context, req events.Request) (events.Reply, error) {
				if !reflect.DeepEqual(req, tt.call) {
					t.Errorf("asked %+v, want %+v", req, tt.call)
				}
				if left, ok := ctx.Deadline(); !ok || time.Until(left) > service.DefaultTimeout {
					t.Errorf("deadline %v, %v", left, ok)
				}
				return tt.reply, nil
			}))
			got := ask(t, s, tt.address, request(t, tt.subject, tt.properties, tt.body))
			if diff := cmp.Diff(tt.want, got.ApplicationProperties); diff != "" {
				t.Errorf("application properties (-want +got):\n%s", diff)
			}
			p := got.Properties
			if p.CorrelationID != "m-1" || p.To != tt.to || p.ContentType != "application/json" {
				t.Errorf("got correlation-id %v, to %q, content-type %q, want to %q", p.CorrelationID, p.To, p.ContentType, tt.to)
			}
			if id, ok := p.MessageID.(string); !ok || len(id) != 36 {
				t.Errorf("message-id %v", p.MessageID)
			}
			if len(got.Data) != 1 || string(got.Data[0]) != tt.json {
				t.Errorf("body %s, want %s", got.Data, tt.json)
			}
		})
	}
}

// TestRequestsThatFail shows the status of what is asked wrongly; no function is called.
func TestRequestsThatFail(t *testing.T) {
	granted := []string{"registration/T:assert", "credentials/T:get", "registration/T:other", "tenant/T:get"}
	for _, tt := range []struct {
		name, address, subject string
		properties             amqp.Map
		body                   any
		status                 int32
		text                   string
	}{
		{"tenant: unknown subject", "tenant", "update", nil, nil, 400, `unknown operation "update"`},
		{"tenant: no criteria", "tenant", "get", nil, section(`{}`), 400, "tenant-id or subject-dn is required"},
		{"tenant: empty criteria", "tenant", "get", nil, section(`{"tenant-id":""}`), 400, "tenant-id or subject-dn is required"},
		{"tenant: neither body nor property", "tenant", "get", nil, nil, 400, "the body is missing"},
		{"tenant: property of another type", "tenant", "get", with("tenant_id", amqp.Symbol("T")), nil, 400, "the body is missing"},
		{"tenant: bad JSON", "tenant", "get", nil, section(`{"tenant-id"`), 400, "no JSON object"},
		{"tenant: text behind", "tenant", "get", nil, section(`{"tenant-id":"T"}x`), 400, "no JSON object"},
		{"tenant: array", "tenant", "get", nil, section(`[]`), 400, "no JSON object"},
		{"tenant: null", "tenant", "get", nil, section(`null`), 400, "no JSON object"},
		{"tenant: number", "tenant", "get", nil, section(`{"tenant-id":1}`), 400, "no JSON object"},
		{"tenant: body that is a map", "tenant", "get", with("tenant_id", "T"), amqp.Map{{Key: "tenant-id", Value: "T"}}, 400, "neither a data section"},
		{"tenant: not UTF-8", "tenant", "get", nil, section("{\"tenant-id\":\"\xff\"}"), 400, "no JSON object"},
		{"tenant: property, not granted", "tenant", "get", with("tenant_id", "other"), nil, 403, `"get" is not granted`},
		{"registration: not granted", "registration/other", "assert", with("device_id", "d"), nil, 403, `"assert" is not granted`},
		{"registration: unknown subject, not granted", "registration/T", "update", with("device_id", "d"), nil, 403, `"update" is not granted`},
		{"registration: unknown subject", "registration/T", "other", with("device_id", "d"), nil, 400, `unknown operation "other"`},
		{"registration: no device", "registration/T", "assert", with("gateway_id", "g"), nil, 400, "device_id is missing"},
		{"registration: device of another type", "registration/T", "assert", with("device_id", amqp.Symbol("d")), nil, 400, "device_id is missing"},
		{"credentials: not granted", "credentials/other", "get", nil, section(pskBody), 403, `"get" is not granted`},
		{"credentials: no body", "credentials/T", "get", nil, nil, 400, "the body is missing"},
		{"credentials: bad JSON", "credentials/T", "get", nil, section(`{`), 400, "no JSON object"},
		{"credentials: no type", "credentials/T", "get", nil, section(`{"auth-id":"a"}`), 400, "type is missing"},
		{"credentials: no auth-id", "credentials/T", "get", nil, section(`{"type":"psk"}`), 400, "auth-id is missing"},
		{"credentials: null auth-id", "credentials/T", "get", nil, section(`{"type":"psk","auth-id":null}`), 400, "auth-id is missing"},
		{"credentials: auth-id is a number", "credentials/T", "get", nil, section(`{"type":"psk","auth-id":1}`), 400, "no JSON object"},
		{"credentials: by device", "credentials/T", "get", nil, section(`{"type":"psk","device-id":"d"}`), 501, "not looked up by device-id"},
		{"credentials: by both", "credentials/T", "get", nil, section(`{"type":"psk","auth-id":"a","device-id":"d"}`), 400, "exclude each other"},
		{"credentials: certificate that is no Base64", "credentials/T", "get", nil, section(`{"type":"psk","auth-id":"a","client-certificate":"?"}`), 400, "Base64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ask(t, serve(t, never(t), granted...), tt.address, request(t, tt.subject, tt.properties, tt.body))
			checkFailure(t, got, tt.status, tt.text)
		})
	}
}

// checkFailure wants a reply that has nothing but correlation-id, status and text.
func checkFailure(t *testing.T, got *amqp.Message, status int32, text string) {
	t.Helper()
	if diff := cmp.Diff(with("status", status), got.ApplicationProperties); diff != "" {
		t.Errorf("application properties (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&amqp.Properties{CorrelationID: "m-1", ContentType: "text/plain"}, got.Properties); diff != "" {
		t.Errorf("properties (-want +got):\n%s", diff)
	}
	if len(got.Data) != 1 || !strings.Contains(string(got.Data[0]), text) {
		t.Errorf("body %s, want %q", got.Data, text)
	}
}

// TestErrorsOfFunctions shows the status that each error of a function becomes.
func TestErrorsOfFunctions(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int32
		text   string
	}{
		{iot.Errorf(iot.ErrInvalid, "bad DN"), 400, "bad DN"},
		{iot.Errorf(iot.ErrForbidden, "gateway may not"), 403, "gateway may not"},
		{iot.Errorf(iot.ErrNotFound, "no such"), 404, "no such"},
		{iot.Errorf(iot.ErrExists, "twice"), 409, "twice"},
		{iot.Errorf(iot.ErrQuota, "too often"), 429, "too often"},
		{iot.Errorf(iot.ErrUnavailable, "down"), 503, "down"},
		{iot.Errorf(iot.ErrTimeout, "late"), 503, "late"},
		{context.DeadlineExceeded, 503, "timed out"},
		{context.Canceled, 503, "temporarily unavailable"},
		{status.ErrInternal, 500, "internal error"},
		{status.ErrUnknownType, 500, "unknown type"},
		{errors.New("secret detail"), 500, "internal error"},
	} {
		s := serve(t, invoker(func(context.Context, events.Request) (events.Reply, error) { return nil, tt.err }))
		for address, message := range map[string][]byte{
			"tenant":         request(t, "get", nil, section(`{"tenant-id":"T"}`)),
			"registration/T": request(t, "assert", with("device_id", "d"), nil),
			"credentials/T":  request(t, "get", nil, section(pskBody)),
		} {
			t.Run(tt.err.Error()+" "+address, func(t *testing.T) { checkFailure(t, ask(t, s, address, message), tt.status, tt.text) })
		}
	}
}

func TestWhoSeesATenantIsKnownOnceItIsFound(t *testing.T) {
	s := serve(t, invoker(func(_ context.Context, req events.Request) (events.Reply, error) {
		return &events.TenantGot{TenantObject: events.TenantObject{ID: iot.TenantID(strings.TrimPrefix(string(req.Tenant()), "alias-of-"))}}, nil
	}), "tenant/mine:get")
	for id, want := range map[string]int32{"mine": 200, "alias-of-mine": 200, "other": 403, "alias-of-other": 403} {
		got := ask(t, s, "tenant", request(t, "get", nil, section(`{"tenant-id":"`+id+`"}`)))
		if code := got.ApplicationProperties.Get("status"); code != want {
			t.Errorf("%s: got %v, want %d", id, code, want)
		}
	}
}

func TestAdaptersOf2018GetTheAssertion(t *testing.T) {
	for _, asserts := range []bool{false, true} {
		s := service.New(service.Options{
			Invoker: invoker(func(context.Context, events.Request) (events.Reply, error) { return registered, nil }),
			May:     func(*peer.Conn, string, string) bool { return true },
			Asserts: func(*peer.Conn) bool { return asserts },
		})
		t.Cleanup(s.Close)
		got := ask(t, s, "registration/T", request(t, "assert", with("device_id", "4711"), nil))
		if has := strings.HasSuffix(string(got.Data[0]), `,"assertion":"a.b.c"}`); has != asserts {
			t.Errorf("asserts %v: %s", asserts, got.Data[0])
		}
	}
}

func TestRequestsAreCounted(t *testing.T) {
	s := serve(t, invoker(func(_ context.Context, req events.Request) (events.Reply, error) {
		if req.Tenant() == "T" {
			return &events.TenantGot{TenantObject: events.TenantObject{ID: "T"}}, nil
		}
		return nil, iot.Errorf(iot.ErrNotFound, "no such tenant")
	}))
	for _, tenant := range []string{"T", "T", "U"} {
		ask(t, s, "tenant", request(t, "get", with("tenant_id", tenant), nil))
	}
	ask(t, s, "registration/T", request(t, "paint", nil, nil))
	want := map[service.Kind]int64{{Endpoint: "tenant", Status: "200"}: 2, {Endpoint: "tenant", Status: "404"}: 1, {Endpoint: "registration", Status: "400"}: 1}
	if diff := cmp.Diff(want, s.Counts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCorrelation(t *testing.T) {
	s := serve(t, invoker(func(context.Context, events.Request) (events.Reply, error) { return registered, nil }))
	id := amqp.UUID{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}
	for _, tt := range []struct {
		name             string
		message, correct any
		text             string
		original         any
	}{
		{"message-id", "m", nil, "m", "m"},
		{"correlation-id wins", "m", "c", "c", "c"},
		{"ulong", uint64(7), nil, "7", uint64(7)},
		{"uuid", nil, id, "01234567-89ab-cdef-0123-456789abcdef", id},
		{"binary text", nil, []byte("abc"), "abc", []byte("abc")},
		{"binary", nil, []byte{0xff, 1}, "ff01", []byte{0xff, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			change := func(m *amqp.Message) { m.Properties.MessageID, m.Properties.CorrelationID = tt.message, tt.correct }
			good := ask(t, s, "registration/T", request(t, "assert", with("device_id", "d"), nil, change))
			if got := good.Properties.CorrelationID; got != tt.text {
				t.Errorf("success: got %v, want %q", got, tt.text)
			}
			bad := ask(t, s, "registration/T", request(t, "assert", nil, nil, change))
			if got := bad.Properties.CorrelationID; !reflect.DeepEqual(got, tt.original) {
				t.Errorf("failure: got %v, want %v", got, tt.original)
			}
		})
	}
}

func TestMalformedRequestsAreRejected(t *testing.T) {
	s := serve(t, never(t))
	for _, tt := range []struct {
		name   string
		change func(*amqp.Message)
		want   string
	}{
		{"no properties", func(m *amqp.Message) { m.Properties = nil }, "message-id and correlation-id are missing"},
		{"no id", func(m *amqp.Message) { m.Properties.MessageID = nil }, "message-id and correlation-id are missing"},
		{"no subject", func(m *amqp.Message) { m.Properties.Subject = "" }, "subject is missing"},
		{"no reply-to", func(m *amqp.Message) { m.Properties.ReplyTo = "" }, "reply-to is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, refused := s.Answer("tenant", request(t, "get", nil, nil, tt.change))
			if refused == nil || refused.Condition != "hono:bad-request" || !strings.HasPrefix(refused.Description, "malformed request message: ") ||
				!strings.HasSuffix(refused.Description, tt.want) {
				t.Errorf("got %v, want %q", refused, tt.want)
			}
		})
	}
	if _, refused := s.Answer("tenant", []byte{0, 0x53, 0x73}); refused == nil || refused.Condition != "hono:bad-request" {
		t.Errorf("torn message: got %v", refused)
	}
}

func TestWhereRepliesMayGo(t *testing.T) {
	for replyTo, want := range map[string]bool{
		"tenant/r": true, "registration/T/r": true, "credentials/T/a/b": true, "cmd_router/T/r": true, "_dynamic/x": true,
		"telemetry/T": false, "tenant": false, "registration/T": false, "$management/r": false, "x": false,
	} {
		got := service.ReplyTo("tenant", request(t, "get", nil, nil, func(m *amqp.Message) { m.Properties.ReplyTo = replyTo }))
		if (got == replyTo) != want {
			t.Errorf("%s: got %q, want %v", replyTo, got, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		address              string
		owned, target, reply bool
	}{
		{"tenant", true, true, false}, {"tenant/r", true, false, true}, {"tenant/", true, false, false},
		{"registration", true, false, false}, {"registration/", true, false, false}, {"registration/T", true, true, false},
		{"registration/T/", true, false, false}, {"registration/T/r", true, false, true}, {"registration//r", true, false, false},
		{"credentials/T", true, true, false}, {"credentials/T/r/s", true, false, true},
		{"cmd_router/T", true, true, false}, {"cmd_router/T/r", true, false, true}, {"cmd_router", true, false, false}, {"cmd_router/T/", true, false, false},
		{"telemetry/T", false, false, false}, {"tenants", false, false, false}, {"", false, false, false},
	} {
		if got := service.Owns(tt.address); got != tt.owned {
			t.Errorf("%q: owned %v", tt.address, got)
		}
		if !tt.owned {
			continue
		}
		if err := service.CheckTarget(tt.address); (err == nil) != tt.target || err != nil && err.Condition != amqp.CondNotFound {
			t.Errorf("%q as target: %v", tt.address, err)
		}
		if err := service.CheckReply(tt.address); (err == nil) != tt.reply || err != nil && err.Condition != amqp.CondInvalidField {
			t.Errorf("%q for replies: %v", tt.address, err)
		}
	}
}

func TestARequestEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, invoker(func(ctx context.Context, _ events.Request) (events.Reply, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		began := time.Now()
		checkFailure(t, ask(t, s, "registration/T", request(t, "assert", with("device_id", "d"), nil)), 503, "timed out")
		if took := time.Since(began); took != service.DefaultTimeout {
			t.Errorf("took %s", took)
		}
	})
}

// TestTooManyRequests has more than one connection's share in flight, all of which
// wait: those beyond the share never reach the function.
func TestTooManyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		s := serve(t, invoker(func(ctx context.Context, _ events.Request) (events.Reply, error) {
			asked.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		var wg sync.WaitGroup
		for range service.MaxWorkingPerConn + 5 {
			wg.Go(func() {
				got := ask(t, s, "registration/T", request(t, "assert", with("device_id", "d"), nil))
				if code := got.ApplicationProperties.Get("status"); code != int32(503) {
					t.Errorf("got %v", code)
				}
			})
		}
		synctest.Wait()
		if n := asked.Load(); n != service.MaxWorkingPerConn {
			t.Errorf("%d calls at a time, want %d", n, service.MaxWorkingPerConn)
		}
		wg.Wait()
	})
}

func TestNoRequestIsTakenAfterTheEnd(t *testing.T) {
	s := serve(t, never(t))
	s.Close()
	if _, refused := s.Answer("tenant", request(t, "get", nil, section(`{"tenant-id":"T"}`))); refused == nil || refused.Condition != "released" {
		t.Errorf("got %v", refused)
	}
}

func TestPanicsAreAnswered(t *testing.T) {
	s := serve(t, invoker(func(context.Context, events.Request) (events.Reply, error) { panic("secret") }))
	checkFailure(t, ask(t, s, "registration/T", request(t, "assert", with("device_id", "d"), nil)), 500, "internal error")
}

func FuzzRequest(f *testing.F) {
	f.Add("tenant", request(f, "get", nil, section(`{"tenant-id":"T"}`)))
	f.Add("tenant", request(f, "get", with("tenant_id", "T"), nil))
	f.Add("registration/T", request(f, "assert", with("device_id", "d", "gateway_id", "g"), nil, func(m *amqp.Message) { m.Properties.CorrelationID = uint64(1) }))
	f.Add("credentials/T", request(f, "get", nil, `{"type":"psk","auth-id":"a","x":[1]}`))
	f.Add("credentials/T", request(f, "get", nil, []byte(`{"type":"psk","auth-id":"a"}`)))
	f.Add("cmd_router/T", request(f, "register-cmd-consumer", with("device_id", "d", "adapter_instance_id", "a", "lifespan", int32(3)), nil))
	f.Add("cmd_router/T", request(f, "set-last-known-gw", nil, section(`{"d":"g","e":1}`)))
	f.Add("cmd_router/T", request(f, "enable-command-routing", nil, section(`["T"]`)))
	answers := invoker(func(_ context.Context, req events.Request) (events.Reply, error) {
		switch req := req.(type) {
		case events.TenantGet:
			return &events.TenantGot{TenantObject: events.TenantObject{ID: req.ID}}, nil
		case events.RegistrationAssert:
			return &events.RegistrationAsserted{Registration: events.Registration{DeviceID: req.DeviceID}}, nil
		default:
			return &events.CredentialsGot{DeviceID: "d"}, nil
		}
	})
	s := service.New(service.Options{Invoker: answers, Commands: &told{}, May: func(*peer.Conn, string, string) bool { return true }})
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, address string, message []byte) {
		if !utf8.ValidString(address) || !service.Owns(address) || service.CheckTarget(address) != nil {
			return // no address of a link
		}
		reply, refused := s.Answer(address, message)
		if refused != nil {
			if refused.Condition != service.CondBadRequest {
				t.Errorf("rejected with %v", refused)
			}
			return
		}
		m, err := amqp.DecodeMessage(reply)
		if err != nil || m.Properties == nil || m.Properties.CorrelationID == nil {
			t.Fatalf("reply %+v, %v", m, err)
		}
		if code, ok := m.ApplicationProperties.Get("status").(int32); !ok || code < 200 || code > 503 {
			t.Errorf("status %v", m.ApplicationProperties.Get("status"))
		}
	})
}

// BenchmarkRequest is one assertion of a registration, without network and function.
func BenchmarkRequest(b *testing.B) {
	s := serve(b, invoker(func(context.Context, events.Request) (events.Reply, error) { return registered, nil }))
	message := request(b, "assert", with("device_id", "4711", "gateway_id", "g1"), nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, refused := s.Answer("registration/T", message); refused != nil {
			b.Fatal(refused)
		}
	}
}
