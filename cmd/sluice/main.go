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
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-iot/sluice/internal/config/strictyaml"
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
	err := unknownCommand(cmd, args)
	if err == nil {
		err = cmd.ExecuteContext(ctx)
	}
	if err != nil {
		fmt.Fprintln(stderr, "sluice:", harmless(err.Error()))
		return 1
	}
	return 0
}

// unknownCommand is an error where the framework would print the help of the
// nearest command that there is, as if that had been asked for.
func unknownCommand(root *cobra.Command, args []string) error {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(args...)
	help := len(args) > 0 && args[0] == "help"
	if help {
		args = args[1:]
	}
	c, rest, err := root.Find(args)
	if help && err != nil {
		return fmt.Errorf("there is no help for %q: sluice --help lists the commands, sluice help topics the rest", strings.Join(args, " "))
	}
	if err != nil || c == root || c.Runnable() || !c.HasSubCommands() || len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
		return nil
	}
	return noSuchCommand(c, rest[0])
}

// noSuchCommand names the commands that there are below c.
func noSuchCommand(c *cobra.Command, word string) error {
	var names []string
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	return fmt.Errorf("unknown command %q for %q; expected one of %s; nearest: %s", word, c.CommandPath(), strings.Join(names, ", "), strictyaml.Nearest(word, names))
}

// flagError names the flag that may have been meant.
func flagError(c *cobra.Command, err error) error {
	hint := "see " + c.CommandPath() + " --help"
	if _, given, ok := strings.Cut(err.Error(), "unknown flag: --"); ok {
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if nearest := strictyaml.Nearest(given, names); strictyaml.Distance(given, nearest) <= 2 {
			hint = "nearest: --" + nearest + "; " + hint
		}
	}
	return fmt.Errorf("%w; %s", err, hint)
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
	root.SetFlagErrorFunc(flagError)
	return root
}
