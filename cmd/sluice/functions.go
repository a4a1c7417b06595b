package main

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
	return []string{config.RoleManagement, config.RoleFunction}
}

// Identities implements [edge.Functions].
func (i *installation) Identities() error { return i.createOperator() }

// Open implements [edge.Functions]: it makes the identity functions.
func (i *installation) Open(ctx, work context.Context) (events.Invoker, error) {
	poster, err := i.poster()
	if err != nil {
		return nil, err
	}
	if i.identity, err = identity.Open(ctx, i.cfg, i.process.Data, i.log, identity.Deps{Poster: poster}); err != nil {
		return nil, err
	}
	i.process.OnClose(func() {
		if err := i.identity.Close(); err != nil {
			i.log.Error("close the registry", "err", err)
		}
	})
	i.process.Health.Readiness("registry", i.identity.Readiness)
	i.process.Metrics.MustRegister(changeFigures(i.identity.Posted)...)
	i.process.Go(func() { i.identity.KeepKeys(work, i.cfg, i.log) })
	return inproc.New(i.log, i.identity.Functions()...)
}

// Keys implements [edge.Functions].
func (i *installation) Keys() assertion.KeySource { return i.identity.KeySource() }

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
	m := &i.cfg.Management
	api := management.New(i.identity.Registry, management.Directory(i.process.Directory), management.Options{
		MaxBody: int64(m.MaxPayloadSize), MaxBulk: int64(m.MaxBulkSize), Open: !m.AuthenticationRequired, Origin: m.CORSAllowedOrigin, Realm: m.Realm, Log: i.log})
	for _, s := range i.process.Sockets(config.RoleManagement) {
		if err := i.process.ServeHTTP(work, s, &http.Server{Handler: api, IdleTimeout: m.IdleTimeout}); err != nil {
			return err
		}
	}
	for _, s := range i.process.Sockets(config.RoleFunction) {
		host, err := knative.New(knative.Config{Name: i.cfg.Name, Functions: i.identity.Functions(),
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
