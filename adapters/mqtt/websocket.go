package mqtt

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-iot/sluice/adapters"
)

// subprotocols are the names of MQTT over WebSocket; a client has to offer one.
var subprotocols = []string{"mqtt", "mqttv3.1"}

// WebSocket serves MQTT over WebSocket, in binary frames, to requests that ask
// for it. The client certificate of the request counts, unless a page of
// another origin made a browser show it. Where the request goes to is for the
// server around it to decide.
func (a *Adapter) WebSocket() http.Handler { return http.HandlerFunc(a.serveWebSocket) }

func (a *Adapter) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if !offers(r) {
		http.Error(w, "want WebSocket with subprotocol mqtt", http.StatusBadRequest)
		return
	}
	if a.isStopping() {
		http.Error(w, "adapter stops", http.StatusServiceUnavailable)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: subprotocols,
		// Any page may connect: it has to log in as a device, which no browser
		// does for it.
		InsecureSkipVerify: true,
	})
	if err != nil {
		a.o.Logger.Debug("WebSocket refused", "remote", r.RemoteAddr, "err", err)
		return
	}
	c := &conn{a: a, remote: adapters.RemoteAddr(r.RemoteAddr)}
	c.tls = tlsState(r)
	c.cond.L = &c.mu
	c.nc = newStream(ws, c.silent)
	if !a.open(c) {
		ws.Close(websocket.StatusGoingAway, "adapter stops")
		return
	}
	go c.run(nil) // the server's goroutine with its buffers is not needed any more
}

// tlsState is what counts of the request's TLS; nil = it has none.
func tlsState(r *http.Request) *tls.ConnectionState {
	switch {
	case r.TLS == nil:
		return nil
	case sameOrigin(r):
		return r.TLS
	}
	return &tls.ConnectionState{CipherSuite: r.TLS.CipherSuite}
}

// offers reports whether the client speaks one of the subprotocols.
func offers(r *http.Request) bool {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(line, ",") {
			for _, known := range subprotocols {
				if strings.EqualFold(strings.TrimSpace(name), known) {
					return true
				}
			}
		}
	}
	return false
}

// sameOrigin reports whether the request comes from no page, or from one of this server.
func sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	u, err := url.Parse(origin)
	return origin == "" || err == nil && strings.EqualFold(u.Host, r.Host)
}

// silent ends a connection whose client was silent for too long.
func (c *conn) silent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connected {
		c.end(errIdle.code, errIdle.text)
	} else {
		c.abandon(errNotInTime.Error())
	}
}

// stream is a WebSocket as a stream of bytes. A read deadline that passes does
// not end Read but is reported, since a WebSocket of which a read was given up
// can send nothing any more.
type stream struct {
	ws     *websocket.Conn
	ctx    context.Context // of reads
	cancel context.CancelFunc
	r      io.Reader // of the message that is being read
	timer  *time.Timer
	status atomic.Int32 // to close with

	mu     sync.Mutex
	writes time.Time          // deadline
	giveUp context.CancelFunc // of the write under way
}

// newStream calls expired when a read deadline passes.
func newStream(ws *websocket.Conn, expired func()) *stream {
	ws.SetReadLimit(-1) // what is read of a message at a time is bounded
	s := &stream{ws: ws}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.status.Store(int32(websocket.StatusNormalClosure))
	s.timer = time.AfterFunc(time.Hour, expired)
	s.timer.Stop()
	return s
}

// Read implements [io.Reader]. Text frames end the connection.
func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.r == nil {
			kind, r, err := s.ws.Reader(s.ctx)
			if err != nil {
				return 0, err
			}
			if kind != websocket.MessageBinary {
				s.status.Store(int32(websocket.StatusUnsupportedData))
				return 0, errText
			}
			s.r = r
		}
		n, err := s.r.Read(p)
		if err == io.EOF {
			s.r, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements [io.Writer]: a frame for each call.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	deadline := s.writes
	if deadline.IsZero() {
		deadline = time.Now().Add(writeTimeout)
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	s.giveUp = cancel
	s.mu.Unlock()
	defer cancel()
	if err := s.ws.Write(ctx, websocket.MessageBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetReadDeadline implements [net.Conn], as the type says.
func (s *stream) SetReadDeadline(t time.Time) error {
	if t.IsZero() {
		s.timer.Stop()
	} else {
		s.timer.Reset(max(time.Until(t), 1))
	}
	return nil
}

// SetWriteDeadline implements [net.Conn]. A write that is under way is given up
// by a time that has passed, and not concerned by others.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes = t
	if s.giveUp != nil && !t.After(time.Now()) {
		s.giveUp()
	}
	return nil
}

// SetDeadline implements [net.Conn].
func (s *stream) SetDeadline(t time.Time) error {
	s.SetWriteDeadline(t)
	return s.SetReadDeadline(t)
}

// Close says goodbye and waits a moment for the client to say it, too.
func (s *stream) Close() error {
	s.timer.Stop()
	err := s.ws.Close(websocket.StatusCode(s.status.Load()), "")
	s.cancel()
	return err
}

// Abort closes the connection without a word.
func (s *stream) Abort() {
	s.timer.Stop()
	s.ws.CloseNow()
	s.cancel()
}

// LocalAddr implements [net.Conn]; a WebSocket does not know it.
func (s *stream) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr implements [net.Conn]; a WebSocket does not know it.
func (s *stream) RemoteAddr() net.Addr { return &net.TCPAddr{} }
