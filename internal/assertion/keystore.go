package assertion

import (
	"context"
	"encoding/json"
	"time"
)

// KeyStore keeps signing keys. Few rows, rarely written. Implementations
// translate driver failures to iot.ErrUnavailable and copy what they are given.
type KeyStore interface {
	// SigningKeys lists every stored key, retired ones included, ordered by
	// Created and then KID.
	SigningKeys(ctx context.Context) ([]StoredKey, error)
	// PutSigningKey inserts k, or replaces the stored key of the same KID as a whole.
	PutSigningKey(ctx context.Context, k StoredKey) error
}

// StoredKey is one signing key at rest. Times are UTC with at least
// millisecond precision.
type StoredKey struct {
	KID         string          // key id, in the token's header; unique
	Algorithm   Algorithm       // EdDSA or ES256
	Wrapped     []byte          // private key (PKCS #8 DER) sealed by the KEK; empty once retired for good
	PublicJWK   json.RawMessage // public key as a JWK object with kid, alg and use
	NotBefore   time.Time       // signs from then on
	RetireAfter time.Time       // neither signs nor verifies afterwards; zero = open
	Created     time.Time
}

// Algorithm names how a key signs, spelled as the JWT header "alg" (RFC 8037, RFC 7518).
type Algorithm string

// The algorithms assertions may be signed with.
const (
	EdDSA Algorithm = "EdDSA" // Ed25519
	ES256 Algorithm = "ES256" // ECDSA on P-256 with SHA-256
)
