package http

import (
	"encoding/base64"
	nethttp "net/http"
	"strings"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// logIn reads how a device proves who it is (contract: adapters 2.7, 7.3): by the
// certificate of its connection, by a bearer token, or by HTTP Basic. A device that
// has a certificate means it, so that nothing else is looked at. Errors are
// ErrUnauthenticated, and ErrInvalid for what says two things.
//
// A browser shows a certificate on behalf of any page, so it does not count where a
// page asks that is not known to be its owner's.
func (p *peer) logIn(r *nethttp.Request, t *target, foreign bool) (adapters.Login, error) {
	certified := r.TLS != nil && len(r.TLS.PeerCertificates) > 0
	if certified && !foreign {
		p.once.Do(func() { p.login, p.ok, p.err = adapters.CertificateLogin(r.TLS) })
		if p.ok || p.err != nil {
			return p.login, p.err
		}
	}
	values := r.Header["Authorization"]
	switch {
	case certified && len(values) == 0:
		return adapters.Login{}, unauthenticated("credentials are missing: a client certificate does not count for a page of another origin")
	case len(values) == 0 || values[0] == "":
		return adapters.Login{}, unauthenticated("credentials are missing: want a client certificate, HTTP Basic or a Bearer token")
	case len(values) > 1:
		return adapters.Login{}, iot.Errorf(iot.ErrInvalid, "more than one Authorization header")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimSpace(token)
	switch {
	case strings.EqualFold(scheme, "Basic"):
		return basicLogin(token)
	case strings.EqualFold(scheme, "Bearer"):
		return p.tokenLogin(token, t)
	}
	return adapters.Login{}, unauthenticated("unknown scheme of the Authorization header: want Basic or Bearer")
}

// tokenRead is what was read of a token, which a client sends with every request.
// Whether it is true is found out anew for each.
type tokenRead struct {
	token          string
	tenant, device string // of the URI
	login          adapters.Login
}

// maxTokenKept bounds what an idle connection holds.
const maxTokenKept = 4 << 10

// tokenLogin takes tenant and auth-id from the URI where the token does not name
// them: the auth-id stands where the device's id does, so that such a token is good
// for the device itself only.
func (p *peer) tokenLogin(token string, t *target) (adapters.Login, error) {
	if k := p.token.Load(); k != nil && k.tenant == t.tenant && k.device == t.device && sameSecret(k.token, token) {
		return k.login, nil
	}
	if len(token) > maxTokenKept {
		return adapters.TokenLogin(token, iot.TenantID(t.tenant), t.device)
	}
	// What is kept must not hold the header that it came in.
	k := &tokenRead{token: strings.Clone(token), tenant: strings.Clone(t.tenant), device: strings.Clone(t.device)}
	var err error
	if k.login, err = adapters.TokenLogin(k.token, iot.TenantID(k.tenant), k.device); err == nil {
		p.token.Store(k)
	}
	return k.login, err
}

// sameSecret takes as long for every b of the length of a.
func sameSecret(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	var differ byte
	for i := range len(a) {
		differ |= a[i] ^ b[i]
	}
	return differ == 0
}

// basicLogin reads user-id:password in Base64 (RFC 7617).
func basicLogin(token string) (adapters.Login, error) {
	text, ok := decodeBase64(token)
	if !ok {
		return adapters.Login{}, unauthenticated("malformed credentials: HTTP Basic wants Base64")
	}
	user, password, ok := strings.Cut(text, ":")
	if !ok {
		return adapters.Login{}, unauthenticated("malformed credentials: HTTP Basic wants a user name, a colon and a password")
	}
	return adapters.PasswordLogin(user, password)
}

func unauthenticated(text string) error {
	return &iot.Error{Sentinel: iot.ErrUnauthenticated, Text: text}
}

// decodeBase64 takes both alphabets, padded or not.
func decodeBase64(s string) (string, bool) {
	s = strings.TrimRight(s, "=")
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		encoding = base64.RawURLEncoding
	}
	b, err := encoding.DecodeString(s)
	return string(b), err == nil && len(b) > 0
}
