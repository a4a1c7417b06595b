package functions_test

import (
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"context"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions"
	"github.com/sluice-iot/sluice/functions/notices"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// TestVerifiedPasswordsAreKept follows the MAC of a password through the store.
func TestVerifiedPasswordsAreKept(t *testing.T) { testVerifiedPasswordsAreKept(t, newInstallation(t)) }

func testVerifiedPasswordsAreKept(t *testing.T, in *installation) {
	seed(t, in)
	inv := in.with(t, functions.Deps{MACKey: slices.Repeat([]byte{1}, 32)})
	kept := func() []registry.Verified {
		s, err := in.store.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "DEMO"}, Type: "hashed-password", AuthID: "sensor1"})
		if err != nil {
			t.Fatal(err)
		}
		return s.Verified
	}
	before, err := in.store.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "DEMO"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Call(t.Context(), inv, admit("DEMO", "sensor1", "wrong")); !errors.Is(err, iot.ErrUnauthenticated) || len(kept()) > 0 {
		t.Errorf("a wrong password: %v, kept %d", err, len(kept()))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, err := events.Call(t.Context(), inv, admit("DEMO", "sensor1", "hunter2"))
			if err != nil || got.SecretID != "s1" {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	wg.Wait()
	first := kept()
	if len(first) != 1 || first[0].SecretID != "s1" || !first[0].Until.Equal(noon.Add(24*time.Hour)) {
		t.Fatalf("kept %+v", first)
	}
	after, err := in.store.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "DEMO"}})
	if err != nil || after.Sequence != before.Sequence {
		t.Errorf("the sequence moved from %d to %d, %v", before.Sequence, after.Sequence, err)
	}
	if _, err := events.Call(t.Context(), inv, admit("DEMO", "sensor1", "hunter3")); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Errorf("a wrong password beside a kept one: %v", err)
	}

	set, err := in.service.Credentials(t.Context(), "DEMO", "4711")
	if err != nil {
		t.Fatal(err)
	}
	set.Set[0].Secrets[0].PwdPlain = "changed"
	if _, err := in.service.PutCredentials(t.Context(), "DEMO", "4711", set.Set, ""); err != nil {
		t.Fatal(err)
	}
	if n := len(kept()); n != 0 {
		t.Errorf("%d kept after a change", n)
	}
	if _, err := events.Call(t.Context(), inv, admit("DEMO", "sensor1", "hunter2")); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Errorf("the password before: %v", err)
	}
	if _, err := events.Call(t.Context(), inv, admit("DEMO", "sensor1", "changed")); err != nil || len(kept()) != 1 {
		t.Errorf("the new password: %v, kept %d", err, len(kept()))
	}
	if _, err := functions.Identity(functions.Deps{Registry: in.service, Passwords: in.service.Passwords(), Signer: in.signer, MACKey: []byte("short")}); err == nil {
		t.Error("a short key is taken")
	}
}

// TestChangesAreTold posts what the store commits.
func TestChangesAreTold(t *testing.T) { testChangesAreTold(t, newInstallation(t)) }

func testChangesAreTold(t *testing.T, in *installation) {
	p := &poster{}
	o := notices.New(p, log)
	in.store.Observe(o.Observe)
	in.tenant(t, "T", `{}`)
	in.device(t, "T", "gw", `{"authorities":["auto-provisioning-enabled"]}`, "")
	if facts := p.take(); len(facts) != 2 || facts[1].(events.RegistryChanged).Sequence != 2 {
		t.Fatalf("told %+v", facts)
	}
	inv := in.with(t, functions.Deps{Poster: p})
	got, err := events.Call(t.Context(), inv, events.RegistrationAssert{TenantID: "T", DeviceID: "new", GatewayID: "gw"})
	if err != nil {
		t.Fatal(err)
	}
	in.current(t, "T", got.Assertion)
	var types []string
	for _, f := range p.take() {
		types = append(types, f.FactType())
	}
	if want := []string{events.TypeDeviceChanged, events.TypeDeviceProvisioned, events.TypeDeviceChanged}; !slices.Equal(types, want) {
		t.Errorf("told %v, want %v", types, want)
	}
	if taken, left := o.Counts(); taken != 4 || left != 0 {
		t.Errorf("%d taken, %d left", taken, left)
	}
	p.fail(errors.New("no router"))
	in.device(t, "T", "more", `{}`, "") // is made all the same
	if _, left := o.Counts(); left != 1 {
		t.Errorf("%d left", left)
	}
}

// responder answers for a certificate's issuer.
type responder struct {
	asked int
	until time.Time
	err   error
}

func (r *responder) Check(context.Context, *x509.Certificate, *iot.TrustAnchor) (time.Time, error) {
	r.asked++
	return r.until, r.err
}

func TestRevokedCertificates(t *testing.T) {
	in, r := newInstallation(t), &responder{until: noon.Add(10 * time.Minute)}
	inv := in.with(t, functions.Deps{Revocation: r})
	ca, free := newDeviceCA(t, "ca"), newDeviceCA(t, "free")
	in.tenant(t, "T", `{"trusted-ca":[`+free.anchor(t, map[string]any{"id": "f", "auto-provisioning-enabled": true})+`,`+ca.anchor(t, map[string]any{"auto-provisioning-enabled": true, "ocsp-revocation-enabled": true, "ocsp-responder-cert": ca.issue(t, "r")})+`]}`)
	der := ca.issue(t, "d")
	r.err = errors.New("revoked")
	if _, err := events.Call(t.Context(), inv, byCertificate(events.TenantRef{}, der)); !errors.Is(err, iot.ErrUnauthenticated) || err.Error() != "bad credentials" {
		t.Errorf("revoked: %v", err)
	}
	if n := len(in.devices(t, "T")); n != 0 {
		t.Errorf("%d devices of revoked certificates", n)
	}
	r.err, r.asked = nil, 0
	got, err := events.Call(t.Context(), inv, byCertificate(events.TenantRef{}, der))
	if err != nil || got.CacheFor != 10*time.Minute || r.asked != 1 {
		t.Errorf("good: %+v, %v, asked %d times", got, err, r.asked)
	}
	if _, err := events.Call(t.Context(), inv, byCertificate(events.TenantRef{}, free.issue(t, "e"))); err != nil || r.asked != 1 {
		t.Errorf("an anchor that does not ask: %v, asked %d times", err, r.asked)
	}
}
