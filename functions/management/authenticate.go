package management

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/netip"
	"strings"

	"github.com/sluice-iot/sluice/internal/attempts"
	"github.com/sluice-iot/sluice/internal/iot"
)

// How often a minute somebody may fail to log in, and how many names and
// addresses are remembered for it.
const (
	failuresPerName    = 10 // with one name from one address
	failuresPerAddress = 100
	maxWatched         = 10_000
)

// authenticate proves the request's operator: by its Authorization header, or
// without one by the certificate of its TLS connection.
func (h *Handler) authenticate(r *http.Request) (Operator, error) {
	if h.options.Open {
		return anyone{}, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.options.Timeout)
	defer cancel()
	from := attempts.Remote(r.RemoteAddr)
	header := r.Header.Get("Authorization")
	scheme, credentials, _ := strings.Cut(header, " ")
	switch {
	case header == "":
		if cert := clientCertificate(r); cert != nil {
			return h.operators.Certificate(cert)
		}
	case strings.EqualFold(scheme, "Bearer"):
		return h.attempt(ctx, attempts.NameAt{}, from, func() (Operator, error) {
			return h.operators.Token(ctx, strings.TrimSpace(credentials))
		})
	default:
		if name, password, ok := r.BasicAuth(); ok {
			return h.attempt(ctx, attempts.At(name, from), from, func() (Operator, error) {
				return h.operators.Password(ctx, name, password)
			})
		}
	}
	return nil, iot.Errorf(iot.ErrUnauthenticated, "an operator's HTTP Basic credentials, bearer token or client certificate are required")
}

// attempt calls prove unless too many attempts failed.
func (h *Handler) attempt(ctx context.Context, name attempts.NameAt, from netip.Addr, prove func() (Operator, error)) (who Operator, err error) {
	err = h.logins.Try(ctx, name, from, func() (err error) {
		who, err = prove()
		return err
	})
	return who, err
}

// clientCertificate returns the certificate that the connection was verified
// with, or nil.
func clientCertificate(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return nil
	}
	return r.TLS.VerifiedChains[0][0]
}
