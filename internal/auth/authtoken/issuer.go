package authtoken

import (
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-iot/sluice/internal/auth"
)

// What stock components of Hono expect.
const (
	DefaultIssuer   = "https://hono.eclipse.org/auth-server"
	DefaultLifetime = 600 * time.Second
)

// Options say what tokens look like; the zero value is Hono's.
type Options struct {
	Issuer   string        // claim iss, which whoever verifies compares; "" = DefaultIssuer
	Audience string        // claim aud; "" = none
	Lifetime time.Duration // 0 = DefaultLifetime; at least a second
	// Algorithm of a key that is made anew: [ES256] (default) or [RS256]. A key that
	// is there decides by itself.
	Algorithm string
	Now       func() time.Time // nil = time.Now
}

// Issuer makes tokens. Safe for concurrent use.
type Issuer struct {
	o      Options
	key    crypto.Signer
	method jwt.SigningMethod
	kid    string
	public []byte // JWK
}

// Open returns an issuer whose private key is in the file at path (PKCS #8, PEM).
// A missing file is made, with mode 0600 in a folder of mode 0700; one that others
// may read is refused.
func Open(path string, o Options) (*Issuer, error) {
	key, err := openKey(path, cmp.Or(o.Algorithm, ES256))
	if err != nil {
		return nil, err
	}
	return New(key, o)
}

// New returns an issuer with a private key of the caller's: ECDSA on P-256, or RSA
// of at least 2048 bits.
func New(key crypto.Signer, o Options) (*Issuer, error) {
	o.Issuer, o.Lifetime = cmp.Or(o.Issuer, DefaultIssuer), cmp.Or(o.Lifetime, DefaultLifetime)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Lifetime < time.Second {
		return nil, fmt.Errorf("authtoken: tokens live %s, at least 1s expected", o.Lifetime)
	}
	i := &Issuer{o: o, key: key}
	var err error
	if i.method, i.kid, i.public, err = describe(key); err != nil {
		return nil, err
	}
	return i, nil
}

// Issue returns a compact JWS for an identity: iss, sub, exp, aud if there is one,
// and a claim for each of its authorities: r:ADDRESS with letters of R, W and E,
// and o:ADDRESS:OPERATION with E.
func (i *Issuer) Issue(id *auth.Identity) (string, error) {
	if id == nil {
		return "", errors.New("authtoken: no identity")
	}
	claims := jwt.MapClaims{}
	for name, may := range authorities(id.Authorities()) {
		claims[name] = letters(may)
	}
	claims["iss"], claims["sub"] = i.o.Issuer, id.Name
	claims["exp"] = jwt.NewNumericDate(i.o.Now().Add(i.o.Lifetime).Truncate(time.Second))
	if i.o.Audience != "" {
		claims["aud"] = i.o.Audience
	}
	t := jwt.NewWithClaims(i.method, claims)
	t.Header["kid"] = i.kid
	s, err := t.SignedString(i.key)
	if err != nil {
		return "", fmt.Errorf("authtoken: sign: %w", err)
	}
	return s, nil
}

// authorities are the names of the claims with what each allows.
func authorities(list []auth.Authority) map[string]auth.Activity {
	m := map[string]auth.Activity{}
	for _, a := range list {
		if a.Operation != "" {
			m["o:"+a.Operation] |= auth.Execute
		} else {
			m["r:"+a.Address] |= a.May
		}
	}
	return m
}

func letters(a auth.Activity) string {
	var out []byte
	for _, l := range []struct {
		a      auth.Activity
		letter byte
	}{{auth.Read, 'R'}, {auth.Write, 'W'}, {auth.Execute, 'E'}} {
		if a&l.a != 0 {
			out = append(out, l.letter)
		}
	}
	return string(out)
}
