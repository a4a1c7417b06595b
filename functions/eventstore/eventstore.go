package eventstore

import (
	"context"
	"log/slog"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// factWait bounds how long the answer to a settlement waits until facts about
// dead letters are taken. The store has those whatever becomes of the facts.
const factWait = 500 * time.Millisecond

// Options of [New]; the zero value will do.
type Options struct {
	Facts events.Poster    // takes facts about dead letters; nil = nobody is told
	Log   *slog.Logger     // nil = none
	Now   func() time.Time // nil = time.Now
}

// Functions answers the calls. Safe for concurrent use.
type Functions struct {
	store *eventstore.Log
	o     Options
}

// New returns the functions over a log.
func New(store *eventstore.Log, o Options) *Functions {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Functions{store, o}
}

// Functions lists them for a host, one for each type of call.
func (f *Functions) Functions() []events.Function {
	return []events.Function{
		events.NewFunction(f.Append), events.NewFunction(f.Claim), events.NewFunction(f.Read), events.NewFunction(f.Settle),
		events.NewFunction(f.Release), events.NewFunction(f.Expire), events.NewFunction(f.Stats), events.NewFunction(f.Browse),
		events.NewFunction(f.Requeue), events.NewFunction(f.Purge),
	}
}

// Append stores records. iot.ErrInvalid or iot.ErrTooLarge where the batch is refused as
// a whole; where none of it was stored, the error of the record that may be tried
// again soonest.
func (f *Functions) Append(ctx context.Context, q events.EventAppend) (*events.EventAppendResult, error) {
	if len(q.Records) == 0 {
		return nil, iot.Errorf(iot.ErrInvalid, "an append needs a record")
	}
	out, err := f.store.Append(ctx, q.AppendRequest)
	if err != nil {
		return nil, err
	}
	if err := common(out.Results); err != nil {
		return nil, err
	}
	return &events.EventAppendResult{AppendResult: *out}, nil
}

// common is nil where any record was stored, else the error that stands for all.
func common(results []eventstore.Appended) error {
	var worst *events.ErrorData
	for i := range results {
		r := &results[i]
		if r.Status == 200 {
			return nil
		}
		d := events.ErrorData{Status: r.Status, Error: r.Error, RetryAfterSeconds: r.RetryAfterSeconds}
		if worst == nil || hope(d.Status) > hope(worst.Status) {
			worst = &d
		}
	}
	return worst.Err()
}

// hope ranks statuses by what a later try promises.
func hope(status int) int {
	switch {
	case status >= 500:
		return 2
	case status == 429:
		return 1
	}
	return 0
}

// Claim gives a holder its share of a tenant's partitions.
func (f *Functions) Claim(ctx context.Context, q events.EventClaim) (*events.EventClaimResult, error) {
	out, err := f.store.Claim(ctx, q.ClaimRequest)
	if err != nil {
		return nil, err
	}
	if out.Claims == nil {
		out.Claims = []eventstore.Claim{}
	}
	return &events.EventClaimResult{ClaimResult: *out}, nil
}

// Read returns events to deliver; iot.ErrExists where the fence is not the partition's.
func (f *Functions) Read(ctx context.Context, q events.EventRead) (*events.EventReadResult, error) {
	if err := named(q.Tenant()); err != nil {
		return nil, err
	}
	out, err := f.store.Read(ctx, q.ReadRequest)
	if err != nil {
		return nil, err
	}
	return &events.EventReadResult{ReadResult: *out}, nil
}

// Settle settles events and tells of those that became dead letters;
// iot.ErrExists where the fence is not the partition's.
func (f *Functions) Settle(ctx context.Context, q events.EventSettle) (*events.EventSettleResult, error) {
	if err := named(q.Tenant()); err != nil {
		return nil, err
	}
	out, err := f.store.Settle(ctx, q.SettleRequest)
	if err != nil {
		return nil, err
	}
	f.tell(ctx, q.Tenant(), q.Partition, out.Letters)
	out.Letters = nil
	return &events.EventSettleResult{SettleResult: *out}, nil
}

// tell posts a fact for each dead letter.
func (f *Functions) tell(ctx context.Context, tenant iot.TenantID, partition eventstore.PartitionID, letters []eventstore.DeadLetter) {
	if f.o.Facts == nil || len(letters) == 0 {
		return
	}
	facts := make([]events.Fact, len(letters))
	for i := range letters {
		d := &letters[i]
		facts[i] = events.EventDeadLettered{TenantID: tenant, Partition: partition, Position: d.Position,
			Attempts: d.Attempts, Reason: d.Reason, At: time.UnixMilli(d.At).UTC()}
	}
	// What is settled stays settled: the facts go out though the caller has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), factWait)
	defer cancel()
	if err := f.o.Facts.Post(ctx, facts); err != nil {
		f.o.Log.WarnContext(ctx, "facts about dead letters were not taken by everyone",
			"tenant", string(tenant), "partition", partition.String(), "letters", len(letters), "err", err)
	}
}

// Release gives a claim back.
func (f *Functions) Release(ctx context.Context, q events.EventRelease) (*events.EventReleaseResult, error) {
	if err := named(q.Tenant()); err != nil {
		return nil, err
	}
	return &events.EventReleaseResult{}, f.store.Release(ctx, q.ReleaseRequest)
}

// named refuses a request about nobody.
func named(tenant iot.TenantID) error {
	if tenant == "" {
		return iot.Errorf(iot.ErrInvalid, "member tenant-id is missing")
	}
	return nil
}
