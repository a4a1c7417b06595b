package command_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/cmd/internal/command"
	"github.com/sluice-iot/sluice/internal/config"
)

// load parses a command line and puts its configuration together.
func load(t *testing.T, stderr io.Writer, args ...string) (*config.Loaded, error) {
	t.Helper()
	f := flag.NewFlagSet("test", flag.ContinueOnError)
	f.SetOutput(stderr)
	s := command.AddSettings(f)
	if err := command.Parse(f, args); err != nil {
		return nil, err
	}
	s.Set(config.Flag{Path: "adapters.http.realm", Value: "last", Name: "TEST"})
	return s.Load(config.RouterListeners(), false)
}

func TestSettings(t *testing.T) {
	t.Setenv("SLUICE_CREDIT_WAIT", "300ms")
	data := t.TempDir()
	got, err := load(t, io.Discard, "--name", "short", "--set", "name=long", "--set", "send-timeout=3s", "--data="+data, "--insecure",
		"--listener", `{role: health, address: "127.0.0.1:1"}`, "--listener", `{role: northbound, address: "127.0.0.1:2"}`, "--set", "adapters.http.realm=first")
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintln(got.Name, got.SendTimeout, got.CreditWait, got.Insecure, len(got.Listeners), got.Adapters.HTTP.Realm, got.Data == data)
	if want := fmt.Sprintln("short", "3s", "300ms", true, 2, "last", true); text != want {
		t.Errorf("got %s, want %s", text, want)
	}
	for want, args := range map[string][]string{
		"expected KEY=VALUE":     {"--set", "name"},
		"expected true or false": {"--insecure=perhaps"},
		"not defined":            {"--colour", "red"},
	} {
		var stderr bytes.Buffer
		if _, err := load(t, &stderr, args...); !errors.Is(err, command.ErrUsage) || !strings.Contains(stderr.String(), want) {
			t.Errorf("%q: %v, %s", args, err, &stderr)
		}
	}
	if _, err := load(t, io.Discard, "--help"); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v", err)
	}
	if _, err := load(t, io.Discard, "--log-level", "loud"); err == nil || !strings.Contains(err.Error(), "log.level") {
		t.Errorf("a value that is none: %v", err)
	}
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		says string
	}{
		{nil, 0, ""},
		{flag.ErrHelp, 0, ""},
		{command.ErrUsage, 2, ""},
		{errors.New("the roof is on fire"), 1, "test: the roof is on fire\n"},
	} {
		var stderr bytes.Buffer
		if code := command.ExitCode("test", c.err, &stderr); code != c.code || stderr.String() != c.says {
			t.Errorf("%v: code %d, said %q", c.err, code, &stderr)
		}
	}
}

// TestNewLogger expects the warnings of the configuration in the log.
func TestNewLogger(t *testing.T) {
	cfg, err := load(t, io.Discard, "--log-format", "json", "--listener", `{role: health, address: "0.0.0.0:0", insecure: true}`)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := command.NewLogger(cfg, &out); err != nil || !strings.Contains(out.String(), "listens in plain text") {
		t.Errorf("%v: %s", err, &out)
	}
}
