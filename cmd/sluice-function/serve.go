package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/sluice-iot/sluice/cmd/internal/command"
	"github.com/sluice-iot/sluice/cmd/internal/eventlog"
	"github.com/sluice-iot/sluice/cmd/internal/identity"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	posthttp "github.com/sluice-iot/sluice/events/post/http"
	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/functions/management"
	"github.com/sluice-iot/sluice/functions/notification"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/listen"
	"github.com/sluice-iot/sluice/internal/observe"
)

// openTimeout bounds how long the store may take to answer at the start.
const openTimeout = 30 * time.Second

// program is one process's parts, put together.
type program struct {
	cfg    *config.Config
	parts  parts
	log    *slog.Logger
	data   *config.DataFolder // nil where nothing is kept here
	users  *auth.Directory    // nil without an identities file
	poster *posthttp.Poster   // nil where nobody is told of changes
	relay  *posthttp.Poster   // of facts that come by a queue, nil where they do not
	id     *identity.Identity // nil where no part needs the registry
	events *eventlog.Events   // nil where they are not
	health *observe.Health
}

// serve runs the process until the platform ends it.
func serve(args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.version {
		_, err := fmt.Fprintln(stdout, programName, observe.Version())
		return err
	}
	files, err := o.writePEM()
	if files != "" {
		defer os.RemoveAll(files)
	}
	if err != nil {
		return err
	}
	p, err := load(o, stderr)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.open(); err != nil {
		return err
	}
	if os.Getenv("AWS_LAMBDA_RUNTIME_API") != "" {
		return p.serveLambda()
	}
	return p.serveHTTP()
}

// load reads the configuration.
func load(o *options, stderr io.Writer) (*program, error) {
	o.settings.NoData = true
	cfg, err := o.settings.Load(config.IdentityFunctionListeners(), false)
	if err != nil {
		return nil, err
	}
	log, err := command.NewLogger(cfg, stderr)
	if err != nil {
		return nil, err
	}
	p := &program{cfg: &cfg.Config, log: log, health: observe.NewHealth()}
	p.parts, err = parseParts(o.functions)
	return p, err
}

// open makes everything that can fail before anything is served.
func (p *program) open() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	if p.parts.identity && identity.NeedsData(p.cfg) || p.parts.events && eventlog.NeedsData(p.cfg) {
		if p.data, err = config.OpenData(p.cfg.Data); err != nil {
			return err
		}
	}
	p.users, err = auth.Open(p.cfg.Identities, auth.Options{AllowPlain: p.cfg.Insecure, Logger: p.log})
	switch {
	case errors.Is(err, os.ErrNotExist) && p.parts.management:
		return fmt.Errorf("identities file %s does not exist, and management needs its operators: name it with --identities, or leave management out of --functions", p.cfg.Identities)
	case errors.Is(err, os.ErrNotExist):
		p.users = nil
	case err != nil:
		return err
	}
	deps := identity.Deps{}
	if p.poster, err = p.newPoster(p.cfg); err != nil {
		return err
	}
	if p.poster != nil {
		deps.Poster = p.poster
	}
	if p.parts.events {
		if p.events, err = eventlog.Open(ctx, p.cfg, p.data, p.log, deps.Poster); err != nil {
			return err
		}
	}
	if !p.parts.identity {
		return nil
	}
	p.id, err = identity.Open(ctx, p.cfg, p.data, p.log, deps)
	return err
}

// functions are those that the process serves.
func (p *program) functions() (all []events.Function) {
	if p.id != nil {
		all = append(all, p.id.Functions()...)
	} else {
		all = append(all, events.NewFunction(notification.Derive))
	}
	if p.events != nil {
		all = append(all, p.events.Functions()...)
	}
	return p.parts.of(all)
}

// ready is nil when the stores answer.
func (p *program) ready(ctx context.Context) error {
	var errs []error
	if p.id != nil {
		errs = append(errs, p.id.Ready(ctx))
	}
	if p.events != nil {
		errs = append(errs, p.events.Ready(ctx))
	}
	return errors.Join(errs...)
}

// newPoster is how changes reach the routers, nil where none is named.
func (p *program) newPoster(cfg *config.Config) (*posthttp.Poster, error) {
	if len(cfg.Notices.Ingresses) == 0 {
		return identity.NewPoster(cfg, nil, p.log)
	}
	own, _, err := listen.Own(cfg)
	if err != nil {
		return nil, err
	}
	client, err := listen.ClientTLS(own, p.log)
	if err != nil {
		return nil, err
	}
	return identity.NewPoster(cfg, client(""), p.log)
}

func (p *program) close() {
	if p.id != nil {
		if err := p.id.Close(); err != nil {
			p.log.Error("close the registry", "err", err)
		}
	}
	if p.events != nil {
		if err := p.events.Close(); err != nil {
			p.log.Error("close the event store", "err", err)
		}
	}
	for _, poster := range []*posthttp.Poster{p.poster, p.relay} {
		if poster != nil {
			poster.Close()
		}
	}
	if p.data != nil {
		p.data.Close()
	}
}

// management is the API below /v1, nil where it is not served. public says that
// it is not behind the listeners of the configuration, which was checked for them.
func (p *program) management(public bool) (http.Handler, error) {
	if !p.parts.management {
		return nil, nil
	}
	m := &p.cfg.Management
	if public && !m.AuthenticationRequired {
		return nil, errors.New("management.authentication-required: false is for loopback addresses only, and the platform's port is none")
	}
	stored, err := p.storedEvents()
	if err != nil {
		return nil, err
	}
	return management.New(p.id.Registry, management.Directory(p.users), management.Options{Events: stored,
		MaxBody: int64(m.MaxPayloadSize), MaxBulk: int64(m.MaxBulkSize), Open: !m.AuthenticationRequired,
		Origin: m.CORSAllowedOrigin, Realm: m.Realm, Log: p.log}), nil
}

// storedEvents answers management's questions about events, nil where this process has none of them.
func (p *program) storedEvents() (events.Invoker, error) {
	if p.events == nil {
		return nil, nil
	}
	return inproc.New(p.log, p.events.Functions()...)
}

// callers are those whom the process admits besides others: bearers of tokens.
func (p *program) callers(others ...host.CallerFunc) host.CallerFunc {
	if p.users != nil {
		others = append(others, host.TokenCaller(p.users))
	}
	return host.FirstOf(others...)
}
