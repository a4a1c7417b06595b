package main

import (
	"regexp"
	"testing"
)

func TestManageIdentities(t *testing.T) {
	c := &console{t, t.TempDir()}
	for _, args := range [][]string{
		{"identity", "create", "shop", "--tenant", "DEMO"},
		{"identity", "add", "both", "--read", "telemetry/*"},
		{"identity", "add", "both", "--operator", "--tenant", "A", "--tenant", "B", "--read-only"},
		{"identity", "add", "carl", "--operator", "--certificate", "CN=carl,O=A"},
	} {
		if got := c.run("", args...); got.failure != nil {
			t.Fatal(got.failure)
		}
	}
	c.prints("NAME  KIND         PROOF        MAY\n"+
		"shop  application  secret       read telemetry/DEMO, read event/DEMO, read command_response/DEMO, write command/DEMO\n"+
		"both  application  secret       read telemetry/*\n"+
		"both  operator     secret       read tenant A, read tenant B\n"+
		"carl  operator     certificate  read+write all tenants\n", "identity", "list")
	c.prints(`{"name":"both","kind":"operator","proof":["secret"],"scopes":[{"tenant":"A","may":["read"]},{"tenant":"B","may":["read"]}]}`+"\n",
		"identity", "get", "both", "--operator", "-o", "json")
	c.prints("name         carl\nkind         operator\nproof        certificate\ncertificate  CN=carl,O=A\nmay          read+write all tenants\nfile         "+
		c.data+"/identities.yaml\n", "identity", "get", "carl")
	c.prints("updated both in "+c.data+"/identities.yaml\n", "identity", "update", "both", "--application", "--read", "event/A")
	c.prints("updated both in "+c.data+"/identities.yaml\n", "identity", "update", "both", "--operator", "--tenant", "C", "--export")
	if got := c.run("", "identity", "update", "shop", "--new-secret"); !regexp.MustCompile(`^name    shop\nsecret  [A-Za-z0-9_-]{43}\nfile    .*\nThe secret is not shown again.\n$`).MatchString(got.out) {
		t.Error(got)
	}
	c.prints("deleted application shop\n", "identity", "delete", "shop", "--yes")
	c.prints("NAME  KIND         PROOF        MAY\n"+
		"both  application  secret       read event/A\n"+
		"both  operator     secret       read+write+export tenant C\n"+
		"carl  operator     certificate  read+write all tenants\n", "identity", "list")
	for want, args := range map[string][]string{
		"is an application and an operator": {"identity", "get", "both"},
		`there is no "none" in`:             {"identity", "delete", "none", "--yes"},
		"repeat the command with --yes":     {"identity", "delete", "carl"},
		"nothing to change":                 {"identity", "update", "carl"},
		"are for applications":              {"identity", "update", "carl", "--read", "x"},
		"are for operators":                 {"identity", "update", "both", "--application", "--export"},
		"whole segment":                     {"identity", "update", "both", "--application", "--read", "x*"},
		"expected one name":                 {"identity", "get"},
	} {
		c.fails(want, args...)
	}
}
