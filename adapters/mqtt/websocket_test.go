package mqtt_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
)

// dialWebSocket connects to the adapter by an HTTP server.
func dialWebSocket(t *testing.T, url string, version byte, o *websocket.DialOptions) *client {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	return newClient(t, websocket.NetConn(context.WithoutCancel(t.Context()), ws, websocket.MessageBinary), version)
}

var mqttProtocol = &websocket.DialOptions{Subprotocols: []string{"mqtt"}}

func TestWebSocket(t *testing.T) {
	for _, version := range []byte{3, 4, 5} {
		w := newWorld(t, func(o *mqtt.Options) { o.MaxInFlight = 5 })
		srv := httptest.NewServer(w.adapter.WebSocket())
		t.Cleanup(srv.Close)
		names := []string{"something", map[byte]string{3: "mqttv3.1", 4: "mqtt", 5: "MQTT"}[version]}
		c := dialWebSocket(t, srv.URL, version, &websocket.DialOptions{Subprotocols: names})
		c.send(connectPacket(version, nil))
		c.want(packets.Connack)
		// Packets and frames do not have to begin together.
		var all []byte
		for id := range uint16(50) {
			pk := message("t", id+1, strings.Repeat("x", 10*int(id)+1))
			pk.ProtocolVersion = version
			all = append(all, encode(t, pk)...)
		}
		for n := 1; len(all) > 0; n += 37 {
			c.write(all[:min(n, len(all))])
			all = all[min(n, len(all)):]
		}
		for id := range uint16(50) {
			if got := c.want(packets.Puback).PacketID; got != id+1 {
				t.Fatalf("got %d, want %d", got, id+1)
			}
		}
		c.send(message("/", 1, "x"))
		c.wantClosed(0x90)
		eventually(t, "the session is over", func() bool { return w.sessions.Len() == 0 })
	}
}

func TestWebSocketRefused(t *testing.T) {
	w := newWorld(t, nil)
	srv := httptest.NewServer(w.adapter.WebSocket())
	t.Cleanup(srv.Close)
	for name, subprotocols := range map[string][]string{"none": nil, "another": {"amqp"}} {
		ws, resp, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{Subprotocols: subprotocols})
		if err == nil {
			ws.CloseNow()
			t.Errorf("subprotocol %s was accepted", name)
		} else if resp == nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("subprotocol %s: got %v", name, err)
		}
	}
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("no WebSocket: got %d", resp.StatusCode)
	}
	ws, _, err := websocket.Dial(t.Context(), srv.URL, mqttProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
		t.Errorf("text frame: got %v, want close status 1003", err)
	}
}

func TestWebSocketKeepAlive(t *testing.T) {
	w := newWorld(t, nil)
	srv := httptest.NewServer(w.adapter.WebSocket())
	t.Cleanup(srv.Close)
	c := dialWebSocket(t, srv.URL, 5, mqttProtocol)
	c.send(connectPacket(5, func(pk *packets.Packet) { pk.Connect.Keepalive = 1 }))
	c.want(packets.Connack)
	c.wantClosed(0x8d)
}

func TestWebSocketShutdown(t *testing.T) {
	w := newWorld(t, nil)
	srv := httptest.NewServer(w.adapter.WebSocket())
	t.Cleanup(srv.Close)
	idle, early := dialWebSocket(t, srv.URL, 5, mqttProtocol), dialWebSocket(t, srv.URL, 5, mqttProtocol)
	idle.send(connectPacket(5, nil))
	idle.want(packets.Connack)
	stopped := make(chan error, 1)
	go func() { stopped <- w.adapter.Shutdown(context.WithoutCancel(t.Context())) }()
	idle.wantClosed(0x8b)
	early.wantClosed(0)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, resp, err := websocket.Dial(t.Context(), srv.URL, mqttProtocol); err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after the stop: got %v, want status 503", err)
	}
}

// TestWebSocketCertificate checks that the certificate of the request counts,
// but not one that a page of another server made the browser show.
func TestWebSocketCertificate(t *testing.T) {
	for origin, want := range map[string]byte{"": 0, "own": 0, "https://shop.example": 0x86} {
		w := newWorld(t, nil)
		srv := httptest.NewUnstartedServer(w.adapter.WebSocket())
		srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		srv.StartTLS()
		t.Cleanup(srv.Close)
		transport := srv.Client().Transport.(*http.Transport)
		transport.TLSClientConfig.Certificates = []tls.Certificate{adaptertest.Certificate()}
		if origin == "own" {
			origin = srv.URL
		}
		o := &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPClient: srv.Client(), HTTPHeader: http.Header{}}
		if origin != "" {
			o.HTTPHeader.Set("Origin", origin)
		}
		c := dialWebSocket(t, srv.URL, 5, o)
		c.send(connectPacket(5, func(pk *packets.Packet) { pk.Connect.UsernameFlag, pk.Connect.PasswordFlag = false, false }))
		if got := c.want(packets.Connack).ReasonCode; got != want {
			t.Errorf("origin %q: got %#x, want %#x", origin, got, want)
		}
	}
}
