// Package assertion makes and checks the registration assertion: a short
// signed token (JWT, EdDSA or ES256) by which the identity functions vouch that
// a device of a tenant was registered and enabled, and that its gateway was
// allowed to act for it, at one position of the tenant's change feed. Adapters
// carry it, routers verify it (contract: events, section 4.1 "Assertion").
//
// [Signer] keeps signing keys in a [KeyStore], wrapped by a [KEK]; [Verifier]
// checks tokens against published keys, remembers what it verified and voids
// what a later registry change overtook. The package knows neither AMQP nor
// CloudEvents.
//
//	s, err := assertion.NewSigner(assertion.SignerConfig{Store: store, KEK: kek, Issuer: "//sluice.local"})
//	tok, err := s.Sign(ctx, assertion.Subject{Tenant: "DEMO", Device: "4711", Rev: "00000000000000000042"})
//	v := assertion.NewVerifier(assertion.VerifierConfig{Issuer: "//sluice.local", Keys: s.KeySource()})
//	claims, err := v.Verify([]byte(tok.JWT), time.Now())
//	ok := err == nil && claims.Matches("DEMO", "4711")
package assertion
