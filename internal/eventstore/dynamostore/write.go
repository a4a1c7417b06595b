package dynamostore

import (
	"context"
	"errors"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

// write replaces the state that was before, and does ops in the same
// transaction. errMoved comes with the state that was found instead; errBusy says that nothing happened.
//
// The token in the state tells a write whose answer was lost from that of
// another. Where others wrote meanwhile it tells no more, and the error is
// iot.ErrUnavailable rather than a second try, which might do twice what is not to be done twice.
func (s *Store) write(ctx context.Context, k eventstore.Key, before, next *stored, ops []op) (found stored, err error) {
	send, err := s.sender(k, before, next, ops)
	if err != nil {
		return stored{}, err
	}
	doubt := false
	for try := 0; ; try++ {
		err = s.raw(ctx, send)
		if err == nil {
			return stored{}, nil
		}
		if current, failed := conditionFailed(err); failed {
			found, err := decodeState(current)
			if err != nil {
				return stored{}, err
			}
			return found, fate(&found, before, next, doubt)
		}
		doubt = doubt || !refused(err)
		if isBusy(err) {
			return stored{}, errBusy
		}
		if refused(err) && !throttled(err) || try+1 == maxTries || ctx.Err() != nil {
			break
		}
		if err := s.pause(ctx, try+2); err != nil {
			return stored{}, err
		}
	}
	if doubt { // a second look saves the caller from repeating what is done
		if found, lookErr := s.load(ctx, k); lookErr == nil && found.token == next.token {
			return stored{}, nil
		}
	}
	if isSize(err) {
		return stored{}, tooLarge(err)
	}
	return stored{}, s.translate(ctx, err)
}

// fate says what became of a write when another state than before was found.
func fate(found, before, next *stored, doubt bool) error {
	switch {
	case found.token == next.token:
		return nil // ours: the answer to an earlier try was lost
	case doubt && found.version > next.version:
		return unavailable(errDoubtful)
	}
	return errMoved
}

// sender makes the request: of the state alone it costs half.
func (s *Store) sender(k eventstore.Key, before, next *stored, ops []op) (func(context.Context) error, error) {
	i, err := next.item(k)
	if err != nil {
		return nil, err
	}
	once := func(o *dynamodb.Options) { o.Retryer = aws.NopRetryer{} } // write knows what to do
	condition, values := aws.String("attribute_not_exists(pk)"), item(nil)
	if before.version != 0 {
		condition, values = aws.String("v = :v"), item{":v": number(before.version)}
	}
	if len(ops) == 0 {
		in := &dynamodb.PutItemInput{TableName: &s.table, Item: i, ConditionExpression: condition, ExpressionAttributeValues: values,
			ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld}
		return func(ctx context.Context) error {
			_, err := s.db.PutItem(ctx, in, once)
			return err
		}, nil
	}
	in := &dynamodb.TransactWriteItemsInput{ClientRequestToken: &next.token, TransactItems: []types.TransactWriteItem{{
		Put: &types.Put{TableName: &s.table, Item: i, ConditionExpression: condition, ExpressionAttributeValues: values,
			ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld}}}}
	for _, o := range ops {
		in.TransactItems = append(in.TransactItems, s.transactItem(o))
	}
	return func(ctx context.Context) error {
		_, err := s.db.TransactWriteItems(ctx, in, once)
		return err
	}, nil
}

func (s *Store) transactItem(o op) types.TransactWriteItem {
	if o.put == nil {
		return types.TransactWriteItem{Delete: &types.Delete{TableName: &s.table, Key: o.key.item()}}
	}
	o.put["pk"], o.put["sk"] = str(o.key.pk), str(o.key.sk)
	return types.TransactWriteItem{Put: &types.Put{TableName: &s.table, Item: o.put}}
}

// conditionFailed returns the state that a failed condition met.
func conditionFailed(err error) (current item, failed bool) {
	var put *types.ConditionalCheckFailedException
	if errors.As(err, &put) {
		return put.Item, true
	}
	for _, r := range reasons(err) {
		if aws.ToString(r.Code) == "ConditionalCheckFailed" {
			return r.Item, true
		}
	}
	return nil, false
}

func reasons(err error) []types.CancellationReason {
	var canceled *types.TransactionCanceledException
	if errors.As(err, &canceled) {
		return canceled.CancellationReasons
	}
	return nil
}

// isBusy reports whether something beside us kept the write from happening.
func isBusy(err error) bool {
	for _, r := range reasons(err) {
		switch aws.ToString(r.Code) {
		case "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded":
			return true
		}
	}
	return hasCode(err, "TransactionConflictException")
}

func isSize(err error) bool {
	for _, r := range reasons(err) {
		switch aws.ToString(r.Code) {
		case "ValidationError", "ItemCollectionSizeLimitExceeded":
			return true
		}
	}
	return false
}

// batchOp writes a batch behind so many bytes of others. A reader finds by the last position of a batch.
func batchOp(k eventstore.Key, b *eventstore.Batch, offset uint64) op {
	i := item{"f": number(b.First), "at": number(b.At), "x": number(b.Expires), "n": number(len(b.Body)), "o": number(offset), "d": blob(b.Body)}
	if b.Expires != 0 {
		i[ttl] = number((b.Expires + 999) / 1000)
	}
	return op{key: key{batchesPK(k), position(b.Last)}, put: i}
}

func deadOp(k eventstore.Key, d *eventstore.DeadLetter) op {
	return op{key: key{deadPK(k), position(d.Position)}, put: item{"at": number(d.At), "n": number(d.Attempts), "r": str(d.Reason), "d": blob(d.Record)}}
}

// lastOf is the position that a sort key holds.
func lastOf(i item) uint64 {
	n, _ := strconv.ParseUint(i.str("sk"), 10, 64) // we wrote it
	return n
}
