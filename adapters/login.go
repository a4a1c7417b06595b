package adapters

import (
	"crypto/tls"
	"encoding/base64"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Login is how a device proves who it is, in the terms of the admission
// function (contract: adapters 2). The zero Login proves nothing.
type Login struct {
	Tenant     events.TenantRef
	Credential *events.Credential // nil = it proves nothing, for adapters that let such devices in
	Context    map[string]any     // client context, such as client-id
	Expires    time.Time          // when the proof ends by itself; zero = it does not

	CipherSuite string // name of the connection's TLS cipher suite, for figures only; "" = none
}

// Request asks for l to be let in from remote. A device other than the one
// that the credential proves is named, "" stands for that one.
func (l *Login) Request(device iot.DeviceID, remote netip.Addr) *Request {
	return &Request{Remote: remote, Admit: events.Admit{
		TenantRef: l.Tenant, Credential: l.Credential, Context: l.Context, DeviceID: device,
	}}
}

// PasswordLogin reads a user name of the form auth-id@tenant and its password
// (contract: adapters 2.3). Where the password is empty the user name is the
// Base64 form of auth-id@tenant:password, which is how clients pass
// credentials that know URLs only. Errors are ErrUnauthenticated.
func PasswordLogin(user, password string) (Login, error) {
	if password == "" {
		text, ok := decodeBase64(user)
		if user, password, _ = strings.Cut(text, ":"); !ok || password == "" {
			return Login{}, malformed("empty password")
		}
	}
	authID, tenant, _ := strings.Cut(user, "@")
	switch {
	case authID == "" || tenant == "":
		return Login{}, malformed("the user name has to be auth-id@tenant")
	case !isText(user):
		return Login{}, malformed("the user name is not UTF-8, or has control characters")
	}
	return Login{
		Tenant:     events.TenantRef{ID: iot.TenantID(tenant)},
		Credential: &events.Credential{Type: iot.HashedPassword, AuthID: authID, Password: password},
	}, nil
}

func malformed(what string) error {
	return iot.Errorf(iot.ErrUnauthenticated, "malformed credentials: %s", what)
}

// isText reports whether s can be part of an id.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
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

// CertificateLogin makes a login of the client certificate of a TLS
// connection whose handshake is done; ok is false where it has none. Nothing
// of it is verified here: the function finds tenant and auth-id by the
// certificate itself, or the tenant by the host name that the client asked for
// (contract: adapters 2.4). The auth-id says only whom failed attempts count
// for. Errors are ErrUnauthenticated.
func CertificateLogin(state *tls.ConnectionState) (l Login, ok bool, err error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return Login{}, false, nil
	}
	leaf := state.PeerCertificates[0]
	subject := leaf.Subject.String()
	if subject == "" || len(leaf.RawIssuer) == 0 {
		return Login{}, false, iot.Errorf(iot.ErrUnauthenticated, "the client certificate has no subject or no issuer")
	}
	return Login{
		Tenant:     events.TenantRef{SNI: state.ServerName},
		Credential: &events.Credential{Type: iot.X509Cert, AuthID: subject, Certificate: leaf.Raw},
		Expires:    leaf.NotAfter,
	}, true, nil
}
