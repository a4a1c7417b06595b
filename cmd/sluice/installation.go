package main

import (
	"io"
	"log/slog"

	"github.com/sluice-iot/sluice/cmd/internal/edge"
	"github.com/sluice-iot/sluice/cmd/internal/identity"
	"github.com/sluice-iot/sluice/internal/config"
)

// installation is the identity functions, management and the demo beside the edge
// of the same process, if it has one.
type installation struct {
	cfg    *config.Config
	log    *slog.Logger
	out    io.Writer
	router bool // in this process
	demo   bool

	process  *edge.Process
	identity *identity.Identity
}

var _ edge.Functions = (*installation)(nil)
