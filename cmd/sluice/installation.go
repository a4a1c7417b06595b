package main

import (
	"io"
	"log/slog"

	"github.com/sluice-iot/sluice/cmd/internal/edge"
	"github.com/sluice-iot/sluice/cmd/internal/eventlog"
	"github.com/sluice-iot/sluice/cmd/internal/identity"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/config"
)

// installation is the functions, management and the demo beside the edge
// of the same process, if it has one.
type installation struct {
	cfg    *config.Config
	log    *slog.Logger
	out    io.Writer
	router bool // in this process
	demo   bool
	// What it has of functions.
	withIdentity, withEvents bool

	process  *edge.Process
	identity *identity.Identity // nil where others have it
	eventlog *eventlog.Events   // likewise
	invoker  events.Invoker     // of the functions of this process
}

var _ edge.Functions = (*installation)(nil)
