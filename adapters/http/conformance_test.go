package http_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestConformance(t *testing.T) {
	adaptertest.Run(t, adaptertest.Harness{
		Type: http.Type, Certificates: true, Tokens: true, TTL: true,
		Start: func(t *testing.T, p *adapters.Pipeline) adaptertest.Client {
			a := http.New(http.Options{Pipeline: p})
			secure, _ := serveTLS(t, a, true)
			base, client := serve(t, a)
			return &harness{a: a, base: base, secure: secure, client: client}
		},
	})
}

// serve runs a on a loopback port until the test ends.
func serve(t testing.TB, a *http.Adapter) (base string, client *nethttp.Client) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Serve(context.Background(), ln, nil) }()
	transport := &nethttp.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := a.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return "http://" + ln.Addr().String(), &nethttp.Client{Transport: transport}
}

type harness struct {
	a      *http.Adapter
	base   string
	secure string // the same over TLS
	client *nethttp.Client
}

func (h *harness) Stop(ctx context.Context) error { return h.a.Shutdown(ctx) }

func (h *harness) Send(ctx context.Context, u adaptertest.Upload) error {
	method, target := nethttp.MethodPost, "/"+string(u.Endpoint)
	if u.TargetDevice != "" {
		method = nethttp.MethodPut
		target += "/" + url.PathEscape(string(u.TargetTenant)) + "/" + url.PathEscape(string(u.TargetDevice))
	}
	base, client := h.base, h.client
	if u.Certificate != nil {
		transport := &nethttp.Transport{TLSClientConfig: &tls.Config{
			Certificates: []tls.Certificate{*u.Certificate}, ServerName: u.ServerName, InsecureSkipVerify: true, // the name is the tenant's
		}}
		defer transport.CloseIdleConnections()
		base, client = h.secure, &nethttp.Client{Transport: transport}
	}
	r, err := nethttp.NewRequestWithContext(ctx, method, base+target, bytes.NewReader(u.Payload))
	if err != nil {
		return err
	}
	switch {
	case u.Certificate != nil:
	case u.Token != "":
		r.Header.Set("Authorization", "Bearer "+u.Token)
	default:
		r.SetBasicAuth(u.AuthID+"@"+string(u.Tenant), u.Password)
	}
	r.Header.Set("QoS-Level", strconv.Itoa(int(u.QoS)))
	if u.ContentType != "" {
		r.Header.Set("Content-Type", u.ContentType)
	}
	if u.TTL > 0 {
		r.Header.Set("hono-ttl", strconv.Itoa(int(u.TTL/time.Second)))
	}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return outcome(resp)
}

// outcome maps a response to the sentinel that it stands for.
func outcome(resp *nethttp.Response) error {
	if resp.StatusCode == nethttp.StatusAccepted {
		return nil
	}
	sentinel := map[int]error{
		400: iot.ErrInvalid, 401: iot.ErrUnauthenticated, 403: iot.ErrForbidden, 404: iot.ErrNotFound,
		413: iot.ErrTooLarge, 429: iot.ErrQuota, 503: iot.ErrUnavailable,
	}[resp.StatusCode]
	body, _ := io.ReadAll(resp.Body)
	var e struct{ Error string }
	if err := json.Unmarshal(body, &e); err != nil || sentinel == nil {
		return fmt.Errorf("status %d with body %q", resp.StatusCode, body)
	}
	return fmt.Errorf("%s: %w", e.Error, sentinel)
}
