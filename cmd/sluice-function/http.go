package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/functions/host/knative"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/listen"
	"github.com/sluice-iot/sluice/internal/observe"
)

// portVariable is how Knative and other platforms say where to listen.
const portVariable = "PORT"

// stopRest is how long management and health may take to end.
const stopRest = 2 * time.Second

// server is the listeners of one process.
type server struct {
	*program
	own    listen.Files
	host   *knative.Host
	group  sync.WaitGroup
	failed chan error
}

// serveHTTP listens until a signal comes or a listener fails.
func (p *program) serveHTTP() error {
	ctx, cancel := context.WithCancel(knative.Signals())
	s := &server{program: p, failed: make(chan error, 16)}
	defer s.group.Wait()
	defer cancel()
	if p.users != nil {
		s.group.Go(func() { p.users.Watch(ctx, time.Second) })
	}
	if slices.Contains(p.parts.types, events.TypeAssertionRotate) {
		s.group.Go(func() { p.id.KeepKeys(ctx, p.cfg, p.log) }) // no schedule reaches a process
	}
	if s.events != nil {
		s.group.Go(func() { s.events.Sweep(ctx, s.log) })
	}
	var err error
	if port := os.Getenv(portVariable); port != "" {
		err = s.listenPort(ctx, port)
	} else {
		err = s.listenConfigured(ctx)
	}
	if err != nil {
		return err
	}
	p.health.Started()
	p.log.Info("ready", "version", observe.Version(), "functions", p.parts.types, "management", p.parts.management)
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// newHost makes the function host. Its readiness is that of the store.
func (s *server) newHost(api http.Handler, callers host.CallerFunc) (err error) {
	s.host, err = knative.New(knative.Config{
		Name: s.cfg.Name, Functions: s.functions(), Caller: callers, Log: s.log,
		Management: api, Ready: s.ready,
	})
	return err
}

// listenPort answers everything on the platform's port. It is plain text: TLS ends
// at the platform, so no client certificate comes this far.
func (s *server) listenPort(ctx context.Context, port string) error {
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("environment variable %s is %q: expected a port number", portVariable, port)
	}
	if len(s.parts.types) > 0 && s.users == nil {
		s.log.Warn("no component can prove itself: there is no identities file with issuers of tokens", "identities", s.cfg.Identities)
	}
	api, err := s.management(true)
	if err != nil {
		return err
	}
	if err := s.newHost(api, s.callers()); err != nil {
		return err
	}
	ln, err := listen.Open(ctx, config.RoleFunction, net.JoinHostPort("", port), nil)
	if err != nil {
		return err
	}
	s.serveHost(ctx, ln)
	return nil
}

// listenConfigured opens the listeners of the configuration.
func (s *server) listenConfigured(ctx context.Context) (err error) {
	var dev *listen.Development
	if s.own, dev, err = listen.Own(s.cfg); err != nil {
		return err
	}
	if dev != nil {
		s.group.Go(func() { dev.Maintain(ctx, s.log) })
	}
	if err := s.newHost(nil, s.callers(host.CertificateCaller)); err != nil {
		return err
	}
	if s.id != nil {
		s.health.Readiness("registry", s.id.Readiness)
	}
	if s.events != nil {
		s.health.Readiness("events", s.events.Readiness)
	}
	api, err := s.management(false)
	if err != nil {
		return err
	}
	probes := observe.NewHandler(s.health, nil)
	for _, l := range s.cfg.ListenersOf(s.parts.roles()...) {
		conf, err := listen.ConfiguredTLS(l, s.own, s.log, "h2", "http/1.1")
		if err != nil {
			return err
		}
		ln, err := listen.Open(ctx, l.Role, l.Address, nil)
		if err != nil {
			return err
		}
		switch l.Role {
		case config.RoleFunction:
			s.serveHost(ctx, tls.NewListener(ln, conf))
		case config.RoleManagement:
			s.serveOther(ctx, l.Role, ln, conf, api)
		case config.RoleHealth:
			s.serveOther(ctx, l.Role, ln, conf, probes)
		}
	}
	return nil
}

// serveHost serves functions; at the end the host stops being ready and drains.
func (s *server) serveHost(ctx context.Context, ln net.Listener) {
	s.log.Info("listening", "role", config.RoleFunction, "address", ln.Addr().String())
	s.group.Go(func() {
		context.AfterFunc(ctx, s.health.Stopping)
		if err := knative.Serve(ctx, ln, s.host); err != nil {
			s.failed <- fmt.Errorf("%s: %w", config.RoleFunction, err)
		}
	})
}

// serveOther serves h until the functions have drained.
func (s *server) serveOther(ctx context.Context, role string, ln net.Listener, conf *tls.Config, h http.Handler) {
	s.log.Info("listening", "role", role, "address", ln.Addr().String(), "tls", conf != nil)
	srv := &http.Server{
		Handler: h, TLSConfig: conf, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute,
		IdleTimeout: s.cfg.Management.IdleTimeout, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.group.Go(func() {
		<-ctx.Done()
		s.host.Drain() // probes are answered meanwhile
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopRest)
		defer cancel()
		if srv.Shutdown(end) != nil {
			srv.Close()
		}
	})
	s.group.Go(func() {
		var err error
		if conf != nil {
			err = srv.ServeTLS(ln, "", "")
		} else {
			err = srv.Serve(ln)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("%s: %w", role, err)
		}
	})
}
