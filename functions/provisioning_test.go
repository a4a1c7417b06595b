package functions_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	"github.com/sluice-iot/sluice/functions"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// poster takes facts unless it is told to fail.
type poster struct {
	mu    sync.Mutex
	facts []events.Fact
	err   error
}

func (p *poster) Post(ctx context.Context, facts []events.Fact) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.facts = append(p.facts, facts...)
	return ctx.Err()
}

func (p *poster) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// take returns what was posted since the last call.
func (p *poster) take() []events.Fact {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.facts = nil }()
	return p.facts
}

// with returns the invoker of functions with more to stand on.
func (in *installation) with(t testing.TB, d functions.Deps) events.Invoker {
	t.Helper()
	d.Registry, d.Passwords, d.Signer, d.Now = in.service, in.service.Passwords(), in.signer, clock
	list, err := functions.Identity(d)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := inproc.NewEncoded(log, list...)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func (in *installation) devices(t *testing.T, tenant iot.TenantID) []iot.DeviceID {
	t.Helper()
	page, err := in.store.SearchDevices(t.Context(), tenant, registry.Search{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var ids []iot.DeviceID
	for _, d := range page.Devices {
		ids = append(ids, d.ID)
	}
	return ids
}

// told checks the status of a device that was registered by itself.
func (in *installation) told(t *testing.T, tenant iot.TenantID, id iot.DeviceID, want bool) registry.DeviceRecord {
	t.Helper()
	d, err := in.store.Device(t.Context(), tenant, id)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Status.AutoProvisioned || d.Status.AutoProvisioningNotificationSent != want {
		t.Errorf("device %s has status %+v, want told %v", id, d.Status, want)
	}
	return d
}

// current fails unless a token was signed at the tenant's last change.
func (in *installation) current(t *testing.T, tenant iot.TenantID, token string) {
	t.Helper()
	s, err := in.store.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: tenant}})
	if err != nil {
		t.Fatal(err)
	}
	v := assertion.NewVerifier(assertion.VerifierConfig{Issuer: issuer, Keys: in.signer.KeySource()})
	defer v.Close()
	if c, err := v.Verify([]byte(token), noon); err != nil || c.Rev != events.Sequence(s.Sequence) {
		t.Errorf("token is of position %s, the registry at %d: %v", c.Rev, s.Sequence, err)
	}
}

func TestProvisionByCertificate(t *testing.T) { testProvisionByCertificate(t, newInstallation(t)) }

func testProvisionByCertificate(t *testing.T, in *installation) {
	p := &poster{}
	inv := in.with(t, functions.Deps{Poster: p})
	ca, gateways := newDeviceCA(t, "ca"), newDeviceCA(t, "gateways")
	in.tenant(t, "T", `{"trusted-ca":[`+
		ca.anchor(t, map[string]any{"auto-provisioning-enabled": true, "auto-provisioning-device-id-template": "dev-{{subject-cn}}"})+`,`+
		gateways.anchor(t, map[string]any{"id": "g", "auto-provisioning-enabled": true, "auto-provision-as-gateway": true, "auth-id-template": "{{subject-cn}}"})+`]}`)

	der := ca.issue(t, "1")
	got, err := events.Call(t.Context(), inv, byCertificate(events.TenantRef{}, der))
	if err != nil {
		t.Fatal(err)
	}
	if got.DeviceID != "dev-1" || got.SecretID == "" || got.CacheFor != 23*time.Hour {
		t.Errorf("got %+v", got)
	}
	in.current(t, "T", got.Assertion)
	d := in.told(t, "T", "dev-1", true)
	if d.Device.Enabled == nil || !*d.Device.Enabled || string(d.Device.Ext) != `{"comment":"Auto-provisioned at 2026-11-22T12:00:00Z"}` || len(d.Device.Authorities) > 0 {
		t.Errorf("device %+v", d.Device)
	}
	want := events.DeviceProvisioned{TenantID: "T", DeviceID: "dev-1", Method: events.ByCertificate, At: noon}
	if facts := p.take(); len(facts) != 1 || facts[0] != want {
		t.Errorf("told %+v, want %+v", facts, want)
	}
	if _, err := events.Call(t.Context(), inv, byCertificate(events.TenantRef{}, der)); err != nil || len(p.take()) > 0 {
		t.Errorf("the second time: %v", err)
	}
	creds, err := in.store.Credentials(t.Context(), "T", "dev-1")
	if err != nil || len(creds.Set) != 1 || creds.Set[0].AuthID != "CN=1,O=Acme" || len(creds.Set[0].Secrets) != 1 || creds.Set[0].Secrets[0].ID != got.SecretID {
		t.Errorf("credentials %+v, %v", creds, err)
	}

	got, err = events.Call(t.Context(), inv, with(byCertificate(events.TenantRef{}, gateways.issue(t, "gw")), func(a *events.Admit) { a.DeviceID = "behind" }))
	if err != nil {
		t.Fatal(err)
	}
	gw := in.told(t, "T", got.GatewayID, true)
	behind := in.told(t, "T", "behind", true)
	if !slices.Equal(gw.Device.Authorities, []string{"auto-provisioning-enabled"}) || !slices.Equal(behind.Device.Via, []iot.DeviceID{gw.ID}) || got.DeviceID != "behind" {
		t.Errorf("gateway %+v, device %+v", gw.Device, behind.Device)
	}
	in.current(t, "T", got.Assertion)
	if facts := p.take(); len(facts) != 2 || facts[0].(events.DeviceProvisioned).DeviceID != gw.ID ||
		facts[1] != (events.DeviceProvisioned{TenantID: "T", DeviceID: "behind", GatewayID: gw.ID, Method: events.ByGateway, At: noon}) {
		t.Errorf("told %+v", facts)
	}
}

func TestProvisionByCredentialsGet(t *testing.T) {
	testProvisionByCredentialsGet(t, newInstallation(t))
}

func testProvisionByCredentialsGet(t *testing.T, in *installation) {
	p := &poster{}
	inv := in.with(t, functions.Deps{Poster: p})
	on, off := newDeviceCA(t, "on"), newDeviceCA(t, "off")
	in.tenant(t, "T", `{"trusted-ca":[`+on.anchor(t, map[string]any{"auto-provisioning-enabled": true, "auth-id-template": "a-{{subject-cn}}"})+`,`+off.anchor(t, map[string]any{"id": "off"})+`]}`)
	ask := func(authID string, der []byte) (*events.CredentialsGot, error) {
		return events.Call(t.Context(), inv, events.CredentialsGet{TenantID: "T", Type: "x509-cert", AuthID: authID, ClientCertificate: der})
	}
	for _, authID := range []string{"CN=1,O=Acme", "a-2"} {
		der := on.issue(t, authID[len(authID)-1:])
		if authID == "CN=1,O=Acme" {
			der = on.issue(t, "1")
		}
		first, err := ask(authID, der)
		if err != nil {
			t.Fatal(err)
		}
		if !first.Provisioned || first.Credential.AuthID != authID || !first.Credential.IsEnabled() || len(first.Credential.Secrets) != 1 || first.CacheFor != 180*time.Second {
			t.Errorf("got %+v", first)
		}
		in.told(t, "T", first.DeviceID, true)
		again, err := ask(authID, der)
		if err != nil || again.Provisioned || again.DeviceID != first.DeviceID {
			t.Errorf("again: %+v, %v", again, err)
		}
		if facts := p.take(); len(facts) != 1 {
			t.Errorf("told %+v", facts)
		}
	}
	for name, tt := range map[string]struct {
		authID string
		der    []byte
		want   error
	}{
		"not allowed":             {"CN=3,O=Acme", off.issue(t, "3"), iot.ErrNotFound},
		"unknown CA":              {"CN=3,O=Acme", newDeviceCA(t, "x").issue(t, "3"), iot.ErrNotFound},
		"CA in name only":         {"CN=3,O=Acme", newDeviceCA(t, "on").issue(t, "3"), iot.ErrNotFound},
		"expired":                 {"CN=3,O=Acme", on.issue(t, "3", func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Minute) }), iot.ErrNotFound},
		"another subject":         {"CN=4,O=Acme", on.issue(t, "3"), iot.ErrInvalid},
		"another's template":      {"a-3", off.issue(t, "3"), iot.ErrInvalid},
		"no certificate":          {"CN=3,O=Acme", []byte("x"), iot.ErrInvalid},
		"nothing to provision by": {"CN=3,O=Acme", nil, iot.ErrNotFound},
	} {
		if _, err := ask(tt.authID, tt.der); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if n := len(in.devices(t, "T")); n != 2 {
		t.Errorf("%d devices, want 2", n)
	}
}

func TestProvisionByGateway(t *testing.T) { testProvisionByGateway(t, newInstallation(t)) }

func testProvisionByGateway(t *testing.T, in *installation) {
	p := &poster{}
	inv := in.with(t, functions.Deps{Poster: p})
	in.tenant(t, "T", `{}`)
	in.device(t, "T", "gw", `{"authorities":["auto-provisioning-enabled"],"memberOf":["g"]}`, `[{"type":"psk","auth-id":"gw","secrets":[{"id":"s","key":"AQID"}]}]`)
	in.device(t, "T", "plain", `{}`, "")
	in.device(t, "T", "gw-off", `{"enabled":false,"authorities":["auto-provisioning-enabled"]}`, "")
	in.device(t, "T", "others", `{"via":["x"]}`, "")
	assert := func(device, gateway iot.DeviceID) (*events.RegistrationAsserted, error) {
		return events.Call(t.Context(), inv, events.RegistrationAssert{TenantID: "T", DeviceID: device, GatewayID: gateway})
	}
	got, err := assert("new", "gw")
	if err != nil {
		t.Fatal(err)
	}
	d := in.told(t, "T", "new", true)
	if !slices.Equal(got.Via, []iot.DeviceID{"gw"}) || !slices.Equal(d.Device.Via, []iot.DeviceID{"gw"}) || !slices.Equal(d.Device.ViaGroups, []string{"g"}) || got.CacheFor != 23*time.Hour {
		t.Errorf("got %+v, device %+v", got, d.Device)
	}
	in.current(t, "T", got.Assertion)
	want := events.DeviceProvisioned{TenantID: "T", DeviceID: "new", GatewayID: "gw", Method: events.ByGateway, At: noon}
	if facts := p.take(); len(facts) != 1 || facts[0] != want {
		t.Errorf("told %+v", facts)
	}
	if set, err := in.store.Credentials(t.Context(), "T", "new"); err != nil || len(set.Set) != 0 {
		t.Errorf("credentials %+v, %v", set, err)
	}
	admitted, err := events.Call(t.Context(), inv, events.Admit{Adapter: "hono-lora", TenantRef: events.TenantRef{ID: "T"}, DeviceID: "new2",
		Credential: &events.Credential{Type: "psk", AuthID: "gw"}})
	if err != nil || admitted.DeviceID != "new2" || admitted.GatewayID != "gw" {
		t.Fatalf("got %+v, %v", admitted, err)
	}
	in.told(t, "T", "new2", true)
	in.current(t, "T", admitted.Assertion)
	p.take()
	for _, tt := range []struct {
		device, gateway iot.DeviceID
		want            error
	}{
		{"a/b", "gw", iot.ErrInvalid},
		{"a b", "gw", iot.ErrInvalid},
		{"none", "plain", iot.ErrNotFound},
		{"none", "gw-off", iot.ErrNotFound},
		{"none", "nobody", iot.ErrNotFound},
		{"none", "", iot.ErrNotFound},
		{"others", "gw", iot.ErrForbidden},
	} {
		if _, err := assert(tt.device, tt.gateway); !errors.Is(err, tt.want) {
			t.Errorf("%s by %s: %v, want %v", tt.device, tt.gateway, err, tt.want)
		}
	}
	if facts := p.take(); len(facts) > 0 {
		t.Errorf("told %+v", facts)
	}
}

// TestNobodyTakesTheNotice shows that a notice is neither lost nor in the way.
func TestNobodyTakesTheNotice(t *testing.T) { testNobodyTakesTheNotice(t, newInstallation(t)) }

func testNobodyTakesTheNotice(t *testing.T, in *installation) {
	p := &poster{}
	inv := in.with(t, functions.Deps{Poster: p})
	ca := newDeviceCA(t, "ca")
	in.tenant(t, "T", `{"trusted-ca":[`+ca.anchor(t, map[string]any{"auto-provisioning-enabled": true, "auto-provisioning-device-id-template": "{{subject-cn}}"})+`]}`)
	in.device(t, "T", "gw", `{"authorities":["auto-provisioning-enabled"]}`, "")
	calls := map[string]func() (time.Duration, error){
		"admit": func() (time.Duration, error) {
			r, err := events.Call(t.Context(), inv, byCertificate(events.TenantRef{}, ca.issue(t, "admit")))
			if err != nil {
				return 0, err
			}
			return r.CacheFor, nil
		},
		"get": func() (time.Duration, error) {
			r, err := events.Call(t.Context(), inv, events.CredentialsGet{TenantID: "T", Type: "x509-cert", AuthID: "CN=get,O=Acme", ClientCertificate: ca.issue(t, "get")})
			if err != nil {
				return 0, err
			}
			return r.CacheFor, nil
		},
		"assert": func() (time.Duration, error) {
			r, err := events.Call(t.Context(), inv, events.RegistrationAssert{TenantID: "T", DeviceID: "assert", GatewayID: "gw"})
			if err != nil {
				return 0, err
			}
			return r.CacheFor, nil
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			p.fail(errors.New("no router"))
			if _, err := call(); !errors.Is(err, iot.ErrUnavailable) || iot.RetryAfter(err) == 0 {
				t.Errorf("at first: %v, want ErrUnavailable", err)
			}
			in.told(t, "T", iot.DeviceID(name), false)
			if age, err := call(); err != nil || age != 0 {
				t.Errorf("then: kept for %s, %v", age, err)
			}
			in.told(t, "T", iot.DeviceID(name), false)
			p.fail(nil)
			if age, err := call(); err != nil || age == 0 {
				t.Errorf("at last: kept for %s, %v", age, err)
			}
			in.told(t, "T", iot.DeviceID(name), true)
			if facts := p.take(); len(facts) != 1 {
				t.Errorf("told %+v", facts)
			}
		})
	}
	nobody := in.with(t, functions.Deps{})
	r, err := events.Call(t.Context(), nobody, byCertificate(events.TenantRef{}, ca.issue(t, "alone")))
	if err != nil || r.CacheFor != 23*time.Hour {
		t.Errorf("without a poster: %+v, %v", r, err)
	}
	in.told(t, "T", "alone", false)
}

func TestProvisioningHasLimits(t *testing.T) { testProvisioningHasLimits(t, newInstallation(t)) }

func testProvisioningHasLimits(t *testing.T, in *installation) {
	inv := in.with(t, functions.Deps{Poster: &poster{}})
	for _, tt := range []struct {
		name, limits, template, cn string
		existing                   string
		want                       error
	}{
		{"devices", `{"max-devices":0}`, "{{subject-cn}}", "d", "", iot.ErrForbidden},
		{"credentials", `{"max-credentials-per-device":0}`, "{{subject-cn}}", "d", "", iot.ErrForbidden},
		{"an id that no device may have", `{}`, "{{subject-cn}}", "a b", "", iot.ErrInvalid},
		{"an attribute that is not there", `{}`, "{{subject-ou}}", "d", "", iot.ErrInvalid},
		{"an id that is taken", `{}`, "{{subject-cn}}", "d", "d", iot.ErrExists},
		{"an auth-id that is too long", `{}`, "{{subject-o}}", "long", "", iot.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tenant := iot.TenantID("T" + fmt.Sprint(len(tt.name)))
			ca := newDeviceCA(t, tt.name)
			in.tenant(t, tenant, `{"registration-limits":`+tt.limits+`,"trusted-ca":[`+
				ca.anchor(t, map[string]any{"auto-provisioning-enabled": true, "auto-provisioning-device-id-template": tt.template})+`]}`)
			if tt.existing != "" {
				in.device(t, tenant, iot.DeviceID(tt.existing), `{}`, "")
			}
			der := ca.issue(t, tt.cn, func(c *x509.Certificate) {
				if tt.cn == "long" {
					for range 5 {
						c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 11}, Value: string(slices.Repeat([]byte("x"), 60))})
					}
				}
			})
			if _, err := events.Call(t.Context(), inv, byCertificate(events.TenantRef{ID: tenant}, der)); !errors.Is(err, tt.want) {
				t.Errorf("admit: %v, want %v", err, tt.want)
			}
			if n := len(in.devices(t, tenant)); n != len(tt.existing) {
				t.Errorf("%d devices", n)
			}
		})
	}
}

// TestTwoAtOnce lets many callers bring the same new device.
func TestTwoAtOnce(t *testing.T) { testTwoAtOnce(t, newInstallation(t)) }

func testTwoAtOnce(t *testing.T, in *installation) {
	p := &poster{}
	inv := in.with(t, functions.Deps{Poster: p})
	ca := newDeviceCA(t, "ca")
	in.tenant(t, "T", `{"trusted-ca":[`+ca.anchor(t, map[string]any{"auto-provisioning-enabled": true})+`]}`)
	in.device(t, "T", "gw", `{"authorities":["auto-provisioning-enabled"]}`, "")
	in.device(t, "T", "gw2", `{"authorities":["auto-provisioning-enabled"]}`, "")
	der := ca.issue(t, "d")
	const n = 12
	ids, errs := make([]iot.DeviceID, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r, err := events.Call(t.Context(), inv, byCertificate(events.TenantRef{}, der))
			if errs[i] = err; err == nil {
				ids[i] = r.DeviceID
			}
		})
		wg.Go(func() {
			if _, err := events.Call(t.Context(), inv, events.RegistrationAssert{TenantID: "T", DeviceID: "shared", GatewayID: "gw"}); err != nil {
				t.Errorf("assert: %v", err)
			}
		})
	}
	wg.Wait()
	for i := range n {
		if errs[i] != nil || ids[i] != ids[0] {
			t.Errorf("caller %d got %q, %v; another one %q", i, ids[i], errs[i], ids[0])
		}
	}
	if all := in.devices(t, "T"); len(all) != 4 {
		t.Errorf("devices %v, want 4", all)
	}
	in.told(t, "T", ids[0], true)
	in.told(t, "T", "shared", true)
	told := map[iot.DeviceID]int{}
	for _, f := range p.take() {
		told[f.(events.DeviceProvisioned).DeviceID]++
	}
	if len(told) != 2 || told["shared"] == 0 || told[ids[0]] == 0 {
		t.Errorf("told %v", told)
	}
	if _, err := events.Call(t.Context(), inv, events.RegistrationAssert{TenantID: "T", DeviceID: "shared", GatewayID: "gw2"}); !errors.Is(err, iot.ErrForbidden) {
		t.Errorf("by the gateway that was not first: %v", err)
	}
}
