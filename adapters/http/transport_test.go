package http_test

import (
	"context"
	"crypto/tls"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
)

func TestKeptConnectionTakesFurtherUploads(t *testing.T) {
	w := newWorld(t, http.Options{BodyTimeout: time.Minute}, adapters.Options{})
	base, client := serve(t, w.Adapter)
	for i := range 3 {
		r, _ := nethttp.NewRequestWithContext(t.Context(), "POST", base+"/telemetry", strings.NewReader("x"))
		r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 202 || resp.Close {
			t.Errorf("upload %d: got %d, close %v; want 202 on a kept connection", i, resp.StatusCode, resp.Close)
		}
	}
}

func TestHTTP2OverTLS(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	fixture := httptest.NewUnstartedServer(nil) // for its certificate
	fixture.StartTLS()
	defer fixture.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx, ln, &tls.Config{Certificates: fixture.TLS.Certificates}) }()
	transport := fixture.Client().Transport.(*nethttp.Transport).Clone()
	transport.ForceAttemptHTTP2 = true
	for _, version := range []int{2, 1} {
		if version == 1 {
			transport = fixture.Client().Transport.(*nethttp.Transport).Clone()
			transport.Protocols = new(nethttp.Protocols)
			transport.Protocols.SetHTTP1(true)
		}
		r, _ := nethttp.NewRequestWithContext(t.Context(), "PUT", "https://"+ln.Addr().String()+"/telemetry//device:2", strings.NewReader("x"))
		r.SetBasicAuth("gateway-1@tenant-1", adaptertest.Password)
		resp, err := (&nethttp.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.ProtoMajor != version || resp.StatusCode != 202 {
			t.Errorf("got HTTP/%d status %d, want HTTP/%d 202", resp.ProtoMajor, resp.StatusCode, version)
		}
		transport.CloseIdleConnections()
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
	if err := w.Shutdown(t.Context()); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}
