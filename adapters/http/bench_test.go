package http_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

func benchAdapter(b *testing.B, inv events.Invoker) *http.Adapter {
	adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: inv, MaxAge: time.Hour})
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

func (s *sink) Header() nethttp.Header      { return s.header }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(code int)        { s.code = code }

// BenchmarkPost256 measures the adapter alone, without the server around it, by
// how the device proves itself.
func BenchmarkPost256(b *testing.B) {
	cert := certificate(b, pkix.Name{CommonName: "device-1", Organization: []string{"Acme"}})
	token := jwt(jwtHeader, `{"aud":"hono-adapter","tid":"tenant-1","sub":"device-1","iat":1,"exp":4000000000}`)
	for _, bb := range []struct {
		name string
		by   func(*nethttp.Request)
	}{
		{"password", func(r *nethttp.Request) { r.SetBasicAuth("device-1@tenant-1", adaptertest.Password) }},
		{"token", func(r *nethttp.Request) { r.Header.Set("Authorization", "Bearer "+token) }},
		{"certificate", func(r *nethttp.Request) {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}}
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			a := benchAdapter(b, &believer{})
			body := strings.NewReader(strings.Repeat("x", 256))
			r := httptest.NewRequest("POST", "/telemetry", body)
			r = r.WithContext(http.WithPeer(r.Context()))
			bb.by(r)
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
		})
	}
}

// BenchmarkUpload256 measures the adapter with the server around it and the
// kernel below, over kept connections of a client that does next to nothing. CPU
// time is that of both.
func BenchmarkUpload256(b *testing.B) {
	request := fmt.Sprintf("POST /telemetry HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: device/1.0\r\n%s\r\nQoS-Level: 1\r\nContent-Type: text/plain\r\nContent-Length: 256\r\n\r\n%s",
		as(adaptertest.Device), strings.Repeat("x", 256))
	for _, conns := range []int{1, 16} {
		b.Run(fmt.Sprintf("connections=%d", conns), func(b *testing.B) {
			base, _ := serve(b, benchAdapter(b, &adaptertest.Invoker{}))
			work, done := make(chan struct{}, conns), make(chan error, conns)
			for range conns {
				go func() { done <- uploads(strings.TrimPrefix(base, "http://"), request, work) }()
			}
			b.ReportAllocs()
			start, n := cpu(), 0
			for b.Loop() {
				work <- struct{}{}
				n++
			}
			close(work)
			for range conns {
				if err := <-done; err != nil {
					b.Error(err)
				}
			}
			b.ReportMetric(float64((cpu()-start).Nanoseconds())/1000/float64(n), "cpu-us/op")
		})
	}
}

// uploads sends request and reads its answer for each piece of work.
func uploads(addr, request string, work <-chan struct{}) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for range work {
		if _, err := io.WriteString(c, request); err != nil {
			return err
		}
		for i := 0; ; i++ {
			line, err := in.ReadSlice('\n')
			switch {
			case err != nil:
				return err
			case i == 0 && !strings.Contains(string(line), " 202 "):
				return fmt.Errorf("got %s", line)
			}
			if len(line) == 2 {
				break
			}
		}
	}
	return nil
}

// commander is a way to applications that answer every message with a command.
type commander struct {
	adaptertest.Discard
	commands *adapters.Commands
	c        *adapters.Command
	failed   atomic.Int64 // commands that were not accepted
}

func (d *commander) Send(context.Context, *iot.Message) error {
	d.commands.Command(d.c, d.done)
	return nil
}

func (d *commander) done(err error) {
	if err != nil {
		d.failed.Add(1)
	}
}

func (d *commander) adapter(b *testing.B) *http.Adapter {
	adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: &adaptertest.Invoker{}, MaxAge: time.Hour})
	b.Cleanup(adm.Close)
	d.commands, d.c = adapters.NewCommands(adapters.CommandsOptions{}), to(adaptertest.Device)
	return http.New(http.Options{Pipeline: adapters.NewPipeline(adapters.Options{
		Type: http.Type, Admissions: adm, Downstream: d, Commands: d.commands,
	})})
}

// BenchmarkCommand measures a request that waits and gets a command at once: of the
// adapter alone, and with the server around it and the kernel below.
func BenchmarkCommand(b *testing.B) {
	b.Run("adapter", func(b *testing.B) {
		var d commander
		a := d.adapter(b)
		body := strings.NewReader(strings.Repeat("x", 256))
		r := httptest.NewRequest("POST", "/telemetry?hono-ttd=10", body)
		r = r.WithContext(http.WithPeer(r.Context()))
		r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
		r.Header.Set("Content-Type", "text/plain")
		w := &writer{header: nethttp.Header{}, written: func() {}}
		b.ReportAllocs()
		for b.Loop() {
			body.Seek(0, 0)
			clear(w.header)
			if a.ServeHTTP(w, r); w.code != 200 {
				b.Fatal(w.code)
			}
		}
		d.check(b)
	})
	b.Run("connection", func(b *testing.B) {
		var d commander
		base, _ := serve(b, d.adapter(b))
		c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		request := fmt.Sprintf("POST /telemetry HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n%s\r\nhono-ttd: 10\r\nContent-Type: text/plain\r\nContent-Length: 256\r\n\r\n%s",
			as(adaptertest.Device), strings.Repeat("x", 256))
		in := bufio.NewReader(c)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := io.WriteString(c, request); err != nil {
				b.Fatal(err)
			}
			resp, err := nethttp.ReadResponse(in, nil)
			if err != nil || resp.StatusCode != 200 {
				b.Fatalf("got %v, %v", resp, err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
		}
		d.check(b)
	})
}

func (d *commander) check(b *testing.B) {
	until(b, "commands without outcome", func() bool { return d.commands.InFlight() == 0 })
	if n := d.failed.Load(); n > 0 {
		b.Errorf("%d commands were not accepted", n)
	}
}

// cpu is what this process used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
