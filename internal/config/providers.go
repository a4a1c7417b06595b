package config

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// IdentityProvider is an OpenID Connect issuer, such as a realm of Keycloak, that
// checks the passwords of devices. A tenant names it in its ext member
// identity-provider.
type IdentityProvider struct {
	Name   string `yaml:"name" json:"name"`
	Issuer string `yaml:"issuer" json:"issuer"` // https://HOST/realms/NAME
	// ClientID is the confidential client, and ClientSecretFile holds its secret on one
	// line; without the file it is in the variable that [IdentityProvider.SecretVariable] names.
	ClientID         string `yaml:"client-id" json:"client-id"`
	ClientSecretFile string `yaml:"client-secret-file,omitempty" json:"client-secret-file,omitempty"`
	CA               string `yaml:"ca,omitempty" json:"ca,omitempty"` // PEM; "" = those of the system
	// Tenants are those whose devices the issuer's users may be; "*" = every one that
	// names the provider.
	Tenants     []string `yaml:"tenants" json:"tenants"`
	UserClaim   string   `yaml:"user-claim,omitempty" json:"user-claim,omitempty"`     // "" = preferred_username
	DeviceClaim string   `yaml:"device-claim,omitempty" json:"device-claim,omitempty"` // "" = preferred_username
	TenantClaim string   `yaml:"tenant-claim,omitempty" json:"tenant-claim,omitempty"` // needed for several tenants
	// MaxAge is the longest time that a login holds; 0 = 5 minutes.
	MaxAge   time.Duration `yaml:"max-age,omitempty" json:"max-age,omitempty"`
	Timeout  time.Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`     // of a login; 0 = 5 s
	MaxCalls int           `yaml:"max-calls,omitempty" json:"max-calls,omitempty"` // logins at a time; 0 = 32
}

// MarshalJSON writes durations as text, as every setting is shown.
func (p IdentityProvider) MarshalJSON() ([]byte, error) {
	type plain IdentityProvider
	shown := struct {
		plain
		MaxAge  string `json:"max-age,omitempty"`
		Timeout string `json:"timeout,omitempty"`
	}{plain: plain(p)}
	if p.MaxAge != 0 {
		shown.MaxAge = p.MaxAge.String()
	}
	if p.Timeout != 0 {
		shown.Timeout = p.Timeout.String()
	}
	return json.Marshal(shown)
}

// SecretVariable is SLUICE_CLIENT_SECRET_ and the name in capitals, with _ for - and dots.
func (p *IdentityProvider) SecretVariable() string {
	return "SLUICE_CLIENT_SECRET_" + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(p.Name))
}

// providerName is what fits a variable's name.
var providerName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,64}$`)

func (l *Loaded) checkProviders() error {
	variables := map[string]string{}
	for i := range l.IdentityProviders {
		p := &l.IdentityProviders[i]
		path := fmt.Sprintf("identity-providers[%d]", i)
		other, taken := variables[p.SecretVariable()]
		switch {
		case !providerName.MatchString(p.Name):
			return l.errorf(path, "name %.80q: expected up to 64 letters, digits, dots, - and _", p.Name)
		case taken:
			return l.errorf(path, "name %q is too like that of %q", p.Name, other)
		case p.ClientID == "":
			return l.errorf(path, "no client-id; expected that of a confidential client of the issuer")
		case len(p.Tenants) == 0 || slices.Contains(p.Tenants, ""):
			return l.errorf(path, `no tenants; expected those whose devices the issuer's users may be, or "*"`)
		case (len(p.Tenants) > 1 || p.Tenants[0] == "*") && p.TenantClaim == "":
			return l.errorf(path, "several tenants need a tenant-claim that tells their users apart")
		case p.MaxAge < 0 || p.Timeout < 0 || p.MaxCalls < 0:
			return l.errorf(path, "max-age, timeout and max-calls cannot be negative")
		}
		if err := l.checkURL(path, p.Issuer, "https", "http"); err != nil {
			return err
		}
		variables[p.SecretVariable()] = p.Name
	}
	return nil
}
