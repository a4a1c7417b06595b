package listen

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/sluice-iot/sluice/internal/config"
)

// Own returns the files by which this process proves itself: those of the tls key of
// the configuration, or else development certificates in tls/ of the data folder,
// which are made if need be. dev is nil in the first case.
func Own(c *config.Config) (own Files, dev *Development, err error) {
	if c.TLS.Certificate != "" {
		return Files{Certificate: c.TLS.Certificate, Key: c.TLS.Key, CA: c.TLS.CA}, nil, nil
	}
	dev, err = OpenDevelopment(filepath.Join(c.Data, "tls"), nil)
	if err != nil {
		return Files{}, nil, err
	}
	own = dev.Files()
	if c.TLS.CA != "" {
		own.CA = c.TLS.CA
	}
	return own, dev, nil
}

// Configured opens a listener of the configuration. own stands in for files that
// the listener does not name. Listeners for components require a client certificate
// of own.CA unless they name another; an ingress verifies one if it is given.
func Configured(ctx context.Context, l config.Listener, own Files, log *slog.Logger, protos ...string) (net.Listener, error) {
	tlsConfig, err := ConfiguredTLS(l, own, log, protos...)
	if err != nil {
		return nil, err
	}
	return Open(ctx, l.Role, l.Address, tlsConfig)
}

// ConfiguredTLS is the TLS side of [Configured]; nil for plain text.
func ConfiguredTLS(l config.Listener, own Files, log *slog.Logger, protos ...string) (*tls.Config, error) {
	return configuredTLS(l, own, ServerOptions{RequireClient: l.ForComponents(), NextProtos: protos, Logger: log})
}

// DeviceTLS is [ConfiguredTLS] for a listener that devices come to (contract:
// adapters, section 2.4). With authenticate it requests a client certificate, but
// requires none: it is verified against the listener's client CA, or where none is
// named taken if it is within its validity period, because whom to believe is the
// tenant's to say. Without authenticate, or where the listener says so, none is
// requested, unless there is a client CA.
func DeviceTLS(l config.Listener, own Files, authenticate bool, log *slog.Logger, protos ...string) (*tls.Config, error) {
	authenticate = authenticate && (l.TLS == nil || !l.TLS.NoClientCertificates)
	return configuredTLS(l, own, ServerOptions{RequestClient: authenticate, NextProtos: protos, Logger: log})
}

func configuredTLS(l config.Listener, own Files, o ServerOptions) (*tls.Config, error) {
	if l.TLS == nil {
		return nil, nil
	}
	f := Files{Certificate: l.TLS.Certificate, Key: l.TLS.Key, CA: l.TLS.ClientCA}
	if f.Certificate == "" {
		f.Certificate, f.Key = own.Certificate, own.Key
	}
	if f.CA == "" && (l.ForComponents() || l.Role == config.RoleIngress) {
		f.CA = own.CA
	}
	for _, p := range l.TLS.More {
		o.More = append(o.More, Files{Certificate: p.Certificate, Key: p.Key})
	}
	o.MinVersion = l.TLS.MinVersion
	c, err := ServerTLS(f, o)
	if err != nil {
		return nil, fmt.Errorf("listener %s on %s: %w", l.Role, l.Address, err)
	}
	return c, nil
}
