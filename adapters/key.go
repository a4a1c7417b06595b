package adapters

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash"
	"hash/maphash"
	"sync"

	"github.com/sluice-iot/sluice/internal/iot"
)

// key stands for one question asked of the admission function: a MAC over
// every member of it, so that the cache holds no secret and two questions are
// equal only when all their members are.
type key [sha256.Size]byte

// keyer computes keys under a random key of this process.
type keyer struct{ pool sync.Pool }

// macState is the working memory of one computation, kept to save allocations.
type macState struct {
	mac hash.Hash
	buf []byte
	sum key
}

func newKeyer() *keyer {
	secret := make([]byte, sha256.Size)
	rand.Read(secret) // never fails
	return &keyer{pool: sync.Pool{New: func() any {
		return &macState{mac: hmac.New(sha256.New, secret)}
	}}}
}

func (k *keyer) key(r *Request) (key, error) {
	s := k.pool.Get().(*macState)
	defer k.pool.Put(s)
	var err error
	s.buf, err = appendRequest(s.buf[:0], r)
	s.mac.Reset()
	s.mac.Write(s.buf)
	s.mac.Sum(s.sum[:0])
	clear(s.buf) // it held the password
	return s.sum, err
}

// appendRequest writes r's members, each behind its length, so that no two
// different requests look alike.
func appendRequest(b []byte, r *Request) ([]byte, error) {
	q := &r.Admit
	b = appendField(b, q.Adapter)
	b = appendField(b, string(q.TenantRef.ID))
	b = appendField(b, q.TenantRef.SubjectDN)
	b = appendField(b, q.TenantRef.SNI)
	b = appendField(b, string(q.DeviceID))
	if c := q.Credential; c != nil {
		b = appendField(b, c.Type)
		b = appendField(b, c.AuthID)
		b = appendField(b, c.Password)
		b = appendField(b, c.Certificate)
		b = appendField(b, c.JWT)
		b = appendField(b, c.SecretID)
	}
	switch {
	case r.context != "":
		b = appendField(b, r.context)
	case len(q.Context) > 0:
		text, err := contextText(q.Context)
		if err != nil {
			return b, err
		}
		b = appendField(b, text)
	}
	return b, nil
}

// contextText writes a client context as JSON, "" where there is none.
func contextText(c map[string]any) (string, error) {
	if len(c) == 0 {
		return "", nil
	}
	text, err := json.Marshal(c) // sorts the names
	if err != nil {
		return "", iot.Errorf(iot.ErrInvalid, "client context cannot be written as JSON")
	}
	return string(text), nil
}

// expand reads the client context that was kept as JSON.
func (r *Request) expand() error {
	if r.context == "" || r.Admit.Context != nil {
		return nil
	}
	return json.Unmarshal([]byte(r.context), &r.Admit.Context)
}

func appendField[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// authSeed keeps a client from choosing auth-ids that fall together.
var authSeed = maphash.MakeSeed()

// authKey names the auth-id of a request within its tenant; 0 where it has none.
func authKey(r *Request) uint64 {
	c := r.Admit.Credential
	if c == nil {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(authSeed)
	for _, s := range [...]string{c.Type, string(r.Admit.TenantRef.ID), r.Admit.TenantRef.SubjectDN, r.Admit.TenantRef.SNI, c.AuthID} {
		h.WriteString(s)
		h.WriteByte(0)
	}
	return h.Sum64() | 1
}
