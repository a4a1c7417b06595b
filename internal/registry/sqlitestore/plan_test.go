package sqlitestore_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
)

// batchOf makes one write with a credential for each of n devices.
func batchOf(op registry.WriteOp, from, n int) []registry.DeviceWrite {
	writes := make([]registry.DeviceWrite, n)
	now := iot.Timestamp{Time: time.Now().UTC()}
	for i := range writes {
		id := iot.DeviceID(fmt.Sprintf("d%07d", from+i))
		writes[i] = registry.DeviceWrite{Op: op, Device: registry.DeviceRecord{
			Tenant: "T", ID: id, Version: "v", Status: iot.DeviceStatus{Created: now, Updated: now}},
			Credentials: &registry.CredentialsRecord{Tenant: "T", Device: id, Version: "c", Set: []iot.Credential{{
				Type: iot.HashedPassword, AuthID: string(id), Secrets: []iot.Secret{{ID: "s", HashFunction: "sha-256", PwdHash: "aGFzaA=="}},
			}}}}
	}
	return writes
}

// BenchmarkReplace puts devices anew among others of their tenant, with their
// credentials: what an import over an existing tenant does. What one costs must
// not depend on how many there are.
func BenchmarkReplace(b *testing.B) {
	for _, devices := range []int{1_000, 20_000} {
		b.Run(fmt.Sprint(devices), func(b *testing.B) {
			s, err := sqlitestore.Open(b.Context(), filepath.Join(b.TempDir(), "registry.db"), sqlitestore.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			if err := s.CreateTenant(b.Context(), registry.TenantRecord{ID: "T", Version: "v", Created: time.Now()}); err != nil {
				b.Fatal(err)
			}
			apply := func(op registry.WriteOp, from, n int) {
				if _, err := s.ApplyDevices(b.Context(), "T", batchOf(op, from, n), -1); err != nil {
					b.Fatal(err)
				}
			}
			for from := 0; from < devices; from += 1000 {
				apply(registry.CreateOp, from, 1000)
			}
			next := 0
			b.ReportAllocs()
			for b.Loop() {
				apply(registry.PutOp, next, 100)
				next = (next + 100) % devices
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/100, "us/device")
		})
	}
}
