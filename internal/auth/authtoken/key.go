package authtoken

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"

	"github.com/golang-jwt/jwt/v5"
)

// The algorithms of new keys (RFC 7518, section 3.1).
const (
	ES256 = "ES256"
	RS256 = "RS256"
)

// rsaBits is the size of a new RSA key, and minRSABits that of the smallest one
// that is used (RFC 7518, section 3.3).
const (
	rsaBits    = 3072
	minRSABits = 2048
)

const pemType = "PRIVATE KEY"

func openKey(path, algorithm string) (crypto.Signer, error) {
	if err := createKey(path, algorithm); err != nil {
		return nil, fmt.Errorf("authtoken: make the key: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("authtoken: key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("authtoken: %s has mode %#o and others may read it: want 0600", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("authtoken: key: %w", err)
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("authtoken: %s: %w", path, err)
	}
	return key, nil
}

// parseKey does not repeat what it was given in its errors.
func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("no PEM block of type %s", pemType)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the PEM block holds no PKCS #8 private key")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T does not sign", key)
	}
	return signer, nil
}

// createKey makes the file where it is missing, under another name first, so that
// it appears whole: of two processes that start at once one wins, and both read that.
func createKey(path, algorithm string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	der, err := newKey(algorithm)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".auth-token-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = pem.Encode(f, &pem.Block{Type: pemType, Bytes: der})
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func newKey(algorithm string) ([]byte, error) {
	var key any
	var err error
	switch algorithm {
	case ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RS256:
		key, err = rsa.GenerateKey(rand.Reader, rsaBits)
	default:
		return nil, fmt.Errorf("algorithm %q: expected %s or %s", algorithm, ES256, RS256)
	}
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

// jwk is a public key (RFC 7517, RFC 7518 section 6).
type jwk struct {
	KeyType   string `json:"kty"`
	KID       string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	Modulus   string `json:"n,omitempty"`
	Exponent  string `json:"e,omitempty"`
}

// describe returns how a key signs, its name, which is the SHA-256 of the encoded
// public key in hexadecimal, and the public key as a JWK.
func describe(key crypto.Signer) (jwt.SigningMethod, string, []byte, error) {
	k := jwk{Use: "sig"}
	var method jwt.SigningMethod
	switch pub := key.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := pub.Bytes() // 0x04, X, Y
		if err != nil || pub.Curve != elliptic.P256() {
			return nil, "", nil, errors.New("authtoken: the EC key is not on the curve P-256")
		}
		method, k.KeyType, k.Curve, k.X, k.Y = jwt.SigningMethodES256, "EC", "P-256", b64(point[1:33]), b64(point[33:])
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < minRSABits {
			return nil, "", nil, fmt.Errorf("authtoken: the RSA key has %d bits, at least %d expected", n, minRSABits)
		}
		method, k.KeyType = jwt.SigningMethodRS256, "RSA"
		k.Modulus, k.Exponent = b64(pub.N.Bytes()), b64(big.NewInt(int64(pub.E)).Bytes())
	default:
		return nil, "", nil, fmt.Errorf("authtoken: key of type %T: expected ECDSA on P-256 or RSA", pub)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, "", nil, fmt.Errorf("authtoken: %w", err)
	}
	sum := sha256.Sum256(der)
	k.KID, k.Algorithm = hex.EncodeToString(sum[:]), method.Alg()
	b, err := json.Marshal(k)
	return method, k.KID, b, err
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
