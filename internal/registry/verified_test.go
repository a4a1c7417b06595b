package registry_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func slowSnapshot() registry.Snapshot {
	return registry.Snapshot{
		Tenant: registry.TenantRecord{ID: "T"},
		Credential: &iot.Credential{Type: iot.HashedPassword, AuthID: "a", Secrets: []iot.Secret{
			{ID: "fast", HashFunction: registry.SHA256, PwdHash: "x"},
			{ID: "slow", HashFunction: registry.Bcrypt, PwdHash: "$2a$10$hash"},
		}},
	}
}

func TestVerifiedPasswords(t *testing.T) {
	macs, err := registry.NewMACs(slices.Repeat([]byte{7}, registry.MACKeySize))
	must(t, err)
	base := slowSnapshot()
	proof, ok := macs.Proof(&base, "slow", "pw", noon)
	if !ok || proof.SecretID != "slow" || !proof.Until.Equal(noon.Add(24*time.Hour)) || len(proof.MAC) > 64 {
		t.Fatalf("got %+v, %v", proof, ok)
	}
	for _, id := range []string{"fast", "none", ""} {
		if _, ok := macs.Proof(&base, id, "pw", noon); ok {
			t.Errorf("secret %q: a proof is kept", id)
		}
	}
	otherKey, err := registry.NewMACs(slices.Repeat([]byte{8}, registry.MACKeySize))
	must(t, err)
	no := false
	for _, tt := range []struct {
		name     string
		macs     *registry.MACs
		change   func(*registry.Snapshot)
		password string
		now      time.Time
		found    bool
		renew    bool
	}{
		{"the same", macs, nil, "pw", noon, true, false},
		{"nearly a day later", macs, nil, "pw", noon.Add(22 * time.Hour), true, false},
		{"in the last hour", macs, nil, "pw", noon.Add(23*time.Hour + time.Second), true, true},
		{"expired", macs, nil, "pw", noon.Add(24 * time.Hour), false, false},
		{"another password", macs, nil, "pw2", noon, false, false},
		{"no password", macs, nil, "", noon, false, false},
		{"another key", otherKey, nil, "pw", noon, false, false},
		{"switched off", nil, nil, "pw", noon, false, false},
		{"another hash", macs, func(s *registry.Snapshot) { s.Credential.Secrets[1].PwdHash = "$2a$10$other" }, "pw", noon, false, false},
		{"another auth-id", macs, func(s *registry.Snapshot) { s.Credential.AuthID = "b" }, "pw", noon, false, false},
		{"another tenant", macs, func(s *registry.Snapshot) { s.Tenant.ID = "U" }, "pw", noon, false, false},
		{"another secret", macs, func(s *registry.Snapshot) { s.Credential.Secrets[1].ID = "new" }, "pw", noon, false, false},
		{"disabled secret", macs, func(s *registry.Snapshot) { s.Credential.Secrets[1].Enabled = &no }, "pw", noon, false, false},
		{"disabled credential", macs, func(s *registry.Snapshot) { s.Credential.Enabled = &no }, "pw", noon, false, false},
		{"expired secret", macs, func(s *registry.Snapshot) { s.Credential.Secrets[1].NotAfter.Time = noon.Add(-time.Second) }, "pw", noon, false, false},
		{"credential gone", macs, func(s *registry.Snapshot) { s.Credential = nil }, "pw", noon, false, false},
		{"fields shifted", macs, func(s *registry.Snapshot) { s.Credential.Secrets[1].PwdHash = "$2a$10$hashp" }, "w", noon, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := slowSnapshot()
			s.Verified = []registry.Verified{{SecretID: "fast", MAC: proof.MAC, Until: proof.Until}, proof}
			if tt.change != nil {
				tt.change(&s)
			}
			secret, renew := tt.macs.Recognise(&s, tt.password, tt.now)
			if (secret != nil) != tt.found || renew != tt.renew || (secret != nil && secret.ID != "slow") {
				t.Errorf("got %v, %v", secret, renew)
			}
		})
	}
	if _, err := registry.NewMACs(make([]byte, 31)); err == nil {
		t.Error("a short key is taken")
	}
}
