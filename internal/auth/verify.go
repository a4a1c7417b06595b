package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"sync/atomic"
)

// cacheKey makes what a verifier remembers useless outside this process.
var cacheKey = func() []byte {
	key := make([]byte, sha256.Size)
	rand.Read(key) // never fails
	return key
}()

// verifier checks one secret and remembers, under a key of this process, the
// password that was right, so that a client that comes again costs microseconds.
type verifier struct {
	secret Secret
	right  atomic.Pointer[[sha256.Size]byte]
}

func (v *verifier) verify(ctx context.Context, g *gate, from netip.Addr, password string) (bool, error) {
	digest := keyed(password)
	if right := v.right.Load(); right != nil && hmac.Equal(right[:], digest[:]) {
		return true, nil
	}
	if v.secret.cost() == 0 { // no hash to compute
		return v.secret.verify(password), nil
	}
	if err := g.enter(ctx, from); err != nil {
		return false, err
	}
	defer g.leave()
	if !v.secret.verify(password) {
		return false, nil
	}
	v.right.Store(&digest)
	return true, nil
}

func keyed(password string) (digest [sha256.Size]byte) {
	h := hmac.New(sha256.New, cacheKey)
	h.Write([]byte(password))
	h.Sum(digest[:0])
	return digest
}

// makeDummy returns a verifier that matches nothing and takes as long as the
// costliest of the file, so that time does not tell which names exist.
func (s *snapshot) makeDummy() *verifier {
	var costliest Secret
	consider := func(v *verifier) {
		if v.secret.cost() > costliest.cost() {
			costliest = v.secret
		}
	}
	for _, e := range s.entries {
		consider(e.verifier)
	}
	for _, o := range s.operators {
		consider(o.verifier)
	}
	return &verifier{secret: costliest.unmatchable()}
}

// unmatchable has the same cost and a random hash.
func (s Secret) unmatchable() Secret {
	random := make([]byte, sha256.Size)
	rand.Read(random) // never fails
	switch {
	case s.bcrypt != nil:
		// Hashing anew would cost as much as a log-in at every reload, so the salt
		// and cost stay and the digest, the last 31 characters, is another's.
		hash := append([]byte(nil), s.bcrypt...)
		const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
		tail := hash[len(hash)-31:]
		for i := range tail {
			tail[i] = alphabet[random[i%len(random)]%64]
		}
		return Secret{bcrypt: hash}
	case s.scram != nil:
		return Secret{scram: &scram{iterations: s.scram.iterations, salt: s.scram.salt, storedKey: random, serverKey: random}}
	}
	return plainSecret(string(random))
}
