// Command sluice is the platform in one program: everything in one process
// (sluice up), each part on its own (sluice router, adapter, function), and the
// operator's commands.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/internal/observe"
)

// version is set by the linker.
var version string

func main() {
	observe.SetVersion(version)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code: 0 after success or
// an orderly stop, 1 after an error, which is one line on stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := newRootCommand()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "sluice:", err)
		return 1
	}
	return 0
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "Connect devices to applications over AMQP 1.0 and CloudEvents",
		Long: `Sluice connects devices to applications over AMQP 1.0 and CloudEvents. This
program is the platform itself (up, or its parts: router, adapter, function), and
what operators and applications do with it. Try it:

  sluice up --demo
  sluice consume telemetry DEMO

More to read: sluice help topics`,
		Version:       observe.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newUpCommand(), newRouterCommand(), newAdapterCommand(), newFunctionCommand(),
		newConsumeCommand(), newCommandCommand(), newCertsCommand(), newIdentityCommand(), newConfigCommand(),
		newTenantCommand(), newDeviceCommand(), newCredentialsCommand(), newEventCommand(), newRegistryCommand(), newHealthCommand(),
	)
	root.AddCommand(newTopics()...)
	return root
}
