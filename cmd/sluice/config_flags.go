package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sluice-iot/sluice/internal/config"
)

// settings are the flags that every command with a configuration has.
type settings struct {
	flags     *pflag.FlagSet
	file      string
	set       []string
	listeners []string
}

// settingFlags are flags for settings that are given often; the others go by --set.
var settingFlags = []struct{ name, path, usage string }{
	{"data", "data", "data folder"},
	{"identities", "identities", "file of the identities: identities.yaml, or permissions.json of Hono"},
	{"name", "name", "name of the installation"},
	{"log-level", "log.level", "debug, info, warn or error"},
	{"log-format", "log.format", "auto, text or json"},
}

// addSettings gives a command the flags of the configuration.
func addSettings(flags *pflag.FlagSet) *settings {
	s := &settings{flags: flags}
	flags.StringVar(&s.file, "config", "", "configuration `file` (YAML)")
	flags.StringArrayVar(&s.set, "set", nil, "any setting, as `KEY=VALUE`, such as adapters.http.max-payload-size=64KiB")
	flags.StringArrayVar(&s.listeners, "listener", nil, "a listener, as `YAML` such as '{role: health, address: \"127.0.0.1:8088\"}'; the first one given replaces the list")
	flags.Bool("insecure", false, "allow plain text on public addresses and plain secrets in the identities file")
	for _, f := range settingFlags {
		flags.String(f.name, "", f.usage)
	}
	return s
}

// load puts the configuration together. defaults is the list of listeners of this
// command, nil for that of `sluice up`; find looks for an installation that exists.
func (s *settings) load(defaults []config.Listener, find bool) (*config.Loaded, error) {
	given, err := s.given()
	if err != nil {
		return nil, err
	}
	return config.Load(config.Options{File: s.file, Flags: given, Env: os.Environ(), Listeners: defaults, Find: find})
}

func (s *settings) given() ([]config.Flag, error) {
	var out []config.Flag
	for _, text := range s.set {
		path, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--set %s: expected KEY=VALUE", text)
		}
		out = append(out, config.Flag{Path: path, Value: value, Name: "--set " + path})
	}
	if len(s.listeners) > 0 {
		out = append(out, config.Flag{Path: "listeners", Value: "[" + strings.Join(s.listeners, ", ") + "]", Name: "--listener"})
	}
	for _, f := range settingFlags {
		if s.flags.Changed(f.name) {
			out = append(out, config.Flag{Path: f.path, Value: s.flags.Lookup(f.name).Value.String(), Name: "--" + f.name})
		}
	}
	if s.flags.Changed("insecure") {
		out = append(out, config.Flag{Path: "insecure", Value: s.flags.Lookup("insecure").Value.String(), Name: "--insecure"})
	}
	return out, nil
}
