package functions_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// provider knows one user, who is the device or gateway dev.
type provider struct {
	asked  int
	name   string
	tenant iot.TenantID
	during func() // something that happens meanwhile
	err    error
}

func (p *provider) Verify(_ context.Context, name string, tenant iot.TenantID, authID, password string) (iot.DeviceID, time.Time, error) {
	p.asked++
	p.name, p.tenant = name, tenant
	if p.during != nil {
		p.during()
	}
	switch {
	case p.err != nil:
		return "", time.Time{}, p.err
	case authID != "user" || password != "pw":
		return "", time.Time{}, iot.Errorf(iot.ErrUnauthenticated, "bad credentials")
	}
	return "dev", noon.Add(5 * time.Minute), nil
}

// TestPasswordsOfIdentityProviders asks somebody else than the registry.
func TestPasswordsOfIdentityProviders(t *testing.T) {
	testPasswordsOfIdentityProviders(t, newInstallation(t))
}

func testPasswordsOfIdentityProviders(t *testing.T, in *installation) {
	in.tenant(t, "T", `{"alias":"tea","ext":{"identity-provider":"plant"}}`)
	in.tenant(t, "BAD", `{"ext":{"identity-provider":7}}`)
	in.tenant(t, "OFF", `{"enabled":false,"ext":{"identity-provider":"plant"}}`)
	in.tenant(t, "OWN", `{"ext":{"identity-provider":null}}`)
	in.device(t, "T", "dev", `{"authorities":["auto-provisioning-enabled"]}`, `[
		{"type":"hashed-password","auth-id":"local","secrets":[{"id":"s1","pwd-plain":"pw"}]},
		{"type":"psk","auth-id":"user","secrets":[{"id":"k","key":"AQID"}]}]`)
	in.device(t, "T", "behind", `{"via":["dev"]}`, "")
	in.device(t, "T", "foreign", `{}`, "")
	in.device(t, "OWN", "4711", `{}`, `[{"type":"hashed-password","auth-id":"user","secrets":[{"id":"s1","pwd-plain":"own"}]}]`)
	p := &provider{}
	inv := in.with(t, functions.Deps{External: p, MACKey: make([]byte, 32)})
	acting := func(device iot.DeviceID) events.Admit {
		return with(admit("T", "user", "pw"), func(a *events.Admit) { a.DeviceID = device })
	}
	recheck := with(admit("T", "user", ""), func(a *events.Admit) { a.Credential.SecretID = "s1" })
	key := with(admit("T", "user", ""), func(a *events.Admit) { a.Credential.Type = iot.PSK })
	unavailable := &iot.Error{Sentinel: iot.ErrUnavailable, Text: "down", RetryAfter: 7 * time.Second}
	for name, tt := range map[string]struct {
		req             events.Admit
		fails           error // of the provider
		err             error
		device, gateway iot.DeviceID
		asked           int
		age             time.Duration
	}{
		"right":                       {req: admit("T", "user", "pw"), device: "dev", asked: 1, age: 5 * time.Minute},
		"by the tenant's alias":       {req: admit("tea", "user", "pw"), device: "dev", asked: 1, age: 5 * time.Minute},
		"names itself":                {req: acting("dev"), device: "dev", asked: 1, age: 5 * time.Minute},
		"gateway":                     {req: acting("behind"), device: "behind", gateway: "dev", asked: 1, age: 5 * time.Minute},
		"gateway may not":             {req: acting("foreign"), err: iot.ErrForbidden, asked: 1},
		"gateway registers":           {req: acting("new"), device: "new", gateway: "dev", asked: 1},
		"wrong":                       {req: admit("T", "user", "other"), err: iot.ErrUnauthenticated, asked: 1},
		"empty":                       {req: admit("T", "user", ""), err: iot.ErrUnauthenticated},
		"secret of the registry":      {req: admit("T", "local", "pw"), err: iot.ErrUnauthenticated, asked: 1},
		"re-check of what was shown":  {req: recheck, err: iot.ErrUnauthenticated},
		"another type of credentials": {req: key, device: "dev"},
		"down":                        {req: admit("T", "user", "pw"), fails: unavailable, err: iot.ErrUnavailable, asked: 1},
		"tenant disabled":             {req: admit("OFF", "user", "pw"), err: iot.ErrForbidden},
		"tenant without one":          {req: admit("OWN", "user", "own"), device: "4711"},
	} {
		t.Run(name, func(t *testing.T) {
			*p = provider{err: tt.fails}
			got, err := events.Call(t.Context(), inv, tt.req)
			if !errors.Is(err, tt.err) || p.asked != tt.asked {
				t.Fatalf("got %v, asked %d times; want %v, %d", err, p.asked, tt.err, tt.asked)
			}
			if tt.fails == unavailable && iot.RetryAfter(err) != 7*time.Second {
				t.Errorf("retry after %v", iot.RetryAfter(err))
			}
			if err != nil {
				return
			}
			if got.DeviceID != tt.device || got.GatewayID != tt.gateway || (tt.age != 0 && got.CacheFor != tt.age) || (tt.asked > 0 && (got.SecretID != "" || p.name != "plant" || p.tenant != "T")) {
				t.Errorf("got %+v; asked %+v", got, p)
			}
		})
	}

	*p = provider{}
	if _, err := events.Call(t.Context(), inv, admit("BAD", "user", "pw")); err != nil && !errors.Is(err, iot.ErrNotFound) || p.name != "" {
		t.Errorf("a name that is no text: %v, asked %q", err, p.name) // which no provider has
	}
	if _, err := events.Call(t.Context(), in.with(t, functions.Deps{}), admit("T", "user", "pw")); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("without providers: %v", err)
	}
	const none = "the passwords of this tenant's devices are known to its identity provider only"
	if _, err := events.Call(t.Context(), inv, events.CredentialsGet{TenantID: "T", Type: iot.HashedPassword, AuthID: "local"}); !errors.Is(err, iot.ErrNotFound) || err.Error() != none {
		t.Errorf("hashes: %v", err)
	}
	if _, err := events.Call(t.Context(), inv, events.CredentialsGet{TenantID: "T", Type: iot.PSK, AuthID: "user"}); err != nil {
		t.Errorf("keys: %v", err)
	}

	p.during = func() {
		tenant, err := in.service.Tenant(t.Context(), "T")
		if err != nil {
			t.Fatal(err)
		}
		tenant.Tenant.Ext = []byte(`{"identity-provider":"moved"}`)
		if _, err := in.service.UpdateTenant(t.Context(), "T", tenant.Tenant, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := events.Call(t.Context(), inv, admit("T", "user", "pw")); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("moved meanwhile: %v", err)
	}
	p.during = func() {
		if err := in.service.DeleteDevice(t.Context(), "T", "dev", ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := events.Call(t.Context(), inv, admit("T", "user", "pw")); !errors.Is(err, iot.ErrNotFound) {
		t.Errorf("deleted meanwhile: %v", err)
	}
	s, err := in.store.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}, Type: iot.HashedPassword, AuthID: "local"})
	if err != nil || len(s.Verified) > 0 {
		t.Errorf("kept %+v, %v", s.Verified, err)
	}
}
