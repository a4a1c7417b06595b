package events

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/google/uuid"
)

// NewID returns a UUIDv7: the id of a call, made once and kept over its
// retries (contract: events, section 2).
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// DerivedID is d(f1, ..., fn) of contract events, section 2: processes that
// report the same occurrence get the same id.
func DerivedID(fields ...string) string {
	h := sha256.New()
	var n [4]byte
	for _, f := range fields {
		binary.BigEndian.PutUint32(n[:], uint32(len(f)))
		h.Write(n[:])
		h.Write([]byte(f))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// Sequence writes a tenant's change counter as the attribute sequence and the
// claim rev hold it: of fixed width, so that it sorts by bytes.
func Sequence(n uint64) string { return fmt.Sprintf("%020d", n) }

// ParseSequence is the inverse of [Sequence]; it takes what Sequence writes and
// nothing else.
func ParseSequence(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || len(s) != 20 {
		return 0, fmt.Errorf("sequence is %.40q, want 20 digits", s)
	}
	return n, nil
}
