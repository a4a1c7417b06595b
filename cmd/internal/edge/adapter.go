package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/downstream"
	adapterhttp "github.com/sluice-iot/sluice/adapters/http"
	adaptermqtt "github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/listen"
)

// tlsFor gives the client configuration for a connection to the named host.
type tlsFor = func(serverName string) *tls.Config

// openAdapters makes the adapters and the one way to the routers that they share.
func (p *Process) openAdapters(_, work context.Context) error {
	if !p.parts.adapter() {
		return nil
	}
	routers, err := p.routers(work)
	if err != nil {
		return err
	}
	address, err := p.commandAddress()
	if err != nil {
		return err
	}
	heed := &adapters.NoticeHandlers{} // complete before the first notice: nothing runs yet
	p.commands = adapters.NewCommands(adapters.CommandsOptions{Logger: p.log})
	p.downstream, err = downstream.New(downstream.Options{
		Routers: routers, Instance: p.instance(), Login: peer.ExternalLogin(),
		CreditWait: p.cfg.CreditWait, SendTimeout: p.cfg.SendTimeout, Notices: heed,
		Commands: p.commands, Address: address, Logger: p.log,
	})
	if err != nil {
		return err
	}
	p.commands.AnnounceTo(p.downstream)
	if err := p.openPresence(); err != nil {
		return err
	}
	p.Metrics.MustRegister(commandFigures(p.commands, p.presence.Counts)...)
	if p.parts.MQTT {
		p.openMQTT(heed)
	}
	if p.parts.HTTP {
		p.openHTTP(heed)
	}
	p.OnClose(p.presence.Close) // before the admissions: it sends for devices that have just gone
	p.Health.Readiness("router", func(context.Context) (bool, map[string]any) { return p.downstream.Ready(), nil })
	return nil
}

// openPipeline makes what is an adapter's own of what all adapters do.
func (p *Process) openPipeline(heed *adapters.NoticeHandlers, o adapters.Options, limits adapters.AdmissionOptions) *adapters.Pipeline {
	limits.Invoker, limits.Logger = p.invoker, p.log
	o.Admissions, o.Downstream = adapters.NewAdmissions(limits), p.downstream
	o.Commands, o.Presence = p.commands, p.presence
	p.OnClose(o.Admissions.Close)
	*heed = append(*heed, o.Admissions)
	p.Metrics.MustRegister(o.Meter)
	p.Metrics.MustRegister(admissionFigures(o.Type, o.Admissions.Counts)...)
	return adapters.NewPipeline(o)
}

func (p *Process) openHTTP(heed *adapters.NoticeHandlers) {
	h := &p.cfg.Adapters.HTTP
	o := adapterhttp.Options{
		Pipeline: p.openPipeline(heed, adapters.Options{Type: adapterhttp.Type, Meter: adapters.NewMeter(adapterhttp.Type), MaxPayload: int(h.MaxPayloadSize), NoDefaults: !h.DefaultsEnabled},
			adapters.AdmissionOptions{FailuresPerAuthID: h.FailedAttemptsPerAuthID, FailuresPerAddress: h.FailedAttemptsPerAddress}),
		Conns:            adapters.NewConnLimit(h.ConnectionsPerAddress),
		NoAuthentication: !h.AuthenticationRequired,
		Realm:            h.Realm, AllowedOrigin: h.CORSAllowedOrigin, IdleTimeout: h.IdleTimeout, Logger: p.log,
	}
	if p.mqtt != nil {
		o.WebSocket = p.mqtt.WebSocket()
	}
	p.http = adapterhttp.New(o)
}

func (p *Process) openMQTT(heed *adapters.NoticeHandlers) {
	m := &p.cfg.Adapters.MQTT
	o := adapters.Options{Type: adaptermqtt.Type, Meter: adapters.NewMeter(adaptermqtt.Type), MaxPayload: int(m.MaxPayloadSize), NoDefaults: !m.DefaultsEnabled}
	pipeline := p.openPipeline(heed, o, adapters.AdmissionOptions{FailuresPerAuthID: m.FailedAttemptsPerAuthID, FailuresPerAddress: m.FailedAttemptsPerAddress})
	p.sessions = adapters.NewSessions(pipeline, adapters.SessionOptions{Max: m.MaxConnections, Logger: p.log, Meter: o.Meter})
	p.OnClose(p.sessions.Close)
	*heed = append(*heed, p.sessions) // after the admissions, which forget first
	p.mqtt = adaptermqtt.New(adaptermqtt.Options{
		Pipeline: pipeline, Sessions: p.sessions, Conns: adapters.NewConnLimit(m.ConnectionsPerAddress),
		NoAuthentication: !m.AuthenticationRequired, MaxInFlight: m.MaxInFlight, Will: m.Will == config.WillPublish, Logger: p.log,
		CommandAckTimeout: ackTimeout(m.SendMessageToDeviceTimeout), ConnectionEvents: connectionEvents[m.ConnectionEvents], Presence: p.presence,
	})
}

// serveAdapters opens the devices' doors.
func (p *Process) serveAdapters(work context.Context) error {
	for _, s := range p.sockets[config.RoleHTTPAdapter] {
		conf, err := listen.DeviceTLS(s.Config, p.Own, p.cfg.Adapters.HTTP.AuthenticationRequired, p.log, "h2", "http/1.1")
		if err != nil {
			return err
		}
		p.goServe("adapter http", func() error { return p.http.Serve(work, s.Listener, conf) })
	}
	for _, s := range p.sockets[config.RoleMQTTAdapter] {
		conf, err := listen.DeviceTLS(s.Config, p.Own, p.cfg.Adapters.MQTT.AuthenticationRequired, p.log)
		if err != nil {
			return err
		}
		p.goServe("adapter mqtt", func() error { return p.mqtt.Serve(work, s.Listener, conf) })
	}
	return nil
}

// stopAdapters lets uploads in flight finish, in all adapters at the same time.
func (p *Process) stopAdapters() {
	ctx, cancel := context.WithTimeout(context.Background(), stopUploads)
	defer cancel()
	var wg sync.WaitGroup
	stop := func(what string, shutdown func(context.Context) error) {
		wg.Go(func() {
			if err := shutdown(ctx); err != nil {
				p.log.Warn("uploads were cut off", "adapter", what, "err", err)
			}
		})
	}
	if p.http != nil {
		stop(adapterhttp.Type, p.http.Shutdown)
	}
	if p.mqtt != nil {
		stop(adaptermqtt.Type, p.mqtt.Shutdown)
	}
	wg.Wait()
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
	id, err := auth.NewComponent(auth.Adapter, inProcess)
	if err != nil {
		return nil, err
	}
	return []downstream.Router{{Dial: func(context.Context) (*peer.Pipe, error) {
		near, far := peer.NewPipe()
		p.group.Go(func() { p.router.ServePipe(work, far, id) })
		return near, nil
	}}}, nil
}
