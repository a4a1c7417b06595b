package stack

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/sluice-iot/sluice/localstack/process"
)

// edgeGrace is how long a router or adapter may take to end in order.
const edgeGrace = 10 * time.Second

// certificates is the tls setting of a part.
func certificates(name string) string {
	return fmt.Sprintf("{certificate: certs/%[1]s.crt, key: certs/%[1]s.key, ca: certs/ca.crt}", name)
}

// StartRouter starts the router, the first time and after [Stack.StopRouter].
func (s *Stack) StartRouter(ctx context.Context) error {
	a := s.addresses
	config := fmt.Sprintf(`data: router
tls: %s
functions: {identity: %q, events: %q}
notices: {ingresses: ["https://%s"]}
listeners:
  - {role: northbound, address: %q}
  - {role: internal, address: %q, tls: {}}
  - {role: ingress, address: %q, tls: {}}
  - {role: health, address: %q}
`, certificates("router-router-0"), s.Function, s.EventsFunction, a.ingress, s.Northbound, a.internal, a.ingress, a.routerHealth)
	p, err := s.edge(ctx, "router", config, a.routerHealth, "router", "--identities", s.data("task", "identities.yaml"))
	s.router = p
	return err
}

// StopRouter ends the router in order.
func (s *Stack) StopRouter() {
	s.router.Stop(edgeGrace)
}

func (s *Stack) startAdapter(ctx context.Context) error {
	a := s.addresses
	config := fmt.Sprintf(`data: adapter
tls: %s
functions: {identity: %q}
routers: ["amqps://%s"]
listeners:
  - {role: adapter/http, address: %q}
  - {role: health, address: %q}
`, certificates("adapter-http-0"), s.Function, a.internal, s.Device, a.adapterHealth)
	_, err := s.edge(ctx, "adapter", config, a.adapterHealth, "adapter", "http")
	return err
}

func (s *Stack) edge(ctx context.Context, name, config, health string, command ...string) (*process.Process, error) {
	file := s.data(name + ".yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	env := []string{"AWS_ENDPOINT_URL_LAMBDA=http://" + s.Invoke}
	return s.run(ctx, edgeGrace, name, s.o.Sluice, env, "http://"+health+"/readiness", append(command, "--config", file)...)
}

// RouterMetrics is the URL of the router's figures.
func (s *Stack) RouterMetrics() string { return "http://" + s.addresses.routerHealth + "/metrics" }
