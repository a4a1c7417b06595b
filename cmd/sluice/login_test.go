package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestLogin expects that an operator's secret goes only where it belongs, of the
// management API and of a router.
func TestLogin(t *testing.T) {
	data := t.TempDir()
	if err := writeEnv(filepath.Join(data, operatorFile), "SLUICE_URL=http://here:1", "SLUICE_USER=admin", "SLUICE_PASSWORD=secret",
		"SLUICE_ROUTER_URL=amqp://here:2", "SLUICE_ROUTER_USER=admin@local", "SLUICE_ROUTER_PASSWORD=other", "SLUICE_CA=/ca"); err != nil {
		t.Fatal(err)
	}
	for _, server := range []struct {
		prefix, usual, here, there, user, password string
		complete                                   func(loginFlags) (loginFlags, error)
	}{
		{"SLUICE_", defaultManagement, "http://here:1", "http://there:1", "admin", "secret", func(f loginFlags) (loginFlags, error) {
			m := managementFlags{f}
			err := m.complete()
			return m.loginFlags, err
		}},
		{"SLUICE_ROUTER_", defaultNorthbound, "amqp://here:2", "amqp://there:2", "admin@local", "other", func(f loginFlags) (loginFlags, error) {
			r := routerFlags{f}
			err := r.complete()
			return r.loginFlags, err
		}},
	} {
		for name, c := range map[string]struct {
			given loginFlags
			env   []string // after the prefix
			want  loginFlags
			fails bool
		}{
			"found":               {given: loginFlags{data: data}, want: loginFlags{data, server.here, server.user, server.password, "/ca"}},
			"found by chance":     {want: loginFlags{"", server.here, server.user, server.password, "/ca"}},
			"the same URL":        {given: loginFlags{url: server.here}, want: loginFlags{"", server.here, server.user, server.password, "/ca"}},
			"another URL":         {given: loginFlags{url: server.there}, fails: true},
			"another URL's user":  {given: loginFlags{url: server.there, user: server.user}, fails: true},
			"a variable's URL":    {env: []string{"URL", server.there}, fails: true},
			"another URL, told":   {given: loginFlags{data: data, url: server.there}, want: loginFlags{data, server.there, server.user, server.password, "/ca"}},
			"another user":        {given: loginFlags{data: data, user: "bob"}, fails: true},
			"from the variables":  {env: []string{"URL", server.there, "USER", "bob", "PASSWORD", "b"}, want: loginFlags{"", server.there, "bob", "b", ""}},
			"flags before others": {given: loginFlags{user: "eve", password: "e"}, env: []string{"USER", "bob"}, want: loginFlags{"", server.here, "eve", "e", "/ca"}},
			"nothing there":       {given: loginFlags{data: filepath.Join(data, "absent"), user: "eve", password: "e"}, want: loginFlags{filepath.Join(data, "absent"), server.usual, "eve", "e", ""}},
		} {
			t.Run(strings.ToLower(server.prefix)+name, func(t *testing.T) {
				t.Setenv("SLUICE_DATA", data)
				for i := 0; i < len(c.env); i += 2 {
					t.Setenv(server.prefix+c.env[i], c.env[i+1])
				}
				f, err := server.complete(c.given)
				if (err != nil) != c.fails || err == nil && f != c.want {
					t.Errorf("got %+v, %v", f, err)
				}
			})
		}
	}
}
