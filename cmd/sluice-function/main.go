package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/sluice-iot/sluice/cmd/internal/command"
	"github.com/sluice-iot/sluice/cmd/internal/health"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/observe"
)

// programName is its own name, in what it says.
const programName = "sluice-function"

// version is set by the linker.
var version string

func main() {
	observe.SetVersion(version)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	var err error
	if len(args) > 0 && args[0] == "health" {
		err = health.Run(programName, args[1:], health.Options{Port: os.Getenv(portVariable), Listeners: config.IdentityFunctionListeners()}, stderr)
	} else {
		err = serve(args, stdout, stderr)
	}
	return command.ExitCode(programName, err, stderr)
}

// options are what the command line says.
type options struct {
	settings  *command.Settings
	functions string
	version   bool
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet(programName, flag.ContinueOnError)
	f.SetOutput(stderr)
	o.settings = command.AddSettings(f)
	f.StringVar(&o.functions, "functions", os.Getenv(functionsVariable), "comma-separated `list` of what to serve; default all (or "+functionsVariable+"): "+allParts())
	f.BoolVar(&o.version, "version", false, "print the version and exit")
	if err := command.Parse(f, args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; the only subcommand is health", f.Arg(0))
	}
	return o, nil
}
