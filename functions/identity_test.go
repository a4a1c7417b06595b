package functions_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
)

const password = `[{"type":"hashed-password","auth-id":"sensor1","ext":{"client-id":"c1"},"secrets":[{"id":"s1","pwd-plain":"hunter2"}]}]`

func seeded(t testing.TB) *installation { return seed(t, newInstallation(t)) }

func seed(t testing.TB, in *installation) *installation {
	t.Helper()
	in.tenant(t, "DEMO", `{"alias":"demo","defaults":{"ttl":30,"ratio":1.5},"ext":{"messaging-type":"amqp"},"minimum-message-size":64,
		"registration-limits":{"max-devices":100},"resource-limits":{"max-ttl":60},"tracing":{"sampling-mode":"all"}}`)
	in.device(t, "DEMO", "4711", `{"defaults":{"content-type":"text/plain"},"via":["gw-1"],"viaGroups":["g"],"downstream-message-mapper":"m","command-endpoint":{"uri":"https://x"}}`, password)
	in.device(t, "DEMO", "gw-1", `{}`, `[{"type":"hashed-password","auth-id":"gateway","secrets":[{"id":"g1","pwd-plain":"pw"}]}]`)
	in.device(t, "DEMO", "gw-2", `{"memberOf":["g"]}`, "")
	in.device(t, "DEMO", "gw-off", `{"enabled":false}`, `[{"type":"hashed-password","auth-id":"gw-off","secrets":[{"pwd-plain":"pw"}]}]`)
	in.device(t, "DEMO", "off", `{"enabled":false,"via":["gw-1"]}`, `[{"type":"hashed-password","auth-id":"off","secrets":[{"pwd-plain":"pw"}]}]`)
	in.device(t, "DEMO", "mute", `{}`, `[{"type":"hashed-password","auth-id":"mute","enabled":false,"secrets":[{"pwd-plain":"pw"}]}]`)
	in.device(t, "DEMO", "late", `{}`, `[{"type":"hashed-password","auth-id":"late","secrets":[{"id":"l1","pwd-plain":"pw","not-after":"2020-01-01T00:00:00Z"}]}]`)
	in.device(t, "DEMO", "sha", `{}`, `[{"type":"hashed-password","auth-id":"sha","secrets":[{"id":"h1","hash-function":"sha-256","pwd-hash":"9S+9MrKzuG/4jvbEkGKChfSCrxXdyylUH5S89Saj9sc="}]}]`)
	in.device(t, "DEMO", "psk", `{}`, `[{"type":"psk","auth-id":"psk","secrets":[{"id":"p1","key":"AQID"}]}]`)
	in.device(t, "DEMO", "odd", `{}`, `[{"type":"tag","auth-id":"odd","secrets":[{"colour":"red"}]}]`)
	in.tenant(t, "OFF", `{"enabled":false}`)
	in.device(t, "OFF", "4711", `{}`, password)
	in.tenant(t, "MQTT", `{"adapters":[{"type":"hono-mqtt","enabled":true,"device-authentication-required":false,"ext":{"max-ttd":5}}]}`)
	in.device(t, "MQTT", "4711", `{}`, password)
	return in
}

func admit(tenant iot.TenantID, authID, secret string) events.Admit {
	return events.Admit{Adapter: "hono-http", TenantRef: events.TenantRef{ID: tenant},
		Credential: &events.Credential{Type: "hashed-password", AuthID: authID, Password: secret}}
}

func with(a events.Admit, change func(*events.Admit)) events.Admit {
	if a.Credential != nil {
		c := *a.Credential
		a.Credential = &c
	}
	change(&a)
	return a
}

func TestIdentity(t *testing.T) {
	in := seeded(t)
	invs := in.invokers(t)
	good := admit("DEMO", "sensor1", "hunter2")
	for _, tt := range []struct {
		name string
		req  events.Request
		want string // JSON of the reply without its assertion; "" = an error
		age  time.Duration
		err  error
		text string
	}{
		{"tenant by id", events.TenantGet{ID: "DEMO"}, demoTenant, 180 * time.Second, nil, ""},
		{"tenant by alias", events.TenantGet{ID: "demo"}, demoTenant, 180 * time.Second, nil, ""},
		{"disabled tenant", events.TenantGet{ID: "OFF"}, `{"tenant-id":"OFF","enabled":false}`, 180 * time.Second, nil, ""},
		{"tenant with adapters", events.TenantGet{ID: "MQTT"},
			`{"tenant-id":"MQTT","enabled":true,"adapters":[{"type":"hono-mqtt","enabled":true,"device-authentication-required":false,"ext":{"max-ttd":5}}]}`, 180 * time.Second, nil, ""},
		{"unknown tenant", events.TenantGet{ID: "NONE"}, "", 0, iot.ErrNotFound, ""},
		{"tenant without criteria", events.TenantGet{}, "", 0, iot.ErrInvalid, "tenant-id or subject-dn is required"},
		{"tenant by unknown DN", events.TenantGet{SubjectDN: "CN=nobody"}, "", 0, iot.ErrNotFound, ""},
		{"tenant by no DN", events.TenantGet{SubjectDN: "nonsense"}, "", 0, iot.ErrInvalid, ""},

		{"assert", events.RegistrationAssert{TenantID: "DEMO", DeviceID: "4711"}, demoRegistration, 82800 * time.Second, nil, ""},
		{"assert by gateway", events.RegistrationAssert{TenantID: "DEMO", DeviceID: "4711", GatewayID: "gw-1"}, demoRegistration, 82800 * time.Second, nil, ""},
		{"assert by gateway of a group", events.RegistrationAssert{TenantID: "DEMO", DeviceID: "4711", GatewayID: "gw-2"}, demoRegistration, 82800 * time.Second, nil, ""},
		{"assert by itself as gateway", events.RegistrationAssert{TenantID: "DEMO", DeviceID: "gw-1", GatewayID: "gw-1"}, `{"device-id":"gw-1","assertion":"","assertion-expires":"2026-11-23T12:00:00Z"}`, 82800 * time.Second, nil, ""},
		{"assert by a stranger", events.RegistrationAssert{TenantID: "DEMO", DeviceID: "4711", GatewayID: "sha"}, "", 0, iot.ErrForbidden, ""},
		{"assert by a disabled gateway", events.RegistrationAssert{TenantID: "DEMO", DeviceID: "4711", GatewayID: "gw-off"}, "", 0, iot.ErrForbidden, "gateway is disabled or not registered"},
		{"assert disabled by a stranger", events.RegistrationAssert{TenantID: "DEMO", DeviceID: "off", GatewayID: "sha"}, "", 0, iot.ErrNotFound, "device is disabled or not registered"},
		{"assert unknown device", events.RegistrationAssert{TenantID: "DEMO", DeviceID: "none"}, "", 0, iot.ErrNotFound, "device is disabled or not registered"},
		{"assert unknown tenant", events.RegistrationAssert{TenantID: "NONE", DeviceID: "4711"}, "", 0, iot.ErrNotFound, ""},
		{"assert by the tenant's alias", events.RegistrationAssert{TenantID: "demo", DeviceID: "4711"}, "", 0, iot.ErrNotFound, "tenant does not exist"},
		{"assert disabled tenant", events.RegistrationAssert{TenantID: "OFF", DeviceID: "4711"}, "", 0, iot.ErrForbidden, "tenant is disabled or not registered"},
		{"assert nothing", events.RegistrationAssert{TenantID: "DEMO"}, "", 0, iot.ErrInvalid, ""},
		{"assert control characters", events.RegistrationAssert{TenantID: "DEMO", DeviceID: "a\nb"}, "", 0, nil, ""},

		{"credentials", events.CredentialsGet{TenantID: "DEMO", Type: "hashed-password", AuthID: "sha"},
			`{"device-id":"sha","type":"hashed-password","auth-id":"sha","secrets":[{"id":"h1","hash-function":"sha-256","pwd-hash":"9S+9MrKzuG/4jvbEkGKChfSCrxXdyylUH5S89Saj9sc="}]}`, 180 * time.Second, nil, ""},
		{"psk credentials", events.CredentialsGet{TenantID: "DEMO", Type: "psk", AuthID: "psk"}, `{"device-id":"psk","type":"psk","auth-id":"psk","secrets":[{"id":"p1","key":"AQID"}]}`, 0, nil, ""},
		{"credentials by the tenant's alias", events.CredentialsGet{TenantID: "demo", Type: "psk", AuthID: "psk"}, "", 0, iot.ErrNotFound, "tenant does not exist"},
		{"credentials of another context", events.CredentialsGet{TenantID: "DEMO", Type: "hashed-password", AuthID: "sensor1", Context: map[string]any{"client-id": "c2"}}, "", 0, iot.ErrNotFound, ""},
		{"disabled credentials", events.CredentialsGet{TenantID: "DEMO", Type: "hashed-password", AuthID: "mute"}, "", 0, iot.ErrNotFound, "no matching credentials on record"},
		{"unknown credentials", events.CredentialsGet{TenantID: "DEMO", Type: "psk", AuthID: "sensor1"}, "", 0, iot.ErrNotFound, ""},
		{"credentials without auth-id", events.CredentialsGet{TenantID: "DEMO", Type: "psk"}, "", 0, iot.ErrInvalid, ""},
		{"credentials of a bad type", events.CredentialsGet{TenantID: "DEMO", Type: "#illegal", AuthID: "a"}, "", 0, iot.ErrInvalid, ""},
		{"credentials by device", events.CredentialsGet{TenantID: "DEMO", Type: "psk", AuthID: "a", Context: map[string]any{"device-id": "x"}}, "", 0, iot.ErrInvalid, ""},
		{"credentials with a certificate that is none", events.CredentialsGet{TenantID: "DEMO", Type: "x509-cert", AuthID: "CN=a", ClientCertificate: []byte{1}}, "", 0, iot.ErrInvalid, ""},

		{"admit", good, `{"tenant":` + demoTenant + `,"device-id":"4711","registration":` + registrationPart + `,"assertion":"","assertion-expires":"2026-11-23T12:00:00Z","secret-id":"s1"}`, 82800 * time.Second, nil, ""},
		{"admit by SNI", with(good, func(a *events.Admit) { a.TenantRef = events.TenantRef{SNI: "demo.sluice.io"} }), `{"tenant":` + demoTenant + `,"device-id":"4711","registration":` + registrationPart + `,"assertion":"","assertion-expires":"2026-11-23T12:00:00Z","secret-id":"s1"}`, 82800 * time.Second, nil, ""},
		{"admit a gateway", with(admit("DEMO", "gateway", "pw"), func(a *events.Admit) { a.DeviceID = "4711" }), `{"tenant":` + demoTenant + `,"device-id":"4711","gateway-id":"gw-1","registration":` + registrationPart + `,"assertion":"","assertion-expires":"2026-11-23T12:00:00Z","secret-id":"g1"}`, 82800 * time.Second, nil, ""},
		{"admit again by secret id", with(good, func(a *events.Admit) { a.Credential.Password, a.Credential.SecretID = "", "s1" }), `{"tenant":` + demoTenant + `,"device-id":"4711","registration":` + registrationPart + `,"assertion":"","assertion-expires":"2026-11-23T12:00:00Z","secret-id":"s1"}`, 82800 * time.Second, nil, ""},
		{"admit by PSK", with(admit("DEMO", "psk", ""), func(a *events.Admit) { a.Credential.Type = "psk" }), `{"tenant":` + demoTenant + `,"device-id":"psk","registration":{"device-id":"psk"},"assertion":"","assertion-expires":"2026-11-23T12:00:00Z","secret-id":"p1","psk":"AQID"}`, 82800 * time.Second, nil, ""},
		{"admit without credential", events.Admit{Adapter: "hono-mqtt", TenantRef: events.TenantRef{ID: "MQTT"}, DeviceID: "4711"}, `{"tenant":{"tenant-id":"MQTT","enabled":true,"adapters":[{"type":"hono-mqtt","enabled":true,"device-authentication-required":false,"ext":{"max-ttd":5}}]},"device-id":"4711","registration":{"device-id":"4711"},"assertion":"","assertion-expires":"2026-11-23T12:00:00Z"}`, 82800 * time.Second, nil, ""},
		{"matching context", with(good, func(a *events.Admit) { a.Context = map[string]any{"client-id": "c1", "more": true} }), `{"tenant":` + demoTenant + `,"device-id":"4711","registration":` + registrationPart + `,"assertion":"","assertion-expires":"2026-11-23T12:00:00Z","secret-id":"s1"}`, 82800 * time.Second, nil, ""},
		{"other context", with(good, func(a *events.Admit) { a.Context = map[string]any{"client-id": "c2"} }), "", 0, iot.ErrUnauthenticated, "bad credentials"},
		{"wrong password", admit("DEMO", "sensor1", "hunter3"), "", 0, iot.ErrUnauthenticated, "bad credentials"},
		{"wrong password, fast hash", admit("DEMO", "sha", "hunter3"), "", 0, iot.ErrUnauthenticated, "bad credentials"},
		{"no password", admit("DEMO", "sensor1", ""), "", 0, iot.ErrUnauthenticated, "bad credentials"},
		{"unknown auth-id", admit("DEMO", "nobody", "hunter2"), "", 0, iot.ErrUnauthenticated, "bad credentials"},
		{"no auth-id", admit("DEMO", "", "hunter2"), "", 0, iot.ErrUnauthenticated, "bad credentials"},
		{"unknown tenant", admit("NONE", "sensor1", "hunter2"), "", 0, iot.ErrUnauthenticated, "bad credentials"},
		{"disabled credentials", admit("DEMO", "mute", "pw"), "", 0, iot.ErrUnauthenticated, "bad credentials"},
		{"expired secret", admit("DEMO", "late", "pw"), "", 0, iot.ErrUnauthenticated, "bad credentials"},
		{"removed secret id", with(good, func(a *events.Admit) { a.Credential.Password, a.Credential.SecretID = "", "s9" }), "", 0, iot.ErrUnauthenticated, "bad credentials"},
		{"tenant disabled before the password is looked at", admit("OFF", "sensor1", "wrong"), "", 0, iot.ErrForbidden, "tenant is disabled or not registered"},
		{"adapter disabled before the password is looked at", admit("MQTT", "sensor1", "wrong"), "", 0, iot.ErrForbidden, "adapter is disabled"},
		{"disabled device", admit("DEMO", "off", "pw"), "", 0, iot.ErrNotFound, "device is disabled or not registered"},
		{"unknown device behind a gateway", with(admit("DEMO", "gateway", "pw"), func(a *events.Admit) { a.DeviceID = "none" }), "", 0, iot.ErrNotFound, "device is disabled or not registered"},
		{"device of another gateway", with(good, func(a *events.Admit) { a.DeviceID = "sha" }), "", 0, iot.ErrForbidden, ""},
		{"disabled gateway", with(admit("DEMO", "gw-off", "pw"), func(a *events.Admit) { a.DeviceID = "4711" }), "", 0, iot.ErrForbidden, "gateway is disabled or not registered"},
		{"credential required", events.Admit{Adapter: "hono-http", TenantRef: events.TenantRef{ID: "DEMO"}, DeviceID: "4711"}, "", 0, iot.ErrUnauthenticated, "device authentication is required"},
		{"unknown tenant without credential", events.Admit{Adapter: "hono-http", TenantRef: events.TenantRef{ID: "NONE"}, DeviceID: "4711"}, "", 0, iot.ErrNotFound, "tenant is disabled or not registered"},
		{"nothing to admit", events.Admit{Adapter: "hono-http", TenantRef: events.TenantRef{ID: "DEMO"}}, "", 0, iot.ErrInvalid, ""},
		{"no adapter", with(good, func(a *events.Admit) { a.Adapter = "" }), "", 0, iot.ErrInvalid, "adapter is missing"},
		{"two tenants", with(good, func(a *events.Admit) { a.TenantRef.SNI = "x.y" }), "", 0, iot.ErrInvalid, ""},
		{"SNI without dot", with(good, func(a *events.Admit) { a.TenantRef = events.TenantRef{SNI: "demo"} }), "", 0, iot.ErrInvalid, ""},
		{"certificate", with(good, func(a *events.Admit) { a.Credential.Type = "x509-cert" }), "", 0, iot.ErrInvalid, ""},
		{"password and secret id", with(good, func(a *events.Admit) { a.Credential.SecretID = "s1" }), "", 0, iot.ErrInvalid, ""},
	} {
		t.Run(tt.name, func(t *testing.T) { in.runEverywhere(t, invs, tt.req, tt.want, tt.age, tt.err, tt.text) })
	}
}

const (
	demoTenant = `{"tenant-id":"DEMO","enabled":true,"defaults":{"ttl":30,"ratio":1.5},"ext":{"messaging-type":"amqp"},` +
		`"minimum-message-size":64,"resource-limits":{"max-ttl":60},"tracing":{"sampling-mode":"all"}}`
	registrationMembers = `"device-id":"4711","via":["gw-1","gw-2"],"defaults":{"content-type":"text/plain"},"downstream-message-mapper":"m","command-endpoint":{"uri":"https://x"}`
	registrationPart    = `{` + registrationMembers + `}`
	demoRegistration    = `{` + registrationMembers + `,"assertion":"","assertion-expires":"2026-11-23T12:00:00Z"}`
)

func (in *installation) runEverywhere(t *testing.T, invs map[string]events.Invoker, req events.Request, want string, age time.Duration, wantErr error, text string) {
	t.Helper()
	verifier := assertion.NewVerifier(assertion.VerifierConfig{Issuer: issuer, Keys: in.signer.KeySource()})
	defer verifier.Close()
	var first error
	for _, name := range []string{"in process", "encoded", "HTTP"} {
		rep, err := invs[name].Invoke(t.Context(), req)
		if want == "" {
			sameError(t, name, err, wantErr, text)
			if first == nil {
				first = err
			} else if wantErr != nil && !cmp.Equal(told(first), told(err)) {
				t.Errorf("in process it is %+v, %s it is %+v", told(first), name, told(err))
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if rep.MaxAge() != age {
			t.Errorf("%s: may be kept %s, want %s", name, rep.MaxAge(), age)
		}
		checkToken(t, verifier, rep)
		got, err := json.Marshal(rep)
		if err != nil {
			t.Fatal(err)
		}
		var g, w any
		if json.Unmarshal(got, &g) != nil || json.Unmarshal([]byte(want), &w) != nil {
			t.Fatalf("%s: not JSON: %s or %s", name, got, want)
		}
		if d := cmp.Diff(w, g); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
	}
}

// told is what an error tells its caller.
func told(err error) [3]string {
	var e *iot.Error
	if !errors.As(err, &e) {
		return [3]string{err.Error()}
	}
	return [3]string{e.Sentinel.Error(), e.Text, e.RetryAfter.String()}
}

func sameError(t *testing.T, name string, err, want error, text string) {
	t.Helper()
	var e *iot.Error
	switch {
	case err == nil:
		t.Errorf("%s: no error, want %v", name, want)
	case want != nil && !errors.Is(err, want):
		t.Errorf("%s: got %v, want %v", name, err, want)
	case !errors.As(err, &e):
		t.Errorf("%s: %T is no *iot.Error", name, err)
	case text != "" && e.Text != text:
		t.Errorf("%s: text %q, want %q", name, e.Text, text)
	}
}

// checkToken verifies the assertion of a reply that has one, and blanks it.
func checkToken(t *testing.T, v *assertion.Verifier, rep events.Reply) {
	t.Helper()
	var token *string
	var device, gateway iot.DeviceID
	switch r := rep.(type) {
	case *events.Admitted:
		token, device, gateway = &r.Assertion, r.DeviceID, r.GatewayID
	case *events.RegistrationAsserted:
		token, device = &r.Assertion, r.DeviceID
	default:
		return
	}
	c, err := v.Verify([]byte(*token), noon)
	if err != nil {
		t.Error(err)
	}
	if c.Device != device || (gateway != "" && c.Gateway != gateway) || len(c.Rev) != 20 || strings.Trim(c.Rev, "0") == "" {
		t.Errorf("token says %+v", c)
	}
	*token = ""
}
