package host

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Tokens verifies bearer tokens: an auth.Directory with its issuers.
type Tokens interface {
	Token(ctx context.Context, token string) (*auth.Identity, error)
}

// TokenCaller identifies a component by the bearer token of one of the issuers
// that the identities file trusts. The token's authorities must name its kind as
// the operation functions:adapter, functions:router or functions:function, in
// full: an application with a wildcard does not become a component.
func TokenCaller(tokens Tokens) CallerFunc {
	return func(r *http.Request) (Caller, error) {
		scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
		if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
			return Caller{}, iot.Errorf(iot.ErrUnauthenticated, "a bearer token of a component is required")
		}
		id, err := tokens.Token(r.Context(), strings.TrimSpace(token))
		if err != nil {
			return Caller{}, err
		}
		for _, kind := range Kinds {
			if slices.ContainsFunc(id.Authorities(), func(a auth.Authority) bool { return a.Operation == "functions:"+string(kind) }) {
				return Caller{Kind: kind, Instance: id.Name}, nil
			}
		}
		return Caller{}, iot.Errorf(iot.ErrUnauthenticated, "the token names no component: want the operation functions:adapter, functions:router or functions:function")
	}
}
