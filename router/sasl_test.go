package router_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/auth/oidctest"
	"github.com/sluice-iot/sluice/router"
)

// serveFile starts a router with an identities file of the test's own.
func serveFile(t testing.TB, text string, l router.Listener) *served {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identities.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := auth.Open(path, auth.Options{AllowPlain: true})
	if err != nil {
		t.Fatal(err)
	}
	if l.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	r := router.New(router.Options{Name: "r", Directory: dir})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	wg.Go(func() { r.Serve(ctx, l) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return &served{r, l.Addr().String(), path, dir}
}

func hashed(t testing.TB) string {
	t.Helper()
	h, err := auth.HashSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// wire is a client that speaks SASL frames by hand.
type wire struct {
	t  testing.TB
	c  net.Conn
	in []byte
}

func (s *served) wire(t testing.TB, header string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	w := &wire{t: t, c: c}
	w.write([]byte(header))
	if got := string(w.take(8)); got != amqp.HeaderSASL {
		t.Fatalf("header %q", got)
	}
	return w
}

func (w *wire) write(b []byte) {
	w.t.Helper()
	if _, err := w.c.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) take(n int) []byte {
	w.t.Helper()
	for len(w.in) < n {
		w.read()
	}
	b := w.in[:n]
	w.in = w.in[n:]
	return b
}

func (w *wire) read() {
	w.t.Helper()
	b := make([]byte, 4096)
	k, err := w.c.Read(b)
	if err != nil {
		w.t.Fatalf("after %q: %v", w.in, err)
	}
	w.in = append(w.in, b[:k]...)
}

func (w *wire) send(p amqp.Performative) {
	w.t.Helper()
	w.write(amqp.AppendFrame(nil, amqp.FrameSASL, 0, p))
}

// next is the next SASL frame.
func (w *wire) next() amqp.Performative {
	w.t.Helper()
	for {
		f, k, err := amqp.ParseFrame(w.in, 16*1024)
		if err != nil {
			w.t.Fatal(err)
		}
		if k == 0 {
			w.read()
			continue
		}
		w.in = w.in[k:]
		p, _, err := amqp.DecodePerformative(f.Body)
		if err != nil {
			w.t.Fatal(err)
		}
		return p
	}
}

func (w *wire) mechanisms() string {
	w.t.Helper()
	p, ok := w.next().(*amqp.SASLMechanisms)
	if !ok {
		w.t.Fatalf("%T instead of the mechanisms", p)
	}
	var names []string
	for _, m := range p.Mechanisms {
		names = append(names, string(m))
	}
	return strings.Join(names, " ")
}

func (w *wire) outcome() amqp.SASLCode {
	w.t.Helper()
	p, ok := w.next().(*amqp.SASLOutcome)
	if !ok {
		w.t.Fatalf("%T instead of the outcome", p)
	}
	return p.Code
}

// ended expects that the other side closes the socket.
func (w *wire) ended() {
	w.t.Helper()
	if _, err := io.Copy(io.Discard, w.c); err != nil && !errors.Is(err, io.EOF) {
		w.t.Error(err)
	}
}

func TestMechanismsOffered(t *testing.T) {
	file := "identities:\n  - {name: app, secret: \"" + hashed(t) + "\", authorities: []}\n"
	for name, c := range map[string]struct {
		text       string
		mechanisms []string
		want       string
	}{
		"by default":           {file, nil, "SCRAM-SHA-256 PLAIN"},
		"with an issuer":       {file + `issuers: [{issuer: "https://id.example", audience: a, authorities-claim: c}]`, nil, "SCRAM-SHA-256 PLAIN OAUTHBEARER XOAUTH2"},
		"as configured":        {file, []string{"PLAIN"}, "PLAIN"},
		"ANONYMOUS configured": {file, []string{"ANONYMOUS", "SCRAM-SHA-256"}, "ANONYMOUS SCRAM-SHA-256"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveFile(t, c.text, router.Listener{Mechanisms: c.mechanisms})
			w := s.wire(t, amqp.HeaderSASL)
			if got := w.mechanisms(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// cyrus is a client of Cyrus SASL, the library that gives Proton its mechanisms.
type cyrus struct {
	t   testing.TB
	in  io.Writer
	out *bufio.Scanner
}

func newCyrus(t testing.TB, mechanisms, user, password string) *cyrus {
	t.Helper()
	const check = "import ctypes; l = ctypes.CDLL('libsasl2.so.2'); l.sasl_client_init(None)"
	if err := exec.CommandContext(t.Context(), "python3", "-c", check).Run(); err != nil {
		if os.Getenv("SLUICE_TEST_ALL") != "" {
			t.Fatal("libsasl2 or Python is not installed")
		}
		t.Skip("libsasl2 or Python is not installed")
	}
	cmd := exec.CommandContext(t.Context(), "python3", "testdata/cyrus_client.py", mechanisms, user, password)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return &cyrus{t, in, bufio.NewScanner(out)}
}

// line reads a word and a message.
func (c *cyrus) line() (word string, message []byte) {
	c.t.Helper()
	if !c.out.Scan() {
		c.t.Fatal("the client ended")
	}
	word, text, _ := strings.Cut(c.out.Text(), " ")
	message, err := hex.DecodeString(text)
	if err != nil {
		c.t.Fatal(err)
	}
	return word, message
}

func (c *cyrus) step(challenge []byte) (result string, response []byte) {
	c.t.Helper()
	fmt.Fprintf(c.in, "%x\n", challenge)
	return c.line()
}

// Cyrus SASL prefers SCRAM-SHA-256 and finds the server's proof in a challenge, as
// Proton hands it on.
func TestScramWithCyrus(t *testing.T) {
	s := serveFile(t, "identities:\n  - {name: \"a,b=c@T\", secret: \""+hashed(t)+"\", authorities: []}\n", router.Listener{})
	for password, want := range map[string]amqp.SASLCode{secret: amqp.SASLOK, "wrong": amqp.SASLAuth} {
		w := s.wire(t, amqp.HeaderSASL)
		client := newCyrus(t, w.mechanisms(), "a,b=c@T", password)
		mechanism, response := client.line()
		if mechanism != "SCRAM-SHA-256" {
			t.Errorf("it takes %s", mechanism)
		}
		w.send(&amqp.SASLInit{Mechanism: amqp.Symbol(mechanism), InitialResponse: response})
		result := ""
		for {
			p := w.next()
			if o, ok := p.(*amqp.SASLOutcome); ok {
				if o.Code != want || (result == "0") != (want == amqp.SASLOK) {
					t.Errorf("%s: outcome %d, the client is at %s", password, o.Code, result)
				}
				break
			}
			result, response = client.step(p.(*amqp.SASLChallenge).Challenge)
			w.send(&amqp.SASLResponse{Response: response})
		}
	}
}

func scramWire(w *wire, first string) {
	w.t.Helper()
	w.mechanisms()
	w.send(&amqp.SASLInit{Mechanism: "SCRAM-SHA-256", InitialResponse: []byte(first)})
}

func TestScramFrames(t *testing.T) {
	s := serveFile(t, "identities:\n  - {name: app, secret: \""+hashed(t)+"\", authorities: []}\n", router.Listener{})
	for name, first := range map[string]string{"known": "n,,n=app,r=x", "unknown": "n,,n=nobody,r=x"} {
		t.Run(name, func(t *testing.T) {
			w := s.wire(t, amqp.HeaderSASL)
			scramWire(w, first)
			challenge, ok := w.next().(*amqp.SASLChallenge)
			if !ok || !bytes.HasPrefix(challenge.Challenge, []byte("r=x")) || !bytes.HasSuffix(challenge.Challenge, []byte(",i=4096")) {
				t.Fatalf("got %+v", challenge)
			}
			nonce, _, _ := strings.Cut(string(challenge.Challenge), ",")
			w.send(&amqp.SASLResponse{Response: []byte("c=biws," + nonce + ",p=" + strings.Repeat("A", 43) + "=")})
			if got := w.outcome(); got != amqp.SASLAuth {
				t.Errorf("outcome %d", got)
			}
			w.ended()
		})
	}
	t.Run("channel binding", func(t *testing.T) {
		w := s.wire(t, amqp.HeaderSASL)
		scramWire(w, "p=tls-unique,,n=app,r=x")
		if got := w.outcome(); got != amqp.SASLAuth {
			t.Errorf("outcome %d", got)
		}
	})
}

const bearerFile = "issuers: [{issuer: %q, audience: sluice, authorities-claim: rights}]\n"

func rights(list ...string) []any {
	var out []any
	for _, x := range list {
		what, address, _ := strings.Cut(x, " ")
		out = append(out, map[string]any{"address": address, "may": []string{what}})
	}
	return out
}

func serveIssuer(t testing.TB) (*served, *oidctest.Issuer) {
	t.Helper()
	issuer := oidctest.New(t)
	issuer.Rotate(t, "k1", "ES256")
	return serveFile(t, fmt.Sprintf(bearerFile, issuer.URL), router.Listener{}), issuer
}

func TestXOAuth2(t *testing.T) {
	s, issuer := serveIssuer(t)
	token := issuer.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice", "rights": rights("read telemetry/A", "write telemetry/A"),
		"long": strings.Repeat("x", 8000)}) // more than the 512 bytes of a SASL frame
	c, err := goamqp.Dial(t.Context(), "amqp://"+s.addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypeXOAUTH2("app", token, 16*1024)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x, err := c.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.NewReceiver(t.Context(), "telemetry/A", nil); err != nil {
		t.Error(err)
	}
	if _, err := x.NewReceiver(t.Context(), "telemetry/B", nil); condition(err) != "amqp:unauthorized-access" {
		t.Errorf("another tenant's: %v", err)
	}
	wrong := issuer.Token(t, oidctest.Claims{"sub": "app", "aud": "other"})
	if _, err := goamqp.Dial(t.Context(), "amqp://"+s.addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypeXOAUTH2("app", wrong, 16*1024)}); err == nil {
		t.Error("a token for another audience was taken")
	}
}

func TestOAuthBearerFrames(t *testing.T) {
	s, issuer := serveIssuer(t)
	good := issuer.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice"})
	response := func(token string) []byte { return []byte("n,a=app,\x01auth=Bearer " + token + "\x01\x01") }
	t.Run("taken", func(t *testing.T) {
		w := s.wire(t, amqp.HeaderSASL)
		w.mechanisms()
		w.send(&amqp.SASLInit{Mechanism: "OAUTHBEARER", InitialResponse: response(good)})
		if got := w.outcome(); got != amqp.SASLOK {
			t.Errorf("outcome %d", got)
		}
	})
	t.Run("taken when asked for", func(t *testing.T) {
		w := s.wire(t, amqp.HeaderSASL)
		w.mechanisms()
		w.send(&amqp.SASLInit{Mechanism: "OAUTHBEARER"})
		if c, ok := w.next().(*amqp.SASLChallenge); !ok || len(c.Challenge) > 0 {
			t.Fatalf("got %+v", c)
		}
		w.send(&amqp.SASLResponse{Response: response(good)})
		if got := w.outcome(); got != amqp.SASLOK {
			t.Errorf("outcome %d", got)
		}
	})
	t.Run("refused", func(t *testing.T) {
		w := s.wire(t, amqp.HeaderSASL)
		w.mechanisms()
		w.send(&amqp.SASLInit{Mechanism: "OAUTHBEARER", InitialResponse: response(good + "A")})
		c, ok := w.next().(*amqp.SASLChallenge)
		if !ok || !bytes.Contains(c.Challenge, []byte(`"status":"invalid_token"`)) {
			t.Fatalf("got %+v", c)
		}
		w.send(&amqp.SASLResponse{Response: []byte{1}})
		if got := w.outcome(); got != amqp.SASLAuth {
			t.Errorf("outcome %d", got)
		}
		w.ended()
	})
	t.Run("keys away", func(t *testing.T) {
		s, issuer := serveIssuer(t)
		issuer.Serve("/keys", 500, nil)
		w := s.wire(t, amqp.HeaderSASL)
		w.mechanisms()
		w.send(&amqp.SASLInit{Mechanism: "OAUTHBEARER", InitialResponse: response(issuer.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice"}))})
		if got := w.outcome(); got != amqp.SASLSysTemp {
			t.Errorf("outcome %d", got)
		}
	})
}

// The connection ends with the token.
func TestTokenEnds(t *testing.T) {
	s, issuer := serveIssuer(t)
	end := time.Now().Truncate(time.Second).Add(2 * time.Second)
	token := issuer.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice", "exp": end.Unix()})
	why := s.closeReason(t, peer.Login{Mechanism: "OAUTHBEARER", InitialResponse: []byte("n,,\x01auth=Bearer " + token + "\x01\x01")})
	if why == nil || why.Condition != amqp.CondUnauthorizedAccess || why.Description != "access token expired" {
		t.Errorf("closed with %+v", why)
	}
	if time.Now().Before(end) {
		t.Error("closed early")
	}
}

// closeReason connects and waits for the router's close.
func (s *served) closeReason(t testing.TB, login peer.Login) *amqp.Error {
	t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	h := &listener{}
	c, err := peer.Connect(t.Context(), nc, peer.Options{Config: peer.Config{ContainerID: "c"}, Handler: h, Wheel: peer.NewWheel(), Login: login})
	if err != nil {
		t.Fatal(err)
	}
	c.Serve(t.Context())
	return h.reason
}

// listener notes why the connection was closed.
type listener struct{ reason *amqp.Error }

func (l *listener) Handle(_ *peer.Batch, _ *peer.Conn, events []peer.Event) {
	for _, ev := range events {
		if ev.Kind == peer.EventClose {
			l.reason = ev.Error
		}
	}
}
func (*listener) Writable(*peer.Batch, *peer.Conn)      {}
func (*listener) Closed(*peer.Batch, *peer.Conn, error) {}

func TestAnonymousWhereConfigured(t *testing.T) {
	const text = "identities:\n  - {name: anonymous, authorities: [{address: \"telemetry/A\", may: [read]}]}\n"
	s := serveFile(t, text, router.Listener{Mechanisms: []string{"ANONYMOUS"}})
	c, err := goamqp.Dial(t.Context(), "amqp://"+s.addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypeAnonymous()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x, err := c.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.NewReceiver(t.Context(), "telemetry/A", nil); err != nil {
		t.Error(err)
	}
	if _, err := x.NewReceiver(t.Context(), "telemetry/B", nil); condition(err) != "amqp:unauthorized-access" {
		t.Error(err)
	}
	s = serveFile(t, text, router.Listener{})
	w := s.wire(t, amqp.HeaderSASL)
	if w.mechanisms() != "PLAIN" {
		t.Error("ANONYMOUS is offered without having been configured")
	}
	w.send(&amqp.SASLInit{Mechanism: "ANONYMOUS"})
	if got := w.outcome(); got != amqp.SASLAuth {
		t.Errorf("outcome %d", got)
	}
}

// A client that speaks without TLS to a port with it gets a list with PLAIN and
// nothing else, and no further.
func TestPlainTextOnTLSPort(t *testing.T) {
	conf := serverTLS(t)
	for _, components := range []bool{false, true} {
		s := serveFile(t, "identities:\n  - {name: app, secret: \""+hashed(t)+"\", authorities: []}\n",
			router.Listener{TLS: conf, Components: components, Mechanisms: []string{"SCRAM-SHA-256", "PLAIN"}})
		for name, header := range map[string]string{"AMQP": amqp.HeaderAMQP, "SASL": amqp.HeaderSASL} {
			t.Run(fmt.Sprintf("%s/%v", name, components), func(t *testing.T) {
				w := s.wire(t, header)
				if got := w.mechanisms(); got != "PLAIN" {
					t.Errorf("offered: %s", got)
				}
				w.send(&amqp.SASLInit{Mechanism: "PLAIN", InitialResponse: []byte("\x00app\x00" + secret)})
				if got := w.outcome(); got != amqp.SASLAuth {
					t.Errorf("outcome %d", got)
				}
				w.ended()
			})
		}
		if components {
			continue
		}
		c, err := goamqp.Dial(t.Context(), "amqps://"+s.addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain("app", secret),
			TLSConfig: &tls.Config{InsecureSkipVerify: true}})
		if err != nil {
			t.Errorf("with TLS: %v", err)
		} else {
			c.Close()
		}
	}
}

func serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
