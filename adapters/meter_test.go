package adapters_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// figures returns every sample by name{values of the labels that are not common};
// a summary is two: name_count and name_sum.
func figures(t *testing.T, cs ...prometheus.Collector) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(cs...)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var values []string
			for _, l := range m.Label {
				if !slices.Contains([]string{"host", "component_type", "component_name"}, l.GetName()) {
					values = append(values, l.GetName()+"="+l.GetValue())
				}
			}
			labels := "{" + strings.Join(values, ",") + "}"
			if s := m.Summary; s != nil {
				if len(s.Quantile) != 0 {
					t.Errorf("%s has quantiles", f.GetName())
				}
				out[f.GetName()+"_count"+labels] = float64(s.GetSampleCount())
				out[f.GetName()+"_sum"+labels] = s.GetSampleSum()
				continue
			}
			out[f.GetName()+labels] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// holds compares some of the figures.
func holds(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[name]; !ok || v != want[name] {
			t.Errorf("%s: got %v (%v), want %v", name, v, ok, want[name])
		}
	}
}

// exactly compares all of them.
func exactly(t *testing.T, got, want map[string]float64) {
	t.Helper()
	holds(t, got, want)
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: got %v, want no such sample", name, got[name])
		}
	}
}

func tenant(id iot.TenantID, minimum int) *events.TenantObject {
	return &events.TenantObject{ID: id, MinimumMessageSize: minimum}
}

func upload(e iot.Endpoint, q iot.QoS, size int) *adapters.Upload {
	return &adapters.Upload{Endpoint: e, QoS: q, Payload: make([]byte, size)}
}

func TestMeterUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := adapters.NewMeter("hono-x")
		took := func(d time.Duration, minimum int, up *adapters.Upload, err error) {
			start := time.Now()
			time.Sleep(d)
			m.Uploaded(tenant("T", minimum), up, start, err)
		}
		took(250*time.Millisecond, 0, upload(iot.Telemetry, iot.AtMostOnce, 5), nil)
		took(750*time.Millisecond, 4096, upload(iot.Telemetry, iot.AtMostOnce, 10*1024), nil)
		took(500*time.Millisecond, 4096, upload(iot.Event, iot.AtLeastOnce, 0), iot.ErrNoCredit)
		took(time.Second, 4096, upload(iot.Event, iot.AtLeastOnce, 4096), iot.Errorf(iot.ErrInvalid, "rejected"))
		took(time.Second, 0, upload(iot.Telemetry, 2, 1), iot.ErrInvalid)
		took(time.Second, 0, upload(iot.CommandResponse, iot.AtLeastOnce, 1), nil)
		took(time.Second, 0, upload("nonsense", iot.AtLeastOnce, 1), iot.ErrNotFound)

		const response = "{direction=response,status=forwarded,tenant=T}"
		const of = "hono_telemetry_processing_duration_seconds"
		const bytes = "hono_telemetry_payload_bytes"
		const forwarded = "{qos=0,status=forwarded,tenant=T,ttd=none,type=telemetry}"
		const lost = "{qos=1,status=undeliverable,tenant=T,ttd=none,type=event}"
		const wrong = "{qos=1,status=unprocessable,tenant=T,ttd=none,type=event}"
		const odd = "{qos=unknown,status=unprocessable,tenant=T,ttd=none,type=telemetry}"
		exactly(t, figures(t, m), map[string]float64{
			"hono_command_processing_duration_seconds_count" + response: 1, "hono_command_payload_bytes_count" + response: 1,
			"hono_command_processing_duration_seconds_sum" + response: 1, "hono_command_payload_bytes_sum" + response: 1,
			"hono_command_processing_duration_seconds_max" + response: 1, "hono_command_payload_bytes_max" + response: 1,
			of + "_count" + forwarded: 2, of + "_sum" + forwarded: 1, of + "_max" + forwarded: 0.75,
			of + "_count" + lost: 1, of + "_sum" + lost: 0.5, of + "_max" + lost: 0.5,
			of + "_count" + wrong: 1, of + "_sum" + wrong: 1, of + "_max" + wrong: 1,
			of + "_count" + odd: 1, of + "_sum" + odd: 1, of + "_max" + odd: 1,
			bytes + "_count" + forwarded: 2, bytes + "_sum" + forwarded: 5 + 12288, bytes + "_max" + forwarded: 12288,
			bytes + "_count" + lost: 1, bytes + "_sum" + lost: 0, bytes + "_max" + lost: 0,
			bytes + "_count" + wrong: 1, bytes + "_sum" + wrong: 4096, bytes + "_max" + wrong: 4096,
			bytes + "_count" + odd: 1, bytes + "_sum" + odd: 1, bytes + "_max" + odd: 1,
		})
	})
}

// TestMeterStatus walks every sentinel: who is at fault decides.
func TestMeterStatus(t *testing.T) {
	unprocessable := []error{iot.ErrNotFound, iot.ErrExists, iot.ErrInvalid, iot.ErrUnauthenticated, iot.ErrForbidden, iot.ErrVersion, iot.ErrTooLarge, iot.ErrQuota}
	undeliverable := []error{iot.ErrNoCredit, iot.ErrUnavailable, iot.ErrTimeout, context.Canceled, context.DeadlineExceeded, fmt.Errorf("anything")}
	if n := len(unprocessable) + len(undeliverable) - 3; n != len(iot.Sentinels) {
		t.Errorf("the test knows %d sentinels, there are %d", n, len(iot.Sentinels))
	}
	check := func(err error, want string) {
		m := adapters.NewMeter("hono-x")
		m.Uploaded(tenant("T", 0), upload(iot.Telemetry, iot.AtLeastOnce, 1), time.Now(), fmt.Errorf("upload: %w", err))
		name := "hono_telemetry_payload_bytes_count{qos=1,status=" + want + ",tenant=T,ttd=none,type=telemetry}"
		if figures(t, m)[name] != 1 {
			t.Errorf("%v is not %s", err, want)
		}
	}
	for _, err := range unprocessable {
		check(err, "unprocessable")
	}
	for _, err := range undeliverable {
		check(err, "undeliverable")
	}
}

func TestMeterMaximumFades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := adapters.NewMeter("hono-x")
		const name = "hono_telemetry_payload_bytes_max{qos=0,status=forwarded,tenant=T,ttd=none,type=telemetry}"
		send := func(size int) {
			m.Uploaded(tenant("T", 0), upload(iot.Telemetry, iot.AtMostOnce, size), time.Now(), nil)
		}
		send(100)
		time.Sleep(time.Minute)
		send(10)
		time.Sleep(59 * time.Second)
		if got := figures(t, m)[name]; got != 100 {
			t.Errorf("after two minutes: got %v, want 100", got)
		}
		time.Sleep(time.Minute + time.Second)
		if got := figures(t, m)[name]; got != 10 {
			t.Errorf("after three minutes: got %v, want 10", got)
		}
		time.Sleep(30 * time.Minute)
		if got := figures(t, m)[name]; got != 0 {
			t.Errorf("after half an hour: got %v, want 0", got)
		}
	})
}

func TestMeterConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := adapters.NewMeter("hono-x")
		exactly(t, figures(t, m), map[string]float64{}) // an adapter without connections shows none
		m.Connected("T")
		time.Sleep(25 * time.Second) // two periods and a half
		m.Connected("T")
		m.Connected("")
		time.Sleep(3 * time.Second)
		const d = "hono_connections_authenticated_duration_seconds"
		want := map[string]float64{
			"hono_connections_authenticated{tenant=T}": 2, "hono_connections_unauthenticated{}": 1,
			d + "_count{tenant=T}": 3, d + "_sum{tenant=T}": 25, d + "_max{tenant=T}": 10,
		}
		exactly(t, figures(t, m), want)
		exactly(t, figures(t, m), want) // asking changes nothing
		time.Sleep(7 * time.Second)
		want[d+"_count{tenant=T}"], want[d+"_sum{tenant=T}"], want[d+"_max{tenant=T}"] = 4, 45, 20
		exactly(t, figures(t, m), want)
		time.Sleep(time.Second)
		m.Disconnected("T")
		m.Disconnected("T")
		m.Disconnected("")
		time.Sleep(time.Minute)
		want["hono_connections_authenticated{tenant=T}"], want["hono_connections_unauthenticated{}"] = 0, 0
		want[d+"_count{tenant=T}"], want[d+"_sum{tenant=T}"] = 5, 47
		exactly(t, figures(t, m), want)
	})
}

func TestMeterAttempts(t *testing.T) {
	m := adapters.NewMeter("hono-x")
	const suite = "TLS_AES_128_GCM_SHA256"
	m.Attempted("made-up", suite, iot.ErrUnauthenticated) // nobody was admitted to it
	m.Attempted("T", suite, nil)
	m.Attempted("T", suite, nil)
	m.Attempted("T", "", fmt.Errorf("login: %w", iot.ErrUnauthenticated))
	m.Attempted("", "", nil)
	m.Attempted("\xff", "\xff", nil)
	for err, outcome := range map[error]string{
		iot.ErrForbidden: "adapter-disabled", iot.ErrNotFound: "registration-assertion-failure", iot.ErrUnavailable: "unavailable",
		iot.ErrTimeout: "unavailable", iot.ErrQuota: "unauthorized", context.Canceled: "unknown",
	} {
		before := figures(t, m)["hono_connections_attempts_total{cipher_suite=X,outcome="+outcome+",tenant=T}"]
		m.Attempted("T", "X", err)
		if after := figures(t, m)["hono_connections_attempts_total{cipher_suite=X,outcome="+outcome+",tenant=T}"]; after != before+1 {
			t.Errorf("%v is not counted as %s", err, outcome)
		}
	}
	const name = "hono_connections_attempts_total"
	holds(t, figures(t, m), map[string]float64{
		name + "{cipher_suite=" + suite + ",outcome=unauthorized,tenant=UNKNOWN}": 1,
		name + "{cipher_suite=" + suite + ",outcome=succeeded,tenant=T}":          2,
		name + "{cipher_suite=UNKNOWN,outcome=unauthorized,tenant=T}":             1,
		name + "{cipher_suite=UNKNOWN,outcome=succeeded,tenant=UNKNOWN}":          1,
		name + "{cipher_suite=\uFFFD,outcome=succeeded,tenant=UNKNOWN}":           1,
	})
}

func TestMeterDropsIdleTenants(t *testing.T) {
	tenants := func(m *adapters.Meter) (n int) {
		for name := range figures(t, m) {
			if strings.HasPrefix(name, "hono_telemetry_payload_bytes_count") {
				n++
			}
		}
		return n
	}
	send := func(m *adapters.Meter, n int) {
		for i := range n {
			m.Uploaded(tenant(iot.TenantID(fmt.Sprint("t", i)), 0), upload(iot.Telemetry, iot.AtMostOnce, 1), time.Now(), nil)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		m, forever := adapters.NewMeter("hono-x"), adapters.NewMeter("hono-y")
		forever.SetIdle(0)
		send(m, 100)
		send(forever, 100)
		m.Connected("t7")
		time.Sleep(adapters.DefaultMeterIdle - time.Second)
		send(m, 1)
		if n := tenants(m); n != 100 {
			t.Errorf("within the hour: got %d tenants, want 100", n)
		}
		time.Sleep(time.Second)
		if n := tenants(m); n != 2 {
			t.Errorf("after an hour: got %d tenants, want the active one and the connected one", n)
		}
		m.Disconnected("t7")
		time.Sleep(adapters.DefaultMeterIdle)
		if n := tenants(m); n != 0 {
			t.Errorf("after another hour: got %d tenants, want none", n)
		}
		if n := tenants(forever); n != 100 {
			t.Errorf("without a limit: got %d tenants, want 100", n)
		}
	})
}

// TestMeterForgetsUnasked bounds what is kept where nobody ever asks.
func TestMeterForgetsUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := adapters.NewMeter("hono-x")
		m.SetIdle(time.Hour)
		for i := range 10_000 {
			m.Uploaded(tenant(iot.TenantID(fmt.Sprint("t", i)), 0), upload(iot.Telemetry, iot.AtMostOnce, 1), time.Now(), nil)
			time.Sleep(time.Minute)
		}
		if n := m.Tenants(); n > 200 {
			t.Errorf("got figures of %d tenants, want about those of an hour", n)
		}
	})
}

// TestMetersTogether registers those of two adapters in one registry.
func TestMetersTogether(t *testing.T) {
	x, y := adapters.NewMeter("hono-x"), adapters.NewMeter("hono-y")
	for _, m := range []*adapters.Meter{x, y} {
		m.Uploaded(tenant("T", 0), upload(iot.Telemetry, iot.AtMostOnce, 1), time.Now(), nil)
		m.Connected("T")
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(x, y)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		names := map[string]bool{}
		for _, m := range f.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["component_type"] != "adapter" || labels["host"] == "" {
				t.Errorf("%s: got labels %v, want component_type and host", f.GetName(), labels)
			}
			names[labels["component_name"]] = true
		}
		if !names["hono-x"] || !names["hono-y"] {
			t.Errorf("%s: got those of %v, want both adapters'", f.GetName(), names)
		}
	}
}

func TestNilMeter(t *testing.T) {
	var m *adapters.Meter
	m.SetIdle(time.Hour)
	m.Uploaded(tenant("T", 0), upload(iot.Telemetry, iot.AtMostOnce, 1), time.Now(), nil)
	m.Attempted("T", "", nil)
	m.Connected("T")
	m.Disconnected("T")
}

// TestMeterConcurrently counts from many goroutines while tenants are dropped
// and figures asked for.
func TestMeterConcurrently(t *testing.T) {
	m := adapters.NewMeter("hono-x")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				id := iot.TenantID(fmt.Sprint("t", i%20))
				m.Connected(id)
				m.Attempted(id, "X", nil)
				m.Uploaded(tenant(id, 10), upload(iot.Event, iot.AtLeastOnce, 3), time.Now(), nil)
				m.Disconnected(id)
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			figures(t, m)
		}
	})
	wg.Wait()
	var count, sum float64
	for name, v := range figures(t, m) {
		switch {
		case strings.HasPrefix(name, "hono_telemetry_payload_bytes_count"):
			count += v
		case strings.HasPrefix(name, "hono_telemetry_payload_bytes_sum"):
			sum += v
		case strings.HasPrefix(name, "hono_connections_authenticated{") && v != 0:
			t.Errorf("%s: got %v, want 0", name, v)
		}
	}
	if count != 4000 || sum != 40000 {
		t.Errorf("got %v uploads of %v bytes, want 4000 of 40000", count, sum)
	}
}

func BenchmarkMeter(b *testing.B) {
	T, up := tenant("DEFAULT_TENANT", 0), upload(iot.Telemetry, iot.AtLeastOnce, 100)
	for _, c := range []struct {
		name string
		err  error
	}{{"forwarded", nil}, {"no credit", iot.ErrNoCredit}, {"invalid", iot.ErrInvalid}} {
		b.Run(c.name, func(b *testing.B) {
			m := adapters.NewMeter("hono-x")
			start := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				m.Uploaded(T, up, start, c.err)
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		m := adapters.NewMeter("hono-x")
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			start := time.Now()
			for pb.Next() {
				m.Uploaded(T, up, start, nil)
			}
		})
	})
}
