// Package revocation asks OCSP responders whether a device's certificate was
// revoked (RFC 6960 over HTTP POST, RFC 8954 for nonces), as a tenant's trust
// anchor wishes (contract: adapters, section 2.4). Only the device's own
// certificate is asked about, for its issuer is an anchor. What is not known to
// be good is refused.
//
//	deps.Revocation = revocation.New(nil)
package revocation
