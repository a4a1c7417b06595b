package http_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
)

// pipes is a listener without a network, so that time can be the test's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) dial() net.Conn {
	near, far := net.Pipe()
	p.conns <- far
	return near
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble runs f with a connection to an adapter, in a bubble of its own time.
func inBubble(t *testing.T, f func(t *testing.T, c net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, http.Options{}, adapters.Options{})
		p, done := newPipes(), make(chan error, 1)
		go func() { done <- w.Serve(t.Context(), p, nil) }()
		c := p.dial()
		f(t, c)
		c.Close()
		time.Sleep(2 * time.Second) // for what still writes to find out
		if err := w.Shutdown(t.Context()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// trickle writes one byte of text a second until the other side hangs up.
func trickle(c net.Conn, text string) {
	for {
		time.Sleep(time.Second)
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
	}
}

// ended fails the test unless c ends after the time given, with no more than an
// answer to half a request, which a server gives where there is no network.
func ended(t *testing.T, in io.Reader, start time.Time, want time.Duration) {
	t.Helper()
	if rest, _ := io.ReadAll(in); len(rest) > 0 && !strings.HasPrefix(string(rest), "HTTP/1.1 400 ") {
		t.Errorf("got %q, want the connection closed", rest)
	}
	if got := time.Since(start); got < want || got > want+time.Second {
		t.Errorf("closed after %v, want %v", got, want)
	}
}

func TestSlowHeader(t *testing.T) {
	for _, tt := range []struct{ name, first, then string }{
		{"nothing", "", ""},
		{"half a line", "POST /tele", ""},
		{"trickle", "POST /telemetry HTTP/1.1\r\nHost: x\r\nX-Long: ", "a"},
		{"trickle of lines", "POST /telemetry HTTP/1.1\r\nHost: x\r\n", "A: b\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c net.Conn) {
				start := time.Now()
				_, _ = io.WriteString(c, tt.first)
				if tt.then != "" {
					go trickle(c, tt.then)
				}
				ended(t, c, start, http.DefaultHeaderTimeout)
			})
		})
	}
}

func TestSlowBody(t *testing.T) {
	for _, tt := range []struct {
		name, auth, length string
		then               string
		want               int
	}{
		{"of a device", as(adaptertest.Device), "Content-Length: 100", "", 408},
		{"of a device, trickle", as(adaptertest.Device), "Content-Length: 100", "x", 408},
		{"of a device, chunks", as(adaptertest.Device), "Transfer-Encoding: chunked", "1\r\nx\r\n", 408},
		{"of nobody", basic("device-1@tenant-1", "wrong"), "Content-Length: 100", "", 401},
		{"of nobody, chunks", basic("device-1@tenant-1", "wrong"), "Transfer-Encoding: chunked", "1\r\nx\r\n", 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c net.Conn) {
				start := time.Now()
				fmt.Fprintf(c, "POST /telemetry HTTP/1.1\r\nHost: x\r\n%s\r\n%s\r\n\r\n", tt.auth, tt.length)
				if tt.then != "" {
					go trickle(c, tt.then)
				}
				in := bufio.NewReader(c)
				resp, err := nethttp.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != tt.want || !resp.Close {
					t.Errorf("got %d, close %v; want %d and the connection closed", resp.StatusCode, resp.Close, tt.want)
				}
				ended(t, in, start, http.DefaultHeaderTimeout+http.DefaultBodyTimeout)
			})
		})
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, c net.Conn) {
		in := bufio.NewReader(c)
		for range 3 {
			go fmt.Fprintf(c, "POST /telemetry HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: 1\r\n\r\nx", as(adaptertest.Device))
			resp, err := nethttp.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 202 || resp.Close {
				t.Errorf("got %d, close %v; want 202 on a kept connection", resp.StatusCode, resp.Close)
			}
			time.Sleep(http.DefaultIdleTimeout - time.Second)
		}
		ended(t, in, time.Now().Add(-(http.DefaultIdleTimeout - time.Second)), http.DefaultIdleTimeout)
	})
}

// headersFrame opens stream 1 with names and values (RFC 9113, 6.2), written out as
// RFC 7541, 6.2.2 has it.
func headersFrame(fields ...string) string {
	var b strings.Builder
	for i, f := range fields {
		if i%2 == 0 {
			b.WriteByte(0)
		}
		b.WriteByte(byte(len(f))) // below 127
		b.WriteString(f)
	}
	return string([]byte{0, 0, byte(b.Len()), 1, 4, 0, 0, 0, 1}) + b.String() // below 256
}

// An HTTP/2 client ends like any other that does not go on.
func TestSlowHTTP2(t *testing.T) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // empty
	for _, tt := range []struct {
		name, first string
		then        string // once a second
		within      time.Duration
	}{
		{"nothing", "", "", http.DefaultHeaderTimeout},
		{"half a preface", preface[:10], "", http.DefaultHeaderTimeout},
		{"no request", preface + settings, "", http.DefaultIdleTimeout},
		{"half a frame", preface + settings + "\x00\x00\x30\x01\x04\x00\x00\x00\x01\x82", "", http.DefaultIdleTimeout},
		{"trickle of a frame", preface + settings + "\x00\x30\x00\x01\x04\x00\x00\x00\x01", "\x82", http.DefaultIdleTimeout},
		{"headers without an end", preface + settings + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82", "", http.DefaultIdleTimeout},
		{"trickle of a body", preface + settings + headersFrame(":method", "POST", ":scheme", "https", ":path", "/telemetry", ":authority", "x",
			"authorization", strings.TrimPrefix(as(adaptertest.Device), "Authorization: ")), "\x00\x00\x01\x00\x00\x00\x00\x00\x01x", http.DefaultHeaderTimeout + http.DefaultBodyTimeout},
		{"pings", preface + settings, "\x00\x00\x08\x06\x00\x00\x00\x00\x00abcdefgh", http.DefaultIdleTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, http.Options{}, adapters.Options{})
				server, client := deviceTLS(t, true)
				client.NextProtos = []string{"h2"}
				p, done := newPipes(), make(chan error, 1)
				go func() { done <- w.Serve(t.Context(), p, server) }()
				c := tls.Client(p.dial(), client)
				if err := c.Handshake(); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				go func() {
					io.WriteString(c, tt.first)
					if tt.then != "" {
						trickle(c, tt.then)
					}
				}()
				_, _ = io.Copy(io.Discard, c)
				if got := time.Since(start); got < tt.within || got > tt.within+5*time.Second {
					t.Errorf("closed after %v, want %v", got, tt.within)
				}
				c.Close()
				time.Sleep(2 * time.Second)
				if err := w.Shutdown(t.Context()); err != nil {
					t.Errorf("shutdown: %v", err)
				}
				if err := <-done; err != nil {
					t.Errorf("serve: %v", err)
				}
			})
		})
	}
}

// Who does not read its answers is not waited for.
func TestUnreadAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, c net.Conn) {
		start := time.Now()
		for {
			_ = c.SetWriteDeadline(time.Now().Add(10 * time.Minute))
			_, err := fmt.Fprintf(c, "POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", strings.Repeat("x", 100))
			if err != nil {
				break
			}
		}
		if got := time.Since(start); got > 2*time.Minute {
			t.Errorf("the connection ended after %v", got)
		}
	})
}
