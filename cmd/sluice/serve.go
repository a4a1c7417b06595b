package main

import (
	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/observe"
)

// parts says what a process runs.
type parts struct {
	router, http, identity bool
}

// serve runs parts until the command's context ends.
func serve(cmd *cobra.Command, s *settings, p parts, listeners []config.Listener, demo bool) error {
	cfg, err := s.load(listeners, false)
	if err != nil {
		return err
	}
	log, err := observe.NewLogger(cmd.ErrOrStderr(), observe.LogOptions{Level: cfg.Log.Level, Format: cfg.Log.Format})
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		log.Warn("configuration", "warning", w)
	}
	i := &installation{cfg: &cfg.Config, parts: p, log: log, out: cmd.OutOrStdout(), demo: demo}
	return i.run(cmd.Context())
}

func newUpCommand() *cobra.Command {
	var s *settings
	var demo bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything in one process",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd, s, parts{router: true, http: true, identity: true}, config.DefaultListeners(), demo)
		},
	}
	s = addSettings(cmd.Flags())
	cmd.Flags().BoolVar(&demo, "demo", false, "create the tenant DEMO with a device and an application, and print how to use them")
	return cmd
}

func newRouterCommand() *cobra.Command {
	var s *settings
	cmd := &cobra.Command{
		Use:   "router",
		Short: "Run the AMQP 1.0 router",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd, s, parts{router: true}, config.RouterListeners(), false)
		},
	}
	cmd.AddCommand(newRouterStatCommand(), newRouterCloseCommand())
	s = addSettings(cmd.Flags())
	return cmd
}

func newAdapterCommand() *cobra.Command {
	var s *settings
	cmd := &cobra.Command{
		Use:       "adapter http",
		Short:     "Run a protocol adapter",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"http"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd, s, parts{http: true}, config.HTTPAdapterListeners(), false)
		},
	}
	s = addSettings(cmd.Flags())
	return cmd
}

func newFunctionCommand() *cobra.Command {
	var s *settings
	cmd := &cobra.Command{
		Use:       "function identity",
		Short:     "Run functions over HTTP: tenant, credentials, registration, assertion and admission",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"identity"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd, s, parts{identity: true}, config.IdentityFunctionListeners(), false)
		},
	}
	s = addSettings(cmd.Flags())
	return cmd
}
