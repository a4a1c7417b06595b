package adapters_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// crowd is an admission function that lets everybody in, with answers of the
// size that a real one gives, of which nothing is shared.
func crowd(_ context.Context, r events.Request) (events.Reply, error) {
	q := r.(events.Admit)
	device := iot.DeviceID(strings.Clone(q.Credential.AuthID))
	return &events.Admitted{
		TenantObject: events.TenantObject{ID: "tenant-1", Enabled: true, Defaults: map[string]any{"color": "blue"}},
		DeviceID:     device, Registration: events.Registration{DeviceID: device},
		Assertion: strings.Repeat("x", 420), AssertionExpires: time.Now().Add(24 * time.Hour),
		SecretID: "0199b0c2-6f0e-7b1a-9d53-" + string(device)[:12], CacheFor: 23 * time.Hour,
	}, nil
}

func crowdedSessions(t testing.TB) *adapters.Sessions {
	a, _ := newAdmissions(t, adapters.AdmissionOptions{Invoker: invokerFunc(crowd)})
	a.Following(true)
	time.Sleep(time.Microsecond) // what is asked later is followed
	p := adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: a, Downstream: adaptertest.Discard{}})
	ss := adapters.NewSessions(p, adapters.SessionOptions{})
	t.Cleanup(ss.Close)
	return ss
}

func openNth(t testing.TB, ss *adapters.Sessions, i int) *adapters.Session {
	id := fmt.Sprintf("4711-device-%08d", i)
	l, err := adapters.PasswordLogin(id+"@tenant-1", "a secret that is not kept")
	if err != nil {
		t.Fatal(err)
	}
	l.Context = map[string]any{"client-id": id}
	s, err := ss.Open(t.Context(), l, home, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// maxSessionBytes is what an idle session may hold, its share of the index and
// of its answer included.
const maxSessionBytes = 1536

func TestSessionsAreSmall(t *testing.T) {
	const n = 20_000
	ss := crowdedSessions(t)
	sessions := make([]*adapters.Session, n)
	before := heap()
	for i := range sessions {
		sessions[i] = openNth(t, ss, i)
	}
	each := (heap() - before) / n
	t.Logf("%d bytes each", each)
	if each > maxSessionBytes {
		t.Errorf("an idle session holds %d bytes, want at most %d", each, maxSessionBytes)
	}
	for _, s := range sessions {
		s.Close()
	}
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func BenchmarkTryAdmit(b *testing.B) {
	for _, tt := range []struct {
		name   string
		device iot.DeviceID
	}{{"own device", ""}, {"device behind gateway", adaptertest.Device2}} {
		b.Run(tt.name, func(b *testing.B) {
			a, _ := newAdmissions(b, adapters.AdmissionOptions{})
			p := adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: a, Downstream: adaptertest.Discard{}})
			ss := adapters.NewSessions(p, adapters.SessionOptions{})
			b.Cleanup(ss.Close)
			l := passwordLogin(b, adaptertest.Gateway, adaptertest.Password)
			l.Context = map[string]any{"client-id": "a"}
			s, err := ss.Open(b.Context(), l, home, nil)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := s.Admit(b.Context(), "", tt.device); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, ok, err := s.TryAdmit("", tt.device); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkSubmit(b *testing.B) {
	ss := crowdedSessions(b)
	s := openNth(b, ss, 0)
	a, _ := newAdmissions(b, adapters.AdmissionOptions{})
	p := adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: a, Downstream: adaptertest.Discard{}})
	up := telemetry(strings.Repeat("x", 256))
	b.ReportAllocs()
	for b.Loop() {
		who, ok, err := s.TryAdmit("", "")
		if !ok || err != nil {
			b.Fatal(ok, err)
		}
		p.Submit(who, &up, func(err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
}
