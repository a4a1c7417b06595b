package oidc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

const (
	// maxDocument bounds a discovery document or key set, in bytes.
	maxDocument = 256 * 1024
	// maxRedirects are followed on the way to a document.
	maxRedirects = 3
)

// fetcher reads an issuer's documents.
type fetcher struct {
	issuer, jwks string
	plain        bool // http to loopback is allowed
	client       *http.Client
}

func newFetcher(c Config) *fetcher {
	f := &fetcher{issuer: c.Issuer, jwks: c.JWKSURL}
	for _, text := range []string{c.Issuer, c.JWKSURL} {
		f.plain = f.plain || strings.HasPrefix(text, "http://")
	}
	transport := newTransport(c.Roots)
	transport.DisableKeepAlives = true // a question every few minutes
	f.client = &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		return checkURL(r.URL.String(), f.plain)
	}}
	return f
}

// newTransport verifies servers by roots; nil = those of the system.
func newTransport(roots *x509.CertPool) *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = 64 * 1024
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return transport
}

// keys reads the issuer's keys, by way of its discovery document unless it is known
// where they are (OpenID Connect Discovery 1.0, section 4), and where it gives
// tokens; "" where that is not said or was not looked for.
func (f *fetcher) keys(ctx context.Context) (list []key, tokenEndpoint string, err error) {
	where := f.jwks
	if where == "" {
		if where, tokenEndpoint, err = f.discover(ctx); err != nil {
			return nil, "", err
		}
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := f.get(ctx, where, &set); err != nil {
		return nil, "", err
	}
	return parseKeys(set.Keys), tokenEndpoint, nil
}

// discover reads the discovery document.
func (f *fetcher) discover(ctx context.Context) (jwks, tokenEndpoint string, err error) {
	var d struct {
		Issuer        string `json:"issuer"`
		JWKSURI       string `json:"jwks_uri"`
		TokenEndpoint string `json:"token_endpoint"`
	}
	from := Discovery(f.issuer)
	if err := f.get(ctx, from, &d); err != nil {
		return "", "", err
	}
	if d.Issuer != f.issuer {
		return "", "", fmt.Errorf("%s names the issuer %.100q; expected %q", from, d.Issuer, f.issuer)
	}
	if err := checkURL(d.JWKSURI, f.plain); err != nil {
		return "", "", fmt.Errorf("jwks_uri of %s: %w", from, err)
	}
	if d.TokenEndpoint != "" {
		if err := checkURL(d.TokenEndpoint, f.plain); err != nil {
			return "", "", fmt.Errorf("token_endpoint of %s: %w", from, err)
		}
	}
	return d.JWKSURI, d.TokenEndpoint, nil
}

// Discovery is the URL of an issuer's discovery document.
func Discovery(issuer string) string {
	return strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
}

func (f *fetcher) get(ctx context.Context, from string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json, application/jwk-set+json")
	res, err := f.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", from, res.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", from, err)
	case len(data) > maxDocument:
		return fmt.Errorf("%s: longer than %d bytes", from, maxDocument)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

// checkIssuer expects what OpenID Connect Discovery 1.0, section 3 does.
func checkIssuer(text string) error {
	if err := checkURL(text, true); err != nil {
		return err
	}
	if strings.ContainsAny(text, "?#") {
		return fmt.Errorf("%s: an issuer has neither query nor fragment", text)
	}
	return nil
}

// checkURL expects https, or http to loopback where that is allowed.
func checkURL(text string, plain bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("%.100q: expected a URL such as https://id.example", text)
	case u.User != nil:
		return errors.New("a URL with a password in it is not taken")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && plain && loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%s: expected https (http to a loopback address only)", u.Redacted())
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
