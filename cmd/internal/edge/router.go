package edge

import (
	"context"
	"net/http"
	"time"

	"github.com/sluice-iot/sluice/events"
	posthttp "github.com/sluice-iot/sluice/events/post/http"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/auth/authtoken"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/listen"
	"github.com/sluice-iot/sluice/router"
	"github.com/sluice-iot/sluice/router/notices"
	"github.com/sluice-iot/sluice/router/stored"
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
	kept, err := p.kept()
	if err != nil {
		return err
	}
	p.router = router.New(router.Options{Name: p.cfg.Name, Directory: p.Directory, Verifier: p.verifier, Addresses: p.cfg.Addresses,
		Invoker: p.invoker, Tokens: p.tokens, Events: kept, Logger: p.log})
	o := notices.Options{Invoker: p.invoker, Publisher: p.router, Logger: p.log}
	if p.verifier != nil {
		o.Verifier = p.verifier
	}
	p.follower = notices.New(o)
	p.ingress = notices.NewIngress(notices.IngressOptions{Name: p.cfg.Name, Take: p.Take, Token: p.Directory.Token, Logger: p.log})
	p.Metrics.MustRegister(append(ingressFigures(p.ingress.Refused), p.router, p.follower)...)
	if _, ok := p.router.Events(); ok {
		p.Metrics.MustRegister(eventFigures(func() stored.Figures {
			f, _ := p.router.Events()
			return f
		}))
	}
	p.group.Go(func() { p.router.Run(work) })
	p.group.Go(func() { p.follower.Run(work) })
	p.group.Go(func() { p.Directory.Watch(work, time.Second) })
	return nil
}

// remoteShards is how many appends are on their way to functions at the same time. A store in
// this process commits one after the other, and what waits meanwhile goes together.
const remoteShards = 4

// eventsPoll is how often a router that no fact reaches asks for what others have stored: seldom, because
// one that is alone asks as well, of a store that costs by the call.
const eventsPoll = 5 * time.Minute

// kept is how events are kept, nil where they are not.
func (p *Process) kept() (*stored.Options, error) {
	if p.eventLog == nil {
		return nil, nil
	}
	o := &stored.Options{Log: stored.ByInvoker(p.eventLog), Instance: p.instance()}
	if p.cfg.Functions.Events != "" {
		o.Shards = remoteShards
	}
	if len(p.cfg.Notices.Ingresses) == 0 {
		if p.cfg.Functions.Events != "" {
			o.Poll = eventsPoll
			p.log.Warn("functions.events without notices.ingresses: events that another router stores are found by asking, every "+eventsPoll.String(),
				"want", "notices.ingresses with the names of the ingresses of all routers")
		}
		return o, nil
	}
	// Whichever router holds a partition is behind one of the names: all are told.
	tlsFor, err := p.ClientTLS()
	if err != nil {
		return nil, err
	}
	others, err := posthttp.New(posthttp.Config{Name: p.cfg.Name, URLs: p.cfg.Notices.Ingresses, TLS: tlsFor(""), Log: p.log})
	if err != nil {
		return nil, err
	}
	p.OnClose(others.Close)
	o.Ingress = p.cfg.Notices.Ingresses[0]
	o.Tell = func(ctx context.Context, _ string, h eventstore.Holding) error {
		return others.Post(ctx, []events.Fact{events.EventsAppended{TenantID: h.Tenant, Partition: h.Partition, End: h.End, At: time.Now()}})
	}
	return o, nil
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
		if err := p.ServeHTTP(work, s, &http.Server{Handler: p.WithReachable(p.ingress, false)}); err != nil {
			return err
		}
	}
	return nil
}
