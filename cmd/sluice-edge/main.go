// Command sluice-edge is the router and the protocol adapters, and nothing else: no
// store, no functions, no management, no operator's commands. Its flags, its
// configuration and its environment are those of `sluice router` and `sluice
// adapter`.
//
//	sluice-edge router --config /etc/sluice/router.yaml
//	sluice-edge adapter http --config /etc/sluice/adapter.yaml
//	sluice-edge adapter http mqtt # both, and MQTT over WebSocket
//	sluice-edge health    # for containers without a shell: exit code 0 when ready
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/sluice-iot/sluice/cmd/internal/command"
	"github.com/sluice-iot/sluice/cmd/internal/edge"
	"github.com/sluice-iot/sluice/cmd/internal/health"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/observe"
)

// program is its own name, in what it says.
const program = "sluice-edge"

// version is set by the linker.
var version string

func main() {
	observe.SetVersion(version)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return command.ExitCode(program, dispatch(ctx, args, stdout, stderr), stderr)
}

// part is a command that serves something.
type part struct {
	words     []string // of the command line
	about     string
	parts     edge.Parts
	listeners func() []config.Listener
}

var parts = []part{
	{[]string{"router"}, "run the AMQP 1.0 router", edge.Parts{Router: true}, config.RouterListeners},
	adapter("run the HTTP adapter", "http"),
	adapter("run the MQTT adapter", "mqtt"),
}

// adapter is the part with the named adapters.
func adapter(about string, names ...string) part {
	return part{append([]string{"adapter"}, names...), about, edge.AdapterParts(names...), func() []config.Listener { return config.AdapterListeners(names...) }}
}

// find returns the part that args begin with, and the rest of them.
func find(args []string) (p part, rest []string, ok bool) {
	for _, p := range parts {
		if n := len(p.words); len(args) >= n && slices.Equal(args[:n], p.words) {
			if p.words[0] == "adapter" && len(args) > n && slices.Contains(edge.Adapters, args[n]) && args[n] != p.words[1] {
				return adapter("", p.words[1], args[n]), args[n+1:], true
			}
			return p, args[n:], true
		}
	}
	return part{}, args, false
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if p, rest, ok := find(args); ok {
		return p.serve(ctx, rest, stderr)
	}
	switch {
	case len(args) == 0:
		usage(stderr)
		return command.ErrUsage
	case args[0] == "health":
		// The listener for probes is the same in every list.
		return health.Run(program, args[1:], health.Options{Listeners: config.RouterListeners()}, stderr)
	case slices.Contains([]string{"--version", "-version", "version"}, args[0]):
		_, err := fmt.Fprintln(stdout, program, observe.Version())
		return err
	case slices.Contains([]string{"--help", "-help", "-h", "help"}, args[0]):
		usage(stdout)
		return nil
	}
	return fmt.Errorf("%q: expected router, adapter http, adapter mqtt, health or --version", strings.Join(args, " "))
}

func usage(w io.Writer) {
	fmt.Fprintf(w, "Usage of %s:\n", program)
	for _, p := range parts {
		fmt.Fprintf(w, "  %-13s%s; --help lists its flags\n", strings.Join(p.words, " "), p.about)
	}
	fmt.Fprintf(w, "  %-13s%s\n  %-13s%s\n", "health", "ask the process of this container whether it is ready", "--version", "print the version")
}

// serve runs the part until ctx ends.
func (p part) serve(ctx context.Context, args []string, stderr io.Writer) error {
	f := flag.NewFlagSet(program+" "+strings.Join(p.words, " "), flag.ContinueOnError)
	f.SetOutput(stderr)
	s := command.AddSettings(f)
	if err := command.Parse(f, args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	cfg, err := s.Load(p.listeners(), false)
	if err != nil {
		return err
	}
	log, err := command.NewLogger(cfg, stderr)
	if err != nil {
		return err
	}
	return edge.New(edge.Options{Config: &cfg.Config, Log: log, Parts: p.parts}).Run(ctx)
}
