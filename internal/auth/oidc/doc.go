// Package oidc verifies JSON Web Tokens of OpenID Connect issuers: signature,
// issuer, audience and life time (OpenID Connect Discovery 1.0, RFC 7517, 7518,
// 7519 and 8037). It reads the issuer's public keys over https, keeps them for some
// minutes, and asks again when a token names a key that it does not know.
//
// It knows nothing of SASL, of HTTP headers, or of what a claim grants, and it
// starts no goroutines: keys are fetched by the caller who needs them, while others
// go on with the keys that are there.
//
//	v, err := oidc.New(oidc.Config{Issuer: "https://id.example/realms/iot", Audience: "sluice"})
//	t, err := v.Verify(ctx, token)
//	if err != nil {
//		return err // wraps iot.ErrUnauthenticated or iot.ErrUnavailable
//	}
//	groups := t.Claims["groups"]
package oidc
