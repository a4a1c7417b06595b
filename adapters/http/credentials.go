package http

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/iot"
)

// login is what a device says about itself.
type login struct {
	authID, tenant, password string
}

// basicAuth reads an Authorization header of the Basic scheme (contract:
// adapters 2.3): auth-id@tenant:password in Base64. Where the password is
// empty the user name is the Base64 form of all three, which is how clients
// pass credentials that know URLs only. Errors are ErrUnauthenticated.
func basicAuth(header string) (login, error) {
	scheme, token, _ := strings.Cut(header, " ")
	if header == "" || !strings.EqualFold(scheme, "Basic") {
		return login{}, iot.Errorf(iot.ErrUnauthenticated, "credentials are missing: want HTTP Basic")
	}
	text, ok := decodeBase64(strings.TrimSpace(token))
	if !ok {
		return login{}, malformed("not Base64")
	}
	user, password, ok := strings.Cut(text, ":")
	if !ok {
		return login{}, malformed("no password")
	}
	if password == "" {
		if text, ok = decodeBase64(user); !ok {
			return login{}, malformed("empty password")
		}
		if user, password, _ = strings.Cut(text, ":"); password == "" {
			return login{}, malformed("empty password")
		}
	}
	authID, tenant, _ := strings.Cut(user, "@")
	switch {
	case authID == "" || tenant == "":
		return login{}, malformed("the user name has to be auth-id@tenant")
	case !utf8.ValidString(user) || strings.ContainsFunc(user, isControl):
		return login{}, malformed("the user name is not UTF-8")
	}
	return login{authID, tenant, password}, nil
}

func malformed(what string) error {
	return iot.Errorf(iot.ErrUnauthenticated, "malformed credentials: %s", what)
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
