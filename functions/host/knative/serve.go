package knative

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"knative.dev/pkg/signals"
)

// Timeouts of the listener's connections.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	// stopTimeout bounds how long calls in flight may take after draining.
	stopTimeout = 30 * time.Second
)

// Signals returns a context that ends when the platform asks the process to stop
// (SIGINT or SIGTERM); a second signal ends the process at once. To be called
// once.
func Signals() context.Context { return signals.NewContext() }

// Serve answers requests on ln until ctx ends, then drains h, lets calls in
// flight finish and returns nil; it closes ln. A listener that fails is an error.
func Serve(ctx context.Context, ln net.Listener, h *Host) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	h.Drain()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := srv.Shutdown(stop)
	if err != nil {
		_ = srv.Close() // calls that outlast their time are cut
	}
	<-failed
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
