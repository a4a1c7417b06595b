package eventstore

import (
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// AppendRequest brings records of any number of tenants, at most [MaxRecords]
// and [MaxBatchBytes]. The records are the log's from then on: it writes positions into them.
type AppendRequest struct {
	Records []Record
	Holder  string // who appends, as it claims
}

// Appended is what became of one record.
type Appended struct {
	Partition PartitionID `json:"partition"`
	Position  uint64      `json:"position,omitempty"` // 0 = not stored
	Status    int         `json:"status"`             // 200, or as iot's errors have it
	Error     string      `json:"error,omitempty"`
	// Live says that the caller holds the partition, was given all that is before, and may
	// deliver the record from memory. One whose own next position is a lower one has
	// lost an answer, and reads instead.
	Live bool `json:"live,omitempty"`
	// RetryAfterSeconds with 429 and 503.
	RetryAfterSeconds int `json:"retry-after-seconds,omitempty"`
}

// Holding says who holds a partition that was appended to, or, without an ingress, that nobody
// does: whoever waits for events is to be told. The latter is said at most once a second of a partition.
type Holding struct {
	Tenant    iot.TenantID `json:"tenant-id"`
	Partition PartitionID  `json:"partition"`
	Ingress   string       `json:"ingress,omitempty"`
	End       uint64       `json:"end"`
}

// AppendResult has one result for each record, in order.
type AppendResult struct {
	Results []Appended `json:"results"`
	Holders []Holding  `json:"holders,omitempty"` // the caller left out
}

// ClaimRequest asks for a tenant's partitions, or renews what the holder has.
type ClaimRequest struct {
	Tenant     iot.TenantID  `json:"tenant-id"`
	Holder     string        `json:"holder"`            // one process from its start to its end
	Ingress    string        `json:"ingress,omitempty"` // where facts reach it
	Partitions []PartitionID `json:"partitions,omitempty"`
	ClaimMS    int64         `json:"claim-ms,omitempty"` // 0 = 10,000
}

// Claim is a partition that the caller holds.
type Claim struct {
	Partition PartitionID `json:"partition"`
	Fence     uint64      `json:"fence"`
	Next      uint64      `json:"next"` // what was never read begins here
	End       uint64      `json:"end"`
	// Retry says when the first event before Next is to be delivered again: Unix ms, 0 = there is none.
	Retry int64 `json:"retry,omitempty"`
	// Wanted says that another holder waits for the partition: it is to be released.
	Wanted bool `json:"wanted,omitempty"`
	// New says that the caller did not hold it before.
	New bool `json:"new,omitempty"`
}

// ClaimResult is what the caller holds now.
type ClaimResult struct {
	Claims []Claim `json:"claims"`
	// Others is how many partitions others hold or are about to, and Pending how many of those have
	// events that were not taken: who waits asks again after its claim-ms while there are some.
	Others  int `json:"others,omitempty"`
	Pending int `json:"pending,omitempty"`
	// FreeAt is when the first of the pending ones may be claimed, unless whoever has it renews: Unix
	// ms, 0 = none is pending, or all that are may be claimed now by others.
	FreeAt int64 `json:"free-at,omitempty"`
}

// ReadRequest asks for events to deliver.
type ReadRequest struct {
	Tenant     iot.TenantID `json:"tenant-id"`
	Partition  PartitionID  `json:"partition"`
	Fence      uint64       `json:"fence"`
	From       uint64       `json:"from"` // of what was never read; the result says where the next read goes on
	MaxRecords int          `json:"max-records,omitempty"`
	MaxBytes   int          `json:"max-bytes,omitempty"`
}

// ReadResult has events to be delivered again first, then those from From on.
type ReadResult struct {
	Records []Record
	Next    uint64    // the From of the next read
	End     uint64    // Next == End: all was read
	NextAt  time.Time // when the next event is to be delivered again; zero = none is
	Wanted  bool      // see Claim
}

// Outcome is the word of a consumer, or of a router that lost it.
type Outcome string

// The outcomes of AMQP 1.0 (section 3.4).
const (
	Accepted Outcome = "accepted"
	Rejected Outcome = "rejected"
	Released Outcome = "released"
	Modified Outcome = "modified"
)

// Settlement settles a run of positions that were delivered with one attempt.
type Settlement struct {
	From              uint64  `json:"from"`
	To                uint64  `json:"to"` // included
	Attempt           uint16  `json:"attempt,omitempty"`
	Outcome           Outcome `json:"outcome"`
	DeliveryFailed    bool    `json:"delivery-failed,omitempty"`
	UndeliverableHere bool    `json:"undeliverable-here,omitempty"`
	// AtOnce: the consumer has gone, and another may take it now.
	AtOnce bool   `json:"at-once,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// SettleRequest settles events of a partition.
type SettleRequest struct {
	Tenant      iot.TenantID `json:"tenant-id"`
	Partition   PartitionID  `json:"partition"`
	Fence       uint64       `json:"fence"`
	Settlements []Settlement `json:"settlements"`
}

// SettleResult says how the partition stands.
type SettleResult struct {
	NextAt time.Time `json:"-"` // as in ReadResult
	Wanted bool      `json:"wanted,omitempty"`
	// Dead are the positions that became dead letters.
	Dead []uint64 `json:"dead,omitempty"`
	// Letters are the same, for whoever tells of them; they stay in the process.
	Letters []DeadLetter `json:"-"`
}

// ReleaseRequest gives a claim back, or with a Holder what that one waits for: Partition
// and Fence are of no meaning then.
type ReleaseRequest struct {
	Tenant    iot.TenantID `json:"tenant-id"`
	Holder    string       `json:"holder,omitempty"`
	Partition PartitionID  `json:"partition"`
	Fence     uint64       `json:"fence"`
	// Undelivered: from here on nothing was delivered, though it may have been read. 0 = all that was read may have been.
	Undelivered uint64 `json:"undelivered,omitempty"`
}
