package containers_test

import (
	"crypto/tls"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/listen"
)

// TestSQLite runs a router, an adapter for HTTP, one for MQTT and functions that keep the
// registry in a volume.
func TestSQLite(t *testing.T) {
	n := newSite(t)
	n.start(t, 1)
	mqtt := n.addMQTT(t, direct)
	mqtt.run(t)
	n.register(t, n.functions[0], "meter-1", "meter-2")
	app := n.testUploads(t, "SQLite", n.functions[0])
	t.Run("MQTT", func(t *testing.T) { n.testMQTT(t, mqtt, app, "meter-2") })
	t.Run("certificates are needed", n.testStrangers)
	t.Run("hardened", n.testHardened)
	t.Run("healthy", n.testHealthy)
	t.Run("idle", func(t *testing.T) { n.measureIdle(t, "SQLite") })
	t.Run("starts", n.measureStarts)
	t.Run("the volume outlives the process", func(t *testing.T) {
		n.functions[0].kill(t)
		n.functions[0].run(t)
		n.manage(t, n.functions[0], http.MethodGet, "devices/"+tenant+"/meter-1", "", "", http.StatusOK)
	})
}

// testUploads has a device reach an application, disables it, and enables it again.
// The application stays until the test ends.
func (n *site) testUploads(t *testing.T, store string, management *box) *application {
	t.Helper()
	app := n.consume(t, n.routers[0])
	d := n.newDevice(t, "meter-1")
	first := d.until(t, "the first", http.StatusAccepted)
	app.await(t, "the first")
	t.Logf("%d uploads were refused before the adapter had the application's credit", first)
	d.must(t, "the second", http.StatusAccepted)
	app.await(t, "the second")
	n.newDevice(t, "nobody").must(t, "x", http.StatusUnauthorized)

	n.enable(t, management, d.id, false)
	began := time.Now()
	taken := d.until(t, "while disabled", http.StatusNotFound)
	measure(t, store+": operator answered to the first refused upload of a disabled device", "%s, %d uploads were taken in between", ms(time.Since(began)), taken)
	time.Sleep(200 * time.Millisecond)
	d.must(t, "while disabled", http.StatusNotFound)

	n.enable(t, management, d.id, true)
	began = time.Now()
	refused := d.until(t, "enabled again", http.StatusAccepted)
	measure(t, store+": operator answered to the first accepted upload of a device enabled again", "%s, %d uploads were refused in between", ms(time.Since(began)), refused)
	app.await(t, "enabled again")
	return app
}

// testStrangers knocks at the doors that are for components, with no certificate and
// with one of another authority.
func (n *site) testStrangers(t *testing.T) {
	dir := t.TempDir()
	other, err := listen.OpenAuthority(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.IssueComponent(dir, "adapter", "http-0", nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	stranger, err := tls.LoadX509KeyPair(filepath.Join(dir, "adapter-http-0.crt"), filepath.Join(dir, "adapter-http-0.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, door := range []struct {
		of   *box
		port string
	}{{n.functions[0], "8444"}, {n.routers[0], "5673"}} {
		address, err := door.of.inside(t.Context(), door.port)
		if err != nil {
			t.Fatal(err)
		}
		for who, certificates := range map[string][]tls.Certificate{"nobody": nil, "a stranger": {stranger}} {
			// With TLS 1.3 the client learns only when it reads that it was refused.
			conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: n.pool, ServerName: door.of.name, Certificates: certificates})
			if err != nil {
				continue
			}
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Error(err)
			}
			if count, err := conn.Read(make([]byte, 1)); count > 0 || err == nil {
				t.Errorf("%s was let in at %s:%s", who, door.of.name, door.port)
			}
			conn.Close()
		}
	}
}
