package pgstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/pgstore"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

// load registers devices with a password each, in full batches, and returns
// how many it made in a second.
func load(b *testing.B, s *pgstore.Store, name func(int) string, from, to int) float64 {
	b.Helper()
	_, secret := registry.GeneratePassword()
	begin := time.Now()
	for from < to {
		writes := make([]registry.DeviceWrite, 0, registry.MaxBatch)
		for ; from < to && len(writes) < registry.MaxBatch; from++ {
			d := device(name(from))
			d.Status.Updated = d.Status.Created
			d.Device.Ext = fmt.Appendf(nil, `{"site":"s%d"}`, from%1000)
			set := []iot.Credential{{Type: iot.HashedPassword, AuthID: name(from), Secrets: []iot.Secret{secret}}}
			writes = append(writes, registry.DeviceWrite{Op: registry.CreateOp, Device: d,
				Credentials: &registry.CredentialsRecord{Tenant: "T", Device: d.ID, Set: set, Version: "c"}})
		}
		results, err := s.ApplyDevices(b.Context(), "T", writes, -1)
		if err != nil {
			b.Fatal(err)
		}
		for _, err := range results {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	return float64(to) / time.Since(begin).Seconds()
}

const population = 50_000

func ordered(i int) string { return fmt.Sprintf("device-%08d", i) }

func scattered(i int) string {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	return fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64())
}

// BenchmarkLoad measures the bulk registration of devices with credentials.
func BenchmarkLoad(b *testing.B) {
	db := pgtest.Start(b)
	for _, c := range []struct {
		name    string
		id      func(int) string
		indexes [][]string
	}{{"ordered", ordered, nil}, {"random", scattered, nil}, {"ordered, one index", ordered, [][]string{site}}} {
		b.Run(c.name, func(b *testing.B) {
			s := open(b, db.URL, pgstore.Options{Schema: pgtest.Schema(), Indexes: c.indexes})
			addBenchTenant(b, s)
			b.ResetTimer()
			made, begin := 0, time.Now()
			for b.Loop() {
				load(b, s, c.id, made, made+registry.MaxBatch)
				made += registry.MaxBatch
			}
			b.ReportMetric(float64(made)/time.Since(begin).Seconds(), "devices/s")
		})
	}
}

func addBenchTenant(b *testing.B, s *pgstore.Store) {
	tenant := registry.TenantRecord{ID: "T", Version: "v", Created: at}
	tenant.Tenant.Adapters = []iot.Adapter{{Type: "hono-http", Enabled: true, DeviceAuthenticationRequired: true}}
	if err := s.CreateTenant(b.Context(), tenant); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPopulated measures single calls on a tenant with many devices.
func BenchmarkPopulated(b *testing.B) {
	db := pgtest.Start(b)
	s := open(b, db.URL, pgstore.Options{Indexes: [][]string{site}})
	addBenchTenant(b, s)
	load(b, s, ordered, 0, population)
	db.Exec(b, `ANALYZE`)
	read := func(ctx context.Context) error {
		q := registry.Query{Tenant: registry.TenantKey{ID: "T"}, Type: iot.HashedPassword, AuthID: ordered(rand.IntN(population))}
		_, err := s.Read(ctx, q)
		return err
	}
	for _, c := range []struct {
		name string
		call func(ctx context.Context) error
	}{
		{"read", read},
		{"create", func(ctx context.Context) error {
			return s.CreateDevice(ctx, device(fmt.Sprintf("new-%d", rand.Uint64())), "c", -1)
		}},
		{"plain page", func(ctx context.Context) error {
			_, err := s.SearchDevices(ctx, "T", registry.Search{Limit: 30, Offset: rand.IntN(population)})
			return err
		}},
		{"filtered page", func(ctx context.Context) error {
			_, err := s.SearchDevices(ctx, "T", registry.Search{Limit: 30,
				Filters: []registry.Filter{{Path: site, Value: fmt.Sprint("s", rand.IntN(1000))}}})
			return err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.call(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("read by eight", func(b *testing.B) {
		b.SetParallelism(4) // on two processors
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if err := read(b.Context()); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
