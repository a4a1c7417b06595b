package eventstore

import (
	"context"
	"errors"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Append stores records: each one with status 200 is durable when it returns, and one
// that was stored before is not stored again. A partition's records are stored all or not at all. The
// error is iot.ErrInvalid or iot.ErrTooLarge for a request of which nothing
// is looked at, nil else.
func (l *Log) Append(ctx context.Context, r AppendRequest) (*AppendResult, error) {
	if err := checkAppend(r.Records); err != nil {
		return nil, err
	}
	out := &AppendResult{Results: make([]Appended, len(r.Records))}
	x := sorting{log: l, now: l.now(), holder: r.Holder, byKey: map[Key]*appender{}}
	for i := range r.Records {
		x.add(ctx, &r.Records[i], &out.Results[i])
	}
	if len(x.list) == 0 {
		return out, nil
	}
	slices.SortFunc(x.list, func(a, b *appender) int { return a.key.Compare(b.key) })
	changes := make([]Change, len(x.list))
	for i, a := range x.list {
		changes[i] = Change{a.key, a.apply}
	}
	errs := l.store.Update(ctx, changes)
	for i, a := range x.list {
		var err error
		if errs != nil {
			err = errs[i]
		}
		if err == nil && len(a.repeated) > 0 {
			err = l.recall(ctx, a)
		}
		l.appended(a, err)
		if err == nil && a.held.End != 0 {
			a.held.Tenant, a.held.Partition = a.key.Tenant, a.key.Partition
			out.Holders = append(out.Holders, a.held)
		}
	}
	return out, nil
}

// sorting finds the partitions of an append's records, and refuses those that
// are not taken.
type sorting struct {
	log    *Log
	now    int64
	holder string
	byKey  map[Key]*appender
	list   []*appender
	usage  map[iot.TenantID]*usage // with what this append adds
}

type usage struct {
	used
	err           error
	own, ownBytes int64 // of this append
	recounted     bool
}

func (x *sorting) add(ctx context.Context, rec *Record, result *Appended) {
	key := Key{rec.Tenant, PartitionOf(rec.Device)}
	result.Partition = key.Partition
	rec.Expires = expiry(rec.Expires, x.log.o.MaxTTL, x.now)
	err := rec.Check()
	if err == nil && rec.Expires != 0 && rec.Expires <= x.now {
		result.Status = 200 // it has expired: to be stored would make no difference
		return
	}
	if err == nil {
		err = x.allowed(ctx, rec)
	}
	if err != nil {
		refuse(result, err)
		return
	}
	a := x.byKey[key]
	if a == nil {
		a = &appender{key: key, holder: x.holder, now: x.now}
		x.byKey[key] = a
		x.list = append(x.list, a)
	}
	a.records, a.results = append(a.records, rec), append(a.results, result)
}

// allowed refuses a record of a tenant that has used up its quota.
func (x *sorting) allowed(ctx context.Context, r *Record) error {
	if x.log.o.Quota == nil {
		return nil
	}
	u := x.usage[r.Tenant]
	if u == nil {
		if u = new(usage); x.usage == nil {
			x.usage = map[iot.TenantID]*usage{}
		}
		u.used, u.err = x.log.used(ctx, r.Tenant, x.now, usageAge)
		x.usage[r.Tenant] = u
	}
	size := int64(r.Size())
	err := u.room(size)
	if err != nil && u.err == nil && !u.recounted {
		u.recounted = true
		if u.used, u.err = x.log.used(ctx, r.Tenant, x.now, recountAge); u.err == nil {
			u.messages, u.bytes = u.messages+u.own, u.bytes+u.ownBytes
		}
		err = u.room(size)
	}
	if err == nil {
		u.messages, u.bytes = u.messages+1, u.bytes+size
		u.own, u.ownBytes = u.own+1, u.ownBytes+size
	}
	return err
}

// room is nil where one more event of a size is within the quota.
func (u *usage) room(size int64) error {
	switch {
	case u.err != nil:
		return u.err
	case u.quota.Messages > 0 && u.messages >= u.quota.Messages:
		return quota("the tenant has %d events that wait to be taken or are dead letters, as many as it may have", u.messages)
	case u.quota.Bytes > 0 && u.bytes+size > u.quota.Bytes:
		return quota("the tenant's events that wait to be taken or are dead letters have %d bytes, of %d that they may have", u.bytes, u.quota.Bytes)
	}
	return nil
}

func checkAppend(records []Record) error {
	if len(records) > MaxRecords {
		return iot.Errorf(iot.ErrTooLarge, "%d records, at most %d are taken at once", len(records), MaxRecords)
	}
	size := 0
	for i := range records {
		// One that is only too large is refused by itself: the others are not its sender's.
		if err := records[i].Check(); err != nil && !errors.Is(err, iot.ErrTooLarge) {
			return err
		}
		size += records[i].Size()
	}
	// One record is taken whatever its size.
	if size > MaxBatchBytes && len(records) > 1 {
		return iot.Errorf(iot.ErrTooLarge, "%d bytes of records, at most %d are taken at once", size, MaxBatchBytes)
	}
	return nil
}

// appended notes what became of the records of a partition.
func (l *Log) appended(a *appender, err error) {
	for _, result := range a.results {
		if err != nil {
			result.Position, result.Live = 0, false
			refuse(result, err)
			continue
		}
		result.Status = 200
	}
	if err != nil || l.o.Quota == nil {
		return
	}
	size := 0
	for _, r := range a.fresh {
		size += r.Size()
	}
	l.usage.add(a.key.Tenant, int64(len(a.fresh)), int64(size))
}

// recall finds where records are that were stored by an append whose answer was
// lost. Those that were taken since are not found, nor need they be.
func (l *Log) recall(ctx context.Context, a *appender) error {
	p, err := l.store.Partition(ctx, a.key)
	if err != nil {
		return err
	}
	wanted := map[RecordID]*Appended{}
	from, last := p.End, uint64(0)
	for _, i := range a.repeated {
		id := a.records[i].ID
		w := slices.IndexFunc(p.Writers, func(w Writer) bool { return w.ID == id.Writer })
		if w < 0 {
			continue
		}
		wanted[id] = a.results[i]
		// The writer's last append ends there, and is not larger than that.
		at := p.Writers[w].Position
		from, last = min(from, at-min(at, MaxRecords)+1), max(last, at)
	}
	for from = max(from, p.Cursor); from <= last && len(wanted) > 0; {
		batches, err := l.store.Batches(ctx, a.key, from, MaxBatchBytes)
		if err != nil || len(batches) == 0 {
			return err
		}
		for i := range batches {
			if err := find(batches[i].Body, wanted); err != nil {
				return err
			}
		}
		from = batches[len(batches)-1].Last + 1
	}
	return nil
}

// find notes the positions of records that are wanted.
func find(body []byte, wanted map[RecordID]*Appended) error {
	for len(body) > 0 {
		r, rest, err := Decode(body)
		if err != nil {
			return undecodable(err)
		}
		if result := wanted[r.ID]; result != nil {
			result.Position = r.Position
			delete(wanted, r.ID)
		}
		body = rest
	}
	return nil
}

// used is what a tenant has stored, as it was at most age ms ago.
func (l *Log) used(ctx context.Context, tenant iot.TenantID, now, age int64) (used, error) {
	return l.usage.of(ctx, tenant, now, age, func() (used, error) {
		u := used{quota: l.o.Quota(tenant)}
		if u.quota == (Quota{}) {
			return u, nil
		}
		stored, err := l.store.PartitionsOf(ctx, tenant)
		for i := range stored {
			p := &stored[i].State
			u.messages, u.bytes = u.messages+p.Waiting()+p.Dead, u.bytes+p.Bytes+p.DeadBytes
		}
		return u, err
	})
}

func quota(format string, args ...any) error {
	err := iot.Errorf(iot.ErrQuota, format, args...)
	err.RetryAfter = quotaRetry
	return err
}
