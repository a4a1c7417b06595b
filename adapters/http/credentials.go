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
func (p *peer) logIn(r *nethttp.Request, t *target) (adapters.Login, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		p.once.Do(func() { p.login, p.ok, p.err = adapters.CertificateLogin(r.TLS) })
		if p.ok || p.err != nil {
			return p.login, p.err
		}
	}
	values := r.Header["Authorization"]
	switch {
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
		return tokenLogin(token, t)
	}
	return adapters.Login{}, unauthenticated("unknown scheme of the Authorization header: want Basic or Bearer")
}

// tokenLogin takes tenant and auth-id from the URI where the token does not name
// them: the auth-id stands where the device's id does, so that such a token is good
// for the device itself only.
func tokenLogin(token string, t *target) (adapters.Login, error) {
	if !adapters.IsToken(token) {
		return adapters.Login{}, unauthenticated("malformed credentials: the Bearer token is no signed JWT with typ JWT")
	}
	return adapters.TokenLogin(token, iot.TenantID(t.tenant), t.device)
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
