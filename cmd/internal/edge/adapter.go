package edge

import (
	"context"
	"crypto/tls"
	"errors"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/downstream"
	adapterhttp "github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
)

// tlsFor gives the client configuration for a connection to the named host.
type tlsFor = func(serverName string) *tls.Config

// openAdapters makes the HTTP adapter and its way to the routers.
func (p *Process) openAdapters(_, work context.Context) error {
	if !p.parts.HTTP {
		return nil
	}
	routers, err := p.routers(work)
	if err != nil {
		return err
	}
	h := &p.cfg.Adapters.HTTP
	p.admissions = adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: p.invoker,
		FailuresPerAuthID: h.FailedAttemptsPerAuthID, FailuresPerAddress: h.FailedAttemptsPerAddress, Logger: p.log})
	p.OnClose(p.admissions.Close)
	p.Metrics.MustRegister(admissionFigures(p.admissions.Counts)...)
	p.downstream, err = downstream.New(downstream.Options{
		Routers: routers, Instance: p.instance(), Login: peer.ExternalLogin(),
		CreditWait: p.cfg.CreditWait, SendTimeout: p.cfg.SendTimeout, Notices: p.admissions, Logger: p.log,
	})
	if err != nil {
		return err
	}
	p.http = adapterhttp.New(adapterhttp.Options{
		Pipeline: adapters.NewPipeline(adapters.Options{Type: adapterhttp.Type, Admissions: p.admissions,
			Downstream: p.downstream, MaxPayload: int(h.MaxPayloadSize), NoDefaults: !h.DefaultsEnabled}),
		Conns:            adapters.NewConnLimit(h.ConnectionsPerAddress),
		NoAuthentication: !h.AuthenticationRequired,
		Realm:            h.Realm, AllowedOrigin: h.CORSAllowedOrigin, IdleTimeout: h.IdleTimeout, Logger: p.log,
	})
	p.Health.Readiness("router", func(context.Context) (bool, map[string]any) { return p.downstream.Ready(), nil })
	return nil
}

// routers are those of the configuration, or that of this process.
func (p *Process) routers(work context.Context) ([]downstream.Router, error) {
	if len(p.cfg.Routers) > 0 {
		conf, err := p.ClientTLS()
		if err != nil {
			return nil, err
		}
		var out []downstream.Router
		for _, u := range p.cfg.Routers {
			out = append(out, downstream.Router{URL: u, TLS: conf})
		}
		return out, nil
	}
	if p.router == nil {
		return nil, errors.New("routers is not set: an adapter needs the URL of a router, such as amqps://127.0.0.1:5673")
	}
	id, err := auth.NewComponent(auth.Adapter, "http-0")
	if err != nil {
		return nil, err
	}
	return []downstream.Router{{Dial: func(context.Context) (*peer.Pipe, error) {
		near, far := peer.NewPipe()
		p.group.Go(func() { p.router.ServePipe(work, far, id) })
		return near, nil
	}}}, nil
}
