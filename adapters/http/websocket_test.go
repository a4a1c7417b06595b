package http_test

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/http"
)

// takeOver hijacks connections and gives them to the test.
type takeOver struct {
	t     *testing.T
	conns chan net.Conn
	tls   chan *tls.ConnectionState
}

func newTakeOver(t *testing.T) *takeOver {
	return &takeOver{t, make(chan net.Conn, 1), make(chan *tls.ConnectionState, 1)}
}

func (h *takeOver) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	c, _, err := nethttp.NewResponseController(w).Hijack()
	if err != nil {
		h.t.Error(err)
		return
	}
	h.conns <- c
	h.tls <- r.TLS
}

const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"

func TestWebSocketRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, request string
		want          int
		text          string
	}{
		{"no upgrade", "GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", 426, "want an upgrade"},
		{"method", "POST /mqtt HTTP/1.1\r\nHost: x\r\n" + upgrade + "Content-Length: 0\r\n\r\n", 405, "want GET"},
		{"foreign origin", "GET /mqtt HTTP/1.1\r\nHost: x\r\nOrigin: http://other.example\r\n" + upgrade + "\r\n", 403, "origin is not allowed"},
		{"other path", "GET /mqtt/x HTTP/1.1\r\nHost: x\r\n" + upgrade + "\r\n", 404, "no such endpoint"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, http.Options{AllowedOrigin: "http://shop.example", WebSocket: newTakeOver(t)}, adapters.Options{})
			base, _ := serve(t, w.Adapter)
			c := dial(t, base)
			io.WriteString(c, tt.request)
			resp, body := c.response(t, "GET")
			if resp.StatusCode != tt.want || !strings.Contains(body, tt.text) {
				t.Errorf("got %d %q, want %d with %q", resp.StatusCode, body, tt.want, tt.text)
			}
			if tt.want == 426 && resp.Header.Get("Upgrade") != "websocket" {
				t.Errorf("got Upgrade %q", resp.Header.Get("Upgrade"))
			}
		})
	}
}

// A connection that was taken over counts until it is closed, and a stop does not
// wait for it.
func TestWebSocketConnectionCounts(t *testing.T) {
	limit := adapters.NewConnLimit(1)
	h := newTakeOver(t)
	w := newWorld(t, http.Options{AllowedOrigin: "http://shop.example", WebSocket: h, Conns: limit}, adapters.Options{})
	base, _ := serve(t, w.Adapter)
	c := dial(t, base)
	io.WriteString(c, "GET /mqtt HTTP/1.1\r\nHost: x\r\nOrigin: http://shop.example\r\n"+upgrade+"\r\n")
	far := <-h.conns
	local := netip.MustParseAddr("127.0.0.1")
	if limit.Acquire(local) {
		t.Error("the connection is not counted")
	}
	if err := w.Shutdown(t.Context()); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := fmt.Fprint(far, "x"); err != nil {
		t.Errorf("the stop broke it: %v", err)
	}
	if b, err := c.in.ReadByte(); b != 'x' || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	far.Close()
	if !limit.Acquire(local) {
		t.Error("the closed connection is still counted")
	}
}

func TestWebSocketOverTLSHasTheCertificate(t *testing.T) {
	h := newTakeOver(t)
	w := newWorld(t, http.Options{WebSocket: h}, adapters.Options{})
	base, conf := serveTLS(t, w.Adapter, true)
	conf.Certificates = []tls.Certificate{certificate(t, pkix.Name{CommonName: "device-1"})}
	c, err := tls.Dial("tcp", strings.TrimPrefix(base, "https://"), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /mqtt HTTP/1.1\r\nHost: x\r\n"+upgrade+"\r\n")
	defer (<-h.conns).Close()
	if state := <-h.tls; state == nil || len(state.PeerCertificates) != 1 || state.PeerCertificates[0].Subject.CommonName != "device-1" {
		t.Error("the handler got no certificate")
	}
}

// None of the server's deadlines holds for a connection that was taken over.
func TestWebSocketLastsLongerThanRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTakeOver(t)
		w := newWorld(t, http.Options{WebSocket: h}, adapters.Options{})
		p, done := newPipes(), make(chan error, 1)
		go func() { done <- w.Serve(t.Context(), p, nil) }()
		near := p.dial()
		io.WriteString(near, "GET /mqtt HTTP/1.1\r\nHost: x\r\n"+upgrade+"\r\n")
		far := <-h.conns
		go func() {
			time.Sleep(time.Hour)
			io.WriteString(near, "ping")
		}()
		b := make([]byte, 4)
		if _, err := io.ReadFull(far, b); err != nil || string(b) != "ping" {
			t.Errorf("got %q, %v", b, err)
		}
		go io.WriteString(far, "pong")
		if _, err := io.ReadFull(near, b); err != nil || string(b) != "pong" {
			t.Errorf("got %q, %v", b, err)
		}
		near.Close()
		far.Close()
		if err := w.Shutdown(t.Context()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}
