package http_test

import (
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
)

func benchAdapter(b *testing.B) *http.Adapter {
	adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: &adaptertest.Invoker{}, MaxAge: time.Hour})
	b.Cleanup(adm.Close)
	return http.New(http.Options{Pipeline: adapters.NewPipeline(adapters.Options{
		Type: http.Type, Admissions: adm, Downstream: adaptertest.Discard{},
	})})
}

// sink is a response writer that costs nothing.
type sink struct {
	header nethttp.Header
	code   int
}

func (s *sink) Header() nethttp.Header          { return s.header }
func (s *sink) Write(b []byte) (int, error)     { return len(b), nil }
func (s *sink) WriteHeader(code int)            { s.code = code }
func (s *sink) SetReadDeadline(time.Time) error { return nil }

// BenchmarkPost256 measures the adapter alone, without the server around it.
func BenchmarkPost256(b *testing.B) {
	a := benchAdapter(b)
	body := strings.NewReader(strings.Repeat("x", 256))
	r := httptest.NewRequest("POST", "/telemetry", body)
	r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
	r.Header.Set("Content-Type", "text/plain")
	w := &sink{header: nethttp.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		body.Seek(0, 0)
		clear(w.header)
		if a.ServeHTTP(w, r); w.code != 202 {
			b.Fatal(w.code)
		}
	}
}

// BenchmarkPost256Loopback measures server and client over one kept connection.
func BenchmarkPost256Loopback(b *testing.B) {
	base, client := serve(b, benchAdapter(b))
	payload := strings.Repeat("x", 256)
	b.ReportAllocs()
	for b.Loop() {
		r, _ := nethttp.NewRequestWithContext(b.Context(), "POST", base+"/telemetry", strings.NewReader(payload))
		r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
		r.Header.Set("Content-Type", "text/plain")
		resp, err := client.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != 202 {
			b.Fatal(resp.StatusCode)
		}
	}
}
