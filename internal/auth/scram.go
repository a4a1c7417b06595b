package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxScramMessage bounds what a client may say in one message, in bytes.
const maxScramMessage = 4 * maxPassword

// scramExchange is SCRAM-SHA-256 without channel binding (RFC 5802 and 7677). The
// last message, in which the server proves itself, goes out as a challenge that the
// client answers with nothing: clients that follow Cyrus SASL look for it there and
// not in the outcome.
//
// Of SASLprep (RFC 4013) only this is done: names that are not UTF-8 or hold control
// characters are refused. Names and secrets beyond ASCII are compared as they come.
type scramExchange struct {
	d     *Directory
	from  netip.Addr
	nonce func() string
	step  func(ctx context.Context, response []byte) ([]byte, *Identity, error)

	gs2    string // the header that the client's last message repeats
	bare   string // client-first-message-bare
	first  string // server-first-message
	whole  string // both nonces
	name   string // as the client says it
	entry  *entry // nil for a name that cannot log in so
	secret *scram
	authz  string
}

func newScramExchange(d *Directory, from netip.Addr) *scramExchange {
	x := &scramExchange{d: d, from: from, nonce: rand.Text}
	x.step = x.clientFirst
	return x
}

// Step implements [Exchange].
func (x *scramExchange) Step(ctx context.Context, response []byte) ([]byte, *Identity, error) {
	if len(response) > maxScramMessage {
		return nil, nil, errMechanism(ScramSHA256, "message of %d bytes; expected at most %d", len(response), maxScramMessage)
	}
	return x.step(ctx, response)
}

func (x *scramExchange) clientFirst(_ context.Context, response []byte) ([]byte, *Identity, error) {
	if response == nil {
		return []byte{}, nil, nil // it waits to be asked (RFC 4422, section 3)
	}
	m, err := parseClientFirst(string(response))
	if err != nil {
		return nil, nil, err
	}
	s := x.d.current.Load()
	// The same work is done for every name.
	secret := s.fakeScram(m.name)
	if e := s.entries[m.name]; e != nil && e.verifier.secret.scram != nil {
		x.entry, secret = e, e.verifier.secret.scram
	}
	x.gs2, x.bare, x.name, x.authz, x.secret = m.gs2, m.bare, m.name, m.authz, secret
	x.whole = m.nonce + x.nonce()
	x.first = fmt.Sprintf("r=%s,s=%s,i=%d", x.whole, base64.StdEncoding.EncodeToString(secret.salt), secret.iterations)
	x.step = x.clientFinal
	return []byte(x.first), nil, nil
}

func (x *scramExchange) clientFinal(ctx context.Context, response []byte) (challenge []byte, _ *Identity, err error) {
	m, err := parseClientFinal(string(response))
	if err != nil {
		return nil, nil, err
	}
	if m.binding != x.gs2 || m.nonce != x.whole {
		return nil, nil, errMechanism(ScramSHA256, "nonce or header is not that of this dialogue")
	}
	err = x.d.attempt(ctx, x.name, x.from, func() (err error) {
		challenge, err = x.prove(m)
		return err
	})
	return challenge, nil, err
}

// prove checks the client's proof and returns the server's.
func (x *scramExchange) prove(m clientFinal) ([]byte, error) {
	authMessage := x.bare + "," + x.first + "," + m.withoutProof
	// ClientKey = ClientProof XOR HMAC(StoredKey, AuthMessage), and its hash is StoredKey.
	clientKey := make([]byte, sha256.Size)
	subtle.XORBytes(clientKey, m.proof, mac(x.secret.storedKey, authMessage))
	sum := sha256.Sum256(clientKey)
	if subtle.ConstantTimeCompare(sum[:], x.secret.storedKey) != 1 || x.entry == nil {
		return nil, errDenied()
	}
	x.step = x.clientDone
	return []byte("v=" + base64.StdEncoding.EncodeToString(mac(x.secret.serverKey, authMessage))), nil
}

func (x *scramExchange) clientDone(_ context.Context, response []byte) ([]byte, *Identity, error) {
	if len(response) > 0 {
		return nil, nil, errMechanism(ScramSHA256, "%d bytes after the last message; expected none", len(response))
	}
	return nil, x.d.actingFor(x.entry.identity, x.authz), nil
}

// actingFor is who an authorization identity makes of id (messaging 13).
func (d *Directory) actingFor(id *Identity, authz string) *Identity {
	if authz != "" && id.actsForOthers {
		if as := d.Current(authz); as != nil {
			return as
		}
	}
	return id
}

type clientFirst struct{ gs2, bare, authz, name, nonce string }

// parseClientFirst reads gs2-cbind-flag "," [authzid] "," "n=" name "," "r=" nonce
// and perhaps extensions, which mean nothing (RFC 5802, section 7).
func parseClientFirst(text string) (m clientFirst, err error) {
	parts := strings.SplitN(text, ",", 5)
	if len(parts) < 4 || !utf8.ValidString(text) {
		return m, errMechanism(ScramSHA256, "malformed first message")
	}
	switch flag := parts[0]; {
	case strings.HasPrefix(flag, "p="):
		return m, errMechanism(ScramSHA256, "channel binding is not offered")
	case flag != "n" && flag != "y":
		return m, errMechanism(ScramSHA256, "malformed first message: it starts with neither n nor y")
	}
	m.gs2 = parts[0] + "," + parts[1] + ","
	m.bare = text[len(m.gs2):]
	if m.authz, err = authzid(ScramSHA256, parts[1]); err != nil {
		return m, err
	}
	name, isName := strings.CutPrefix(parts[2], "n=")
	nonce, isNonce := strings.CutPrefix(parts[3], "r=")
	if !isName || !isNonce || !isPrintable(nonce) {
		return m, errMechanism(ScramSHA256, "malformed first message: expected n=NAME,r=NONCE")
	}
	m.nonce = nonce
	m.name, err = saslname(ScramSHA256, name)
	return m, err
}

type clientFinal struct {
	binding, nonce, withoutProof string
	proof                        []byte
}

// parseClientFinal reads "c=" header "," "r=" nonce, perhaps extensions, "," "p="
// proof.
func parseClientFinal(text string) (m clientFinal, err error) {
	malformed := errMechanism(ScramSHA256, "malformed last message: expected c=HEADER,r=NONCE,p=PROOF")
	i := strings.LastIndex(text, ",p=")
	if i < 0 {
		return m, malformed
	}
	m.withoutProof = text[:i]
	parts := strings.SplitN(m.withoutProof, ",", 3)
	header, isHeader := strings.CutPrefix(parts[0], "c=")
	if !isHeader || len(parts) < 2 {
		return m, malformed
	}
	var isNonce bool
	if m.nonce, isNonce = strings.CutPrefix(parts[1], "r="); !isNonce {
		return m, malformed
	}
	binding, err := base64.StdEncoding.Strict().DecodeString(header)
	if err != nil {
		return m, malformed
	}
	m.binding = string(binding)
	if m.proof, err = base64.StdEncoding.Strict().DecodeString(text[i+len(",p="):]); err != nil || len(m.proof) != sha256.Size {
		return m, malformed
	}
	return m, nil
}

// authzid reads the second field of a gs2 header: nothing, or a=NAME.
func authzid(mechanism, field string) (string, error) {
	if field == "" {
		return "", nil
	}
	name, ok := strings.CutPrefix(field, "a=")
	if !ok {
		return "", errMechanism(mechanism, "malformed authorization identity")
	}
	return saslname(mechanism, name)
}

// saslname undoes =2C and =3D (RFC 5801, section 4).
func saslname(mechanism, text string) (string, error) {
	if text == "" || !utf8.ValidString(text) || len(text) > maxPassword || strings.ContainsFunc(text, unicode.IsControl) {
		return "", errMechanism(mechanism, "a name is empty, too long, not UTF-8 or has control characters")
	}
	name := strings.NewReplacer("=2C", ",", "=3D", "=").Replace(text)
	if strings.Count(text, "=") != strings.Count(text, "=2C")+strings.Count(text, "=3D") {
		return "", errMechanism(mechanism, "a name has = that is neither =2C nor =3D")
	}
	return name, nil
}

// isPrintable is RFC 5802's printable: ASCII without space and comma.
func isPrintable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' })
}

// fakes makes salts for names that cannot log in by SCRAM. They look like those of
// the file, stay the same as long as the file does and are the same in every
// process that reads it, so that asking again or elsewhere tells nothing.
type fakes struct {
	key        [sha256.Size]byte
	iterations int
	saltSize   int
}

func (s *snapshot) makeFakes() fakes {
	f := fakes{iterations: scramIterations, saltSize: scramSaltSize}
	h := sha256.New()
	shapes := map[[2]int]int{}
	most := 0
	for _, name := range slices.Sorted(maps.Keys(s.entries)) {
		c := s.entries[name].verifier.secret.scram
		if c == nil {
			continue
		}
		h.Write(c.storedKey)
		h.Write(c.serverKey)
		shape := [2]int{c.iterations, len(c.salt)}
		if shapes[shape]++; shapes[shape] > most {
			most, f.iterations, f.saltSize = shapes[shape], shape[0], shape[1]
		}
	}
	h.Sum(f.key[:0])
	return f
}

// fakeScram is the secret of a name that has none: nothing matches it.
func (s *snapshot) fakeScram(name string) *scram {
	var salt []byte
	for i := byte(0); len(salt) < s.fakes.saltSize; i++ {
		h := hmac.New(sha256.New, s.fakes.key[:])
		h.Write([]byte{i})
		h.Write([]byte(name))
		salt = h.Sum(salt)
	}
	return &scram{iterations: s.fakes.iterations, salt: salt[:s.fakes.saltSize],
		storedKey: noKey, serverKey: noKey}
}

// noKey stands where the keys of a real secret are.
var noKey = bytes.Repeat([]byte{0}, sha256.Size)
