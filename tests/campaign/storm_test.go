package campaign_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

// TestStormOfFirstAttaches attaches the telemetry link of each of many tenants over one
// connection of an adapter that proves itself by certificate, as when devices of all of
// them come back at once, and states how long it takes and what an idle link holds.
func TestStormOfFirstAttaches(t *testing.T) {
	tenants := 10_000
	if runs() == small {
		tenants = 1000
	}
	r := startRouter(t)
	c, err := wire.Dial(wire.Options{Addr: r.tls, TLS: componentTLS(t, r)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	before := r.live(t)

	began := time.Now()
	go func() { // reads while it writes, as adapters do
		var out []byte
		for i := range tenants {
			out = wire.Append(out, wire.Sender(uint32(i), fmt.Sprint("telemetry/", i), fmt.Sprintf("telemetry/tenant-%d", i)), nil)
			if len(out) > 1<<15 || i == tenants-1 {
				if _, err := c.Conn.Write(out); err != nil {
					return // the reader says why
				}
				out = out[:0]
			}
		}
	}()
	for n := range tenants {
		a, _, err := wire.Await[*amqp.Attach](c)
		if err != nil {
			t.Fatalf("after %d links: %v", n, err)
		}
		if a.Target == nil {
			t.Fatalf("link %s is refused", a.Name)
		}
	}
	took := time.Since(began)
	attached := r.live(t)
	t.Logf("%d first attaches over mutual TLS in %s, %.1f us each; %.0f bytes resident and %.0f of heap a link",
		tenants, took.Round(time.Millisecond), float64(took.Microseconds())/float64(tenants),
		float64(attached.resident-before.resident)/float64(tenants), float64(attached.heap-before.heap)/float64(tenants))
	if most := 4096; attached.resident-before.resident > tenants*most {
		t.Errorf("%d bytes are resident for each idle link; at most %d are expected", (attached.resident-before.resident)/tenants, most)
	}

	// The same tenants' applications come, and each link gets its first credit.
	apps, err := wire.Dial(wire.Options{Addr: r.addr, User: user, Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer apps.Conn.Close()
	began = time.Now()
	go func() {
		var out []byte
		for i := range tenants {
			out = wire.Append(out, wire.Receiver(uint32(i), fmt.Sprint("r", i), fmt.Sprintf("telemetry/tenant-%d", i)), nil)
			if len(out) > 1<<15 || i == tenants-1 {
				if _, err := apps.Conn.Write(out); err != nil {
					return
				}
				out = out[:0]
			}
		}
	}()
	go func() {
		for {
			if _, _, err := apps.Read(); err != nil {
				return
			}
		}
	}()
	for given := map[uint32]bool{}; len(given) < tenants; {
		f, _, err := wire.Await[*amqp.Flow](c)
		if err != nil {
			t.Fatal(err)
		}
		if f.HasHandle && f.LinkCredit > 0 {
			given[f.Handle] = true
		}
	}
	took = time.Since(began)
	both := r.live(t)
	t.Logf("%d receivers in %s until every sender had credit; %.0f bytes resident and %.0f of heap for a tenant with both links",
		tenants, took.Round(time.Millisecond), float64(both.resident-before.resident)/float64(tenants), float64(both.heap-before.heap)/float64(tenants))
}

func componentTLS(t *testing.T, r *router) *tls.Config {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(filepath.Join(r.certs, "adapter-http-0.crt"), filepath.Join(r.certs, "adapter-http-0.key"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(r.certs, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: "localhost"}
}
