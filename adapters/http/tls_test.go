package http_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/listen"
)

// deviceTLS is the TLS of a device listener, and what clients need to connect.
func deviceTLS(t testing.TB, authenticate bool) (server, client *tls.Config) {
	t.Helper()
	dev, err := listen.OpenDevelopment(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	server, err = listen.DeviceTLS(config.Listener{Role: config.RoleHTTPAdapter, TLS: &config.ListenerTLS{}}, dev.Files(), authenticate, nil)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(dev.Authority.Certificate)
	return server, &tls.Config{RootCAs: pool, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(4)}
}

// serveTLS runs a on it until the test ends.
func serveTLS(t testing.TB, a *http.Adapter, authenticate bool) (base string, client *tls.Config) {
	t.Helper()
	conf, client := deviceTLS(t, authenticate)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Serve(context.Background(), ln, conf) }()
	t.Cleanup(func() {
		if err := a.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return "https://" + ln.Addr().String(), client
}

// transport speaks one version of HTTP.
func transport(t testing.TB, conf *tls.Config, version int) *nethttp.Transport {
	p := new(nethttp.Protocols)
	p.SetHTTP1(version == 1)
	p.SetHTTP2(version == 2)
	tr := &nethttp.Transport{TLSClientConfig: conf, Protocols: p}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func TestVersionsOverTLS(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	base, conf := serveTLS(t, w.Adapter, true)
	for _, version := range []int{1, 2} {
		r, _ := nethttp.NewRequestWithContext(t.Context(), "PUT", base+"/telemetry//device:2", strings.NewReader("x"))
		r.SetBasicAuth("gateway-1@tenant-1", adaptertest.Password)
		resp, err := transport(t, conf, version).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.ProtoMajor != version || resp.StatusCode != 202 || resp.Header.Get("Content-Length") != "0" {
			t.Errorf("got HTTP/%d status %d %v, want HTTP/%d 202 with content-length 0", resp.ProtoMajor, resp.StatusCode, resp.Header, version)
		}
	}
}

// Resumed connections, and further requests on one, prove the same device.
func TestCertificateOverTLS(t *testing.T) {
	for _, version := range []int{1, 2} {
		inv := &believer{}
		w := withInvoker(t, inv)
		base, conf := serveTLS(t, w.Adapter, true)
		cert := certificate(t, pkix.Name{CommonName: "device-1"})
		conf.Certificates = []tls.Certificate{cert}
		resumed := 0
		for range 3 {
			tr := transport(t, conf, version)
			for range 2 {
				r, _ := nethttp.NewRequestWithContext(t.Context(), "POST", base+"/telemetry", strings.NewReader("x"))
				resp, err := tr.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 202 {
					t.Errorf("HTTP/%d: got %d, want 202", version, resp.StatusCode)
				}
				if resp.TLS.DidResume {
					resumed++
				}
			}
			tr.CloseIdleConnections()
		}
		if resumed == 0 {
			t.Error("no connection was resumed")
		}
		for _, m := range w.down.Sent() {
			if m.Device != "CN=device-1" {
				t.Errorf("got a message of %q", m.Device)
			}
		}
		if n := len(inv.asked()); n != 1 || len(w.down.Sent()) != 6 {
			t.Errorf("%d messages cost %d admissions, want 6 and 1", len(w.down.Sent()), n)
		}
	}
}

func TestNoCertificateWithoutAuthentication(t *testing.T) {
	w := newWorld(t, http.Options{NoAuthentication: true}, adapters.Options{})
	base, conf := serveTLS(t, w.Adapter, false)
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		t.Error("a certificate was asked for")
		return &tls.Certificate{}, nil
	}
	r, _ := nethttp.NewRequestWithContext(t.Context(), "PUT", base+"/telemetry/tenant-1/device-1", strings.NewReader("x"))
	resp, err := transport(t, conf, 2).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 202 {
		t.Errorf("got %d, want 202", resp.StatusCode)
	}
}

// Uploads of one HTTP/2 connection are under way at the same time, and each gets
// its own answer.
func TestManyStreams(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	w.down.Outcome(func(m *iot.Message) error {
		if m.Payload[0]%2 == 1 {
			return iot.ErrNoCredit
		}
		return nil
	})
	base, conf := serveTLS(t, w.Adapter, true)
	tr := transport(t, conf, 2)
	_, release := w.down.Block()
	defer release()
	var wg sync.WaitGroup
	const streams = 60
	for i := range streams {
		wg.Go(func() {
			body := strings.Repeat(string(rune('A'+i%50)), 1+i*30)
			r, _ := nethttp.NewRequestWithContext(t.Context(), "POST", base+"/telemetry", strings.NewReader(body))
			r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
			resp, err := tr.RoundTrip(r)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			want := 202
			if body[0]%2 == 1 {
				want = 503
			}
			if resp.StatusCode != want {
				t.Errorf("stream %d: got %d, want %d", i, resp.StatusCode, want)
			}
		})
	}
	for len(w.down.Sent()) < streams { // all of them wait downstream
		time.Sleep(time.Millisecond)
	}
	release()
	wg.Wait()
}

// A body that is larger than a stream's window, but not too large, arrives whole.
func TestLargeBodies(t *testing.T) {
	const limit = 1 << 20
	w := newWorld(t, http.Options{}, adapters.Options{MaxPayload: limit})
	base, conf := serveTLS(t, w.Adapter, true)
	for _, version := range []int{1, 2} {
		for _, tt := range []struct {
			size    int
			chunked bool
			want    int
		}{{limit, false, 202}, {limit, true, 202}, {limit + 1, false, 413}, {limit + 1, true, 413}} {
			if version == 1 && tt.want == 413 && !tt.chunked {
				continue // the client may find out by a broken connection
			}
			body := io.Reader(strings.NewReader(strings.Repeat("x", tt.size)))
			if tt.chunked {
				body = io.MultiReader(body)
			}
			r, _ := nethttp.NewRequestWithContext(t.Context(), "POST", base+"/telemetry", body)
			r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
			resp, err := transport(t, conf, version).RoundTrip(r)
			if err != nil {
				t.Fatalf("HTTP/%d, %d bytes, chunked %v: %v", version, tt.size, tt.chunked, err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("HTTP/%d, %d bytes, chunked %v: got %d, want %d", version, tt.size, tt.chunked, resp.StatusCode, tt.want)
			}
		}
	}
	for _, m := range w.down.Sent() {
		if len(m.Payload) != limit {
			t.Errorf("got %d bytes, want %d", len(m.Payload), limit)
		}
	}
}
