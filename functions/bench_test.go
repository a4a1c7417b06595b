package functions_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	"github.com/sluice-iot/sluice/functions"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// sizeOfBench is how many devices are registered: SLUICE_BENCH_DEVICES, else 20,000.
func sizeOfBench(b *testing.B) int {
	text := os.Getenv("SLUICE_BENCH_DEVICES")
	if text == "" {
		return 20_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < registry.MaxBatch {
		b.Fatalf("SLUICE_BENCH_DEVICES=%q is no number of at least %d", text, registry.MaxBatch)
	}
	return n
}

// BenchmarkAdmit admits devices one after the other, in this process, each
// time another one of many in SQLite, with three credentials each.
func BenchmarkAdmit(b *testing.B) {
	benchDevices := sizeOfBench(b)
	in := newInstallation(b)
	ca := newDeviceCA(b, "ca")
	in.tenant(b, "T", `{"trusted-ca":[`+ca.anchor(b, nil)+`]}`)
	plain, generated := registry.GeneratePassword()
	hash, err := registry.NewPasswords(10, 0).Hash(b.Context(), plain)
	if err != nil {
		b.Fatal(err)
	}
	slow := iot.Secret{HashFunction: registry.Bcrypt, PwdHash: hash}
	for at := 0; at < benchDevices; {
		var writes []registry.DeviceWrite
		for ; len(writes) < registry.MaxBatch && at < benchDevices; at++ {
			id := iot.DeviceID(fmt.Sprintf("d%07d", at))
			d := registry.DeviceRecord{Tenant: "T", ID: id, Version: "v"}
			d.Status.Created.Time, d.Status.Updated.Time = noon, noon
			generated.ID, slow.ID = "s", "s"
			set := []iot.Credential{
				{Type: iot.HashedPassword, AuthID: "fast-" + string(id), Secrets: []iot.Secret{generated}},
				{Type: iot.HashedPassword, AuthID: "slow-" + string(id), Secrets: []iot.Secret{slow}},
				{Type: iot.X509Cert, AuthID: "CN=" + string(id) + ",O=Acme", Secrets: []iot.Secret{{ID: "s"}}},
			}
			writes = append(writes, registry.DeviceWrite{Op: registry.CreateOp, Device: d,
				Credentials: &registry.CredentialsRecord{Tenant: "T", Device: id, Set: set, Version: "v"}})
		}
		results, err := in.store.ApplyDevices(b.Context(), "T", writes, -1)
		if err != nil || slices.ContainsFunc(results, func(err error) bool { return err != nil }) {
			b.Fatal(err, results)
		}
	}
	certs := make([][]byte, 100)
	for i := range certs {
		certs[i] = ca.issue(b, fmt.Sprintf("d%07d", i*97%benchDevices))
	}
	number := func(i int) int { return i * 7919 % benchDevices }
	byPassword := func(kind string) func(i int) events.Admit {
		return func(i int) events.Admit { return admit("T", fmt.Sprintf("%s-d%07d", kind, number(i)), plain) }
	}
	for _, bb := range []struct {
		name string
		macs bool
		warm int // admissions before the clock starts
		req  func(i int) events.Admit
	}{
		{"sha-256", false, 0, byPassword("fast")},
		{"bcrypt-10", false, 0, byPassword("slow")},
		{"bcrypt-10-mac", true, 50, func(i int) events.Admit { return byPassword("slow")(i % 50) }},
		{"x509", false, 0, func(i int) events.Admit { return byCertificate(events.TenantRef{}, certs[i%len(certs)]) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			d := functions.Deps{Registry: in.service, Passwords: in.service.Passwords(), Signer: in.signer, Now: clock}
			if bb.macs {
				d.MACKey = make([]byte, registry.MACKeySize)
			}
			list, err := functions.Identity(d)
			if err != nil {
				b.Fatal(err)
			}
			inv, err := inproc.New(log, list...)
			if err != nil {
				b.Fatal(err)
			}
			run := func(i int) {
				if _, err := events.Call(b.Context(), inv, bb.req(i)); err != nil {
					b.Fatal(err)
				}
			}
			for i := range bb.warm {
				run(i)
			}
			var took []time.Duration
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				start := time.Now()
				run(i)
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}
