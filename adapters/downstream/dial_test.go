package downstream_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters/downstream"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestNewRefuses(t *testing.T) {
	withTLS := func(string) *tls.Config { return &tls.Config{} }
	dial := func(context.Context) (*peer.Pipe, error) { return nil, nil }
	for _, tt := range []struct {
		router downstream.Router
		want   string
	}{
		{downstream.Router{}, "either"},
		{downstream.Router{URL: "amqp://h", Dial: dial}, "either"},
		{downstream.Router{URL: "http://h"}, "scheme"},
		{downstream.Router{URL: "amqp://user:secret@h"}, "user"},
		{downstream.Router{URL: "amqp://h/path"}, "nothing more"},
		{downstream.Router{URL: "amqp://:5672"}, "nothing more"},
		{downstream.Router{URL: "amqp://h:0"}, "port"},
		{downstream.Router{URL: "amqp://h:70000"}, "port"},
		{downstream.Router{URL: "amqps://h"}, "TLS"},
		{downstream.Router{URL: "amqps://h:5671", TLS: withTLS}, ""},
		{downstream.Router{URL: "amqp://[::1]:5672"}, ""},
		{downstream.Router{Dial: dial}, ""},
	} {
		_, err := downstream.New(downstream.Options{Instance: "i", Routers: []downstream.Router{tt.router}})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%q: %v, want nil", tt.router.URL, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%q: %v, want an error with %q", tt.router.URL, err, tt.want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%q: %v tells the password", tt.router.URL, err)
		}
	}
	if _, err := downstream.New(downstream.Options{Instance: "i"}); err == nil {
		t.Error("no router: want an error")
	}
	if _, err := downstream.New(downstream.Options{Routers: []downstream.Router{{Dial: dial}}}); err == nil {
		t.Error("no instance: want an error")
	}
}

// Each change of state is one line in the log, however many attempts it takes.
func TestLogTellsChangesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf syncBuffer
		r := newScripted(t, "r")
		r.setDown(true)
		s, stop := start(t, downstream.Options{Logger: slog.New(slog.NewTextHandler(&buf, nil))}, r)
		time.Sleep(time.Minute)
		r.setDown(false)
		time.Sleep(10 * time.Second)
		r.setDown(true)
		r.kill()
		time.Sleep(time.Minute)
		r.setDown(false)
		time.Sleep(10 * time.Second)
		if !s.Ready() {
			t.Error("not Ready")
		}
		stop()
		var got []string
		for line := range strings.Lines(buf.String()) {
			_, msg, _ := strings.Cut(line, "msg=")
			got = append(got, strings.Split(msg, `"`)[1])
		}
		want := "no connection to router|connected to router|connection to router ended|connected to router"
		if strings.Join(got, "|") != want {
			t.Errorf("log:\n%s", buf.String())
		}
	})
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Every address behind a name has a connection; one that comes later is found
// when the name is resolved again, and one that is no longer listed keeps its
// connection.
func TestAddressesBehindAName(t *testing.T) {
	one, two := newScripted(t, "one"), newScripted(t, "two")
	at := one.listen(t, "127.0.0.1:0", one.options())
	_, port, _ := strings.Cut(at.String(), ":")
	two.listen(t, "127.0.0.2:"+port, two.options())
	var asked atomic.Int64
	s, stop := start(t, downstream.Options{
		Routers: []downstream.Router{{URL: "amqp://routers.example:" + port}},
		Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			if host != "routers.example" {
				t.Errorf("asked for %q", host)
			}
			if asked.Add(1) == 1 {
				return nil, errors.New("no such host") // asked again after the back-off
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}, nil
		},
	})
	eventually(t, func() bool { return s.Connected() == 2 })
	for range 10 {
		if err := s.Send(t.Context(), telemetry(iot.AtLeastOnce)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if one.count()+two.count() != 10 {
		t.Errorf("%d and %d messages, want 10 together", one.count(), two.count())
	}
}

func TestTLSWithClientCertificate(t *testing.T) {
	ca := newCA(t)
	r := newScripted(t, "r")
	o := r.options()
	o.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "router.example")}, ClientCAs: ca.pool,
		ClientAuth: tls.RequireAndVerifyClientCert}
	at := r.listen(t, "127.0.0.1:0", o)
	_, port, _ := strings.Cut(at.String(), ":")
	leaf := ca.issue(t, "http-0")
	s, stop := start(t, downstream.Options{
		Login: peer.ExternalLogin(),
		Routers: []downstream.Router{{URL: "amqps://router.example:" + port, TLS: func(name string) *tls.Config {
			return &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{leaf}}
		}}},
		Resolve: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		},
	})
	eventually(t, s.Ready)
	for _, qos := range []iot.QoS{iot.AtMostOnce, iot.AtLeastOnce} {
		if err := s.Send(t.Context(), telemetry(qos)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if certs := r.infos[0].Certificates; len(certs) == 0 || certs[0].Subject.CommonName != "http-0" {
		t.Errorf("the router saw certificates %v", certs)
	}
}

// A router whose certificate is for another name gets no messages.
func TestTLSWrongName(t *testing.T) {
	ca := newCA(t)
	r := newScripted(t, "r")
	o := r.options()
	o.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "other.example")}}
	at := r.listen(t, "127.0.0.1:0", o)
	var buf syncBuffer
	s, stop := start(t, downstream.Options{
		Logger: slog.New(slog.NewTextHandler(&buf, nil)),
		Routers: []downstream.Router{{URL: "amqps://" + at.String(), TLS: func(string) *tls.Config {
			return &tls.Config{RootCAs: ca.pool, ServerName: "router.example"}
		}}},
	})
	eventually(t, func() bool { return strings.Contains(buf.String(), "other.example") })
	if s.Ready() {
		t.Error("Ready")
	}
	stop()
}

type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newCA(t *testing.T) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	ca := &testCA{key: key, pool: x509.NewCertPool()}
	ca.cert = ca.sign(t, template, template, key)
	ca.pool.AddCert(ca.cert)
	return ca
}

func (ca *testCA) sign(t *testing.T, template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (ca *testCA) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := ca.sign(t, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}, ca.cert, key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}
