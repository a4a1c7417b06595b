package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/downstream"
	adapterhttp "github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/cmd/internal/identity"
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

// installation is the parts that one process runs, put together.
type installation struct {
	cfg   *config.Config
	parts parts
	log   *slog.Logger
	out   io.Writer
	demo  bool

	data      *config.DataFolder
	own       listen.Files
	dev       *listen.Development
	directory *auth.Directory
	health    *observe.Health
	metrics   *prometheus.Registry

	identity   *identity.Identity // nil = in another process
	invoker    events.Invoker
	verifier   *assertion.Verifier
	tokens     *authtoken.Issuer // of the Authentication API
	router     *router.Router
	follower   *notices.Follower // of the registry, for the router
	downstream *downstream.Set
	admissions *adapters.Admissions
	http       *adapterhttp.Adapter

	sockets map[string][]socket // by role
	group   sync.WaitGroup
	failed  chan error
	closers []func()
}

// socket is an open listener of the configuration; TLS is not yet on it.
type socket struct {
	net.Listener
	conf config.Listener
}

// run starts everything, waits until ctx ends or a part fails, and stops.
func (i *installation) run(ctx context.Context) (err error) {
	defer func() {
		for k := len(i.closers) - 1; k >= 0; k-- {
			i.closers[k]()
		}
	}()
	// The parts end one after the other, not all when ctx does.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	i.closers = append(i.closers, i.group.Wait, cancel)
	if err := i.open(ctx, work); err != nil {
		return i.unlessInterrupted(ctx, err)
	}
	if err := i.serve(work); err != nil {
		return i.unlessInterrupted(ctx, err)
	}
	i.health.Started()
	i.announce(ctx)
	select {
	case <-ctx.Done():
	case err = <-i.failed:
	}
	i.stop()
	return err
}

// unlessInterrupted returns why a start failed. Of one that was interrupted no
// error is left: whoever asks for the end gets an orderly one.
func (i *installation) unlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	i.log.Info("interrupted during the start", "err", err)
	return nil
}

// open makes everything that can fail before anything is served.
func (i *installation) open(ctx, work context.Context) (err error) {
	i.failed = make(chan error, 16)
	i.health, i.metrics = observe.NewHealth(), metrics.New()
	if i.data, err = config.OpenData(i.cfg.Data); err != nil {
		return err
	}
	i.closers = append(i.closers, func() { i.data.Close() })
	if i.own, i.dev, err = listen.Own(i.cfg); err != nil {
		return err
	}
	// Ports first: a port in use is the usual mistake, and nothing is created then.
	if err = i.openSockets(ctx); err != nil {
		return err
	}
	if i.parts.router || i.parts.identity {
		if err = i.openDirectory(); err != nil {
			return err
		}
	}
	for _, step := range []func(ctx, work context.Context) error{i.openFunctions, i.openRouter, i.openAdapters} {
		if err = step(ctx, work); err != nil {
			return err
		}
	}
	if i.demo {
		return i.openDemo(ctx)
	}
	return nil
}

// roles are the listeners that this process serves.
func (i *installation) roles() []string {
	roles := []string{config.RoleHealth}
	if i.parts.router {
		roles = append(roles, config.RoleNorthbound, config.RoleInternal, config.RoleRegistry, config.RoleAuth, config.RoleIngress)
	}
	if i.parts.http {
		roles = append(roles, config.RoleHTTPAdapter)
	}
	if i.parts.identity {
		roles = append(roles, config.RoleManagement, config.RoleFunction)
	}
	return roles
}

func (i *installation) openSockets(ctx context.Context) error {
	i.sockets = map[string][]socket{}
	for _, l := range i.cfg.ListenersOf(i.roles()...) {
		ln, err := listen.Open(ctx, l.Role, l.Address, nil)
		if err != nil {
			return err
		}
		i.closers = append(i.closers, func() { ln.Close() })
		i.sockets[l.Role] = append(i.sockets[l.Role], socket{ln, l})
	}
	return nil
}

// openDirectory reads the identities file. A process that has the registry
// makes it at the first start, with an operator whose secret nobody knew before.
func (i *installation) openDirectory() error {
	_, err := os.Stat(i.cfg.Identities)
	if errors.Is(err, os.ErrNotExist) && i.parts.identity {
		if err := i.createOperator(); err != nil {
			return err
		}
	}
	i.directory, err = auth.Open(i.cfg.Identities, auth.Options{AllowPlain: i.cfg.Insecure, Logger: i.log})
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("identities file %s does not exist: make one with \"sluice identity add\", or name one with --identities", i.cfg.Identities)
	}
	return err
}

// invokeTLS proves this process to other components.
func (i *installation) clientTLS() (tlsFor, error) { return listen.ClientTLS(i.own, i.log) }

// goServe runs f until it returns; an error ends the process.
func (i *installation) goServe(what string, f func() error) {
	i.group.Go(func() {
		if err := f(); err != nil {
			i.failed <- fmt.Errorf("%s: %w", what, err)
		}
	})
}

// stop ends the parts in the order in which they feed each other.
func (i *installation) stop() {
	i.health.Stopping()
	if i.http != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopUploads)
		if err := i.http.Shutdown(ctx); err != nil {
			i.log.Warn("uploads were cut off", "err", err)
		}
		cancel()
	}
	if i.router != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopRouter)
		i.router.Shutdown(ctx)
		cancel()
	}
}
