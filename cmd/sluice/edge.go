package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/downstream"
	adapterhttp "github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
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

// tlsFor gives the client configuration for a connection to the named host.
type tlsFor = func(serverName string) *tls.Config

// openRouter makes the router; it accepts nobody yet.
func (i *installation) openRouter(_, work context.Context) error {
	if !i.parts.router {
		return nil
	}
	if i.invoker != nil {
		i.verifier = assertion.NewVerifier(assertion.VerifierConfig{Issuer: "//" + i.cfg.Name, Keys: i.keySource()})
		i.closers = append(i.closers, i.verifier.Close)
	}
	var err error
	if i.tokens, err = authtoken.Open(i.data.File("keys", "auth-token.pem"), authtoken.Options{
		Issuer: i.cfg.Auth.Issuer, Audience: i.cfg.Auth.Audience, Lifetime: i.cfg.Auth.TokenLifetime}); err != nil {
		return err
	}
	i.router = router.New(router.Options{Name: i.cfg.Name, Directory: i.directory, Verifier: i.verifier, Addresses: i.cfg.Addresses,
		Invoker: i.invoker, Tokens: i.tokens, Logger: i.log})
	o := notices.Options{Invoker: i.invoker, Publisher: i.router, Logger: i.log}
	if i.verifier != nil {
		o.Verifier = i.verifier
	}
	i.follower = notices.New(o)
	i.metrics.MustRegister(i.router, i.follower)
	i.group.Go(func() { i.router.Run(work) })
	i.group.Go(func() { i.follower.Run(work) })
	i.group.Go(func() { i.tuneMemory(work) })
	i.group.Go(func() { i.directory.Watch(work, time.Second) })
	return nil
}

// openAdapters makes the HTTP adapter and its way to the routers.
func (i *installation) openAdapters(_, work context.Context) error {
	if !i.parts.http {
		return nil
	}
	routers, err := i.routers(work)
	if err != nil {
		return err
	}
	h := &i.cfg.Adapters.HTTP
	i.admissions = adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: i.invoker,
		FailuresPerAuthID: h.FailedAttemptsPerAuthID, FailuresPerAddress: h.FailedAttemptsPerAddress, Logger: i.log})
	i.closers = append(i.closers, i.admissions.Close)
	i.metrics.MustRegister(admissionFigures(i.admissions.Counts)...)
	i.downstream, err = downstream.New(downstream.Options{
		Routers: routers, Instance: i.instance(), Login: peer.ExternalLogin(),
		CreditWait: i.cfg.CreditWait, SendTimeout: i.cfg.SendTimeout, Notices: i.admissions, Logger: i.log,
	})
	if err != nil {
		return err
	}
	i.http = adapterhttp.New(adapterhttp.Options{
		Pipeline: adapters.NewPipeline(adapters.Options{Type: adapterhttp.Type, Admissions: i.admissions,
			Downstream: i.downstream, MaxPayload: int(h.MaxPayloadSize), NoDefaults: !h.DefaultsEnabled}),
		Conns:            adapters.NewConnLimit(h.ConnectionsPerAddress),
		NoAuthentication: !h.AuthenticationRequired,
		Realm:            h.Realm, AllowedOrigin: h.CORSAllowedOrigin, IdleTimeout: h.IdleTimeout, Logger: i.log,
	})
	i.health.Readiness("router", func(context.Context) (bool, map[string]any) { return i.downstream.Ready(), nil })
	return nil
}

// routers are those of the configuration, or that of this process.
func (i *installation) routers(work context.Context) ([]downstream.Router, error) {
	if len(i.cfg.Routers) > 0 {
		conf, err := i.clientTLS()
		if err != nil {
			return nil, err
		}
		var out []downstream.Router
		for _, u := range i.cfg.Routers {
			out = append(out, downstream.Router{URL: u, TLS: conf})
		}
		return out, nil
	}
	if i.router == nil {
		return nil, errors.New("routers is not set: an adapter needs the URL of a router, such as amqps://127.0.0.1:5673")
	}
	id, err := auth.NewComponent(auth.Adapter, "http-0")
	if err != nil {
		return nil, err
	}
	return []downstream.Router{{Dial: func(context.Context) (*peer.Pipe, error) {
		near, far := peer.NewPipe()
		i.group.Go(func() { i.router.ServePipe(work, far, id) })
		return near, nil
	}}}, nil
}

// serve opens the doors.
func (i *installation) serve(work context.Context) error {
	if i.dev != nil {
		i.group.Go(func() { i.dev.Maintain(work, i.log) })
	}
	if err := i.serveHealth(work); err != nil {
		return err
	}
	if err := i.serveFunctions(work); err != nil {
		return err
	}
	if i.router != nil {
		if err := i.serveRouter(work); err != nil {
			return err
		}
	}
	if i.downstream != nil {
		i.goServe("downstream", func() error { return i.downstream.Run(work) })
	}
	for _, s := range i.sockets[config.RoleHTTPAdapter] {
		conf, err := listen.ConfiguredTLS(s.conf, i.own, i.log, "h2", "http/1.1")
		if err != nil {
			return err
		}
		i.goServe("adapter http", func() error { return i.http.Serve(work, s.Listener, conf) })
	}
	for role, sockets := range i.sockets {
		for _, s := range sockets {
			i.log.Info("listening", "role", role, "address", s.Addr().String(), "tls", s.conf.TLS != nil)
		}
	}
	return nil
}

// scopes are the roles of a router's listeners, with what is served there.
var scopes = map[string]router.Scope{
	config.RoleNorthbound: router.ScopeAll, config.RoleInternal: router.ScopeAll,
	config.RoleRegistry: router.ScopeServices, config.RoleAuth: router.ScopeTokens,
}

func (i *installation) serveRouter(work context.Context) error {
	for role, scope := range scopes {
		for _, s := range i.sockets[role] {
			conf, err := listen.ConfiguredTLS(s.conf, i.own, i.log)
			if err != nil {
				return err
			}
			l := router.Listener{Listener: s.Listener, TLS: conf, Components: role == config.RoleInternal, Mechanisms: s.conf.Mechanisms, Scope: scope}
			i.goServe("router", func() error { return i.router.Serve(work, l) })
		}
	}
	ingress := notices.NewIngress(notices.IngressOptions{Name: i.cfg.Name, Take: i.follower.Take, Token: i.directory.Token, Logger: i.log})
	i.metrics.MustRegister(ingressFigures(ingress.Refused)...)
	for _, s := range i.sockets[config.RoleIngress] {
		if err := i.serveHTTP(work, s, &http.Server{Handler: ingress}); err != nil {
			return err
		}
	}
	return nil
}

// serveHealth answers probes, metrics and the public keys.
func (i *installation) serveHealth(work context.Context) error {
	mux := observe.NewHandler(i.health, metrics.Handler(i.metrics))
	if i.identity != nil {
		mux.HandleFunc("GET /.well-known/jwks.json", i.serveKeys)
	}
	switch {
	case i.tokens != nil && i.identity != nil:
		mux.Handle("GET /validating-keys", i.tokens.Handler(i.assertionKeys))
	case i.tokens != nil:
		mux.Handle("GET /validating-keys", i.tokens.Handler(nil))
	case i.identity != nil:
		mux.HandleFunc("GET /validating-keys", i.serveKeys)
	}
	for _, s := range i.sockets[config.RoleHealth] {
		if err := i.serveHTTP(work, s, &http.Server{Handler: mux}); err != nil {
			return err
		}
	}
	return nil
}

// serveHTTP serves one listener and stops it, with what is in flight, when the process does.
func (i *installation) serveHTTP(work context.Context, s socket, srv *http.Server) error {
	conf, err := listen.ConfiguredTLS(s.conf, i.own, i.log, "h2", "http/1.1")
	if err != nil {
		return err
	}
	srv.TLSConfig = conf
	srv.ReadHeaderTimeout = 5 * time.Second
	srv.ReadTimeout = 30 * time.Second
	srv.WriteTimeout = 60 * time.Second
	if srv.IdleTimeout == 0 {
		srv.IdleTimeout = 2 * time.Minute
	}
	srv.MaxHeaderBytes = 64 << 10
	srv.ErrorLog = slog.NewLogLogger(i.log.Handler(), slog.LevelDebug)
	i.group.Go(func() {
		<-work.Done()
		ctx, cancel := context.WithTimeout(context.Background(), stopRest)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
	})
	i.goServe(s.conf.Role, func() error {
		if conf != nil {
			err = srv.ServeTLS(s.Listener, "", "")
		} else {
			err = srv.Serve(s.Listener)
		}
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	})
	return nil
}
