package listen

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// ServerOptions say what a TLS listener asks of its clients.
type ServerOptions struct {
	// RequireClient refuses clients without a certificate of Files.CA; without it
	// a certificate is verified if the client has one.
	RequireClient bool
	// RequestClient asks clients for a certificate without requiring one, and where
	// Files.CA names nobody to verify it takes any whose leaf is within its validity
	// period: who vouches for it is found out later. The peer is known to hold its
	// key, no more.
	RequestClient bool
	MinVersion    string       // "1.2" (also "") or "1.3"
	NextProtos    []string     // ALPN; nil = none
	Logger        *slog.Logger // nil = discard
	// More are certificates for clients that ask for one of their names (SNI,
	// RFC 6066 section 3) that the one of Files does not have; where none has it,
	// that of Files is shown.
	More []Files
}

// ServerTLS returns the configuration of a TLS listener. The files are read now and
// again when they change; connections that are open stay as they are. With Files.CA
// client certificates are verified against it.
func ServerTLS(f Files, o ServerOptions) (*tls.Config, error) {
	pair, err := newWatched(o.Logger, func() (*tls.Certificate, error) { return readPair(f) }, f.Certificate, f.Key)
	if err != nil {
		return nil, err
	}
	more := make([]*watched[*tls.Certificate], len(o.More))
	for i, m := range o.More {
		if more[i], err = newWatched(o.Logger, func() (*tls.Certificate, error) { return readPair(m) }, m.Certificate, m.Key); err != nil {
			return nil, err
		}
	}
	version, err := minVersion(o.MinVersion)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion: version,
		NextProtos: o.NextProtos,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			first := pair.get()
			if hello.ServerName == "" || len(more) == 0 || hello.SupportsCertificate(first) == nil {
				return first, nil
			}
			for _, m := range more {
				if c := m.get(); hello.SupportsCertificate(c) == nil {
					return c, nil
				}
			}
			return first, nil
		},
	}
	if f.CA == "" {
		if o.RequireClient {
			return nil, fmt.Errorf("client certificates are required, but there is no CA to verify them")
		}
		if o.RequestClient {
			config.ClientAuth = tls.RequestClientCert
			config.VerifyConnection = func(s tls.ConnectionState) error { return inTime(s.PeerCertificates, time.Now()) }
		}
		return config, nil
	}
	pool, err := newWatched(o.Logger, func() (*x509.CertPool, error) { return readPool(f.CA) }, f.CA)
	if err != nil {
		return nil, err
	}
	config.ClientAuth = tls.VerifyClientCertIfGiven
	if o.RequireClient {
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	followPool(config, pool)
	return config, nil
}

// inTime checks the leaf's validity period. As the last step of every handshake it
// sees the certificate that a resumed session came with, too.
func inTime(certs []*x509.Certificate, now time.Time) error {
	if len(certs) == 0 {
		return nil
	}
	switch leaf := certs[0]; {
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("client certificate is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	case now.After(leaf.NotAfter):
		return fmt.Errorf("client certificate expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// followPool gives each handshake the CA file in force. A configuration is made per
// version of the file, because sessions are resumed within one.
func followPool(config *tls.Config, pool *watched[*x509.CertPool]) {
	config.ClientCAs = pool.get()
	var current atomic.Pointer[tls.Config]
	current.Store(config.Clone())
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		cas, c := pool.get(), current.Load()
		if c.ClientCAs == cas {
			return c, nil
		}
		next := c.Clone()
		next.ClientCAs = cas
		current.CompareAndSwap(c, next)
		return next, nil
	}
}

func minVersion(v string) (uint16, error) {
	switch v {
	case "", "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("TLS version %q; expected 1.2 or 1.3", v)
}

// ClientTLS returns a function that gives the configuration for one outgoing
// connection to the named host, from the files as they are then. Without a
// certificate the client proves nothing; without a CA it believes the system's.
func ClientTLS(f Files, log *slog.Logger) (func(serverName string) *tls.Config, error) {
	var pair *watched[*tls.Certificate]
	var pool *watched[*x509.CertPool]
	var err error
	if f.Certificate != "" {
		if pair, err = newWatched(log, func() (*tls.Certificate, error) { return readPair(f) }, f.Certificate, f.Key); err != nil {
			return nil, err
		}
	}
	if f.CA != "" {
		if pool, err = newWatched(log, func() (*x509.CertPool, error) { return readPool(f.CA) }, f.CA); err != nil {
			return nil, err
		}
	}
	return func(serverName string) *tls.Config {
		config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
		if pair != nil {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return pair.get(), nil
			}
		}
		if pool != nil {
			config.RootCAs = pool.get()
		}
		return config
	}, nil
}
