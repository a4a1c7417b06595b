package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

const (
	// secretBytes of randomness are in a generated secret: 256 bits.
	secretBytes = 32
	// scramIterations is enough for secrets that are random; the count travels
	// with the secret, so people who choose their own may have more.
	scramIterations = 4096
	scramSaltSize   = 16 // bytes
	// maxScramIterations bounds what one log-in costs: about a quarter of a second.
	maxScramIterations = 1_000_000
	// maxBcryptCost bounds what one log-in costs: about a second.
	maxBcryptCost = 14
	// maxPassword is more than any secret of ours, and bounds hashing.
	maxPassword = 1024
)

// Secret is a stored secret in one of the forms of the identities file:
// {scram-sha-256}, {bcrypt} and {plain}. The zero Secret matches nothing.
type Secret struct {
	scram  *scram
	bcrypt []byte
	plain  *[sha256.Size]byte
}

// scram is what RFC 5802 stores: enough to check a password or a proof.
type scram struct {
	iterations           int
	salt                 []byte
	storedKey, serverKey []byte
}

// errPlain is given for a {plain} secret where none is allowed.
var errPlain = errors.New("a {plain} secret needs --insecure; `sluice identity add` makes a hashed one")

// ParseSecret reads a secret of the identities file. Its errors never contain it.
func ParseSecret(text string, allowPlain bool) (Secret, error) {
	if rest, ok := strings.CutPrefix(text, "{scram-sha-256}"); ok {
		s, err := parseScram(rest)
		return Secret{scram: s}, err
	}
	if rest, ok := strings.CutPrefix(text, "{bcrypt}"); ok {
		cost, err := bcrypt.Cost([]byte(rest))
		if err != nil {
			return Secret{}, errors.New("{bcrypt}: not a bcrypt hash such as $2a$10$ and 53 characters")
		}
		if cost > maxBcryptCost {
			return Secret{}, fmt.Errorf("{bcrypt}: cost %d; expected at most %d", cost, maxBcryptCost)
		}
		return Secret{bcrypt: []byte(rest)}, nil
	}
	if rest, ok := strings.CutPrefix(text, "{plain}"); ok {
		if !allowPlain {
			return Secret{}, errPlain
		}
		return plainSecret(rest), nil
	}
	return Secret{}, errors.New("secret: expected it to start with {scram-sha-256}, {bcrypt} or {plain}")
}

// plainSecret keeps a digest, so that comparing takes the same time for secrets of
// any length.
func plainSecret(text string) Secret {
	sum := sha256.Sum256([]byte(text))
	return Secret{plain: &sum}
}

func parseScram(text string) (*scram, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 4 {
		return nil, errors.New("{scram-sha-256}: expected ITERATIONS:SALT:STOREDKEY:SERVERKEY")
	}
	iterations, err := strconv.Atoi(parts[0])
	if err != nil || iterations < 4096 || iterations > maxScramIterations {
		return nil, fmt.Errorf("{scram-sha-256}: expected 4096 to %d iterations", maxScramIterations)
	}
	var raw [3][]byte
	for i, p := range parts[1:] {
		if raw[i], err = base64.StdEncoding.DecodeString(p); err != nil {
			return nil, errors.New("{scram-sha-256}: salt and keys are base64")
		}
	}
	s := &scram{iterations: iterations, salt: raw[0], storedKey: raw[1], serverKey: raw[2]}
	if len(s.salt) < 8 || len(s.storedKey) != sha256.Size || len(s.serverKey) != sha256.Size {
		return nil, errors.New("{scram-sha-256}: expected a salt of at least 8 bytes and keys of 32")
	}
	return s, nil
}

// IsZero reports whether there is no secret, so that only a certificate helps.
func (s Secret) IsZero() bool { return s.scram == nil && s.bcrypt == nil && s.plain == nil }

// verify compares in a time that does not depend on where the difference is.
func (s Secret) verify(password string) bool {
	switch {
	case s.scram != nil:
		return s.scram.verify(password)
	case s.bcrypt != nil:
		// bcrypt sees 72 bytes only; a longer password never equals a shorter one.
		return len(password) <= 72 && bcrypt.CompareHashAndPassword(s.bcrypt, []byte(password)) == nil
	case s.plain != nil:
		sum := sha256.Sum256([]byte(password))
		return subtle.ConstantTimeCompare(sum[:], s.plain[:]) == 1
	}
	return false
}

// verify derives StoredKey from the password as RFC 5802, section 3 says.
func (s *scram) verify(password string) bool {
	stored, _, err := scramKeys(password, s.salt, s.iterations)
	return err == nil && subtle.ConstantTimeCompare(stored, s.storedKey) == 1
}

func scramKeys(password string, salt []byte, iterations int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(mac(salted, "Client Key"))
	return sum[:], mac(salted, "Server Key"), nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// HashSecret returns the {scram-sha-256} form of a password, with a fresh salt.
func HashSecret(password string) (string, error) {
	if password == "" || len(password) > maxPassword {
		return "", fmt.Errorf("expected a secret of 1 to %d bytes", maxPassword)
	}
	salt := make([]byte, scramSaltSize)
	rand.Read(salt) // never fails
	stored, server, err := scramKeys(password, salt, scramIterations)
	if err != nil {
		return "", fmt.Errorf("hash secret: %w", err)
	}
	e := base64.StdEncoding
	return fmt.Sprintf("{scram-sha-256}%d:%s:%s:%s", scramIterations, e.EncodeToString(salt), e.EncodeToString(stored), e.EncodeToString(server)), nil
}

// GenerateSecret returns a new secret of 256 random bits, safe in URLs and shells.
func GenerateSecret() string {
	raw := make([]byte, secretBytes)
	rand.Read(raw) // never fails
	return base64.RawURLEncoding.EncodeToString(raw)
}

// costly is the cost beyond which a check takes longer than a few milliseconds.
const costly = 4 * scramIterations

// cost orders secrets by the work of checking them.
func (s Secret) cost() int {
	switch {
	case s.bcrypt != nil:
		c, _ := bcrypt.Cost(s.bcrypt)
		return 1 << 20 << c
	case s.scram != nil:
		return s.scram.iterations
	}
	return 0
}
