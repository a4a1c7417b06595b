package command

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/observe"
)

// Settings are the flags that every command with a configuration has.
type Settings struct {
	// NoData allows that there is no data folder; see [config.Options].
	NoData bool

	file      string
	set       []config.Flag
	listeners []string
	short     []config.Flag
}

// shortFlags are flags for settings that are given often; the others go by --set.
var shortFlags = []struct{ name, path, usage string }{
	{"data", "data", "data folder"},
	{"identities", "identities", "file of the identities: identities.yaml, or permissions.json of Hono"},
	{"name", "name", "name of the installation"},
	{"log-level", "log.level", "debug, info, warn or error"},
	{"log-format", "log.format", "auto, text or json"},
}

// AddSettings gives a command the flags of the configuration.
func AddSettings(f *flag.FlagSet) *Settings {
	s := &Settings{}
	f.StringVar(&s.file, "config", "", "configuration `file` (YAML); every key can be set as SLUICE_KEY, too")
	f.Var(stringValue(s.addSet), "set", "any setting, as `KEY=VALUE`, such as adapters.http.max-payload-size=64KiB")
	f.Var(stringValue(func(text string) error {
		s.listeners = append(s.listeners, text)
		return nil
	}), "listener", "a listener, as `YAML` such as '{role: health, address: \"127.0.0.1:8088\"}'; the first one given replaces the list")
	add := func(path, name string) stringValue {
		return func(value string) error {
			s.Set(config.Flag{Path: path, Value: value, Name: "--" + name})
			return nil
		}
	}
	f.Var(boolValue(add("insecure", "insecure")), "insecure", "allow plain text on public addresses and plain secrets in the identities file")
	for _, short := range shortFlags {
		f.Var(add(short.path, short.name), short.name, short.usage)
	}
	return s
}

// Set adds a setting that did not come by a flag of its own; it wins over earlier ones.
func (s *Settings) Set(f config.Flag) { s.short = append(s.short, f) }

func (s *Settings) addSet(text string) error {
	path, value, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("--set %s: expected KEY=VALUE", text)
	}
	s.set = append(s.set, config.Flag{Path: path, Value: value, Name: "--set " + path})
	return nil
}

// Load puts the configuration together. defaults is the list of listeners of this
// command, nil for that of `sluice up`; find looks for an installation that exists.
func (s *Settings) Load(defaults []config.Listener, find bool) (*config.Loaded, error) {
	return config.Load(config.Options{File: s.file, Flags: s.given(), Env: os.Environ(), Listeners: defaults, Find: find, NoData: s.NoData})
}

// given are the settings of the command line: a short flag wins over --set.
func (s *Settings) given() []config.Flag {
	out := append([]config.Flag(nil), s.set...)
	if len(s.listeners) > 0 {
		out = append(out, config.Flag{Path: "listeners", Value: "[" + strings.Join(s.listeners, ", ") + "]", Name: "--listener"})
	}
	return append(out, s.short...)
}

// NewLogger makes the logger that the configuration asks for, and tells it the
// warnings of the configuration.
func NewLogger(cfg *config.Loaded, stderr io.Writer) (*slog.Logger, error) {
	log, err := observe.NewLogger(stderr, observe.LogOptions{Level: cfg.Log.Level, Format: cfg.Log.Format})
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		log.Warn("configuration", "warning", w)
	}
	return log, nil
}

// stringValue and boolValue hand what a flag is set to to a function. Their names
// are what pflag calls their values in its help, without "Value".
type (
	stringValue func(string) error
	boolValue   func(string) error
)

// Set implements [flag.Value].
func (v stringValue) Set(text string) error { return v(text) }

// String implements [flag.Value]: there is no default to show.
func (v stringValue) String() string { return "" }

// Set implements [flag.Value].
func (v boolValue) Set(text string) error {
	if _, err := strconv.ParseBool(text); err != nil {
		return fmt.Errorf("%q: expected true or false", text)
	}
	return v(text)
}

// String implements [flag.Value]: there is no default to show.
func (v boolValue) String() string { return "" }

// IsBoolFlag says that the flag needs no value.
func (v boolValue) IsBoolFlag() bool { return true }
