package management

import (
	"context"
	"crypto/x509"
	"errors"
	"hash/maphash"
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

// nameAt is a name used at an address. A hash stands for the name, which may be
// of any length.
type nameAt struct {
	name    uint64
	address netip.Addr
}

var nameSeed = maphash.MakeSeed()

// authenticate proves the request's operator: by its Authorization header, or
// without one by the certificate of its TLS connection.
func (h *Handler) authenticate(r *http.Request) (Operator, error) {
	if h.options.Open {
		return anyone{}, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.options.Timeout)
	defer cancel()
	address := remote(r)
	header := r.Header.Get("Authorization")
	scheme, credentials, _ := strings.Cut(header, " ")
	switch {
	case header == "":
		if cert := clientCertificate(r); cert != nil {
			return h.operators.Certificate(cert)
		}
	case strings.EqualFold(scheme, "Bearer"):
		return h.attempt(ctx, nameAt{}, address, func() (Operator, error) {
			return h.operators.Token(ctx, strings.TrimSpace(credentials))
		})
	default:
		if name, password, ok := r.BasicAuth(); ok {
			return h.attempt(ctx, nameAt{maphash.String(nameSeed, name), address}, address, func() (Operator, error) {
				return h.operators.Password(ctx, name, password)
			})
		}
	}
	return nil, iot.Errorf(iot.ErrUnauthenticated, "an operator's HTTP Basic credentials, bearer token or client certificate are required")
}

// attempt calls prove unless too many attempts failed. Where they did, nothing
// is computed, and what is right is refused like what is wrong.
func (h *Handler) attempt(ctx context.Context, name nameAt, address netip.Addr, prove func() (Operator, error)) (Operator, error) {
	// The name comes first: its few places may wait for the address's many,
	// never the other way round.
	if err := h.byName.Begin(ctx, name); err != nil {
		return nil, err
	}
	if err := h.byAddress.Begin(ctx, address); err != nil {
		h.byName.End(name, false)
		return nil, err
	}
	failed := false
	defer func() {
		h.byAddress.End(address, failed)
		h.byName.End(name, failed)
	}()
	who, err := prove()
	failed = errors.Is(err, iot.ErrUnauthenticated)
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

// remote is the address that a request counts for; the zero Addr where it has none.
func remote(r *http.Request) netip.Addr {
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return attempts.Address(a.Addr())
	}
	a, _ := netip.ParseAddr(r.RemoteAddr) // of a host that knows no port
	return attempts.Address(a)
}
