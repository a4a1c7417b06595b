package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/cmd/internal/identity"
	"github.com/sluice-iot/sluice/events"
	invokehttp "github.com/sluice-iot/sluice/events/invoke/http"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	invokelambda "github.com/sluice-iot/sluice/events/invoke/lambda"
	postmetrics "github.com/sluice-iot/sluice/events/post/http/metrics"
	inprocpost "github.com/sluice-iot/sluice/events/post/inproc"
	"github.com/sluice-iot/sluice/functions/host/knative"
	"github.com/sluice-iot/sluice/functions/management"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/listen"
)

// lambdaScheme begins the name of a function that is invoked on Lambda.
const lambdaScheme = "lambda:"

// openFunctions makes the identity functions, or the way to where they are.
func (i *installation) openFunctions(ctx, work context.Context) (err error) {
	switch url := i.cfg.Functions.Identity; {
	case i.parts.identity:
		if err := i.openIdentity(ctx); err != nil {
			return err
		}
		i.group.Go(func() { i.identity.KeepKeys(work, i.cfg, i.log) })
		i.invoker, err = inproc.New(i.log, i.identity.Functions()...)
		return err
	case url == "" && i.parts.http:
		return fmt.Errorf("functions.identity is not set: an adapter needs the URL of the identity functions")
	case url == "":
		return nil // a router for applications only; it has no assertion to verify
	case strings.HasPrefix(url, lambdaScheme):
		inv, err := invokelambda.New(invokelambda.Config{Function: strings.TrimPrefix(url, lambdaScheme), Source: "//" + i.cfg.Name + "/" + i.instance(), Log: i.log})
		if err != nil {
			return err
		}
		i.closers = append(i.closers, inv.Close)
		i.invoker = inv
		return nil
	default:
		inv, err := i.functionsByURL(url)
		if err != nil {
			return err
		}
		i.closers = append(i.closers, inv.Close)
		i.invoker = inv
		return nil
	}
}

// functionsByURL proves this process by its certificate, and by a token where one
// is configured. Functions that are reached by a token are a platform's: whose
// certificates to believe is the system's to know unless the tls keys say it.
func (i *installation) functionsByURL(url string) (*invokehttp.Invoker, error) {
	c := invokehttp.Config{URL: url, Source: "//" + i.cfg.Name + "/" + i.instance(), Log: i.log}
	own := i.own
	if i.cfg.Functions.TokenFile != "" {
		token, err := openToken(i.cfg.Functions.TokenFile)
		if err != nil {
			return nil, err
		}
		c.Token = token.read
		if i.cfg.TLS.Certificate == "" {
			own = listen.Files{CA: i.cfg.TLS.CA}
		}
	}
	tlsFor, err := listen.ClientTLS(own, i.log)
	if err != nil {
		return nil, err
	}
	c.TLS = tlsFor("")
	return invokehttp.New(c)
}

// instance names this process among the components.
func (i *installation) instance() string {
	host, err := os.Hostname()
	if err != nil || auth.CheckInstance(auth.Adapter, host) != nil {
		host = "local"
	}
	switch {
	case i.parts.router && i.parts.http:
		return "up/" + host
	case i.parts.router:
		return "router/" + host
	default:
		return "adapters/http-" + host
	}
}

func (i *installation) openIdentity(ctx context.Context) (err error) {
	poster, err := i.poster()
	if err != nil {
		return err
	}
	if i.identity, err = identity.Open(ctx, i.cfg, i.data, i.log, identity.Deps{Poster: poster}); err != nil {
		return err
	}
	i.closers = append(i.closers, func() {
		if err := i.identity.Close(); err != nil {
			i.log.Error("close the registry", "err", err)
		}
	})
	i.health.Readiness("registry", i.identity.Readiness)
	i.metrics.MustRegister(changeFigures(i.identity.Posted)...)
	return nil
}

// poster brings changes of the registry to the router of this process and to
// those that are configured; nil where there is neither.
func (i *installation) poster() (events.Poster, error) {
	tlsFor, err := i.clientTLS()
	if err != nil {
		return nil, err
	}
	others, err := identity.NewPoster(i.cfg, tlsFor(""), i.log)
	if err != nil {
		return nil, err
	}
	if others != nil {
		i.closers = append(i.closers, others.Close)
		i.metrics.MustRegister(postmetrics.Of(others))
	}
	own := inprocpost.Poster(func(ctx context.Context, facts []events.Fact) error { return i.follower.Take(ctx, facts) })
	switch {
	case i.parts.router && others != nil:
		return inprocpost.Both(own, others), nil
	case i.parts.router:
		return own, nil
	case others != nil:
		return others, nil
	}
	return nil, nil
}

// keySource is where a router gets the keys that verify assertions.
func (i *installation) keySource() assertion.KeySource {
	if i.identity != nil {
		return i.identity.KeySource()
	}
	return func(ctx context.Context) (assertion.KeySet, time.Duration, error) {
		set, err := events.Call(ctx, i.invoker, events.AssertionKeys{})
		if err != nil {
			return assertion.KeySet{}, 0, err
		}
		return assertion.KeySet{Keys: set.Keys}, set.MaxAge(), nil
	}
}

// serveFunctions serves management and, to components, the functions.
func (i *installation) serveFunctions(work context.Context) error {
	if i.identity == nil {
		return nil
	}
	m := &i.cfg.Management
	api := management.New(i.identity.Registry, management.Directory(i.directory), management.Options{
		MaxBody: int64(m.MaxPayloadSize), MaxBulk: int64(m.MaxBulkSize), Open: !m.AuthenticationRequired, Origin: m.CORSAllowedOrigin, Realm: m.Realm, Log: i.log})
	for _, s := range i.sockets[config.RoleManagement] {
		if err := i.serveHTTP(work, s, &http.Server{Handler: api, IdleTimeout: m.IdleTimeout}); err != nil {
			return err
		}
	}
	for _, s := range i.sockets[config.RoleFunction] {
		host, err := knative.New(knative.Config{Name: i.cfg.Name, Functions: i.identity.Functions(),
			Caller: knative.CertificateCaller, Log: i.log, QuietPeriod: 100 * time.Millisecond})
		if err != nil {
			return err
		}
		if err := i.serveHTTP(work, s, &http.Server{Handler: host}); err != nil {
			return err
		}
		i.closers = append(i.closers, host.Drain)
	}
	return nil
}

// assertionKeys are the public keys of the assertions.
func (i *installation) assertionKeys(ctx context.Context) ([]json.RawMessage, error) {
	set, _, err := i.identity.KeySource()(ctx)
	return set.Keys, err
}

// serveKeys answers with the public keys, for Hono's components.
func (i *installation) serveKeys(w http.ResponseWriter, r *http.Request) {
	set, age, err := i.identity.KeySource()(r.Context())
	if err != nil {
		http.Error(w, "keys are not available", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "max-age="+strconv.Itoa(int(age.Seconds())))
	json.NewEncoder(w).Encode(set)
}
