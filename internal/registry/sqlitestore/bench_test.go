package sqlitestore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
)

// benchDevices is the size of the registry that is measured: SLUICE_BENCH_DEVICES,
// else 100,000.
func benchDevices(b *testing.B) int {
	text := os.Getenv("SLUICE_BENCH_DEVICES")
	if text == "" {
		return 100_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < registry.MaxBatch {
		b.Fatalf("SLUICE_BENCH_DEVICES=%q is no number of at least %d", text, registry.MaxBatch)
	}
	return n
}

func benchTenant(b *testing.B, s *sqlitestore.Store) {
	b.Helper()
	t := registry.TenantRecord{ID: "T", Version: "v", Created: time.Now()}
	t.Tenant.Adapters = []iot.Adapter{{Type: "hono-http", Enabled: true, DeviceAuthenticationRequired: true}}
	if err := s.CreateTenant(b.Context(), t); err != nil {
		b.Fatal(err)
	}
}

// benchWrites makes one batch; ids names the devices.
func benchWrites(first int, ids func(int) string, credentials bool) []registry.DeviceWrite {
	at := iot.Timestamp{Time: time.Now()}
	writes := make([]registry.DeviceWrite, registry.MaxBatch)
	for i := range writes {
		n := first + i
		d := registry.DeviceRecord{Tenant: "T", ID: iot.DeviceID(ids(n)), Version: fmt.Sprintf("%032x", n)}
		d.Status = iot.DeviceStatus{Created: at, Updated: at}
		d.Device.Ext = json.RawMessage(fmt.Sprintf(`{"serial":"s%d","model":"m%d"}`, n, n%1000))
		writes[i] = registry.DeviceWrite{Op: registry.CreateOp, Device: d, CredentialsVersion: d.Version}
		if credentials {
			set := []iot.Credential{{Type: iot.HashedPassword, AuthID: string(d.ID), Secrets: []iot.Secret{{
				ID: fmt.Sprintf("%032x", n), HashFunction: "sha-256", Salt: []byte("0123456789abcdef"),
				PwdHash: "L3Rlc3QvdGVzdC90ZXN0L3Rlc3QvdGVzdC90ZXN0L3Q=",
			}}}}
			writes[i].Credentials = &registry.CredentialsRecord{Tenant: "T", Device: d.ID, Version: d.Version, Set: set}
		}
	}
	return writes
}

func orderedID(n int) string { return fmt.Sprintf("device-%08d", n) }

// randomID spreads the numbers over all ids, as UUIDs do.
func randomID(n int) string {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	return fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64())
}

func load(b *testing.B, s *sqlitestore.Store, devices int, ids func(int) string, credentials bool) (took time.Duration) {
	b.Helper()
	for first := 0; first < devices; first += registry.MaxBatch {
		writes := benchWrites(first, ids, credentials)
		start := time.Now()
		results, err := s.ApplyDevices(b.Context(), "T", writes, -1)
		took += time.Since(start)
		if err := errors.Join(append(results, err)...); err != nil {
			b.Fatal(err)
		}
	}
	return took
}

func fileSize(b *testing.B, path string) (bytes int64) {
	b.Helper()
	for _, name := range []string{path, path + "-wal"} {
		info, err := os.Stat(name)
		if err != nil && !os.IsNotExist(err) {
			b.Fatal(err)
		}
		if err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// BenchmarkLoad fills an empty registry by 1,000 devices per call. Every
// operation is one whole load; the last tenth has a rate of its own, since
// that is where the trees are large.
//
// With SLUICE_BENCH_DEVICES=1000000 -benchtime 1x, Go 1.26, two cores of a Xeon
// that five other processes kept busy (load 10): 113,000 devices/s in the order
// of ids, 261 bytes of file per device, its change in the feed included; 10,900/s
// and 301 bytes with random ids. What decides is not the statements but the
// pages: with ids in order a batch fills a few, with random ones it changes a
// page for each device, which are written twice. So fewer trees count more than
// fewer statements: credentials and an index make three more random trees, and
// 100,000 random devices with them load at 8,000 to 10,000/s. One statement
// for fifty rows of the feed, and a cache that holds the pages of a batch,
// each halved the time of a load in order.
func BenchmarkLoad(b *testing.B) {
	devices := benchDevices(b)
	for _, c := range []struct {
		name        string
		ids         func(int) string
		credentials bool
		indexes     [][]string
	}{
		{"ordered", orderedID, false, nil},
		{"random", randomID, false, nil},
		{"ordered with credentials and index", orderedID, true, [][]string{{"ext", "serial"}}},
		{"random with credentials and index", randomID, true, [][]string{{"ext", "serial"}}},
	} {
		b.Run(fmt.Sprintf("%s/%d", c.name, devices), func(b *testing.B) {
			b.ReportAllocs()
			var took, last time.Duration
			var size int64
			n := 0
			for b.Loop() {
				path := filepath.Join(b.TempDir(), fmt.Sprint(n, ".db"))
				s := openIndexed(b, path, c.indexes...)
				benchTenant(b, s)
				took += load(b, s, devices, c.ids, c.credentials)
				n++
				extra := func(i int) string { return c.ids(devices + i) }
				last += load(b, s, max(devices/10, registry.MaxBatch), extra, c.credentials)
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				size = fileSize(b, path)
			}
			total := devices + max(devices/10, registry.MaxBatch)
			b.ReportMetric(float64(n*devices)/took.Seconds(), "devices/s")
			b.ReportMetric(float64(n*max(devices/10, registry.MaxBatch))/last.Seconds(), "devices/s-at-end")
			b.ReportMetric(float64(size)/float64(total), "B/device")
		})
	}
}

// percentiles reports what the slower ones of many single operations took.
func percentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkLarge measures reads of a registry with credentials, random ids
// and an index. Each Read is of another device, so that what it needs is in no
// cache of SQLite's; the file system's cache holds the file if it is large enough.
//
// With SLUICE_BENCH_DEVICES=1000000 -benchtime 2000x on the same busy machine
// (844 bytes per device with credentials and two indexes): read p50 54 µs, p99
// 435 µs; page by serial p99 0.2 ms, by model (1,000 match) 1.0 ms, by prefix
// 2.5 ms, without filter 2.9 ms. A page by model that is sorted by something
// else than the id reads all 1,000 documents: p50 12 ms, and 124 ms at p99 with ten
// processes for two cores.
func BenchmarkLarge(b *testing.B) {
	devices := benchDevices(b)
	path := filepath.Join(b.TempDir(), "registry.db")
	serial, model := []string{"ext", "serial"}, []string{"ext", "model"}
	s := openIndexed(b, path, serial, model)
	benchTenant(b, s)
	load(b, s, devices, randomID, true)
	measure := func(name string, f func(n int) error) {
		b.Run(fmt.Sprintf("%s/%d", name, devices), func(b *testing.B) {
			b.ReportAllocs()
			var took []time.Duration
			for b.Loop() {
				n := rand.IntN(devices)
				start := time.Now()
				if err := f(n); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			percentiles(b, took)
		})
	}
	measure("read", func(n int) error {
		snap, err := s.Read(b.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}, Type: iot.HashedPassword, AuthID: randomID(n)})
		if err == nil && (snap.Device == nil || snap.Credential == nil) {
			err = errors.New("nothing found")
		}
		return err
	})
	search := func(q registry.Search) error {
		page, err := s.SearchDevices(b.Context(), "T", q)
		if err == nil && len(page.Devices) == 0 {
			err = errors.New("nothing found")
		}
		return err
	}
	filter := func(path []string, value string) []registry.Filter {
		return []registry.Filter{{Path: path, Value: value}}
	}
	measure("page by serial", func(n int) error {
		return search(registry.Search{Limit: 30, Filters: filter(serial, fmt.Sprint("s", n))})
	})
	measure("page by model", func(n int) error { // a thousandth of all devices match
		return search(registry.Search{Limit: 30, Filters: filter(model, fmt.Sprint("m", n%1000))})
	})
	measure("page by model, sorted", func(n int) error {
		return search(registry.Search{Limit: 30, Filters: filter(model, fmt.Sprint("m", n%1000)),
			Sort: []registry.Order{{Path: serial}}})
	})
	measure("page by prefix", func(n int) error { // at most 111
		return search(registry.Search{Limit: 30, Filters: filter(serial, fmt.Sprintf("s%d*", devices/100+n%1000))})
	})
	measure("first page", func(int) error { return search(registry.Search{Limit: 30}) })
	measure("export", func(n int) error {
		_, err := s.Export(b.Context(), "T", iot.DeviceID(randomID(n)), 100)
		return err
	})
}
