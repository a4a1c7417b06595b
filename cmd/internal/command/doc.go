// Package command is what the command lines of our programs have in common: the
// flags of the configuration, and how a process ends.
//
//	f := flag.NewFlagSet("sluice-edge router", flag.ContinueOnError)
//	s := command.AddSettings(f)
//	err := command.Parse(f, args)
//	cfg, err := s.Load(config.RouterListeners(), false)
//	os.Exit(command.ExitCode("sluice-edge", err, os.Stderr))
package command
