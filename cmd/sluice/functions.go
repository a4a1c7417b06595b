package main

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/cmd/internal/eventlog"
	"github.com/sluice-iot/sluice/cmd/internal/identity"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	postmetrics "github.com/sluice-iot/sluice/events/post/http/metrics"
	inprocpost "github.com/sluice-iot/sluice/events/post/inproc"
	"github.com/sluice-iot/sluice/functions/host/knative"
	"github.com/sluice-iot/sluice/functions/management"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/config"
)

// Roles implements [edge.Functions].
func (i *installation) Roles() []string {
	if !i.withIdentity {
		return []string{config.RoleFunction}
	}
	return []string{config.RoleManagement, config.RoleFunction}
}

// Identities implements [edge.Functions].
func (i *installation) Identities() error { return i.createOperator() }

// Open implements [edge.Functions].
func (i *installation) Open(ctx, work context.Context) (events.Invoker, error) {
	poster, err := i.poster()
	if err != nil {
		return nil, err
	}
	if i.withIdentity {
		if err := i.openIdentity(ctx, work, poster); err != nil {
			return nil, err
		}
	}
	if i.withEvents && i.cfg.Functions.Events == "" {
		if err := i.openEvents(ctx, work, poster); err != nil {
			return nil, err
		}
	}
	i.invoker, err = inproc.New(i.log, i.functions()...)
	return i.invoker, err
}

// Events implements [edge.Functions].
func (i *installation) Events() events.Invoker {
	if i.eventlog == nil {
		return nil
	}
	return i.invoker
}

// functions are those of this process.
func (i *installation) functions() (all []events.Function) {
	if i.identity != nil {
		all = append(all, i.identity.Functions()...)
	}
	if i.eventlog != nil {
		all = append(all, i.eventlog.Functions()...)
	}
	return all
}

// openEvents makes the event store.
func (i *installation) openEvents(ctx, work context.Context, facts events.Poster) (err error) {
	if i.eventlog, err = eventlog.Open(ctx, i.cfg, i.process.Data, i.log, facts); err != nil {
		return err
	}
	i.process.OnClose(func() {
		if err := i.eventlog.Close(); err != nil {
			i.log.Error("close the event store", "err", err)
		}
	})
	i.process.Health.Readiness("events", i.eventlog.Readiness)
	i.process.Metrics.MustRegister(&backlogs{log: i.eventlog.Log})
	i.process.Go(func() { i.eventlog.Sweep(work, i.log) })
	return nil
}

// openIdentity makes the identity functions.
func (i *installation) openIdentity(ctx, work context.Context, poster events.Poster) (err error) {
	if i.identity, err = identity.Open(ctx, i.cfg, i.process.Data, i.log, identity.Deps{Poster: poster}); err != nil {
		return err
	}
	i.process.OnClose(func() {
		if err := i.identity.Close(); err != nil {
			i.log.Error("close the registry", "err", err)
		}
	})
	i.process.Health.Readiness("registry", i.identity.Readiness)
	i.process.Metrics.MustRegister(changeFigures(i.identity.Posted)...)
	i.process.Go(func() { i.identity.KeepKeys(work, i.cfg, i.log) })
	return nil
}

// Keys implements [edge.Functions].
func (i *installation) Keys() assertion.KeySource {
	if i.identity == nil {
		return nil
	}
	return i.identity.KeySource()
}

// poster brings changes of the registry to the router of this process and to
// those that are configured; nil where there is neither.
func (i *installation) poster() (events.Poster, error) {
	tlsFor, err := i.process.ClientTLS()
	if err != nil {
		return nil, err
	}
	others, err := identity.NewPoster(i.cfg, tlsFor(""), i.log)
	if err != nil {
		return nil, err
	}
	if others != nil {
		i.process.OnClose(others.Close)
		i.process.Metrics.MustRegister(postmetrics.Of(others))
	}
	own := inprocpost.Poster(i.process.Take)
	switch {
	case i.router && others != nil:
		return inprocpost.Both(own, others), nil
	case i.router:
		return own, nil
	case others != nil:
		return others, nil
	}
	return nil, nil
}

// Serve implements [edge.Functions]: it serves management and, to components, the functions.
func (i *installation) Serve(work context.Context) error {
	if i.identity != nil {
		if err := i.serveManagement(work); err != nil {
			return err
		}
	}
	for _, s := range i.process.Sockets(config.RoleFunction) {
		host, err := knative.New(knative.Config{Name: i.cfg.Name, Functions: i.functions(),
			Caller: knative.CertificateCaller, Log: i.log, QuietPeriod: 100 * time.Millisecond})
		if err != nil {
			return err
		}
		if err := i.process.ServeHTTP(work, s, &http.Server{Handler: host}); err != nil {
			return err
		}
		i.process.OnClose(host.Drain)
	}
	return nil
}

func (i *installation) serveManagement(work context.Context) error {
	m := &i.cfg.Management
	api := management.New(i.identity.Registry, management.Directory(i.process.Directory), management.Options{Events: i.process.Events(),
		MaxBody: int64(m.MaxPayloadSize), MaxBulk: int64(m.MaxBulkSize), Open: !m.AuthenticationRequired, Origin: m.CORSAllowedOrigin, Realm: m.Realm, Log: i.log})
	handler := i.process.WithReachable(api, !m.AuthenticationRequired)
	for _, s := range i.process.Sockets(config.RoleManagement) {
		if err := i.process.ServeHTTP(work, s, &http.Server{Handler: handler, IdleTimeout: m.IdleTimeout}); err != nil {
			return err
		}
	}
	return nil
}

// changeFigures tell what became of changes of the registry of this process.
func changeFigures(posted func() (taken, left uint64)) []prometheus.Collector {
	counted := func(result string, value func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "sluice_registry_changes_posted_total", Help: "Changes of the registry: taken by every router at once, or left to the feed.",
			ConstLabels: prometheus.Labels{"result": result},
		}, func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		counted("taken", func() uint64 { n, _ := posted(); return n }),
		counted("left", func() uint64 { _, n := posted(); return n }),
	}
}
