package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// every calls visit with each command of the program.
func every(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, c := range cmd.Commands() {
		every(c, visit)
	}
}

// TestHelp expects that what an operator runs says what it does, when it fails and how
// it is used.
func TestHelp(t *testing.T) {
	root := newRootCommand()
	operators := []string{"command", "consume", "tenant", "device", "credentials", "identity", "event"}
	every(root, func(c *cobra.Command) {
		path := strings.TrimPrefix(c.CommandPath(), "sluice ")
		if strings.HasSuffix(c.Short, ".") || c.Short == "" && c.Name() != "sluice" {
			t.Errorf("%s: short %q", path, c.Short)
		}
		for line := range strings.Lines(c.Long + "\n" + c.Example) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 116 {
				t.Errorf("%s: a line of %d: %s", path, n, line)
			}
		}
		if !c.Runnable() || !slices.Contains(operators, strings.Split(path, " ")[0]) {
			return
		}
		if c.Long == "" || c.Example == "" || !strings.Contains(c.Example, "sluice "+path) {
			t.Errorf("%s: no long help, or no example of it", path)
		}
		if len(c.Use) > len(c.Name()) && c.ValidArgsFunction == nil {
			t.Errorf("%s: its arguments are not completed", path)
		}
	})
	for _, topic := range []string{"topics", "environment", "exit-codes", "output", "filters"} {
		got := runWith(t, newRootCommand(), nil, "help", topic)
		if got.failure != nil || len(got.out) < 200 {
			t.Errorf("%s: %v", topic, got)
		}
		if topic != "topics" && !strings.Contains(runWith(t, newRootCommand(), nil, "help", "topics").out, "\n  "+topic+" ") {
			t.Errorf("%s is not among the topics", topic)
		}
	}
}

func TestCompletion(t *testing.T) {
	data := startUp(t)
	c := &console{t, data}
	for _, tenant := range []string{"ACME", "AUNT"} {
		c.prints("created tenant "+tenant+"\n", "tenant", "create", tenant)
	}
	c.prints("created device m1\n", "device", "create", "ACME", "m1")
	t.Setenv("SLUICE_DATA", data)
	for line, want := range map[string]string{
		"tenant get |A":               "ACME AUNT",
		"tenant get |AC":              "ACME",
		"device get ACME |":           "m1",
		"device delete ACME m1 |":     "m1",
		"device get NONE |":           "",
		"device list |AU":             "AUNT",
		"credentials add psk ACME |m": "m1",
		"event stat |AC":              "ACME",
		"command ACME |":              "m1",
		"consume |":                   "telemetry event",
		"consume event |AC":           "ACME",
		"device reachable ACME |":     "m1",
		"identity get |adm":           "admin@local admin",
		"tenant get -o |":             "text json",
	} {
		args, last, _ := strings.Cut(line, "|")
		got := runWith(t, newRootCommand(), nil, append(append([]string{"__complete"}, strings.Fields(args)...), last)...)
		words := strings.Fields(got.out)
		if len(words) == 0 || strings.Join(words[:len(words)-1], " ") != want {
			t.Errorf("%s: got %v, want %s", line, words, want)
		}
	}
	// Where nobody is known, there is nothing, and no error.
	t.Setenv("SLUICE_DATA", filepath.Join(t.TempDir(), "absent"))
	if got := runWith(t, newRootCommand(), nil, "__complete", "tenant", "get", ""); got.failure != nil || !strings.HasPrefix(got.out, ":4") {
		t.Error(got)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := runWith(t, newRootCommand(), nil, "completion", shell); got.failure != nil || !strings.Contains(got.out, "sluice") {
			t.Errorf("%s: %v", shell, got.failure)
		}
	}
}
