package eventstore

import (
	"bytes"
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
	now := l.now()
	out := &AppendResult{Results: make([]Appended, len(r.Records))}
	byKey := map[Key]*appender{}
	var keys []Key
	for i := range r.Records {
		rec, result := &r.Records[i], &out.Results[i]
		key := Key{rec.Tenant, PartitionOf(rec.Device)}
		result.Partition = key.Partition
		err := rec.Check()
		if err == nil {
			err = l.allowed(ctx, rec, now)
		}
		if err != nil {
			refuse(result, err)
			continue
		}
		rec.Expires = expiry(rec.Expires, l.o.MaxTTL, now)
		if rec.Expires != 0 && rec.Expires <= now {
			result.Status = 200 // it has expired: to be stored would make no difference
			continue
		}
		a := byKey[key]
		if a == nil {
			a = &appender{holder: r.Holder, now: now}
			byKey[key] = a
			keys = append(keys, key)
		}
		a.records, a.results = append(a.records, rec), append(a.results, result)
	}
	slices.SortFunc(keys, Key.Compare)
	changes := make([]Change, len(keys))
	for i, key := range keys {
		changes[i] = Change{key, byKey[key].apply}
	}
	if len(changes) == 0 {
		return out, nil
	}
	errs := l.store.Update(ctx, changes)
	for i, key := range keys {
		a := byKey[key]
		var err error
		if errs != nil {
			err = errs[i]
		}
		if err == nil && len(a.repeated) > 0 {
			err = l.recall(ctx, key, a)
		}
		l.appended(key, a, err)
		if err == nil && a.held.Ingress != "" {
			a.held.Tenant, a.held.Partition = key.Tenant, key.Partition
			out.Holders = append(out.Holders, a.held)
		}
	}
	return out, nil
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
func (l *Log) appended(key Key, a *appender, err error) {
	stored, size := 0, 0
	for i, result := range a.results {
		if err != nil {
			result.Position, result.Live = 0, false
			refuse(result, err)
			continue
		}
		result.Status = 200
		stored, size = stored+1, size+a.records[i].Size()
	}
	l.usage.add(key.Tenant, int64(stored), int64(size))
}

// recall finds where records are that were stored by an append whose answer was lost.
func (l *Log) recall(ctx context.Context, key Key, a *appender) error {
	p, err := l.store.Partition(ctx, key)
	if err != nil {
		return err
	}
	for _, r := range a.repeated {
		i := slices.IndexFunc(p.Writers, func(w Writer) bool { return w.ID == r.ID.Writer })
		if i < 0 {
			continue
		}
		// The writer's last append ends there, and is not larger than that.
		from := max(p.Cursor, p.Writers[i].Position-min(p.Writers[i].Position, MaxRecords)+1)
		batches, err := l.store.Batches(ctx, key, from, 2*MaxBatchBytes)
		if err != nil {
			return err
		}
		at := slices.Index(a.records, r)
		a.results[at].Position = find(batches, r.ID)
	}
	return nil
}

// find returns the position of a record, 0 = it is not there any more.
func find(batches []Batch, id RecordID) uint64 {
	var head [16]byte
	(&Record{ID: id}).head(&head)
	for i := range batches {
		if !bytes.Contains(batches[i].Body, head[:]) {
			continue
		}
		for body := batches[i].Body; len(body) > 0; {
			r, rest, err := Decode(body)
			if err != nil {
				break
			}
			if r.ID == id {
				return r.Position
			}
			body = rest
		}
	}
	return 0
}

// allowed refuses a record of a tenant that has used up its quota.
func (l *Log) allowed(ctx context.Context, r *Record, now int64) error {
	if l.o.Quota == nil {
		return nil
	}
	u, err := l.usage.of(r.Tenant, now, func() (used, error) {
		u := used{quota: l.o.Quota(r.Tenant)}
		if u.quota == (Quota{}) {
			return u, nil
		}
		stored, err := l.store.PartitionsOf(ctx, r.Tenant)
		for i := range stored {
			u.messages += stored[i].State.Waiting()
			u.bytes += stored[i].State.Bytes
		}
		return u, err
	})
	switch {
	case err != nil:
		return err
	case u.quota.Messages > 0 && u.messages >= u.quota.Messages:
		return quota("%d events of the tenant wait to be taken, as many as it may have", u.messages)
	case u.quota.Bytes > 0 && u.bytes+int64(r.Size()) > u.quota.Bytes:
		return quota("events of the tenant that wait to be taken have %d bytes, of %d that they may have", u.bytes, u.quota.Bytes)
	}
	return nil
}

func quota(format string, args ...any) error {
	err := iot.Errorf(iot.ErrQuota, format, args...)
	err.RetryAfter = quotaRetry
	return err
}
