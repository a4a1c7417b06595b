package main

import (
	"strings"
	"testing"
)

// TestIdentityAddresses expects that every form of an address that a router knows
// is taken, and that what cannot be an address is refused with what could be.
func TestIdentityAddresses(t *testing.T) {
	c := &console{t, t.TempDir()}
	for flag, forms := range map[string]string{
		"--read": "telemetry/T telemetry/* telemetry telemetry/T/4711 event/T command_response/T command_response/*/x notification/registry-tenant notification/* " +
			"command_internal/mqtt-0 tenant tenant/* registration/T credentials/T/reply cmd_router/* $management cbs * */T */* telemetry/Größe",
		"--write":   "command/T command/* telemetry/* event/* command_response/* device_directory cmd_router/T tenant registration/* $management",
		"--execute": "tenant/*:get tenant:* registration/T:assert credentials/*:* cmd_router/T:register-command-consumer $management:DELETE $management:* *:* */T:get",
	} {
		for _, form := range strings.Fields(forms) {
			if got := c.run("", "identity", "add", "i", flag, form); got.failure != nil {
				t.Errorf("%s %s: %v", flag, form, got.failure)
			}
			c.prints("deleted application i\n", "identity", "delete", "i", "--yes")
		}
	}
	configured := "addresses=[{pattern: alarms/*, distribution: multicast}]"
	for _, args := range [][]string{
		{"identity", "add", "alarms", "--read", "alarms/x", "--set", configured},
		{"identity", "add", "everything", "--read", "x/y", "--set", "addresses=[{pattern: '*/y', distribution: multicast}]"},
		{"identity", "update", "alarms", "--write", "alarms", "--set", configured},
	} {
		if got := c.run("", args...); got.failure != nil {
			t.Errorf("%q: %v", args, got.failure)
		}
	}
	for _, r := range [][3]string{
		{"--read", "bad address", "an address has neither spaces nor control characters; expected telemetry/TENANT, event/TENANT, "},
		{"--read", "telemetry/a\x1b[1m", "control characters"},
		{"--read", "telemetry/a\u009b", "control characters"},
		{"--read", "telemetry/a\xff", "control characters"},
		{"--read", "telemetri/T", "no address begins with telemetri; nearest: telemetry; expected telemetry/TENANT"},
		{"--write", "Command/T", "nearest: command;"},
		{"--write", "x/y", "no address begins with x; expected telemetry/TENANT"},
		{"--write", "alarms/x", "one of `addresses` of the configuration"},
		{"--read", "/telemetry/T", "an address begins with no /"},
		{"--read", "telemetry//", "empty segment"},
		{"--read", "telemetry/a*", "whole segment"},
		{"--read", "tele*/T", "whole segment"},
		{"--read", "telemetry/T,", "empty"},
		{"--read", "$management/x", "managed at $management itself"},
		{"--read", "telemetry/" + strings.Repeat("x", maxAddress), "longer than 1024 bytes"},
		{"--execute", "credentials/T", "expected ADDRESS:OPERATION, such as tenant/TENANT:get"},
		{"--execute", ":get", "expected ADDRESS:OPERATION"},
		{"--execute", "credentials/T:", "expected ADDRESS:OPERATION"},
		{"--execute", "telemetry/T:get", "no address begins with telemetry; expected such as tenant/TENANT:get"},
		{"--execute", "credential/T:get", "nearest: credentials"},
		{"--tenant", "A B", `"A B" is no tenant`},
		{"--tenant", "A*", "* stands for all tenants"},
		{"--tenant", "A/B", `"A/B" is no tenant`},
	} {
		c.fails(r[2], "identity", "add", "i", r[0], r[1])
		c.fails(r[2], "identity", "update", "alarms", r[0], r[1])
	}
	c.fails(`"A/B" is no tenant`, "identity", "add", "i", "--operator", "--tenant", "A/B")
}

// TestAddRights expects that --add keeps what there is.
func TestAddRights(t *testing.T) {
	c := &console{t, t.TempDir()}
	for _, args := range [][]string{
		{"identity", "add", "shop", "--read", "telemetry/A"},
		{"identity", "add", "op", "--operator", "--tenant", "A", "--tenant", "B", "--read-only"},
		{"identity", "update", "shop", "--add", "--read", "event/A", "--execute", "tenant/*:get"},
		{"identity", "update", "shop", "--add", "--read", "event/A", "--write", "command/A"},
		{"identity", "update", "op", "--add", "--tenant", "B", "--tenant", "C"},
		{"identity", "update", "op", "--add", "--tenant", "D", "--read-only"},
		{"identity", "update", "op", "--add", "--tenant", "C", "--read-only", "--export"},
	} {
		if got := c.run("", args...); got.failure != nil {
			t.Fatalf("%q: %v", args, got.failure)
		}
	}
	list := "NAME  KIND         PROOF   MAY\n" +
		"shop  application  secret  read telemetry/A, read event/A, execute tenant/*:get, write command/A\n"
	c.prints(list+"op    operator     secret  read tenant A, read+write tenant B, read+write+export tenant C, read tenant D\n", "identity", "list")
	if got := c.run("", "identity", "update", "op", "--add", "--export"); got.failure != nil {
		t.Error(got.failure)
	}
	c.prints(list+"op    operator     secret  read+export tenant A, read+write+export tenant B, read+write+export tenant C, read+export tenant D\n", "identity", "list")
	for want, args := range map[string][]string{
		"nothing to change":      {"identity", "update", "op", "--add"},
		"--add goes with what":   {"identity", "update", "op", "--add", "--new-secret"},
		"--add takes nothing":    {"identity", "update", "op", "--add", "--read-only"},
		"are for operators":      {"identity", "update", "shop", "--add", "--export"},
		"are for applications; ": {"identity", "update", "op", "--add", "--read", "telemetry/A"},
	} {
		c.fails(want, args...)
	}
}
