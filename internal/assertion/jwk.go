package assertion

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// KeySet is a JWK set (RFC 7517, section 5): the public keys that verify
// tokens. Keys of unknown kinds are carried and not used.
type KeySet struct {
	Keys []json.RawMessage `json:"keys"`
}

// jwk holds the members of RFC 7517 and RFC 8037 that we write and read.
type jwk struct {
	KeyType   string    `json:"kty"`
	Curve     string    `json:"crv"`
	X         string    `json:"x"`
	Y         string    `json:"y,omitempty"`
	KID       string    `json:"kid"`
	Algorithm Algorithm `json:"alg"`
	Use       string    `json:"use"`
}

// publicKey is a key a token may be verified with.
type publicKey struct {
	alg Algorithm
	key crypto.PublicKey
}

func marshalJWK(kid string, alg Algorithm, pub crypto.PublicKey) (json.RawMessage, error) {
	k := jwk{KID: kid, Algorithm: alg, Use: "sig"}
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		k.KeyType, k.Curve, k.X = "OKP", "Ed25519", b64(pub)
	case *ecdsa.PublicKey:
		point, err := pub.Bytes() // 0x04, X, Y
		if err != nil || pub.Curve != elliptic.P256() {
			return nil, fmt.Errorf("assertion: key %s: not a P-256 key", kid)
		}
		k.KeyType, k.Curve, k.X, k.Y = "EC", "P-256", b64(point[1:33]), b64(point[33:])
	default:
		return nil, fmt.Errorf("assertion: key %s: unknown type %T", kid, pub)
	}
	return json.Marshal(k)
}

// parseJWK returns the kid and key of a JWK, or ok = false for one that is no
// signature key of a kind used here.
func parseJWK(raw json.RawMessage) (kid string, pub publicKey, ok bool) {
	var k jwk
	if json.Unmarshal(raw, &k) != nil || k.KID == "" || (k.Use != "" && k.Use != "sig") {
		return "", publicKey{}, false
	}
	x, err := base64.RawURLEncoding.DecodeString(k.X)
	if err != nil {
		return "", publicKey{}, false
	}
	switch {
	case k.KeyType == "OKP" && k.Curve == "Ed25519" && k.Algorithm == EdDSA && len(x) == ed25519.PublicKeySize:
		return k.KID, publicKey{EdDSA, ed25519.PublicKey(x)}, true
	case k.KeyType == "EC" && k.Curve == "P-256" && k.Algorithm == ES256 && len(x) == 32:
		y, err := base64.RawURLEncoding.DecodeString(k.Y)
		if err != nil || len(y) != 32 {
			return "", publicKey{}, false
		}
		point := append(append([]byte{4}, x...), y...)
		pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		if err != nil {
			return "", publicKey{}, false
		}
		return k.KID, publicKey{ES256, pub}, true
	}
	return "", publicKey{}, false
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
