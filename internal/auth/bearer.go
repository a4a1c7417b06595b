package auth

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/sluice-iot/sluice/internal/auth/oidc"
	"github.com/sluice-iot/sluice/internal/iot"
)

// bearerExchange is OAUTHBEARER (RFC 7628) or XOAUTH2. A client of OAUTHBEARER whose
// token is refused is told so in a challenge, answers it, and only then gets the
// outcome. One of XOAUTH2 gets the outcome at once: AMQP has one, and there are
// clients that end in an exception when they are challenged.
type bearerExchange struct {
	d       *Directory
	read    func(response []byte) (token string, err error)
	refusal []byte // nil = none
	failed  error
}

// Step implements [Exchange].
func (x *bearerExchange) Step(ctx context.Context, response []byte) ([]byte, *Identity, error) {
	if x.failed != nil {
		return nil, nil, x.failed
	}
	if response == nil {
		return []byte{}, nil, nil // it waits to be asked (RFC 4422, section 3)
	}
	token, err := x.read(response)
	if err != nil {
		return nil, nil, err
	}
	id, err := x.d.Token(ctx, token)
	if x.refusal != nil && errors.Is(err, iot.ErrUnauthenticated) {
		x.failed = err
		return x.refusal, nil, nil
	}
	return nil, id, err
}

// makeRefusal is RFC 7628, section 3.2.2; where to get a token is said if there is
// one issuer.
func (s *snapshot) makeRefusal() []byte {
	r := map[string]string{"status": "invalid_token"}
	if len(s.issuers) == 1 {
		for issuer := range s.issuers {
			r["openid-configuration"] = oidc.Discovery(issuer)
		}
	}
	b, _ := json.Marshal(r) // strings always can be
	return b
}

// parseOAuthBearer reads a gs2 header and key=value pairs, each closed by 0x01, and
// a last 0x01 (RFC 7628, section 3.1). Whom the client wants to be is passed over:
// the token says who it is.
func parseOAuthBearer(response []byte) (string, error) {
	if len(response) > oidc.MaxToken {
		return "", errMechanism(OAuthBearer, "response of %d bytes; expected at most %d", len(response), oidc.MaxToken)
	}
	header, rest, ok := strings.Cut(string(response), "\x01")
	parts := strings.Split(header, ",")
	if !ok || len(parts) != 3 || parts[2] != "" {
		return "", errMechanism(OAuthBearer, "malformed response: expected n,a=NAME, and key=value pairs")
	}
	if strings.HasPrefix(parts[0], "p=") {
		return "", errMechanism(OAuthBearer, "channel binding is not offered")
	}
	if parts[0] != "n" && parts[0] != "y" {
		return "", errMechanism(OAuthBearer, "malformed response: it starts with neither n nor y")
	}
	if _, err := authzid(OAuthBearer, parts[1]); err != nil {
		return "", err
	}
	return bearer(OAuthBearer, rest)
}

// parseXOAuth2 reads user=NAME, 0x01, auth=Bearer TOKEN, 0x01, 0x01. The name is
// passed over as it is in OAUTHBEARER.
func parseXOAuth2(response []byte) (string, error) {
	if len(response) > oidc.MaxToken {
		return "", errMechanism(XOAuth2, "response of %d bytes; expected at most %d", len(response), oidc.MaxToken)
	}
	user, rest, ok := strings.Cut(string(response), "\x01")
	if !ok || !strings.HasPrefix(user, "user=") {
		return "", errMechanism(XOAuth2, "malformed response: expected user=NAME first")
	}
	return bearer(XOAuth2, rest)
}

// bearer finds the token among key=value pairs. There may be none: a client that
// asks where to get one is refused by the mechanism's own means.
func bearer(mechanism, pairs string) (token string, err error) {
	if pairs == "\x01" {
		return "", nil
	}
	pairs, ok := strings.CutSuffix(pairs, "\x01\x01")
	if !ok {
		return "", errMechanism(mechanism, "malformed response: it does not end with 0x01 0x01")
	}
	for pair := range strings.SplitSeq(pairs, "\x01") {
		key, value, ok := strings.Cut(pair, "=")
		switch {
		case !ok || key == "":
			return "", errMechanism(mechanism, "malformed response: expected key=value pairs")
		case key != "auth" || value == "":
			continue // host and port of RFC 7628 matter to signed tokens of another kind
		case token != "":
			return "", errMechanism(mechanism, "malformed response: auth is given twice")
		}
		scheme, credentials, _ := strings.Cut(value, " ")
		token = strings.TrimLeft(credentials, " ")
		if !strings.EqualFold(scheme, "Bearer") || !isPrintable(token) {
			return "", errMechanism(mechanism, "malformed response: expected auth=Bearer TOKEN")
		}
	}
	return token, nil
}
