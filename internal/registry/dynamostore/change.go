package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

const (
	// maxWrites is what a transaction has room for beside the counter and the
	// bucket of the hour. DynamoDB allows 100.
	maxWrites = 98
	// maxBytes is the size of one transaction. DynamoDB allows 4 MB.
	maxBytes = 3 << 20
	// feedBytes is about the size of a row of the feed without its names.
	feedBytes = 200
	// keepFeed is how long rows of the feed are kept, with a reserve for clocks
	// that differ.
	keepFeed = registry.FeedRetention + time.Hour
)

// op is one write of a transaction: of a whole item, or its removal.
type op struct {
	key       key
	put       item   // nil = remove
	check     bool   // neither: only the condition
	condition string // on what is there; "" = none
	values    item   // of the condition
}

// change is one step from a state of a tenant to the next.
type change struct {
	ops     []op
	next    state // only epoch, live and devices are looked at
	changes []registry.Change
}

// bytes is about what the transaction weighs.
func (c *change) bytes() int {
	n := len(c.changes) * feedBytes
	for _, o := range c.ops {
		n += 100 + o.put.size()
	}
	return n
}

var (
	// errMoved says that the tenant changed since the counter was read.
	errMoved = errors.New("another change came first")
	// errBusy says that another transaction on the same items was under way.
	errBusy = errors.New("another transaction is under way")
	// errTaken says that a condition on an item besides the counter failed.
	errTaken = errors.New("an item is not as expected")
)

// plan makes the change for a state. It may be called again with a newer one;
// what it reads, it reads after the state was read. A nil change changes
// nothing. An error that is an *iot.Error is the answer for the caller.
type plan func(ctx context.Context, st state) (*change, error)

// change carries out a plan as one transaction: one at a time in this process,
// in competition with other processes.
func (s *Store) change(ctx context.Context, t iot.TenantID, p plan) error {
	changes, err := s.compete(ctx, t, p)
	if len(changes) > 0 && s.observe != nil {
		s.observe(ctx, changes)
	}
	return err
}

func (s *Store) compete(ctx context.Context, t iot.TenantID, p plan) ([]registry.Change, error) {
	if len(t) == 0 || len(counterKey(t).pk) > maxPK {
		return nil, errNoTenant
	}
	patience, cancel := context.WithTimeoutCause(ctx, s.patience, errBusy)
	defer cancel()
	l, err := s.lock(patience, t)
	if err != nil {
		return nil, s.impatient(ctx, err)
	}
	defer s.unlock(l)
	taken := false
	for try := 0; ; try++ {
		changes, err := s.attempt(patience, t, l, taken, p)
		taken = taken || errors.Is(err, errTaken)
		switch {
		case errors.Is(err, errMoved), errors.Is(err, errTaken), errors.Is(err, errBusy):
			if errors.Is(err, errMoved) && try == 0 {
				continue // what this process remembered was old: nobody competes yet
			}
			if err := s.pause(patience, try); err != nil {
				return nil, s.impatient(ctx, err)
			}
		case err != nil:
			l.known = false // it may have been made all the same
			return nil, s.impatient(ctx, err)
		default:
			return changes, nil
		}
	}
}

// impatient distinguishes a caller's deadline from our own.
func (s *Store) impatient(ctx context.Context, err error) error {
	if errors.Is(err, iot.ErrTimeout) && ctx.Err() == nil {
		return fmt.Errorf("registry store: %w", unavailable(errBusy))
	}
	return err
}

// attempt plans and commits once.
func (s *Store) attempt(ctx context.Context, t iot.TenantID, l *tenantLock, taken bool, p plan) ([]registry.Change, error) {
	if !l.known {
		st, err := s.readState(ctx, t)
		if err != nil {
			return nil, err
		}
		l.st, l.known = st, true
	}
	st := l.st
	st.taken = taken
	l.st.fresh = false // for the next one
	c, err := p(ctx, st)
	if err != nil || c == nil {
		return nil, s.confirm(ctx, t, l, st, err)
	}
	next, changes, err := s.commit(ctx, t, st, c)
	switch {
	case err == nil:
		l.st = next
		l.st.fresh = false
	case errors.Is(err, errMoved):
		l.st = next // as read by the failed condition
	case errors.Is(err, errTaken), errors.Is(err, errBusy):
		l.known = false
	}
	return changes, err
}

// confirm makes sure that a refusal, or that there is nothing to do, does not
// rest on a counter that was only remembered.
func (s *Store) confirm(ctx context.Context, t iot.TenantID, l *tenantLock, st state, refusal error) error {
	var own *iot.Error
	if st.fresh || refusal != nil && !errors.As(refusal, &own) || errors.Is(refusal, iot.ErrUnavailable) || errors.Is(refusal, iot.ErrTimeout) {
		return refusal
	}
	now, err := s.readState(ctx, t)
	if err != nil {
		return err
	}
	l.st = now
	if now.sequence != st.sequence {
		return errMoved
	}
	return refusal
}

// commit makes a change in one transaction and returns the state after it.
// With errMoved it returns the state that was found.
func (s *Store) commit(ctx context.Context, t iot.TenantID, st state, c *change) (state, []registry.Change, error) {
	next := c.next
	next.taken = false
	next.sequence = st.sequence + uint64(len(c.changes))
	next.last = newToken()
	next.fresh = true
	now := time.Now()
	if hour := hourOf(now); hour > st.hour {
		next.hour = hour
	}
	changes := make([]registry.Change, len(c.changes))
	writes := make([]types.TransactWriteItem, 0, 2+len(c.ops)+len(c.changes))
	writes = append(writes, s.counterWrite(t, st, &next))
	for i := range c.ops {
		w, err := s.write(&c.ops[i])
		if err != nil {
			return st, nil, err
		}
		writes = append(writes, w)
	}
	for i, ch := range c.changes {
		ch.Sequence = st.sequence + uint64(i) + 1
		ch.At = ch.At.UTC().Truncate(time.Millisecond)
		changes[i] = ch
		writes = append(writes, types.TransactWriteItem{Put: &types.Put{TableName: &s.table, Item: encodeChange(&ch, now)}})
	}
	if next.hour != st.hour {
		writes = append(writes, s.hourWrite(t, next.hour, st.sequence+1, now))
	}
	found, err := s.transact(ctx, writes, next.last)
	if errors.Is(err, iot.ErrUnavailable) {
		// The answer is lost, the change perhaps not. A second look saves the
		// caller from repeating what is done.
		if now, lookErr := s.readState(ctx, t); lookErr == nil && now.last == next.last {
			err = nil
		}
	}
	if err != nil {
		return found, nil, err
	}
	return next, changes, nil
}

// counterWrite replaces the counter where it is as it was read.
func (s *Store) counterWrite(t iot.TenantID, st state, next *state) types.TransactWriteItem {
	put := &types.Put{TableName: &s.table, Item: next.item(t),
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld}
	if st.sequence == 0 {
		put.ConditionExpression = aws.String("attribute_not_exists(pk)")
	} else {
		put.ConditionExpression = aws.String("q = :q")
		put.ExpressionAttributeValues = item{":q": number(int64(st.sequence))}
	}
	return types.TransactWriteItem{Put: put}
}

// hourWrite notes that the tenant changed in this hour, with the first of its
// sequences there: a reader of the feed that asks by time finds the tenant so.
func (s *Store) hourWrite(t iot.TenantID, hour string, first uint64, now time.Time) types.TransactWriteItem {
	return types.TransactWriteItem{Update: &types.Update{TableName: &s.table, Key: hourKey(hour, t).item(),
		UpdateExpression:         aws.String("SET #first = if_not_exists(#first, :first), #expires = :expires"),
		ExpressionAttributeNames: map[string]string{"#first": "first", "#expires": expires},
		ExpressionAttributeValues: item{":first": number(int64(first)),
			":expires": number(now.Add(keepFeed + time.Hour).Unix())},
	}}
}

func (s *Store) write(o *op) (types.TransactWriteItem, error) {
	var condition *string
	if o.condition != "" {
		condition = &o.condition
	}
	if o.check {
		return types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{TableName: &s.table, Key: o.key.item(),
			ConditionExpression: condition, ExpressionAttributeValues: o.values}}, nil
	}
	if o.put == nil {
		return types.TransactWriteItem{Delete: &types.Delete{TableName: &s.table, Key: o.key.item(),
			ConditionExpression: condition, ExpressionAttributeValues: o.values}}, nil
	}
	if o.put.size()+len(o.key.pk)+len(o.key.sk) > maxItem {
		return types.TransactWriteItem{}, errItemSize()
	}
	o.put["pk"], o.put["sk"] = str(o.key.pk), str(o.key.sk)
	return types.TransactWriteItem{Put: &types.Put{TableName: &s.table, Item: o.put,
		ConditionExpression: condition, ExpressionAttributeValues: o.values}}, nil
}

// transact sends a transaction. Its token makes it happen once even when an
// answer is lost and the SDK sends it again.
func (s *Store) transact(ctx context.Context, writes []types.TransactWriteItem, token string) (found state, err error) {
	in := &dynamodb.TransactWriteItemsInput{TransactItems: writes, ClientRequestToken: &token}
	err = s.call(ctx, func(ctx context.Context) error {
		_, err := s.db.TransactWriteItems(ctx, in)
		return err
	})
	var canceled *types.TransactionCanceledException
	switch {
	case err == nil:
		return state{}, nil
	case !errors.As(err, &canceled):
		return state{}, err
	}
	return reason(canceled.CancellationReasons, token, err)
}

// reason says which condition of a cancelled transaction failed. The counter's
// comes first: when it moved, what the others say is about an old state.
func reason(reasons []types.CancellationReason, token string, err error) (found state, _ error) {
	busy := false
	for i, r := range reasons {
		switch aws.ToString(r.Code) {
		case "ConditionalCheckFailed":
			if i > 0 {
				return state{}, errTaken
			}
			found = decodeState(r.Item)
			if found.last == token {
				return state{}, nil // ours: the answer to an earlier try was lost
			}
			return found, errMoved
		case "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded":
			busy = true
		case "ValidationError":
			return state{}, fmt.Errorf("registry store: %w", &cause{own: errItemSize(), err: err})
		}
	}
	if busy {
		return state{}, errBusy
	}
	return state{}, err
}

// unchanged is the condition that an item is as it was read: absent, or
// written by the same change.
//
// The counter alone does not vouch for what is read after it: DynamoDB applies a
// transaction to one item after the other, and a plain read in that moment
// may see the new counter beside an old item.
func (o *op) unchanged(found bool, sequence uint64) {
	if !found {
		o.condition = "attribute_not_exists(q)"
		return
	}
	o.condition = "q = :q"
	o.values = item{":q": number(int64(sequence))}
}
