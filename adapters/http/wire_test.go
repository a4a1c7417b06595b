package http_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
)

// raw is a connection on which a test writes what it likes.
type raw struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, base string) *raw {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &raw{c, bufio.NewReader(c)}
}

// response reads one to a request of the given method.
func (c *raw) response(t *testing.T, method string) (*nethttp.Response, string) {
	t.Helper()
	resp, err := nethttp.ReadResponse(c.in, &nethttp.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp, string(body)
}

func TestRequestsOnTheWire(t *testing.T) {
	good := "Host: x\r\n" + as(adaptertest.Device) + "\r\nContent-Type: text/plain\r\n"
	for _, tt := range []struct {
		name, request string
		want          int
		kept          bool // the connection
		text          string
		sent          string // payload of the message; "" = none
	}{
		{"length", "POST /telemetry HTTP/1.1\r\n" + good + "Content-Length: 2\r\n\r\nab", 202, true, "", "ab"},
		{"absolute URI", "POST http://x/telemetry HTTP/1.1\r\n" + good + "Content-Length: 2\r\n\r\nab", 202, true, "", "ab"},
		{"HTTP/1.0", "POST /telemetry HTTP/1.0\r\n" + good + "Content-Length: 2\r\n\r\nab", 202, false, "", "ab"},
		{"chunks", "POST /telemetry HTTP/1.1\r\n" + good + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n", 202, true, "", "ab"},
		{"chunks, too many", "POST /telemetry HTTP/1.1\r\n" + good + "Transfer-Encoding: chunked\r\n\r\n801\r\n" + strings.Repeat("a", 2049) + "\r\n0\r\n\r\n", 413, false, "larger than 2048 bytes", ""},
		{"too long", "POST /telemetry HTTP/1.1\r\n" + good + "Content-Length: 2049\r\n\r\n" + strings.Repeat("a", 2049), 413, true, "larger than 2048 bytes", ""},
		{"longer than is read", "POST /telemetry HTTP/1.1\r\n" + good + "Content-Length: 300000\r\n\r\n", 413, false, "larger than 2048 bytes", ""},
		{"malformed chunk", "POST /telemetry HTTP/1.1\r\n" + good + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, false, "body cannot be read", ""},
		{"two lengths", "POST /telemetry HTTP/1.1\r\n" + good + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc", 400, false, "", ""},
		{"length and chunks", "POST /telemetry HTTP/1.1\r\n" + good + "Content-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 202, true, "", "a"},
		{"unknown coding", "POST /telemetry HTTP/1.1\r\n" + good + "Transfer-Encoding: gzip\r\n\r\n", 501, false, "", ""},
		{"undecodable path", "POST /telemetry%zz HTTP/1.1\r\n" + good + "Content-Length: 0\r\n\r\n", 400, false, "", ""},
		{"no host", "POST /telemetry HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400, false, "", ""},
		{"header too large", "POST /telemetry HTTP/1.1\r\n" + good + "X: " + strings.Repeat("a", 30<<10) + "\r\n\r\n", 431, false, "", ""},
		{"HEAD", "HEAD /telemetry HTTP/1.1\r\n" + good + "\r\n", 405, true, "", ""},
		{"HEAD nowhere", "HEAD /nowhere HTTP/1.1\r\n" + good + "\r\n", 404, true, "", ""},
		{"DELETE", "DELETE /telemetry HTTP/1.1\r\n" + good + "\r\n", 405, true, "want POST", ""},
		{"unknown method", "BREW /telemetry//device-1 HTTP/1.1\r\n" + good + "\r\n", 405, true, "want PUT", ""},
		{"CONNECT", "CONNECT x:1 HTTP/1.1\r\n" + good + "\r\n", 400, true, "malformed path", ""},
		{"no WebSocket", "GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 404, true, "no such endpoint", ""},
		{"continue", "POST /telemetry HTTP/1.1\r\n" + good + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", 100, true, "", ""},
		{"continue, refused", "POST /telemetry HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", 401, false, "credentials are missing", ""},
		{"continue, too long", "POST /telemetry HTTP/1.1\r\n" + good + "Expect: 100-continue\r\nContent-Length: 2049\r\n\r\n", 413, false, "larger than 2048 bytes", ""},
		{"other expectation", "POST /telemetry HTTP/1.1\r\n" + good + "Expect: wonders\r\nContent-Length: 2\r\n\r\nab", 417, false, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, http.Options{}, adapters.Options{})
			base, _ := serve(t, w.Adapter)
			c := dial(t, base)
			go io.WriteString(c, tt.request)
			method, _, _ := strings.Cut(tt.request, " ")
			resp, body := c.response(t, method)
			if resp.StatusCode != tt.want || !strings.Contains(body, tt.text) || resp.Close == tt.kept {
				t.Errorf("got %d %q, close %v; want %d with %q, close %v", resp.StatusCode, body, resp.Close, tt.want, tt.text, !tt.kept)
			}
			if resp.StatusCode == 100 {
				io.WriteString(c, "ab")
				if resp, body = c.response(t, method); resp.StatusCode != 202 {
					t.Errorf("then got %d %q, want 202", resp.StatusCode, body)
				}
				tt.sent = "ab"
			}
			if resp.StatusCode >= 400 && tt.text != "" && resp.Header.Get("Content-Type") != "application/json; charset=utf-8" {
				t.Errorf("got content type %q", resp.Header.Get("Content-Type"))
			}
			if sent := w.down.Sent(); tt.sent == "" && len(sent) != 0 || tt.sent != "" && (len(sent) != 1 || string(sent[0].Payload) != tt.sent) {
				t.Errorf("got %d messages, want one with %q", len(sent), tt.sent)
			}
			if tt.kept && tt.want != 100 {
				fmt.Fprintf(c, "POST /telemetry HTTP/1.1\r\n%sContent-Length: 1\r\n\r\nx", good)
				if resp, body := c.response(t, "POST"); resp.StatusCode != 202 {
					t.Errorf("next request: got %d %q", resp.StatusCode, body)
				}
			}
		})
	}
}

func TestPipelinedRequests(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	base, _ := serve(t, w.Adapter)
	c := dial(t, base)
	const n = 50
	one := "POST /telemetry HTTP/1.1\r\nHost: x\r\n" + as(adaptertest.Device) + "\r\nContent-Length: 1\r\n\r\nx"
	go io.WriteString(c, strings.Repeat(one, n))
	for range n {
		if resp, body := c.response(t, "POST"); resp.StatusCode != 202 {
			t.Fatalf("got %d %q", resp.StatusCode, body)
		}
	}
	if got := len(w.down.Sent()); got != n {
		t.Errorf("got %d messages, want %d", got, n)
	}
}

// What was done to a payload, and the trace it belongs to, is told to applications.
func TestEncodingAndTraceGoAlong(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, tt := range []struct {
		name, header    string
		encoding, state string
		trace           bool
		want            int
	}{
		{"none", "X: y", "", "", false, 202},
		{"gzip", "Content-Encoding: gzip", "gzip", "", false, 202},
		{"identity", "Content-Encoding: identity", "", "", false, 202},
		{"no symbol", "Content-Encoding: gz\u00e9p", "", "", false, 400},
		{"trace", "Traceparent: " + parent, "", "", true, 202},
		{"trace and state", "Traceparent: " + parent + "\nTracestate: a=b\nTracestate: c=d", "", "a=b,c=d", true, 202},
		{"state alone", "Tracestate: a=b", "", "", false, 202},
		{"malformed trace", "Traceparent: 00-1-2-3", "", "", false, 202},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, http.Options{}, adapters.Options{})
			rec := w.do("POST", "/telemetry", "x", append(strings.Split(tt.header, "\n"), as(adaptertest.Device))...)
			if rec.Code != tt.want {
				t.Fatalf("got %d %s, want %d", rec.Code, rec.Body, tt.want)
			}
			if tt.want != 202 {
				return
			}
			m := w.down.Sent()[0]
			if m.ContentEncoding != tt.encoding || m.TraceState != tt.state || (m.TraceParent == parent) != tt.trace || m.TraceParent == "" {
				t.Errorf("got encoding %q, trace %q, state %q; want %q, %v, %q", m.ContentEncoding, m.TraceParent, m.TraceState, tt.encoding, tt.trace, tt.state)
			}
		})
	}
}
