// Package oidctest is an OpenID Connect issuer for tests: a discovery document, a
// set of keys that can be rotated, and tokens. It listens on a loopback address
// without TLS.
//
//	issuer := oidctest.New(t)
//	issuer.Rotate(t, "k1", "ES256")
//	token := issuer.Token(t, oidctest.Claims{"sub": "app-1", "aud": "sluice"})
package oidctest
