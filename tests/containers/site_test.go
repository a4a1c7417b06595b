package containers_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/listen"
)

// Names by which containers reach this host.
const (
	activatorName = "activator"
	databaseName  = "database"
)

// tenant is that of all devices.
const tenant = "ACME"

const (
	operator, operatorSecret = "admin", "secret of the operator"
	shop, shopSecret         = "shop", "secret of the application"
)

// site is a network of its own with an authority for certificates and those who may connect.
type site struct {
	*testcontainers.DockerNetwork
	engine    *testcontainers.DockerClient
	gateway   netip.Addr // this host, as containers see it
	dir       string     // ca.crt, identities.yaml and a folder for each container
	authority *listen.Authority
	pool      *x509.CertPool

	functions, routers, adapters []*box
}

// newSite makes a network; nothing runs on it yet.
func newSite(t *testing.T) *site {
	t.Helper()
	n := &site{engine: needEngine(t), dir: t.TempDir(), pool: x509.NewCertPool()}
	var err error
	if n.authority, err = listen.OpenAuthority(n.dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	n.pool.AddCert(n.authority.Certificate)
	identities := filepath.Join(n.dir, "identities.yaml")
	err = errors.Join(
		auth.AddIdentityWith(identities, shop, shopSecret, auth.Authority{Address: "telemetry/" + tenant, May: auth.Read},
			auth.Authority{Address: "event/" + tenant, May: auth.Read}),
		auth.AddOperatorWith(identities, operator, operatorSecret, map[string]auth.Activity{"*": auth.Read | auth.Write}))
	if err != nil {
		t.Fatal(err)
	}
	if n.DockerNetwork, err = network.New(t.Context(), network.WithLabels(labels())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Remove(context.Background()); err != nil {
			t.Errorf("remove the network: %v", err)
		}
	})
	n.findGateway(t)
	return n
}

func (n *site) findGateway(t *testing.T) {
	t.Helper()
	result, err := n.engine.NetworkInspect(t.Context(), n.ID, client.NetworkInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range result.Network.IPAM.Config {
		if c.Gateway.Is4() {
			n.gateway = c.Gateway
		}
	}
	if !n.gateway.IsValid() {
		t.Fatalf("the network has no gateway: %+v", result.Network.IPAM)
	}
}

// newVolume makes a volume that goes away with the container that has it.
func (n *site) newVolume(t *testing.T) string {
	t.Helper()
	v, err := n.engine.VolumeCreate(t.Context(), client.VolumeCreateOptions{Labels: labels()})
	if err != nil {
		t.Fatal(err)
	}
	return v.Volume.Name
}

// probe is the listener that every part has for probes.
const probe = `{role: health, address: "0.0.0.0:` + healthPort + `", insecure: true}`

// addFunction makes the nth functions, whose store config and env name.
func (n *site) addFunction(t *testing.T, volume, config string, env map[string]string) *box {
	t.Helper()
	b := n.create(t, spec{
		name: fmt.Sprintf("identity-%d", len(n.functions)), kind: "function", aliases: []string{"functions"}, names: []string{activatorName},
		ports: []string{"28443"}, volume: volume, env: env,
		config: config + ingresses + `listeners:
  - {role: function, address: "0.0.0.0:8444", tls: {}}
  - {role: management, address: "0.0.0.0:28443", tls: {}}
  - ` + probe + "\n",
	})
	n.functions = append(n.functions, b)
	return b
}

// withSQLite makes functions with a file of their own.
func (n *site) withSQLite(t *testing.T) *box {
	t.Helper()
	return n.addFunction(t, n.newVolume(t), "", nil)
}

// ingresses are all routers, by the one name that they share.
const ingresses = `notices: {ingresses: ["https://router:8445"]}
`

// addRouter makes the nth router, which asks functions at host:port and keeps events there.
func (n *site) addRouter(t *testing.T, functions string) *box {
	t.Helper()
	b := n.create(t, spec{
		name: fmt.Sprintf("router-%d", len(n.routers)), kind: "router", aliases: []string{"router"},
		args: []string{"router"}, ports: []string{"5671"}, scratch: true,
		config: fmt.Sprintf(`functions: {identity: "https://%[1]s", events: "https://%[1]s"}
%[2]slisteners:
  - {role: northbound, address: "0.0.0.0:5671", tls: {}}
  - {role: internal, address: "0.0.0.0:5673", tls: {}}
  - {role: ingress, address: "0.0.0.0:8445", tls: {}}
  - %[3]s
`, functions, ingresses, probe),
	})
	n.routers = append(n.routers, b)
	return b
}

// addAdapter makes the nth adapter, which asks functions at host:port and knows all
// routers by one name.
func (n *site) addAdapter(t *testing.T, functions string) *box {
	t.Helper()
	b := n.create(t, spec{
		name: fmt.Sprintf("http-%d", len(n.adapters)), kind: "adapter", args: []string{"adapter", "http"}, ports: []string{"8443"},
		config: fmt.Sprintf(`functions: {identity: "https://%s"}
routers: ["amqps://router:5673"]
listeners:
  - {role: adapter/http, address: "0.0.0.0:8443", tls: {}}
  - %s
`, functions, probe),
	})
	n.adapters = append(n.adapters, b)
	return b
}

// direct is where the functions are without anything in between.
const direct = "functions:8444"

// start makes and starts functions with SQLite, routers and an adapter.
func (n *site) start(t *testing.T, routers int) {
	t.Helper()
	n.withSQLite(t).run(t)
	for range routers {
		n.addRouter(t, direct).run(t)
	}
	n.addAdapter(t, direct).run(t)
}

// clientTLS trusts the site's authority and proves nothing.
func (n *site) clientTLS() *tls.Config {
	return &tls.Config{RootCAs: n.pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}
