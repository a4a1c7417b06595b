package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/functions/admission"
	"github.com/sluice-iot/sluice/functions/realm"
	"github.com/sluice-iot/sluice/internal/auth/oidc"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/iot"
)

// openRealms makes the identity providers of the configuration; nil where there is none.
func openRealms(cfg *config.Config, log *slog.Logger) (admission.External, error) {
	if len(cfg.IdentityProviders) == 0 {
		return nil, nil
	}
	var list []realm.Provider
	for i := range cfg.IdentityProviders {
		p := &cfg.IdentityProviders[i]
		client, err := openClient(p)
		if err != nil {
			return nil, fmt.Errorf("identity provider %q: %w", p.Name, err)
		}
		tenants := make([]iot.TenantID, len(p.Tenants))
		for i, t := range p.Tenants {
			tenants[i] = iot.TenantID(t)
		}
		list = append(list, realm.Provider{
			Name: p.Name, Issuer: client, Tenants: tenants,
			UserClaim: p.UserClaim, DeviceClaim: p.DeviceClaim, TenantClaim: p.TenantClaim,
			MaxAge: p.MaxAge, Timeout: p.Timeout, MaxCalls: p.MaxCalls,
		})
	}
	return realm.New(list, log, time.Now)
}

func openClient(p *config.IdentityProvider) (*oidc.Client, error) {
	secret, err := clientSecret(p)
	if err != nil {
		return nil, err
	}
	c := oidc.ClientConfig{Issuer: p.Issuer, ID: p.ClientID, Secret: secret, Conns: p.MaxCalls}
	if c.Conns == 0 {
		c.Conns = realm.DefaultMaxCalls
	}
	if p.CA != "" {
		pem, err := os.ReadFile(p.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		if c.Roots = x509.NewCertPool(); !c.Roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s holds no certificate in PEM form", p.CA)
		}
	}
	return oidc.NewClient(c)
}

// maxSecret is more than any client secret has, in bytes.
const maxSecret = 4096

// clientSecret reads the secret from its file or else from the environment.
func clientSecret(p *config.IdentityProvider) (string, error) {
	secret, from := os.Getenv(p.SecretVariable()), "environment variable "+p.SecretVariable()
	if p.ClientSecretFile != "" {
		text, err := os.ReadFile(p.ClientSecretFile)
		if err != nil {
			return "", fmt.Errorf("client-secret-file: %w", err)
		}
		secret, from = strings.TrimSpace(string(text)), p.ClientSecretFile
	}
	switch {
	case secret == "" && p.ClientSecretFile == "":
		return "", errors.New("no client secret; expected client-secret-file, or the " + from)
	case secret == "" || len(secret) > maxSecret || strings.ContainsAny(secret, "\r\n"):
		return "", errors.New(from + ": expected the client's secret on one line")
	}
	return secret, nil
}
