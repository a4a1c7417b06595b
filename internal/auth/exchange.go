package auth

import (
	"context"
	"crypto/x509"
	"net/netip"
	"slices"

	"github.com/sluice-iot/sluice/internal/attempts"
	"github.com/sluice-iot/sluice/internal/iot"
)

// The SASL mechanisms.
const (
	Plain       = "PLAIN"         // RFC 4616
	External    = "EXTERNAL"      // RFC 4422, appendix A
	Anonymous   = "ANONYMOUS"     // RFC 4505
	ScramSHA256 = "SCRAM-SHA-256" // RFC 5802 and 7677
	OAuthBearer = "OAUTHBEARER"   // RFC 7628
	XOAuth2     = "XOAUTH2"       // what came before it, and most clients speak
)

// Exchange is the server's side of one SASL dialogue. Step takes the client's
// initial response (nil if it sent none) or its answer to the challenge before, and
// returns either a challenge, which may be empty but is not nil, or the identity
// that was proven. For the errors see [Directory.Authenticate]; they end the
// dialogue. It is used by one goroutine.
type Exchange interface {
	Step(ctx context.Context, response []byte) (challenge []byte, id *Identity, err error)
}

// Begin is [Directory.BeginFrom] for a client without an address, such as one of
// this process: how often it guesses is not limited.
func (d *Directory) Begin(mechanism string, cert *x509.Certificate) Exchange {
	return d.BeginFrom(mechanism, cert, netip.Addr{})
}

// BeginFrom starts a dialogue. cert is the client's certificate, which the caller has
// verified, or nil. Whether the mechanism was offered is the caller's to check. After
// 10 log-ins with a secret that failed within a minute for one name from one address
// (see [attempts.Address]), or 1000 from it, more of them are refused.
func (d *Directory) BeginFrom(mechanism string, cert *x509.Certificate, from netip.Addr) Exchange {
	from = attempts.Address(from)
	switch mechanism {
	case ScramSHA256:
		return newScramExchange(d, from)
	case OAuthBearer:
		return &bearerExchange{d: d, read: parseOAuthBearer, refusal: d.current.Load().oauthBearerRefusal}
	case XOAuth2:
		return &bearerExchange{d: d, read: parseXOAuth2}
	}
	return &single{d, mechanism, cert, from}
}

// single is a mechanism of one message.
type single struct {
	d         *Directory
	mechanism string
	cert      *x509.Certificate
	from      netip.Addr
}

func (x *single) Step(ctx context.Context, response []byte) ([]byte, *Identity, error) {
	if x.mechanism == Anonymous {
		return nil, x.d.current.Load().anonymous(), nil
	}
	id, err := x.d.authenticate(ctx, x.from, x.mechanism, response, x.cert)
	return nil, id, err
}

// Mechanisms returns what to offer to a client, best first: those of configured that
// can work, or when nothing is configured every mechanism but ANONYMOUS that can.
// EXTERNAL needs a certificate, OAUTHBEARER and XOAUTH2 an issuer, and SCRAM-SHA-256
// a secret of its form; unless it is configured it is offered only when every secret
// has that form, because clients take it rather than PLAIN. If none is left the
// configured ones are returned as they are.
func (d *Directory) Mechanisms(configured []string, certificate bool) []string {
	s := d.current.Load()
	offer := configured
	if len(offer) == 0 {
		offer = []string{External, ScramSHA256, Plain, OAuthBearer, XOAuth2}
	}
	works := func(mechanism string) bool {
		switch mechanism {
		case External:
			return certificate
		case ScramSHA256:
			return s.scrams > 0 && (len(configured) > 0 || s.scrams == s.secrets)
		case OAuthBearer, XOAuth2:
			return len(s.issuers) > 0
		}
		return true
	}
	var out []string
	for _, m := range offer {
		if works(m) {
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return slices.Clone(offer)
	}
	return out
}

// anonymousName is the entry that says what the unknown may do.
const anonymousName = "anonymous"

// nobody may do nothing.
var nobody = &Identity{Name: anonymousName, Kind: Application, Limits: DefaultLimits(), authorities: &Authorities{}}

// anonymous is the identity of whoever proves nothing: the entry of that name, or
// one without any authority.
func (s *snapshot) anonymous() *Identity {
	if e := s.entries[anonymousName]; e != nil {
		return e.identity
	}
	return nobody
}

// Refresh returns an identity as it is now, or nil if it is no more: its entry was
// taken out of the file or, for that of a token, its issuer was taken out or
// changed. Components stay as they are.
func (d *Directory) Refresh(id *Identity) *Identity {
	s := d.current.Load()
	switch {
	case id == nil || id.Kind.Component():
		return id
	case id.issuer != nil:
		if s.issuers[id.issuer.conf.Issuer] != id.issuer {
			return nil
		}
		return id
	case id.Name == anonymousName:
		return s.anonymous()
	}
	if e := s.entries[id.Name]; e != nil {
		return e.identity
	}
	return nil
}

func errMechanism(mechanism, format string, args ...any) error {
	return iot.Errorf(iot.ErrUnauthenticated, mechanism+": "+format, args...)
}
