package eventstore

import (
	"context"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Store keeps partitions. It is written for implementors: the rules are in
// the changes that it applies.
//
// Safe for concurrent use. A database that is down, busy or full is
// iot.ErrUnavailable; an ended ctx is iot.ErrTimeout or context.Canceled. Errors carry a
// text for the caller ([iot.Errorf]) and no internals.
type Store interface {
	// Update applies changes of different partitions. For each it loads the state
	// ([NewPartition] where there is none), calls Apply and keeps what Apply did,
	// atomically for each partition and serialised with every other change of it; it is
	// durable when Update returns. Apply may be called several times, each time with the
	// state as it is then and empty writes; it does not block. Where it
	// fails, or says that nothing changed, nothing of its partition is written.
	//
	// After Apply the batches that Writes.Drop names are removed and, when Head > 0 and
	// Cursor > Head, those that end below Cursor: all of them, or the first ones
	// where a transaction has a limit. In the same transaction Bytes falls by the sizes of what was removed,
	// and Head becomes the end of the first batch that is left, or 0.
	//
	// The result is nil when all succeeded, else it has one error, or nil, for each change.
	Update(ctx context.Context, changes []Change) []error

	// Partition returns the state; [NewPartition] where there is none.
	Partition(ctx context.Context, key Key) (Partition, error)
	// PartitionsOf returns those of a tenant that were ever written, in order.
	PartitionsOf(ctx context.Context, tenant iot.TenantID) ([]Stored, error)
	// Tenants returns up to max tenants with a partition, those after the given one, in order.
	Tenants(ctx context.Context, after iot.TenantID, max int) ([]iot.TenantID, error)

	// Batches returns the batches that end at from or later, in order, until they have
	// maxBytes or more together; one at least, where there is one.
	Batches(ctx context.Context, key Key, from uint64, maxBytes int) ([]Batch, error)
	// Expired returns up to max batches without their bodies, of any partitions, of which every
	// event expired at until or before, in no order. It may leave out those of the
	// hour before until.
	Expired(ctx context.Context, until int64, max int) ([]ExpiredBatch, error)

	// DeadLetters returns up to max dead letters from a position on, in order.
	DeadLetters(ctx context.Context, key Key, from uint64, max int) ([]DeadLetter, error)
}

// Stored is a partition with its state.
type Stored struct {
	ID    PartitionID
	State Partition
}

// Change is what is to be done to one partition.
type Change struct {
	Key   Key
	Apply func(p *Partition, w *Writes) error
}

// Writes is what a change does beside the state: batches of [MaxBatchBytes] together, dead
// letters of as much, and of each kind one record more; at most [MaxChangeDead] dead letters are added,
// and as many removed.
type Writes struct {
	Batches   []Batch      // to be added; they lie at the end
	Dead      []DeadLetter // to be added, or replaced
	DropDead  []uint64     // positions of dead letters to be removed, where they are there
	Drop      []uint64     // first positions of batches to be removed, where they are there
	Unchanged bool         // nothing is written, the state neither
}

// Batch is a run of records that one append brought, with their positions in them.
type Batch struct {
	First, Last uint64
	At          int64 // Unix ms, when it was appended
	Expires     int64 // Unix ms, when the last of its events expires; 0 = one of them never does
	Body        []byte
}

// ExpiredBatch is one whose events have all expired.
type ExpiredBatch struct {
	Key         Key
	First, Last uint64
}

// DeadLetter is an event that nobody takes any more.
type DeadLetter struct {
	Position uint64 // where it was
	At       int64  // Unix ms, when it was given up
	Attempts uint16 // deliveries
	Reason   string
	Record   []byte // encoded
}

// MaxChangeDead is how many dead letters a change adds or removes at most: a transaction
// of DynamoDB has 100 items.
const MaxChangeDead = 64

// MaxBatchBody is how many bytes the body of a batch has at most: what one
// item of DynamoDB takes, less what is around it.
const MaxBatchBody = 384 << 10
