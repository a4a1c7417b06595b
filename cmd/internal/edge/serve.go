package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/listen"
	"github.com/sluice-iot/sluice/internal/observe"
	"github.com/sluice-iot/sluice/internal/observe/metrics"
)

// serve opens the doors.
func (p *Process) serve(work context.Context) error {
	if p.dev != nil {
		p.group.Go(func() { p.dev.Maintain(work, p.log) })
	}
	if err := p.serveHealth(work); err != nil {
		return err
	}
	if p.functions != nil {
		if err := p.functions.Serve(work); err != nil {
			return err
		}
	}
	if p.router != nil {
		if err := p.serveRouter(work); err != nil {
			return err
		}
	}
	if p.downstream != nil {
		p.goServe("downstream", func() error { return p.downstream.Run(work) })
	}
	if err := p.serveAdapters(work); err != nil {
		return err
	}
	for role, sockets := range p.sockets {
		for _, s := range sockets {
			p.log.Info("listening", "role", role, "address", s.Addr().String(), "tls", s.Config.TLS != nil)
		}
	}
	return nil
}

// serveHealth answers probes, metrics and the public keys.
func (p *Process) serveHealth(work context.Context) error {
	mux := observe.NewHandler(p.Health, metrics.Handler(p.Metrics))
	signs := p.functions != nil && p.functions.Keys() != nil
	if signs {
		mux.HandleFunc("GET /.well-known/jwks.json", p.serveKeys)
	}
	switch {
	case p.tokens != nil && signs:
		mux.Handle("GET /validating-keys", p.tokens.Handler(p.assertionKeys))
	case p.tokens != nil:
		mux.Handle("GET /validating-keys", p.tokens.Handler(nil))
	case signs:
		mux.HandleFunc("GET /validating-keys", p.serveKeys)
	}
	for _, s := range p.sockets[config.RoleHealth] {
		if err := p.ServeHTTP(work, s, &http.Server{Handler: mux}); err != nil {
			return err
		}
	}
	return nil
}

// ServeHTTP serves one listener and stops it, with what is in flight, when the process does.
func (p *Process) ServeHTTP(work context.Context, s Socket, srv *http.Server) error {
	conf, err := listen.ConfiguredTLS(s.Config, p.Own, p.log, "h2", "http/1.1")
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
	srv.ErrorLog = slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)
	p.group.Go(func() {
		<-work.Done()
		ctx, cancel := context.WithTimeout(context.Background(), stopRest)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
	})
	p.goServe(s.Config.Role, func() error {
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
