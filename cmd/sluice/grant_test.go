package main

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// said is all that a command says, to whomever.
func (c *console) said(args ...string) string {
	c.t.Helper()
	got := c.run("", args...)
	if got.failure != nil {
		return got.out + got.err + got.failure.Error()
	}
	return got.out + got.err
}

// comes repeats a command until what it says contains a text, and returns it.
func (c *console) comes(want string, args ...string) string {
	c.t.Helper()
	for {
		said := c.said(args...)
		if strings.Contains(said, want) {
			return said
		}
		select {
		case <-c.t.Context().Done():
			c.t.Fatalf("%q: got %q; want %s", args, said, want)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// granting is the command that an error names.
var granting = regexp.MustCompile(`: sluice (identity update .*) --data [^ ]*$`)

// TestWhatIsNotGranted expects of a refused operation that it names who asked, and a
// command after which it is refused no longer.
func TestWhatIsNotGranted(t *testing.T) {
	c := &console{t, startUp(t, "--demo")}
	c.prints("created tenant T\n", "tenant", "create", "T")
	c.prints("created device d\n", "device", "create", "T", "d")
	c.said("identity", "update", "admin", "--operator", "--tenant", "OTHER", "--read-only")
	app, operator := "identity update demo-app@DEMO --add ", "identity update admin --add --operator --tenant T"
	rows := []struct{ args, refused, grant, allowed string }{
		{"device reachable T", "nor the scope read on the tenant is granted", operator + " --read-only", "DEVICE"},
		{"device list T", "takes read", operator + " --read-only", "DEVICE"},
		{"device create T e", "takes write", operator, "created device e"},
		{"tenant export T", "takes export", operator + " --export --read-only", "exported T with 2 devices"},
		{"device export T - --credentials", "takes export", operator + " --export --read-only", "exported 2 devices of T"},
		{"tenant create", "takes write", "", ""},
		{"command T d x", "demo-app@DEMO may not receive the answers of devices of T: ", app + "--write command/T --read command_response/T", "d is not reachable"},
		{"command T d x --one-way", "demo-app@DEMO may not send commands to devices of T: ", app + "--write command/T", "d is not reachable"},
		{"consume event T", "demo-app@DEMO may not consume from event/T: ", app + "--read event/T", ""},
	}
	for _, r := range rows {
		said := c.comes(r.refused, strings.Fields(r.args)...)
		m := granting.FindStringSubmatch(said)
		if m == nil || r.grant != "" && m[1] != r.grant {
			t.Errorf("%s: got %s; want %s", r.args, said, r.grant)
		}
	}
	for _, r := range rows {
		if r.grant != "" {
			if got := c.run("", strings.Fields(r.grant)...); got.failure != nil {
				t.Errorf("%s: %v", r.grant, got.failure)
			}
		}
	}
	for _, r := range rows {
		if r.allowed != "" {
			c.comes(r.allowed, strings.Fields(r.args)...)
		}
	}
	_, info, stop := startConsume(t, "event", "T", "--data", c.data)
	awaitText(t, info, "waiting for messages on event/T")
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestRouterRightsAreNamed is [TestWhatIsNotGranted] for the management of a router.
func TestRouterRightsAreNamed(t *testing.T) {
	c := &console{t, startUp(t, "--demo")}
	demo, err := readEnv(c.data + "/" + demoFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct{ args, refused, grant, allowed string }{
		{"router stat listeners", "demo-app@DEMO may not manage the router: ", "--read '$management' --write '$management'", "MECHANISMS"},
		{"router close-connection 999999", "demo-app@DEMO may not close connections: ", "--execute '$management:DELETE'", "(404)"},
	} {
		args := append(strings.Fields(r.args), "--user", demoApp, "--password", demo["SLUICE_APP_PASSWORD"])
		m := granting.FindStringSubmatch(c.comes(r.refused, args...))
		if m == nil || m[1] != "identity update demo-app@DEMO --add "+r.grant {
			t.Fatalf("%s: got %q", r.args, m)
		}
		c.said(strings.Fields(strings.ReplaceAll(m[1], "'", ""))...)
		c.comes(r.allowed, args...)
	}
}

// TestNoSuchTenant expects that every command says so, whatever the identity may.
func TestNoSuchTenant(t *testing.T) {
	c := &console{t, startUp(t, "--demo")}
	for range 2 {
		for args, want := range map[string]string{
			"consume telemetry NONE":   "the tenant NONE does not exist: sluice tenant list shows",
			"consume event NONE":       "the tenant NONE does not exist: ",
			"command NONE d x":         "the tenant NONE does not exist: ",
			"command NONE d x -o json": "the tenant NONE does not exist: ",
			"command DEMO none x":      "the command was rejected: DEMO has no device none: sluice device list DEMO shows",
			"device reachable NONE":    "NONE: tenant does not exist",
			"device reachable NONE d":  "NONE/d: tenant does not exist",
			"device list NONE":         "list devices of NONE: tenant does not exist",
			"event stat NONE":          "NONE: tenant does not exist",
			"event list NONE":          "NONE: tenant does not exist",
			"event requeue NONE":       "NONE: tenant does not exist",
			"event purge NONE --yes":   "NONE: tenant does not exist",
		} {
			got := c.run("", strings.Fields(args)...)
			if got.failure == nil || !strings.Contains(got.failure.Error(), want) {
				t.Errorf("%s: got %v; want %s", args, got.failure, want)
			}
		}
		if got := c.run("", "identity", "update", demoApp, "--add", "--read", "*/*", "--write", "*/*"); got.failure != nil {
			t.Fatal(got.failure)
		}
		c.comes("the command was rejected: the tenant NONE does not exist", "command", "NONE", "d", "x")
	}
	for what, want := range map[string]string{"stat": "PARTITION", "list": "", "requeue": "requeued 0 events\n"} {
		if got := c.run("", "event", what, "DEMO"); got.failure != nil || !strings.Contains(got.out, want) {
			t.Errorf("event %s: got %v", what, got)
		}
	}
}
