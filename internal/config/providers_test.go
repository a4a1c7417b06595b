package config_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/config"
)

func TestIdentityProviders(t *testing.T) {
	dir := ""
	load := func(items string) (*config.Loaded, error) {
		file := write(t, "identity-providers:\n"+items)
		dir = filepath.Dir(file)
		return config.Load(config.Options{File: file, Env: []string{"SLUICE_DATA=" + dir}})
	}
	const good = "  - {name: plant.a-1, issuer: 'https://id.example/realms/plant', client-id: c, tenants: [ACME]"
	l, err := load(good + ", client-secret-file: secret, ca: ca.pem, max-age: 1m, max-calls: 4}\n")
	if err != nil {
		t.Fatal(err)
	}
	p := l.IdentityProviders[0]
	if p.ClientSecretFile != filepath.Join(dir, "secret") || p.CA != filepath.Join(dir, "ca.pem") || p.MaxAge != time.Minute || p.SecretVariable() != "SLUICE_CLIENT_SECRET_PLANT_A_1" {
		t.Errorf("got %+v, variable %s", p, p.SecretVariable())
	}
	text, err := json.Marshal(p)
	if err != nil || !strings.Contains(string(text), `"max-age":"1m0s"`) || strings.Contains(string(text), "timeout") {
		t.Errorf("shown as %s, %v", text, err)
	}
	for text, items := range map[string]string{
		"name":            "  - {issuer: 'https://id.example', client-id: c, tenants: [ACME]}\n",
		"too like":        good + "}\n" + strings.Replace(good, "plant.a-1", "plant-a_1", 1) + "}\n",
		"client-id":       "  - {name: a, issuer: 'https://id.example', tenants: [ACME]}\n",
		"no tenants":      "  - {name: a, issuer: 'https://id.example', client-id: c}\n",
		"tenant-claim":    "  - {name: a, issuer: 'https://id.example', client-id: c, tenants: ['*']}\n",
		"negative":        good + ", timeout: -1s}\n",
		"expected a URL":  "  - {name: a, issuer: id.example, client-id: c, tenants: [ACME]}\n",
		"plain text":      "  - {name: a, issuer: 'http://id.example', client-id: c, tenants: [ACME]}\n",
		"nearest known k": good + ", tenant: X}\n",
	} {
		if _, err := load(items); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}
