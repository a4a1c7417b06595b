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
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestConformance(t *testing.T) {
	adaptertest.Run(t, adaptertest.Harness{
		Type: http.Type, Certificates: true, Tokens: true, TTL: true, Commands: true,
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

var _ adaptertest.Commanded = (*harness)(nil)

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
	r, err := nethttp.NewRequestWithContext(ctx, method, h.base+target, bytes.NewReader(u.Payload))
	if err != nil {
		return err
	}
	r.Header.Set("QoS-Level", strconv.Itoa(int(u.QoS)))
	if u.ContentType != "" {
		r.Header.Set("Content-Type", u.ContentType)
	}
	if u.TTL > 0 {
		r.Header.Set("hono-ttl", strconv.Itoa(int(u.TTL/time.Second)))
	}
	resp, _, err := h.do(r, u.Login)
	if err != nil {
		return err
	}
	return outcome(resp)
}

// do sends r as who l says, and reads the answer.
func (h *harness) do(r *nethttp.Request, l adaptertest.Login) (resp *nethttp.Response, body []byte, err error) {
	client := h.client
	switch {
	case l.Certificate != nil:
		transport := &nethttp.Transport{TLSClientConfig: &tls.Config{
			Certificates: []tls.Certificate{*l.Certificate}, ServerName: l.ServerName, InsecureSkipVerify: true, // the name is the tenant's
		}}
		defer transport.CloseIdleConnections()
		client = &nethttp.Client{Transport: transport}
		if r.URL, err = r.URL.Parse(h.secure + r.URL.RequestURI()); err != nil {
			return nil, nil, err
		}
	case l.Token != "":
		r.Header.Set("Authorization", "Bearer "+l.Token)
	default:
		r.SetBasicAuth(l.AuthID+"@"+string(l.Tenant), l.Password)
	}
	if resp, err = client.Do(r); err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, body, err
}

// Listen uploads and waits for a command.
func (h *harness) Listen(ctx context.Context, l adaptertest.Listen) (adaptertest.Listener, error) {
	method, target := nethttp.MethodPost, "/telemetry?hono-ttd=60"
	if l.TargetDevice != "" {
		method, target = nethttp.MethodPut, "/telemetry//"+url.PathEscape(string(l.TargetDevice))+"?hono-ttd=60"
	}
	ctx, cancel := context.WithCancel(ctx)
	r, err := nethttp.NewRequestWithContext(ctx, method, h.base+target, strings.NewReader("x"))
	if err != nil {
		cancel()
		return nil, err
	}
	w := &waiter{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		resp, body, err := h.do(r, l.Login)
		switch {
		case err != nil:
			w.err = err
		case resp.StatusCode != nethttp.StatusOK:
			w.err = fmt.Errorf("got status %d, want one with a command", resp.StatusCode)
		default:
			w.got = adaptertest.Received{
				Name: resp.Header.Get("hono-command"), RequestID: resp.Header.Get("hono-cmd-req-id"),
				Device: iot.DeviceID(resp.Header.Get("hono-cmd-target-device")), Payload: body,
			}
		}
	}()
	return w, nil
}

// waiter is a request that waits for one command.
type waiter struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when got or err is there
	got    adaptertest.Received
	err    error
}

func (w *waiter) Next(ctx context.Context) (adaptertest.Received, error) {
	select {
	case <-w.done:
		return w.got, w.err
	case <-ctx.Done():
		return adaptertest.Received{}, ctx.Err()
	}
}

func (w *waiter) Close() error {
	w.cancel()
	<-w.done
	return nil
}

// Respond answers a command.
func (h *harness) Respond(ctx context.Context, a adaptertest.Response) error {
	method, target := nethttp.MethodPost, "/command/res/"
	if a.TargetDevice != "" {
		method, target = nethttp.MethodPut, target+"/"+url.PathEscape(string(a.TargetDevice))+"/"
	}
	r, err := nethttp.NewRequestWithContext(ctx, method, h.base+target+url.PathEscape(a.RequestID), bytes.NewReader(a.Payload))
	if err != nil {
		return err
	}
	r.Header.Set("hono-cmd-status", strconv.Itoa(a.Status))
	resp, _, err := h.do(r, a.Login)
	if err != nil {
		return err
	}
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
