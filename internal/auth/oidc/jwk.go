package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"slices"
)

const (
	// maxKeys of one issuer are kept; most publish two or three.
	maxKeys = 100
	// The bounds of an RSA modulus, in bits: below is weak, above costs too much.
	minRSABits, maxRSABits = 2048, 8192
)

// key is a public key for some algorithms.
type key struct {
	kid        string
	algorithms []string
	public     crypto.PublicKey
}

func (k *key) fits(alg string) bool { return slices.Contains(k.algorithms, alg) }

// jwk has the members of RFC 7517, 7518 and 8037 that are used.
type jwk struct {
	KeyType    string   `json:"kty"`
	KID        string   `json:"kid"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	Algorithm  string   `json:"alg"`
	Curve      string   `json:"crv"`
	N          string   `json:"n"`
	E          string   `json:"e"`
	X          string   `json:"x"`
	Y          string   `json:"y"`
}

// parseKeys returns the keys of a JWK set that verify signatures of an accepted
// kind; others are passed over (RFC 7517, section 5).
func parseKeys(list []json.RawMessage) []key {
	var out []key
	for _, raw := range list {
		var j jwk
		if json.Unmarshal(raw, &j) != nil || j.Use != "" && j.Use != "sig" ||
			len(j.Operations) > 0 && !slices.Contains(j.Operations, "verify") {
			continue
		}
		k, ok := j.key()
		if !ok {
			continue
		}
		if j.Algorithm != "" {
			if !k.fits(j.Algorithm) {
				continue
			}
			k.algorithms = []string{j.Algorithm}
		}
		if out = append(out, k); len(out) == maxKeys {
			break
		}
	}
	return out
}

func (j *jwk) key() (key, bool) {
	k := key{kid: j.KID}
	switch j.KeyType {
	case "RSA":
		k.algorithms, k.public = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, j.rsa()
	case "EC":
		k.algorithms, k.public = j.ec()
	case "OKP":
		if x := number(j.X); j.Curve == "Ed25519" && len(x) == ed25519.PublicKeySize {
			k.algorithms, k.public = []string{"EdDSA"}, ed25519.PublicKey(x)
		}
	}
	return k, k.public != nil
}

func (j *jwk) rsa() crypto.PublicKey {
	n, e := new(big.Int).SetBytes(number(j.N)), number(j.E)
	if n.BitLen() < minRSABits || n.BitLen() > maxRSABits || n.Bit(0) == 0 || len(e) == 0 || len(e) > 4 {
		return nil
	}
	exponent := new(big.Int).SetBytes(e).Int64()
	if exponent < 3 || exponent > 1<<31-1 || exponent&1 == 0 {
		return nil
	}
	return &rsa.PublicKey{N: n, E: int(exponent)}
}

func (j *jwk) ec() ([]string, crypto.PublicKey) {
	var curve elliptic.Curve
	var alg string
	switch j.Curve {
	case "P-256":
		curve, alg = elliptic.P256(), "ES256"
	case "P-384":
		curve, alg = elliptic.P384(), "ES384"
	case "P-521":
		curve, alg = elliptic.P521(), "ES512"
	default:
		return nil, nil
	}
	size := (curve.Params().BitSize + 7) / 8
	x, y := number(j.X), number(j.Y)
	if len(x) != size || len(y) != size {
		return nil, nil
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, nil
	}
	return []string{alg}, public
}

// number decodes base64url; nil if it is none.
func number(s string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}
