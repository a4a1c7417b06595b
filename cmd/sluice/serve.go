package main

import (
	"flag"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-iot/sluice/cmd/internal/command"
	"github.com/sluice-iot/sluice/cmd/internal/edge"
	"github.com/sluice-iot/sluice/cmd/internal/health"
	"github.com/sluice-iot/sluice/internal/config"
)

// serve runs parts of the edge until the command's context ends, with the functions
// in beside if that is not nil.
func serve(cmd *cobra.Command, s *command.Settings, parts edge.Parts, beside *installation, listeners []config.Listener) error {
	cfg, err := s.Load(listeners, false)
	if err != nil {
		return err
	}
	log, err := command.NewLogger(cfg, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	o := edge.Options{Config: &cfg.Config, Log: log, Parts: parts}
	if beside == nil {
		return edge.New(o).Run(cmd.Context())
	}
	o.Functions = beside
	beside.cfg, beside.log, beside.out, beside.router = o.Config, log, cmd.OutOrStdout(), parts.Router
	beside.process = edge.New(o)
	return beside.process.Run(cmd.Context())
}

// addSettings gives a command the flags of the configuration.
func addSettings(flags *pflag.FlagSet) *command.Settings {
	f := flag.NewFlagSet("", flag.ContinueOnError)
	s := command.AddSettings(f)
	flags.AddGoFlagSet(f)
	return s
}

func newUpCommand() *cobra.Command {
	var s *command.Settings
	var demo bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything in one process",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd, s, edge.Parts{Router: true, HTTP: true, MQTT: true}, &installation{demo: demo, withIdentity: true, withEvents: true}, config.DefaultListeners())
		},
	}
	s = addSettings(cmd.Flags())
	cmd.Flags().BoolVar(&demo, "demo", false, "create the tenant DEMO with a device and an application, and print how to use them")
	return cmd
}

func newRouterCommand() *cobra.Command {
	var s *command.Settings
	cmd := &cobra.Command{
		Use:   "router",
		Short: "Run the AMQP 1.0 router",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd, s, edge.Parts{Router: true}, nil, config.RouterListeners())
		},
	}
	cmd.AddCommand(newRouterStatCommand(), newRouterCloseCommand())
	s = addSettings(cmd.Flags())
	return cmd
}

func newAdapterCommand() *cobra.Command {
	var s *command.Settings
	cmd := &cobra.Command{
		Use:   "adapter http|mqtt...",
		Short: "Run protocol adapters",
		Long: "Run protocol adapters.\n\n" +
			"  http  devices that use HTTP/1.1 and HTTP/2\n" +
			"  mqtt  devices that use MQTT 3.1.1 and 5; beside http also over WebSocket, at /mqtt of its ports",
		Args:      cobra.MatchAll(cobra.MinimumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: edge.Adapters,
		RunE: func(cmd *cobra.Command, args []string) error {
			return serve(cmd, s, edge.AdapterParts(args...), nil, config.AdapterListeners(args...))
		},
	}
	s = addSettings(cmd.Flags())
	return cmd
}

func newFunctionCommand() *cobra.Command {
	var s *command.Settings
	cmd := &cobra.Command{
		Use:   "function identity|events...",
		Short: "Run functions over HTTP",
		Long: "Run functions over HTTP.\n\n" +
			"  identity  tenant, credentials, registration, assertion and admission, and the management API\n" +
			"  events    the event store, which keeps events until applications take them",
		Args:      cobra.MatchAll(cobra.MinimumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"identity", "events"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return serve(cmd, s, edge.Parts{}, &installation{withIdentity: slices.Contains(args, "identity"),
				withEvents: slices.Contains(args, "events")}, config.IdentityFunctionListeners())
		},
	}
	s = addSettings(cmd.Flags())
	return cmd
}

func newHealthCommand() *cobra.Command {
	o := health.Options{Listeners: config.DefaultListeners()}
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask whether a process is ready, for containers without a shell",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return health.Check(cmd.Context(), o) },
	}
	f := flag.NewFlagSet("", flag.ContinueOnError)
	o.AddFlags(f)
	cmd.Flags().AddGoFlagSet(f)
	return cmd
}
