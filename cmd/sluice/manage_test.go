package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// console runs command lines against an installation.
type console struct {
	t    *testing.T
	data string
}

// run returns what a command line printed; stdin may be nil.
func (c *console) run(stdin string, args ...string) ran {
	c.t.Helper()
	return runWith(c.t, newRootCommand(), strings.NewReader(stdin), append(args, "--data", c.data)...)
}

// prints expects a command to succeed and to print this; what changes from run
// to run is made alike first.
func (c *console) prints(want string, args ...string) {
	c.t.Helper()
	got := c.run("", args...)
	if text := alike(got.out); got.failure != nil || text != want {
		c.t.Errorf("%q: got\n%s%v\nwant\n%s", args, text, got.failure, want)
	}
}

// fails expects an error, and nothing on standard output.
func (c *console) fails(want string, args ...string) {
	c.t.Helper()
	got := c.run("", args...)
	if got.failure == nil || !strings.Contains(got.failure.Error(), want) || got.out != "" {
		c.t.Errorf("%q: got %q, %v; want %s", args, got.out, got.failure, want)
	}
}

var (
	someUUID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	someTime = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
)

func alike(text string) string {
	return someTime.ReplaceAllString(someUUID.ReplaceAllString(text, "UUID"), "TIME")
}

func TestManageTenantsAndDevices(t *testing.T) {
	c := &console{t, startUp(t)}
	c.prints("TENANT  ENABLED  ALIAS  ADAPTERS  EXT\n", "tenant", "list")
	c.prints("created tenant ACME\n", "tenant", "create", "ACME", "--alias", "acme", "--ext", "site=Kiel", "--ext", "n=5", "--adapter", "hono-mqtt,hono-http")
	c.prints("created tenant UUID\n", "tenant", "create")
	c.prints(`{"id":"OFF","version":"UUID"}`+"\n", "tenant", "create", "OFF", "--disabled", "-o", "json")
	c.fails("create ACME: tenant already exists (409)", "tenant", "create", "ACME")
	c.prints("TENANT  ENABLED  ALIAS  ADAPTERS              EXT\n"+
		"ACME    yes      acme   hono-mqtt, hono-http  {\"n\":5,\"site\":\"Kiel\"}\n", "tenant", "list", "--filter", "ext/n=5")
	c.prints("{\"id\":\"OFF\",\"enabled\":false}\n", "tenant", "list", "-o", "json", "--filter", "enabled=false")
	c.prints("updated tenant ACME, version UUID\n", "tenant", "update", "ACME", "--ext", "n=null", "--default", `x={"y":[1]}`, "--alias", "", "--adapter", "hono-http")
	c.prints("id            ACME\n"+
		"adapters      [{\"device-authentication-required\":true,\"enabled\":true,\"type\":\"hono-http\"}]\n"+
		"defaults.x.y  [1]\n"+
		"ext.site      Kiel\n"+
		"version       UUID\n", "tenant", "get", "ACME")

	c.prints("created device gw\n", "device", "create", "ACME", "gw", "--memberOf", "g1,g2")
	c.prints("created device d1\n", "device", "create", "ACME", "d1", "--via", "gw", "--ext", "site=Kiel", "--ext", `long="`+strings.Repeat("x", 60)+`"`)
	c.prints("created device d2\n", "device", "create", "ACME", "d2", "--disabled", "--default", "ttl=10")
	heading := "DEVICE  ENABLED  VIA  MEMBER OF  EXT\n"
	c.prints(heading+
		"d1      yes      gw   -          {\"long\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…\n"+
		"d2      no       -    -          -\n"+
		"gw      yes      -    g1, g2     -\n", "device", "list", "ACME")
	c.prints(heading+"gw      yes      -    g1, g2     -\n", "device", "list", "ACME", "--gateways")
	if got := c.run("", "device", "list", "ACME", "--filter", "id=d?", "--filter", "id=*", "--sort", "-id", "--gateways=false", "-o", "json"); !regexp.MustCompile(`^\{"id":"d2".*\n\{"id":"d1".*\n$`).MatchString(got.out) {
		t.Error(got)
	}
	c.prints(heading, "device", "list", "ACME", "--filter", "ext/site=Bonn")
	c.fails("list devices of NONE: tenant does not exist (404)", "device", "list", "NONE")
	if got := c.run("", "device", "list", "ACME", "--limit", "1"); !strings.Contains(got.err, "1 of 3 devices; --all or --limit shows more") {
		t.Error(got)
	}
	c.prints("id              d2\ndefaults.ttl    10\nenabled         no\nstatus.created  TIME\nversion         UUID\n", "device", "get", "ACME", "d2")
	c.prints("{\"enabled\":false,\"defaults\":{\"ttl\":10},\"status\":{\"created\":\"TIME\"}}\n", "device", "get", "ACME", "d2", "-o", "json")
	c.fails("ACME/none: device not found (404)", "device", "get", "ACME", "none")

	c.prints("updated device d2, version UUID\n", "device", "update", "ACME", "d2", "--enabled", "--via", "gw")
	c.prints("updated device d2, version UUID\n", "device", "update", "ACME", "d2", "--via", "", "--ext", "text=\"5\"")
	c.prints("{\"enabled\":true,\"defaults\":{\"ttl\":10},\"ext\":{\"text\":\"5\"},\"status\":{\"created\":\"TIME\",\"updated\":\"TIME\"}}\n", "device", "get", "ACME", "d2", "-o", "json")
	c.prints("{\"id\":\"d2\",\"version\":\"UUID\"}\n", "device", "update", "ACME", "d2", "--enabled", "-o", "json")
	c.fails("somebody else has changed it", "device", "update", "ACME", "d2", "--ext", "a=b", "--if-match", "another")
	c.fails("nothing to change", "device", "update", "ACME", "d2")
	c.fails("expected key=value", "device", "update", "ACME", "d2", "--ext", "a")
	c.fails("expected one of them", "device", "update", "ACME", "d2", "--enabled", "--disabled")
	c.fails("unknown member", "device", "update", "ACME", "d2", "--file", c.file(`{"nonsense": 1}`))
	c.fails("not the JSON that is expected", "device", "update", "ACME", "d2", "--file", c.file(`[1]`))
	if got := c.run(`{"ext": {"a": null, "b": 1}}`, "device", "update", "ACME", "d2", "--replace", "--file", "-"); got.failure != nil {
		t.Error(got.failure)
	}
	c.prints("{\"ext\":{\"b\":1},\"status\":{\"created\":\"TIME\",\"updated\":\"TIME\"}}\n", "device", "get", "ACME", "d2", "-o", "json")

	c.fails("repeat the command with --yes", "device", "delete", "ACME", "d2")
	c.fails("Delete ALL devices of ACME with their credentials?", "device", "delete", "ACME", "--all")
	c.fails("somebody else has changed it", "device", "delete", "ACME", "d2", "--yes", "--if-match", "another")
	if got := c.run("", "device", "delete", "ACME", "d2", "none", "--yes"); got.out != "deleted device d2\n" || got.failure == nil || !strings.Contains(got.err, "ACME/none: device not found (404)") {
		t.Error(got)
	}
	c.fails("expected no others", "device", "delete", "ACME", "gw", "--all", "--yes")
	c.prints("deleted all devices of ACME\n", "device", "delete", "ACME", "--all", "--yes")
	c.prints("deleted tenant ACME\n", "tenant", "delete", "ACME", "--yes")
	for want, args := range map[string][]string{
		`".." is no tenant`:        {"tenant", "get", ".."},
		`"a/b" is no device`:       {"device", "get", "T", "a/b"},
		"got 1 argument":           {"device", "get", "T"},
		`expected field=value`:     {"tenant", "list", "--filter", "x"},
		"--limit 0: expected":      {"tenant", "list", "--limit", "0"},
		`--output "xml"`:           {"tenant", "list", "-o", "xml"},
		"--sort: expected":         {"tenant", "list", "--sort", "-"},
		"--if-match goes with one": {"device", "delete", "T", "a", "b", "--if-match", "x"},
	} {
		c.fails(want, args...)
	}
}

func (c *console) file(content string) string {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// TestListAll expects all pages.
func TestListAll(t *testing.T) {
	c := &console{t, startUp(t)}
	c.prints("created tenant T\n", "tenant", "create", "T")
	var lines strings.Builder
	for i := range 450 {
		fmt.Fprintf(&lines, `{"op":"create","id":"d%03d"}`+"\n", i)
	}
	if got := c.run(lines.String(), "device", "import", "T"); got.failure != nil {
		t.Fatal(got.failure)
	}
	for args, want := range map[string]int{"--all": 450, "--limit 250": 250, "--limit 7": 7, "--all --filter id=d1*": 100} {
		got := c.run("", append([]string{"device", "list", "T", "-o", "json"}, strings.Fields(args)...)...)
		if n := strings.Count(got.out, "\n"); n != want || got.failure != nil {
			t.Errorf("%s: %d lines, %v", args, n, got.failure)
		}
	}
	// Everything again, from what an export holds.
	export := filepath.Join(t.TempDir(), "devices.ndjson")
	if got := c.run("", "device", "export", "T", export); got.failure != nil || !strings.Contains(got.err, "exported 450 devices of T") || got.out != "" {
		t.Fatal(got)
	}
	c.prints("created tenant COPY\n", "tenant", "create", "COPY")
	if got := c.run("", "device", "import", "COPY", export); got.failure != nil || !strings.Contains(got.err, "450 done") {
		t.Error(got)
	}
}

func TestManageCredentials(t *testing.T) {
	c := &console{t, startUp(t)}
	c.prints("created tenant T\n", "tenant", "create", "T")
	c.prints("created device d\n", "device", "create", "T", "d")
	heading := "TYPE  AUTH-ID  ENABLED  NOT BEFORE  NOT AFTER  COMMENT\n"
	c.prints(heading, "credentials", "list", "T", "d")
	secret := regexp.MustCompile(`^user      d@T\npassword  [A-Za-z0-9_-]{43}\nThe password is not shown again.\n$`)
	for _, more := range [][]string{nil, {"--keep"}} {
		if got := c.run("", append([]string{"credentials", "set-password", "T", "d"}, more...)...); !secret.MatchString(got.out) || got.failure != nil {
			t.Error(got)
		}
	}
	if got := c.run("a password\nmore\n", "credentials", "set-password", "T", "d", "other", "--stdin", "-o", "json"); got.out != "{\"user\":\"other@T\"}\n" || got.failure != nil {
		t.Error(got)
	}
	c.fails("d has passwords for d, other", "credentials", "set-password", "T", "d")
	c.fails("standard input has no password", "credentials", "set-password", "T", "d", "other", "--stdin")
	if got := c.run("", "credentials", "add", "psk", "T", "d", "key-1", "-o", "json"); !regexp.MustCompile(`^\{"identity":"key-1","key":"[A-Za-z0-9+/]{43}="\}\n$`).MatchString(got.out) {
		t.Error(got)
	}
	if got := c.run("some key", "credentials", "add", "psk", "T", "d", "key-2", "--file", "-"); got.out != "identity  key-2\n" {
		t.Error(got)
	}
	dir := t.TempDir()
	if _, err := runCommand(t, newCertsCommand(), "--out", dir, "adapter/x"); err != nil {
		t.Fatal(err)
	}
	cert := filepath.Join(dir, "adapter-x.crt")
	for range 2 { // the second one replaces the first
		if got := c.run("", "credentials", "add", "x509", "T", "d", cert); !strings.HasPrefix(got.out, "subject     CN=") || got.failure != nil {
			t.Error(got)
		}
	}
	c.fails("has no certificate", "credentials", "add", "x509", "T", "d", filepath.Join(dir, "adapter-x.key"))
	got := c.run("", "credentials", "list", "T", "d")
	lines := regexp.MustCompile(` +`).ReplaceAllString(alike(got.out), " ")
	want := "TYPE AUTH-ID ENABLED NOT BEFORE NOT AFTER COMMENT\nhashed-password d yes - - -\nhashed-password d yes - - -\nhashed-password other yes - - -\n" +
		"psk key-1 yes - - -\npsk key-2 yes - - -\nx509-cert CN=x"
	if !strings.HasPrefix(lines, want) || strings.Count(lines, "\n") != 7 {
		t.Errorf("got\n%s", lines)
	}
	all := c.run("", "credentials", "get", "T", "d", "-o", "json").out
	var set []object
	if err := json.Unmarshal([]byte(all), &set); err != nil || len(set) != 5 || strings.Contains(all, "hash") && strings.Contains(all, "pwd-hash") || strings.Contains(all, `"key":`) {
		t.Errorf("%v in %s", err, all)
	}
	c.prints("updated the credentials of T/d\n", "credentials", "update", "T", "d", "key-1", "--disabled")
	if got := c.run("", "credentials", "list", "T", "d"); !regexp.MustCompile(`psk +key-1 +no `).MatchString(got.out) {
		t.Error(got.out)
	}
	if got := c.run(all, "credentials", "update", "T", "d", "--file", "-", "--if-match", "another"); got.failure == nil || !strings.Contains(got.failure.Error(), "somebody else") {
		t.Error(got)
	}
	if got := c.run(all, "credentials", "update", "T", "d", "--file", "-"); got.failure != nil {
		t.Error(got)
	}
	if got := c.run("", "credentials", "list", "T", "d"); !regexp.MustCompile(`psk +key-1 +yes `).MatchString(got.out) {
		t.Error(got.out)
	}
	c.fails("T/d has no credential none", "credentials", "delete", "T", "d", "none", "--yes")
	c.fails("repeat the command with --yes", "credentials", "delete", "T", "d", "key-2")
	c.prints("deleted the psk credential key-2 of T/d\n", "credentials", "delete", "T", "d", "key-2", "--yes")
	c.fails("expected an AUTH-ID, or --all", "credentials", "delete", "T", "d")
	c.fails("expected an AUTH-ID with --enabled", "credentials", "update", "T", "d")
	c.prints("deleted all credentials of T/d\n", "credentials", "delete", "T", "d", "--all", "--yes")
	c.prints(heading, "credentials", "list", "T", "d")
	c.fails("credentials of T/none: device not found (404)", "credentials", "list", "T", "none")
}

// TestExportWithCredentials expects that a device can log in where its export was
// taken in, and that who may not export is told so.
func TestExportWithCredentials(t *testing.T) {
	c := &console{t, startUp(t)}
	c.prints("created tenant T\n", "tenant", "create", "T")
	c.prints("created device d\n", "device", "create", "T", "d", "--ext", "a=b")
	c.run("", "credentials", "set-password", "T", "d")
	c.fails("(403)", "device", "export", "T", "--credentials")
	c.fails("goes without --filter", "device", "export", "T", "--credentials", "--filter", "id=d")
	if got := c.run("", "device", "export", "T"); got.out != `{"op":"put","id":"d","device":{"ext":{"a":"b"}}}`+"\n" {
		t.Error(got)
	}
	if got := c.run("", "identity", "update", "admin", "--export"); got.failure != nil {
		t.Fatal(got.failure)
	}
	file := filepath.Join(t.TempDir(), "all")
	for { // until the process has read the identities again
		got := c.run("", "device", "export", "T", file, "--credentials")
		if got.failure == nil {
			break
		}
		if !strings.Contains(got.failure.Error(), "(403)") {
			t.Fatal(got.failure)
		}
		<-time.After(20 * time.Millisecond)
	}
	text, err := os.ReadFile(file)
	info, _ := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 || !strings.HasPrefix(string(text), `{"op":"put","id":"d","device":{"ext":{"a":"b"}},"credentials":[{"type":"hashed-password","auth-id":"d"`) {
		t.Errorf("%s, %v", text, err)
	}
	c.prints("created tenant COPY\n", "tenant", "create", "COPY")
	if got := c.run("", "device", "import", "COPY", file); got.failure != nil {
		t.Error(got)
	}
	if a, b := c.run("", "credentials", "list", "T", "d", "-o", "json").out, c.run("", "credentials", "list", "COPY", "d", "-o", "json").out; a == "" || alike(a) != alike(b) {
		t.Errorf("got %s, want %s", b, a)
	}
}
