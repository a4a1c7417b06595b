package adapters_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestPipelineIsMetered holds both ways of sending to the same figures.
func TestPipelineIsMetered(t *testing.T) {
	ways := map[string]func(w world, who adapters.Admission, up *adapters.Upload) error{
		"publish": func(w world, who adapters.Admission, up *adapters.Upload) error {
			return w.p.Publish(t.Context(), who, up)
		},
		"submit": func(w world, who adapters.Admission, up *adapters.Upload) error {
			done := make(chan error, 1)
			w.p.Submit(who, up, func(err error) { done <- err })
			return <-done
		},
	}
	for way, send := range ways {
		t.Run(way, func(t *testing.T) {
			meter := adapters.NewMeter("hono-http")
			w := newWorld(t, adapters.Options{Meter: meter})
			who, err := w.p.Admit(t.Context(), good())
			if err != nil {
				t.Fatal(err)
			}
			refused := 0
			w.down.Outcome(func(m *iot.Message) error {
				switch string(m.Payload) {
				case "no credit":
					return iot.ErrNoCredit
				case "late":
					return iot.ErrTimeout
				case "rejected":
					return iot.ErrInvalid
				case "released":
					return iot.ErrUnavailable
				case "void":
					if refused++; refused%2 == 1 {
						return iot.ErrForbidden
					}
				}
				return nil
			})
			for _, one := range []struct {
				payload string
				q       iot.QoS
				want    error
			}{
				{"well", 1, nil}, {"unsettled", 0, nil}, {"void", 1, nil},
				{"no credit", 1, iot.ErrNoCredit}, {"late", 1, iot.ErrTimeout}, {"rejected", 1, iot.ErrInvalid}, {"released", 1, iot.ErrUnavailable},
				{strings.Repeat("x", adapters.DefaultMaxPayload+1), 1, iot.ErrTooLarge},
			} {
				up := telemetry(one.payload)
				up.QoS = one.q
				if err := send(w, who, &up); !errors.Is(err, one.want) {
					t.Errorf("%.10s: got %v, want %v", one.payload, err, one.want)
				}
			}
			got := figures(t, meter)
			count := func(q int, status string) string {
				return fmt.Sprintf("hono_telemetry_processing_duration_seconds_count{qos=%d,status=%s,tenant=%s,ttd=none,type=telemetry}", q, status, adaptertest.Tenant)
			}
			bytes := strings.Replace(count(1, "forwarded"), "processing_duration_seconds_count", "payload_bytes_sum", 1)
			delivered := func(outcome string) string {
				return fmt.Sprintf("hono_amqp_delivery_duration_seconds_count{outcome=%s,tenant=%s,type=telemetry}", outcome, adaptertest.Tenant)
			}
			labels := fmt.Sprintf("{tenant=%s,type=telemetry}", adaptertest.Tenant)
			holds(t, got, map[string]float64{
				count(1, "forwarded"): 2, count(0, "forwarded"): 1, count(1, "unprocessable"): 2, count(1, "undeliverable"): 3,
				bytes:                 float64(len("well") + len("void")),
				delivered("accepted"): 2, delivered("rejected"): 2, delivered("aborted"): 1,
				"hono_amqp_nocredit_total" + labels: 1, "hono_amqp_timeout_total" + labels: 1,
			})
			for name := range got {
				if strings.HasPrefix(name, "hono_connections") {
					t.Errorf("%s: an adapter without sessions shows no connections", name)
				}
			}
		})
	}
}

func login(tenant iot.TenantID, device iot.DeviceID, password string) adapters.Login {
	return adapters.Login{
		Tenant:      events.TenantRef{ID: tenant},
		Credential:  &events.Credential{Type: iot.HashedPassword, AuthID: string(device), Password: password},
		CipherSuite: "S",
	}
}

func TestSessionsAreMetered(t *testing.T) {
	meter := adapters.NewMeter("hono-mqtt")
	w := newWorld(t, adapters.Options{})
	w.inv.Defaults(nil, nil, `{"max-connections": 1}`)
	sessions := adapters.NewSessions(w.p, adapters.SessionOptions{Max: 2, Meter: meter})
	t.Cleanup(sessions.Close)
	exactly(t, figures(t, meter), map[string]float64{"hono_connections_unauthenticated{}": 0})

	closed := make(chan error, 1)
	open := func(l adapters.Login, want error) *adapters.Session {
		t.Helper()
		s, err := sessions.Open(context.WithoutCancel(t.Context()), l, netip.Addr{}, func(why error) { closed <- why })
		if !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
		return s
	}
	open(login("made-up", adaptertest.Device, adaptertest.Password), iot.ErrUnauthenticated)
	device := open(login(adaptertest.Alias, adaptertest.Device, adaptertest.Password), nil)
	if device == nil {
		t.Fatal("no session")
	}
	open(login(adaptertest.Tenant, adaptertest.Device, "wrong"), iot.ErrUnauthenticated)
	open(login(adaptertest.Tenant, adaptertest.Device2, adaptertest.Password), adapters.ErrTenantConnections)
	anonymous := open(adapters.Login{}, nil)
	open(adapters.Login{}, adapters.ErrInstanceConnections)
	sessions.Refused("S", iot.ErrUnauthenticated)

	const attempts = "hono_connections_attempts_total"
	of := func(outcome string, tenant iot.TenantID, cipher string) string {
		return fmt.Sprintf("%s{cipher_suite=%s,outcome=%s,tenant=%s}", attempts, cipher, outcome, tenant)
	}
	authenticated := fmt.Sprintf("hono_connections_authenticated{tenant=%s}", adaptertest.Tenant)
	holds(t, figures(t, meter), map[string]float64{
		of("unauthorized", "UNKNOWN", "S"): 2, of("succeeded", adaptertest.Tenant, "S"): 1, of("unauthorized", adaptertest.Tenant, "S"): 1,
		of("tenant-connections-exceeded", adaptertest.Tenant, "S"): 1,
		of("succeeded", "UNKNOWN", "UNKNOWN"):                      1, of("adapter-connections-exceeded", "UNKNOWN", "UNKNOWN"): 1,
		authenticated: 1, "hono_connections_unauthenticated{}": 1,
	})
	anonymous.Close()
	anonymous.Close() // counts once
	sessions.Notice(adapters.Notice{Type: adapters.NoticeDevice, Tenant: adaptertest.Tenant, Device: adaptertest.Device})
	<-closed
	device.Close() // it is out already
	holds(t, figures(t, meter), map[string]float64{authenticated: 0, "hono_connections_unauthenticated{}": 0})
}

// BenchmarkMetered is what one upload costs without a meter and with one.
func BenchmarkMetered(b *testing.B) {
	for name, meter := range map[string]*adapters.Meter{"without": nil, "with": adapters.NewMeter("hono-http")} {
		b.Run(name, func(b *testing.B) {
			adm, _ := newAdmissions(b, adapters.AdmissionOptions{MaxAge: time.Hour})
			p := adapters.NewPipeline(adapters.Options{Type: "hono-http", Admissions: adm, Downstream: adaptertest.Discard{}, Meter: meter})
			who, err := p.Admit(b.Context(), good())
			if err != nil {
				b.Fatal(err)
			}
			up := telemetry("22.5")
			up.QoS = iot.AtLeastOnce
			b.ReportAllocs()
			for b.Loop() {
				p.Submit(who, &up, func(error) {})
			}
		})
	}
}
