package listen_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/listen"
)

func TestOpenErrors(t *testing.T) {
	l, err := listen.Open(t.Context(), "northbound", "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()
	_, err = listen.Open(t.Context(), "management", address, nil)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), "listener management on "+address+": the address is in use by another process") {
		t.Errorf("got %v", err)
	}
	if _, err = listen.Open(t.Context(), "health", "192.0.2.1:0", nil); err == nil || !strings.Contains(err.Error(), "does not have the address") {
		t.Errorf("got %v", err)
	}
}

func development(t *testing.T) *listen.Development {
	t.Helper()
	d, err := listen.OpenDevelopment(filepath.Join(t.TempDir(), "tls"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// handshake connects client and server and returns what each says.
func handshake(server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	a, b, err := loopback()
	if err != nil {
		return state, err, err
	}
	done := make(chan struct{})
	s, c := tls.Server(a, server), tls.Client(b, client)
	go func() {
		defer close(done)
		serverErr = s.Handshake()
		if serverErr == nil {
			_, _ = s.Write([]byte("x"))
		}
		a.Close()
	}()
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = io.ReadFull(c, make([]byte, 1))
	}
	b.Close()
	<-done
	return s.ConnectionState(), serverErr, clientErr
}

// loopback returns both ends of a connection that buffers, unlike net.Pipe, on which
// an alert meets a flight of the other side and both wait.
func loopback() (server, client net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	server, err = l.Accept()
	return server, client, err
}

func clientFor(t *testing.T, f listen.Files) func(string) *tls.Config {
	t.Helper()
	c, err := listen.ClientTLS(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serverFor(t *testing.T, f listen.Files, o listen.ServerOptions) *tls.Config {
	t.Helper()
	c, err := listen.ServerTLS(f, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDevelopment(t *testing.T) {
	d := development(t)
	f := d.Files()
	for path, mode := range map[string]os.FileMode{f.Key: 0o600, f.Certificate: 0o644, filepath.Join(filepath.Dir(f.Key), "ca.key"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	server, client := serverFor(t, listen.Files{Certificate: f.Certificate, Key: f.Key}, listen.ServerOptions{}), clientFor(t, listen.Files{CA: f.CA})
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	for _, name := range names {
		if _, serverErr, clientErr := handshake(server, client(name)); serverErr != nil || clientErr != nil {
			t.Errorf("%s: %v, %v", name, serverErr, clientErr)
		}
	}
	if _, _, err := handshake(server, client("example.com")); err == nil {
		t.Error("a name that is not in the certificate must be refused")
	}
	if _, _, err := handshake(server, &tls.Config{ServerName: "localhost", RootCAs: d.Authority.Pool(), MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 must be refused")
	}
	again, err := listen.OpenDevelopment(filepath.Dir(f.Key), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Authority.Certificate.Equal(d.Authority.Certificate) {
		t.Error("the second start made another CA")
	}
	life := time.Until(again.Authority.Certificate.NotAfter)
	if life < 3649*24*time.Hour || life > 3651*24*time.Hour {
		t.Errorf("CA lives for %v", life)
	}
}

func leaf(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(path, strings.TrimSuffix(path, ".crt")+".key")
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func TestDevelopmentRenews(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	start := time.Now()
	open := func(now time.Time, hosts ...string) *x509.Certificate {
		t.Helper()
		d, err := listen.OpenDevelopmentAt(dir, hosts, now)
		if err != nil {
			t.Fatal(err)
		}
		return leaf(t, d.Files().Certificate)
	}
	day := 24 * time.Hour
	first := open(start)
	if got := first.NotAfter.Sub(start).Round(time.Minute); got != 90*day {
		t.Errorf("leaf lives for %v", got)
	}
	if !open(start.Add(59 * day)).Equal(first) {
		t.Error("renewed with 31 days left")
	}
	second := open(start.Add(61 * day))
	if second.Equal(first) {
		t.Error("not renewed with 29 days left")
	}
	third := open(start.Add(61*day), "box.example", "192.0.2.7", "bad name")
	if third.VerifyHostname("box.example") != nil || third.VerifyHostname("192.0.2.7") != nil {
		t.Error("not renewed for another name")
	}
	// A crash between writing key and certificate leaves a pair that does not match.
	other := filepath.Join(t.TempDir(), "tls")
	o, err := listen.OpenDevelopmentAt(other, nil, start)
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, o.Files().Key, filepath.Join(dir, "server.key"))
	if open(start.Add(61*day), "box.example", "192.0.2.7").Equal(third) {
		t.Error("a pair that does not match must be replaced")
	}
}

func TestAuthorityHalf(t *testing.T) {
	d := development(t)
	dir := filepath.Dir(d.Files().Key)
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := listen.OpenDevelopment(dir, nil); err == nil || !strings.Contains(err.Error(), "one is missing") {
		t.Errorf("got %v", err)
	}
	leafDir := t.TempDir()
	copyFile(t, d.Files().Certificate, filepath.Join(leafDir, "ca.crt"))
	copyFile(t, d.Files().Key, filepath.Join(leafDir, "ca.key"))
	if _, err := listen.OpenAuthority(leafDir, time.Now()); err == nil || !strings.Contains(err.Error(), "not a certificate authority") {
		t.Errorf("got %v", err)
	}
	if _, err := listen.OpenDevelopmentAt(filepath.Dir(development(t).Files().Key), nil, time.Now().Add(11*365*24*time.Hour)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("got %v", err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestMutualTLS(t *testing.T) {
	d, foreign := development(t), development(t)
	out := t.TempDir()
	adapter, err := d.Authority.IssueComponent(out, "adapter", "http-0", []string{"box.example"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := foreign.Authority.IssueComponent(out, "adapter", "evil", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(adapter.Certificate) != "adapter-http-0.crt" {
		t.Errorf("got %s", adapter.Certificate)
	}
	required := serverFor(t, d.Files(), listen.ServerOptions{RequireClient: true})
	adapter.CA, stranger.CA = d.Files().CA, d.Files().CA
	state, serverErr, clientErr := handshake(required, clientFor(t, adapter)("localhost"))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	subject := state.PeerCertificates[0].Subject
	if subject.CommonName != "http-0" || strings.Join(subject.OrganizationalUnit, ",") != "adapter" {
		t.Errorf("subject %s", subject)
	}
	none := clientFor(t, listen.Files{CA: d.Files().CA})
	for name, c := range map[string]*tls.Config{"stranger": clientFor(t, stranger)("localhost"), "none": none("localhost")} {
		if _, serverErr, _ := handshake(required, c); serverErr == nil {
			t.Errorf("%s must be refused", name)
		}
	}
	optional := serverFor(t, d.Files(), listen.ServerOptions{})
	if _, serverErr, clientErr := handshake(optional, none("localhost")); serverErr != nil || clientErr != nil {
		t.Errorf("none where optional: %v, %v", serverErr, clientErr)
	}
	if _, serverErr, _ := handshake(optional, clientFor(t, stranger)("localhost")); serverErr == nil {
		t.Error("a wrong one where optional must be refused")
	}
	// A component is a server as well.
	if _, serverErr, clientErr := handshake(serverFor(t, adapter, listen.ServerOptions{}), none("box.example")); serverErr != nil || clientErr != nil {
		t.Errorf("component as server: %v, %v", serverErr, clientErr)
	}
}

func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	live := listen.Files{Certificate: filepath.Join(dir, "live", "server.crt"), Key: filepath.Join(dir, "live", "server.key"), CA: filepath.Join(dir, "live", "ca.crt")}
	link := func(d *listen.Development) {
		t.Helper()
		next := filepath.Join(dir, "next")
		if err := os.Symlink(filepath.Dir(d.Files().Key), next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "live")); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		a, b := development(t), development(t) // valid at the bubble's time
		link(a)
		server := serverFor(t, live, listen.ServerOptions{})
		client := clientFor(t, live)
		serves := func(d *listen.Development) bool {
			_, serverErr, clientErr := handshake(server, clientFor(t, listen.Files{CA: d.Files().CA})("localhost"))
			return serverErr == nil && clientErr == nil
		}
		if !serves(a) || serves(b) {
			t.Fatal("the first certificate is not served")
		}
		link(b)
		if !serves(a) {
			t.Error("files were looked at twice within a second")
		}
		time.Sleep(1100 * time.Millisecond)
		if serves(a) || !serves(b) {
			t.Error("the new certificate is not served")
		}
		if _, serverErr, clientErr := handshake(server, client("localhost")); serverErr != nil || clientErr != nil {
			t.Errorf("client and client CA did not follow: %v, %v", serverErr, clientErr)
		}
		if err := os.Remove(filepath.Join(dir, "live")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond)
		if !serves(b) {
			t.Error("without files the last good certificate must stay")
		}
	})
}

func TestFileErrors(t *testing.T) {
	d := development(t)
	absent := filepath.Join(t.TempDir(), "absent.crt")
	good := d.Files()
	for name, c := range map[string]struct {
		f    listen.Files
		o    listen.ServerOptions
		want string
	}{
		"absent":   {listen.Files{Certificate: absent, Key: good.Key}, listen.ServerOptions{}, "absent.crt: no such file"},
		"no match": {listen.Files{Certificate: good.CA, Key: good.Key}, listen.ServerOptions{}, "does not match"},
		"not PEM":  {listen.Files{Certificate: good.Certificate, Key: good.Key, CA: good.Key}, listen.ServerOptions{}, "no certificate in PEM form"},
		"no CA":    {listen.Files{Certificate: good.Certificate, Key: good.Key}, listen.ServerOptions{RequireClient: true}, "no CA"},
		"version":  {good, listen.ServerOptions{MinVersion: "1.1"}, "expected 1.2 or 1.3"},
	} {
		if _, err := listen.ServerTLS(c.f, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := listen.ClientTLS(listen.Files{CA: absent}, nil); err == nil {
		t.Error("want an error")
	}
}

func TestConfigured(t *testing.T) {
	c := config.Config{Data: t.TempDir()}
	own, dev, err := listen.Own(&c)
	if err != nil || dev == nil {
		t.Fatal(err)
	}
	l, err := listen.Configured(t.Context(), config.Listener{Role: "internal", Address: "127.0.0.1:0", TLS: &config.ListenerTLS{}}, own, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	tlsConfig, err := listen.ConfiguredTLS(config.Listener{Role: "internal", TLS: &config.ListenerTLS{}}, own, nil)
	if err != nil || tlsConfig.ClientAuth != tls.RequireAndVerifyClientCert {
		t.Errorf("got %v, %v", tlsConfig, err)
	}
	tlsConfig, err = listen.ConfiguredTLS(config.Listener{Role: "northbound", TLS: &config.ListenerTLS{}}, own, nil, "h2")
	if err != nil || tlsConfig.ClientAuth != tls.NoClientCert || tlsConfig.NextProtos[0] != "h2" {
		t.Errorf("got %v, %v", tlsConfig, err)
	}
	if tlsConfig, err := listen.ConfiguredTLS(config.Listener{Role: "northbound"}, own, nil); tlsConfig != nil || err != nil {
		t.Errorf("plain: got %v, %v", tlsConfig, err)
	}
	c.TLS = config.OwnTLS{Certificate: own.Certificate, Key: own.Key, CA: own.CA}
	if same, dev, err := listen.Own(&c); err != nil || dev != nil || same != own {
		t.Errorf("got %v, %v", same, err)
	}
}

// The certificate is chosen by the name that the client asks for.
func TestServerName(t *testing.T) {
	d := development(t)
	box, err := d.Authority.IssueComponent(t.TempDir(), "router", "box", []string{"box.example"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	client := clientFor(t, listen.Files{CA: d.Files().CA})
	one := serverFor(t, d.Files(), listen.ServerOptions{})
	both := serverFor(t, d.Files(), listen.ServerOptions{More: []listen.Files{box}})
	if _, _, err := handshake(one, client("box.example")); err == nil {
		t.Error("a name that no certificate has was accepted")
	}
	for _, name := range []string{"box.example", "localhost", "127.0.0.1"} {
		if _, serverErr, clientErr := handshake(both, client(name)); serverErr != nil || clientErr != nil {
			t.Errorf("%s: %v, %v", name, serverErr, clientErr)
		}
	}
	missing := listen.Files{Certificate: "missing.crt", Key: "missing.key"}
	if _, err := listen.ServerTLS(d.Files(), listen.ServerOptions{More: []listen.Files{missing}}); err == nil {
		t.Error("a missing file was accepted")
	}
}
