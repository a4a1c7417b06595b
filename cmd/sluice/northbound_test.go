package main

import (
	"path/filepath"
	"testing"
)

// TestApplicationLogin expects that the demo's secret goes only where it belongs,
// and that what is meant for the management API is not taken for a router's.
func TestApplicationLogin(t *testing.T) {
	data := t.TempDir()
	for file, lines := range map[string][]string{
		demoFile:     {"SLUICE_APP_USER=demo-app", "SLUICE_APP_PASSWORD=secret", "SLUICE_CA=/ca"},
		operatorFile: {"SLUICE_URL=http://127.0.0.1:1", "SLUICE_ROUTER_URL=amqp://127.0.0.1:2"},
	} {
		if err := writeEnv(filepath.Join(data, file), lines...); err != nil {
			t.Fatal(err)
		}
	}
	absent := filepath.Join(data, "absent")
	for name, c := range map[string]struct {
		given loginFlags
		env   map[string]string
		want  loginFlags
		fails bool
	}{
		"found":                  {want: loginFlags{"", "amqp://127.0.0.1:2", "demo-app", "secret", "/ca"}},
		"this machine":           {given: loginFlags{url: "amqps://localhost:3"}, want: loginFlags{"", "amqps://localhost:3", "demo-app", "secret", "/ca"}},
		"another machine":        {given: loginFlags{url: "amqps://there:3"}, fails: true},
		"another machine, told":  {given: loginFlags{url: "amqps://there:3", data: data}, want: loginFlags{data, "amqps://there:3", "demo-app", "secret", "/ca"}},
		"another's user":         {given: loginFlags{user: "shop"}, fails: true},
		"variables":              {env: map[string]string{"SLUICE_AMQP_URL": "amqp://x:1", "SLUICE_APP_USER": "shop", "SLUICE_APP_PASSWORD": "pw"}, want: loginFlags{"", "amqp://x:1", "shop", "pw", ""}},
		"of the management API":  {env: map[string]string{"SLUICE_URL": "http://x:1", "SLUICE_USER": "admin", "SLUICE_PASSWORD": "pw"}, want: loginFlags{"", "amqp://127.0.0.1:2", "demo-app", "secret", "/ca"}},
		"old variables":          {env: map[string]string{"SLUICE_URL": "amqp://x:1", "SLUICE_USER": "shop", "SLUICE_PASSWORD": "pw"}, want: loginFlags{"", "amqp://x:1", "shop", "pw", ""}},
		"old user, usual router": {env: map[string]string{"SLUICE_USER": "shop", "SLUICE_PASSWORD": "pw"}, want: loginFlags{"", "amqp://127.0.0.1:2", "shop", "pw", "/ca"}},
		"new before old":         {env: map[string]string{"SLUICE_URL": "amqp://x:1", "SLUICE_AMQP_URL": "amqp://y:1", "SLUICE_USER": "shop", "SLUICE_PASSWORD": "pw"}, want: loginFlags{"", "amqp://y:1", "shop", "pw", ""}},
		"nothing there":          {given: loginFlags{data: absent, user: "u", password: "p"}, want: loginFlags{absent, defaultNorthbound, "u", "p", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SLUICE_DATA", data)
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			f := applicationFlags{c.given}
			if err := f.complete(); (err != nil) != c.fails || err == nil && f.loginFlags != c.want {
				t.Errorf("got %+v, %v", f.loginFlags, err)
			}
		})
	}
}
