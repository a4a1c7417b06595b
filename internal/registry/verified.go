package registry

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// VerifiedFor is how long it is remembered that a password was verified.
	VerifiedFor = 24 * time.Hour
	// verifiedRenew is the last part of that time, in which a use renews it.
	verifiedRenew = time.Hour
	// MACKeySize is the least length of the key of [NewMACs] in bytes.
	MACKeySize = 32
)

// MACs recognises passwords that were verified against a slow hash before, by
// a MAC kept beside the secret. The key must not be in the store: who reads the
// store alone has to break the slow hash as before. The MAC covers everything
// that makes the secret what it is, so that a changed one voids it by itself.
type MACs struct{ key []byte }

// NewMACs returns the MACs under key, at least [MACKeySize] random bytes.
func NewMACs(key []byte) (*MACs, error) {
	if len(key) < MACKeySize {
		return nil, errors.New("registry: the key of the MACs of verified passwords is too short, want at least 32 bytes")
	}
	return &MACs{key: key}, nil
}

// Recognise returns the usable slow-hashed secret of the snapshot's credential
// whose password was verified before and is this one, or nil. renew reports
// that what is kept ends soon and should be kept anew.
func (m *MACs) Recognise(s *Snapshot, password string, now time.Time) (secret *iot.Secret, renew bool) {
	if m == nil || s.Credential == nil {
		return nil, false
	}
	for secret := range Candidates(s.Credential, now) {
		if !slow(secret) {
			continue
		}
		for _, v := range s.Verified {
			if v.SecretID == secret.ID && now.Before(v.Until) && hmac.Equal(v.MAC, m.sum(s, secret, password)) {
				return secret, v.Until.Sub(now) < verifiedRenew
			}
		}
	}
	return nil, false
}

// Proof returns what to keep of a password that was just verified against the
// secret of the given id; ok = false where nothing is to be kept because its
// hash is fast.
func (m *MACs) Proof(s *Snapshot, secretID, password string, now time.Time) (v Verified, ok bool) {
	if m == nil || s.Credential == nil || secretID == "" {
		return Verified{}, false
	}
	for i := range s.Credential.Secrets {
		secret := &s.Credential.Secrets[i]
		if secret.ID == secretID && slow(secret) {
			return Verified{SecretID: secretID, MAC: m.sum(s, secret, password), Until: now.Add(VerifiedFor)}, true
		}
	}
	return Verified{}, false
}

func slow(s *iot.Secret) bool { return s.HashFunction == Bcrypt && s.ID != "" }

func (m *MACs) sum(s *Snapshot, secret *iot.Secret, password string) []byte {
	h := hmac.New(sha256.New, m.key)
	for _, field := range []string{string(s.Tenant.ID), s.Credential.Type, s.Credential.AuthID, secret.ID, secret.PwdHash, password} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(field)))
		h.Write(n[:])
		h.Write([]byte(field))
	}
	return h.Sum(nil)
}
