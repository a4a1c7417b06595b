package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"regexp"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sluice-iot/sluice/internal/iot"
)

// The hash functions of hashed-password secrets (contract: registry, section 5.3).
const (
	Bcrypt = "bcrypt"
	SHA256 = "sha-256"
	SHA512 = "sha-512"
)

// MaxBcryptCost is the highest bcrypt cost factor that is accepted by default,
// and the one that plain passwords are hashed with.
const MaxBcryptCost = 10

// bcryptInput is how many bytes of a password bcrypt looks at.
const bcryptInput = 72

// bcryptForm is the shape that stored bcrypt hashes must have; the cost may
// be written with one digit.
var bcryptForm = regexp.MustCompile(`^\$(..)\$([0-9]{1,2})\$([./0-9A-Za-z]{53})$`)

// Passwords hashes and verifies passwords. bcrypt takes tens of milliseconds
// of one core, so at most a fixed number of such computations run at once;
// others wait for their turn or for their context's end. Of those that verify only
// few wait, and not for long: whoever guesses passwords makes as many hashes as it
// likes, and must not keep all others waiting until their callers give up. Safe for
// concurrent use; one per process.
type Passwords struct {
	turns   chan struct{}
	waiting atomic.Int32 // to verify
	cost    int
}

// More may wait to verify than one adapter has calls in flight, so that devices that
// come all at once are not sent away; and for half of the time that a call has.
const (
	maxVerifying = 128
	verifyWait   = 5 * time.Second
)

var errBusy error = &iot.Error{Sentinel: iot.ErrUnavailable, Text: "too many passwords are being checked", RetryAfter: time.Second}

// NewPasswords returns a Passwords that hashes with the given bcrypt cost (0 =
// [MaxBcryptCost]) and computes at most atOnce hashes at a time (0 = one per
// usable core).
func NewPasswords(cost, atOnce int) *Passwords {
	if cost == 0 {
		cost = MaxBcryptCost
	}
	if atOnce <= 0 {
		atOnce = runtime.GOMAXPROCS(0)
	}
	return &Passwords{turns: make(chan struct{}, atOnce), cost: cost}
}

// Hash returns the bcrypt hash of a password, of the form $2a$10$... As with
// every bcrypt, bytes after the 72nd do not count.
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	if err := p.enter(ctx); err != nil {
		return "", err
	}
	defer p.leave()
	h, err := bcrypt.GenerateFromPassword(clip(password), p.cost)
	return string(h), err
}

// Verify finds the usable secret of a hashed-password credential that matches
// password and returns its id. Cheap hashes are tried before bcrypt ones.
// iot.ErrUnauthenticated when none matches, also for a disabled credential or
// one of another type; iot.ErrTimeout or context.Canceled when ctx ends while
// waiting for a turn; iot.ErrUnavailable with a time to come again when too many do.
func (p *Passwords) Verify(ctx context.Context, c *iot.Credential, password string, now time.Time) (secretID string, err error) {
	if c.Type != iot.HashedPassword || !c.IsEnabled() {
		return "", errBadCredentials
	}
	for _, slow := range []bool{false, true} {
		for i := range c.Secrets {
			s := &c.Secrets[i]
			if !s.Usable(now) || (s.HashFunction == Bcrypt) != slow {
				continue
			}
			ok, err := p.matches(ctx, s, password)
			if err != nil {
				return "", err
			}
			if ok {
				return s.ID, nil
			}
		}
	}
	return "", errBadCredentials
}

var errBadCredentials = iot.Errorf(iot.ErrUnauthenticated, "bad credentials")

func (p *Passwords) matches(ctx context.Context, s *iot.Secret, password string) (bool, error) {
	switch s.HashFunction {
	case Bcrypt:
		if err := p.enterSoon(ctx); err != nil {
			return false, err
		}
		defer p.leave()
		return bcrypt.CompareHashAndPassword(twoDigitCost(s.PwdHash), clip(password)) == nil, nil
	case SHA256, "": // sha-256 when absent (contract: messaging, section 5)
		h := sha256.New()
		h.Write(s.Salt)
		h.Write([]byte(password))
		return sameHash(s.PwdHash, h.Sum(nil)), nil
	case SHA512:
		h := sha512.New()
		h.Write(s.Salt)
		h.Write([]byte(password))
		return sameHash(s.PwdHash, h.Sum(nil)), nil
	}
	return false, nil
}

func sameHash(stored string, sum []byte) bool {
	want, err := base64.StdEncoding.DecodeString(stored)
	return err == nil && subtle.ConstantTimeCompare(want, sum) == 1
}

func clip(password string) []byte {
	return []byte(password)[:min(len(password), bcryptInput)]
}

// twoDigitCost writes the cost of a hash with two digits, as the library needs it.
func twoDigitCost(hash string) []byte {
	m := bcryptForm.FindStringSubmatch(hash)
	if m == nil || len(m[2]) == 2 {
		return []byte(hash)
	}
	return []byte("$" + m[1] + "$0" + m[2] + "$" + m[3])
}

// checkBcrypt returns what is wrong with a bcrypt hash that was handed in.
func checkBcrypt(hash string, maxCost int) error {
	m := bcryptForm.FindStringSubmatch(hash)
	if m == nil {
		return errors.New("pwd-hash is not a bcrypt hash of the form $2a$10$ and 53 characters")
	}
	cost, _ := strconv.Atoi(m[2]) // one or two digits
	if cost > maxCost || cost < bcrypt.MinCost {
		return errors.New("bcrypt cost factor " + m[2] + " is not in " +
			strconv.Itoa(bcrypt.MinCost) + ".." + strconv.Itoa(maxCost))
	}
	return nil
}

func (p *Passwords) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return contextError(err)
	}
	select {
	case p.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return contextError(ctx.Err())
	}
}

// enterSoon waits for a turn where few wait, and for a bounded time.
func (p *Passwords) enterSoon(ctx context.Context) error {
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > maxVerifying {
		return errBusy
	}
	soon, cancel := context.WithTimeout(ctx, verifyWait)
	defer cancel()
	err := p.enter(soon)
	if err != nil && ctx.Err() == nil {
		return errBusy
	}
	return err
}

func (p *Passwords) leave() { <-p.turns }

func contextError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return iot.Errorf(iot.ErrTimeout, "no time left to check a password")
	}
	return err
}

// GeneratePassword returns a new password of 256 random bits in base64url and
// the secret to store for it; see [GeneratedSecret].
func GeneratePassword() (password string, secret iot.Secret) {
	var key [32]byte
	rand.Read(key[:]) // never fails
	password = base64.RawURLEncoding.EncodeToString(key[:])
	return password, GeneratedSecret(password)
}

// GeneratedSecret returns the secret to store for a password that was
// generated. A random password gains nothing from a slow hash, so it is kept as salted
// sha-256, which keeps devices cheap to admit.
func GeneratedSecret(password string) iot.Secret {
	salt := make([]byte, 16)
	rand.Read(salt)
	h := sha256.New()
	h.Write(salt)
	h.Write([]byte(password))
	return iot.Secret{
		HashFunction: SHA256,
		PwdHash:      base64.StdEncoding.EncodeToString(h.Sum(nil)),
		Salt:         salt,
	}
}
