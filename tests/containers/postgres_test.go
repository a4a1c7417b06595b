package containers_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/listen"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

const databaseSecret = "a-long-secret"

// TestPostgres runs two processes of functions on one PostgreSQL, which is a process
// of this host: they reach it by the gateway of their network, with TLS and a
// password. They keep nothing themselves.
func TestPostgres(t *testing.T) {
	n := newSite(t)
	db, env := n.database(t)
	for range 2 {
		n.addFunction(t, "", "registry: {store: postgres}\n", env).run(t)
	}
	n.addRouter(t, direct).run(t)
	n.addAdapter(t, direct).run(t)
	n.register(t, n.functions[0], "meter-1", "meter-2")
	n.testUploads(t, "Postgres", n.functions[1])
	t.Run("hardened", n.testHardened)
	t.Run("healthy", n.testHealthy)
	t.Run("idle", func(t *testing.T) { n.measureIdle(t, "Postgres") })
	t.Run("one process less", func(t *testing.T) {
		n.functions[0].kill(t)
		n.enable(t, n.functions[1], "meter-1", false)
		known := n.newDevice(t, "meter-1")
		known.until(t, "while disabled", http.StatusNotFound)
		n.enable(t, n.functions[1], "meter-1", true)
		known.until(t, "enabled again", http.StatusAccepted)
	})
	t.Run("no database", func(t *testing.T) { n.testNoDatabase(t, db) })
}

// database starts PostgreSQL for the site's containers; env is how they reach it.
func (n *site) database(t *testing.T) (db *pgtest.Server, env map[string]string) {
	t.Helper()
	files := listen.Files{Certificate: filepath.Join(n.dir, databaseName+".crt"), Key: filepath.Join(n.dir, databaseName+".key")}
	leaf := listen.Leaf{CommonName: databaseName, Hosts: []string{databaseName}, Life: 24 * time.Hour}
	if err := n.authority.Issue(files, leaf, time.Now()); err != nil {
		t.Fatal(err)
	}
	db = pgtest.StartFor(t, pgtest.Reach{Address: n.gateway.String(), Certificate: files.Certificate, Key: files.Key})
	db.Exec(t, "CREATE ROLE sluice LOGIN PASSWORD '"+databaseSecret+"'")
	db.Exec(t, "CREATE DATABASE iot OWNER sluice ENCODING 'UTF8'")
	key := func() string {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // never fails
		return base64.StdEncoding.EncodeToString(b)
	}
	return db, map[string]string{
		"SLUICE_REGISTRY_URL": fmt.Sprintf("postgres://sluice:%s@%s/iot?sslmode=verify-full&sslrootcert=/etc/sluice/ca.crt", databaseSecret, db.At(databaseName)),
		"SLUICE_KEK":          key(),
		"SLUICE_VERIFIED_KEY": key(),
	}
}

// testNoDatabase stops the database: the adapter lives on what it knows.
func (n *site) testNoDatabase(t *testing.T, db *pgtest.Server) {
	known, unknown := n.newDevice(t, "meter-1"), n.newDevice(t, "meter-2")
	known.learn(t)
	db.Stop(t)
	known.must(t, "known", http.StatusAccepted)
	got := unknown.must(t, "unknown", http.StatusServiceUnavailable)
	if got.retryAfter == "" {
		t.Errorf("%s; want Retry-After", got)
	}
	measure(t, "no database: 503 with Retry-After for an unknown device after", "%s", ms(got.took))
	known.must(t, "known", http.StatusAccepted)
	db.Restart(t)
	began := time.Now()
	refused := unknown.until(t, "it is back", http.StatusAccepted)
	measure(t, "no database: back to the first 202 of a device that was unknown", "%s, %d uploads were refused in between", ms(time.Since(began)), refused)
}
