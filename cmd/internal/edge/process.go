package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/downstream"
	adapterhttp "github.com/sluice-iot/sluice/adapters/http"
	adaptermqtt "github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/auth/authtoken"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/listen"
	"github.com/sluice-iot/sluice/internal/observe"
	"github.com/sluice-iot/sluice/internal/observe/metrics"
	"github.com/sluice-iot/sluice/router"
	"github.com/sluice-iot/sluice/router/notices"
)

// Stopping takes two seconds at most: uploads in flight end first, then what
// the router has in flight, then the rest.
const (
	stopUploads = 1100 * time.Millisecond
	stopRouter  = 400 * time.Millisecond
	stopRest    = 400 * time.Millisecond
)

// Parts says what of the edge a process runs.
type Parts struct {
	Router bool
	HTTP   bool // the HTTP adapter
	MQTT   bool // the MQTT adapter
}

// Adapters are the names of the adapters.
var Adapters = []string{"http", "mqtt"}

// AdapterParts are the named adapters; names that are not in [Adapters] do not count.
func AdapterParts(names ...string) Parts {
	return Parts{HTTP: slices.Contains(names, "http"), MQTT: slices.Contains(names, "mqtt")}
}

// adapter says whether there is an adapter.
func (p Parts) adapter() bool { return p.HTTP || p.MQTT }

// Functions are the functions of the same process. Their methods are
// called in the order in which they stand here, each once unless an earlier one fails,
// except that Keys may be called whenever Open has returned.
type Functions interface {
	// Roles are the listeners that they serve.
	Roles() []string
	// Identities makes the identities file, which does not exist.
	Identities() error
	// Open makes the functions and the way to them; work ends when the process has
	// stopped, ctx when it is asked to.
	Open(ctx, work context.Context) (events.Invoker, error)
	// Events answers calls about stored events in this process; nil where it does not.
	Events() events.Invoker
	// Keys is where the public keys of assertions are, nil where these functions sign none.
	Keys() assertion.KeySource
	// Opened is called when everything is open and nothing is served.
	Opened(ctx context.Context) error
	// Serve serves the listeners of Roles until work ends.
	Serve(work context.Context) error
	// Started is called when everything is served.
	Started()
}

// Options are what a process is made of.
type Options struct {
	Config    *config.Config
	Log       *slog.Logger
	Parts     Parts
	Functions Functions // nil = in another process
}

// Process is the parts that one process runs, put together. Its exported fields
// are for the functions beside them: each is set before [Functions] can need it.
type Process struct {
	Data      *config.DataFolder // nil where nothing is kept
	Own       listen.Files       // by which the process proves itself
	Directory *auth.Directory    // of a process with a router or functions
	Health    *observe.Health
	Metrics   *prometheus.Registry

	cfg       *config.Config
	log       *slog.Logger
	parts     Parts
	functions Functions

	dev        *listen.Development
	invoker    events.Invoker
	eventLog   events.Invoker // answers calls about stored events; nil = none are kept
	verifier   *assertion.Verifier
	tokens     *authtoken.Issuer // of the Authentication API
	router     *router.Router
	follower   *notices.Follower // of the registry, for the router
	ingress    *notices.Ingress
	downstream *downstream.Set
	commands   *adapters.Commands // to devices of all adapters
	presence   *adapters.Presence // of devices, as applications are told
	http       *adapterhttp.Adapter
	mqtt       *adaptermqtt.Adapter
	sessions   *adapters.Sessions // of devices that stay connected

	sockets map[string][]Socket // by role
	group   sync.WaitGroup
	failed  chan error
	closers []func()
}

// Socket is an open listener of the configuration; TLS is not yet on it.
type Socket struct {
	net.Listener
	Config config.Listener
}

// New returns a process that does nothing yet.
func New(o Options) *Process {
	return &Process{cfg: o.Config, log: o.Log, parts: o.Parts, functions: o.Functions}
}

// Run starts everything, waits until ctx ends or a part fails, and stops. It is
// called once.
func (p *Process) Run(ctx context.Context) (err error) {
	defer func() {
		for k := len(p.closers) - 1; k >= 0; k-- {
			p.closers[k]()
		}
	}()
	// The parts end one after the other, not all when ctx does.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.closers = append(p.closers, p.group.Wait, cancel)
	if err := p.open(ctx, work); err != nil {
		return p.unlessInterrupted(ctx, err)
	}
	if err := p.serve(work); err != nil {
		return p.unlessInterrupted(ctx, err)
	}
	p.Health.Started()
	p.log.Info("ready", "version", observe.Version())
	if p.functions != nil {
		p.functions.Started()
	}
	select {
	case <-ctx.Done():
	case err = <-p.failed:
	}
	p.stop()
	return err
}

// unlessInterrupted returns why a start failed. Of one that was interrupted no
// error is left: whoever asks for the end gets an orderly one.
func (p *Process) unlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	p.log.Info("interrupted during the start", "err", err)
	return nil
}

// open makes everything that can fail before anything is served.
func (p *Process) open(ctx, work context.Context) (err error) {
	p.failed = make(chan error, 16)
	p.Health, p.Metrics = observe.NewHealth(), metrics.New()
	if p.needsData() {
		if p.Data, err = config.OpenData(p.cfg.Data); err != nil {
			return err
		}
		p.OnClose(func() { p.Data.Close() })
	}
	if p.Own, p.dev, err = listen.Own(p.cfg); err != nil {
		return err
	}
	// Ports first: a port in use is the usual mistake, and nothing is created then.
	if err = p.openSockets(ctx); err != nil {
		return err
	}
	if p.parts.Router || p.functions != nil {
		if err = p.openDirectory(); err != nil {
			return err
		}
	}
	for _, step := range []func(ctx, work context.Context) error{p.openFunctions, p.openRouter, p.openAdapters} {
		if err = step(ctx, work); err != nil {
			return err
		}
	}
	p.group.Go(func() { p.tuneMemory(work) })
	if p.functions != nil {
		return p.functions.Opened(ctx)
	}
	return nil
}

// needsData says whether anything is kept. An adapter that has a certificate keeps
// nothing, and so runs where it may not write.
func (p *Process) needsData() bool {
	return p.parts.Router || p.functions != nil || p.cfg.TLS.Certificate == ""
}

// roles are the listeners that this process serves.
func (p *Process) roles() []string {
	roles := []string{config.RoleHealth}
	if p.parts.Router {
		roles = append(roles, config.RoleNorthbound, config.RoleInternal, config.RoleRegistry, config.RoleAuth, config.RoleIngress)
	}
	if p.parts.HTTP {
		roles = append(roles, config.RoleHTTPAdapter)
	}
	if p.parts.MQTT {
		roles = append(roles, config.RoleMQTTAdapter)
	}
	if p.functions != nil {
		roles = append(roles, p.functions.Roles()...)
	}
	return roles
}

func (p *Process) openSockets(ctx context.Context) error {
	p.sockets = map[string][]Socket{}
	for _, l := range p.cfg.ListenersOf(p.roles()...) {
		ln, err := listen.Open(ctx, l.Role, l.Address, nil)
		if err != nil {
			return err
		}
		p.OnClose(func() { ln.Close() })
		p.sockets[l.Role] = append(p.sockets[l.Role], Socket{ln, l})
	}
	return nil
}

// openDirectory reads the identities file. A process that has the functions
// makes it at the first start.
func (p *Process) openDirectory() error {
	_, err := os.Stat(p.cfg.Identities)
	if errors.Is(err, os.ErrNotExist) && p.functions != nil {
		if err := p.functions.Identities(); err != nil {
			return err
		}
	}
	p.Directory, err = auth.Open(p.cfg.Identities, auth.Options{AllowPlain: p.cfg.Insecure, Logger: p.log})
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("identities file %s does not exist: make one with \"sluice identity add\", or name one with --identities", p.cfg.Identities)
	}
	return err
}

// Sockets are the open listeners of a role.
func (p *Process) Sockets(role string) []Socket { return p.sockets[role] }

// ClientTLS proves this process to other components: it gives the client
// configuration for a connection to the named host.
func (p *Process) ClientTLS() (tlsFor, error) { return listen.ClientTLS(p.Own, p.log) }

// OnClose has f called at the end, before what was given earlier.
func (p *Process) OnClose(f func()) { p.closers = append(p.closers, f) }

// Go runs f, and the process does not end before it returns.
func (p *Process) Go(f func()) { p.group.Go(f) }

// goServe runs f until it returns; an error ends the process.
func (p *Process) goServe(what string, f func() error) {
	p.group.Go(func() {
		if err := f(); err != nil {
			p.failed <- fmt.Errorf("%s: %w", what, err)
		}
	})
}

// stop ends the parts in the order in which they feed each other.
func (p *Process) stop() {
	p.Health.Stopping()
	p.stopAdapters()
	if p.router != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopRouter)
		p.router.Shutdown(ctx)
		cancel()
	}
}
