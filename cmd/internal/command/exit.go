package command

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// ErrUsage is a command line that is none; what is wrong with it was said already.
var ErrUsage = errors.New("usage")

// Parse parses a command line. It returns nil, [flag.ErrHelp], or [ErrUsage] after
// the flag set has said what was wrong.
func Parse(f *flag.FlagSet, args []string) error {
	err := f.Parse(args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return ErrUsage
}

// ExitCode is how a program ends: 0 after success, an orderly stop or help, 2 after
// a command line that is none, and 1 after any other error, which becomes one line on stderr.
func ExitCode(program string, err error, stderr io.Writer) int {
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, ErrUsage):
		return 2
	}
	fmt.Fprintf(stderr, "%s: %v\n", program, err)
	return 1
}
