package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/observe"
)

// version is set by the linker.
var version string

func main() {
	observe.SetVersion(version)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code: 0 after success or an
// orderly stop, 1 after an error, which is one line on stderr, 2 for a command
// line that is none.
func run(args []string, stdout, stderr io.Writer) int {
	var err error
	switch {
	case len(args) > 0 && args[0] == "health":
		err = health(args[1:], stderr)
	default:
		err = serve(args, stdout, stderr)
	}
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2 // the flag set has said what was wrong
	}
	fmt.Fprintln(stderr, "sluice-function:", err)
	return 1
}

// errUsage is a command line that does not parse.
var errUsage = errors.New("usage")

// setting is a flag that stands for a key of the configuration.
type setting struct{ name, path, usage string }

var settings = []setting{
	{"data", "data", "data `folder`"},
	{"identities", "identities", "identities `file`: operators, and issuers of tokens"},
	{"log-level", "log.level", "debug, info, warn or error"},
}

// options are what the command line says.
type options struct {
	file      string
	functions string
	version   bool
	flags     []config.Flag
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("sluice-function", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.file, "config", "", "configuration `file` (YAML); every key can be set as SLUICE_KEY, too")
	f.StringVar(&o.functions, "functions", os.Getenv(functionsVariable), "comma-separated `list` of what to serve; default all (or "+functionsVariable+"): "+allParts())
	f.BoolVar(&o.version, "version", false, "print the version and exit")
	f.Func("set", "any setting, as `KEY=VALUE`", func(text string) error { return o.set(text) })
	for _, s := range settings {
		f.Func(s.name, s.usage, func(value string) error {
			o.flags = append(o.flags, config.Flag{Path: s.path, Value: value, Name: "--" + s.name})
			return nil
		})
	}
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, errUsage
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; the only subcommand is health", f.Arg(0))
	}
	return o, nil
}
