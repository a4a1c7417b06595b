package edge

import (
	"context"
	"net/http"
	"time"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/auth/authtoken"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/listen"
	"github.com/sluice-iot/sluice/router"
	"github.com/sluice-iot/sluice/router/notices"
)

// openRouter makes the router; it accepts nobody yet.
func (p *Process) openRouter(_, work context.Context) error {
	if !p.parts.Router {
		return nil
	}
	if p.invoker != nil {
		p.verifier = assertion.NewVerifier(assertion.VerifierConfig{Issuer: "//" + p.cfg.Name, Keys: p.keySource()})
		p.OnClose(p.verifier.Close)
	}
	var err error
	if p.tokens, err = authtoken.Open(p.Data.File("keys", "auth-token.pem"), authtoken.Options{
		Issuer: p.cfg.Auth.Issuer, Audience: p.cfg.Auth.Audience, Lifetime: p.cfg.Auth.TokenLifetime}); err != nil {
		return err
	}
	p.router = router.New(router.Options{Name: p.cfg.Name, Directory: p.Directory, Verifier: p.verifier, Addresses: p.cfg.Addresses,
		Invoker: p.invoker, Tokens: p.tokens, Logger: p.log})
	o := notices.Options{Invoker: p.invoker, Publisher: p.router, Logger: p.log}
	if p.verifier != nil {
		o.Verifier = p.verifier
	}
	p.follower = notices.New(o)
	p.ingress = notices.NewIngress(notices.IngressOptions{Name: p.cfg.Name, Take: p.follower.Take, Token: p.Directory.Token, Logger: p.log})
	p.Metrics.MustRegister(append(ingressFigures(p.ingress.Refused), p.router, p.follower)...)
	p.group.Go(func() { p.router.Run(work) })
	p.group.Go(func() { p.follower.Run(work) })
	p.group.Go(func() { p.tuneMemory(work) })
	p.group.Go(func() { p.Directory.Watch(work, time.Second) })
	return nil
}

// scopes are the roles of a router's listeners, with what is served there.
var scopes = map[string]router.Scope{
	config.RoleNorthbound: router.ScopeAll, config.RoleInternal: router.ScopeAll,
	config.RoleRegistry: router.ScopeServices, config.RoleAuth: router.ScopeTokens,
}

func (p *Process) serveRouter(work context.Context) error {
	for role, scope := range scopes {
		for _, s := range p.sockets[role] {
			conf, err := listen.ConfiguredTLS(s.Config, p.Own, p.log)
			if err != nil {
				return err
			}
			l := router.Listener{Listener: s.Listener, TLS: conf, Components: role == config.RoleInternal, Mechanisms: s.Config.Mechanisms, Scope: scope}
			p.goServe("router", func() error { return p.router.Serve(work, l) })
		}
	}
	for _, s := range p.sockets[config.RoleIngress] {
		if err := p.ServeHTTP(work, s, &http.Server{Handler: p.ingress}); err != nil {
			return err
		}
	}
	return nil
}
