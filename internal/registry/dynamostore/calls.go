package dynamostore

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Limits of DynamoDB.
const (
	maxItem     = 400 << 10 // bytes of an item
	maxBatchGet = 100       // keys of one BatchGetItem
	maxBatchPut = 25        // writes of one BatchWriteItem
)

// call runs one request with a deadline of its own inside the caller's.
func (s *Store) call(ctx context.Context, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return s.translate(ctx, err)
	}
	inner, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	return s.translate(ctx, f(inner))
}

// get returns an item as last written, or nil.
func (s *Store) get(ctx context.Context, k key) (found item, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.table, Key: k.item(), ConsistentRead: aws.Bool(true)})
		if err == nil && len(out.Item) > 0 {
			found = out.Item
		}
		return err
	})
	return found, err
}

// getAll adds the items that exist to got, each as last written but not all at
// one instant. Keys may repeat.
func (s *Store) getAll(ctx context.Context, got map[key]item, keys ...key) error {
	var wanted []map[string]types.AttributeValue
	asked := make(map[key]bool, len(keys))
	for _, k := range keys {
		if _, have := got[k]; !have && !asked[k] {
			asked[k] = true
			wanted = append(wanted, k.item())
		}
	}
	if len(wanted) == 1 {
		k := item(wanted[0]).key()
		found, err := s.get(ctx, k)
		if found != nil {
			got[k] = found
		}
		return err
	}
	for try := 0; len(wanted) > 0; try++ {
		n := min(len(wanted), maxBatchGet)
		var rest []map[string]types.AttributeValue
		err := s.call(ctx, func(ctx context.Context) error {
			out, err := s.db.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
				s.table: {Keys: wanted[:n], ConsistentRead: aws.Bool(true)},
			}})
			if err != nil {
				return err
			}
			for _, i := range out.Responses[s.table] {
				got[item(i).key()] = i
			}
			rest = out.UnprocessedKeys[s.table].Keys // over 16 MB, or throttled
			return nil
		})
		if err != nil {
			return err
		}
		wanted = append(rest, wanted[n:]...)
		if len(rest) == n { // nothing came: throttled
			if err := s.pause(ctx, try); err != nil {
				return err
			}
		}
	}
	return nil
}

// getAtOnce returns the items that exist, all of one instant. ok is false when
// a transaction on one of them was under way.
func (s *Store) getAtOnce(ctx context.Context, keys []key) (got map[key]item, ok bool, err error) {
	in := &dynamodb.TransactGetItemsInput{}
	for _, k := range keys {
		in.TransactItems = append(in.TransactItems, types.TransactGetItem{Get: &types.Get{TableName: &s.table, Key: k.item()}})
	}
	got = make(map[key]item, len(keys))
	ok = true
	err = s.call(ctx, func(ctx context.Context) error {
		out, err := s.db.TransactGetItems(ctx, in)
		if hasCode(err, "TransactionCanceledException") {
			ok = false
			return nil
		}
		if err != nil {
			return err
		}
		for i, r := range out.Responses {
			if len(r.Item) > 0 {
				got[keys[i]] = r.Item
			}
		}
		return nil
	})
	return got, ok, err
}

// question is a query of one partition in the order of its sort keys.
type question struct {
	pk       string
	from     string  // least sort key; "" = from the beginning
	prefix   string  // beginning of the sort keys, in place of from
	after    string  // sort key to begin after
	limit    int     // 0 = all
	count    bool    // count only, nothing is handed on
	keysOnly bool    // hand on the keys, and device where there is one
	last     *string // is set to the sort key of the last item; "" when there are no more
}

func (s *Store) queryInput(q *question) *dynamodb.QueryInput {
	in := &dynamodb.QueryInput{TableName: &s.table, ConsistentRead: aws.Bool(true),
		ExpressionAttributeValues: item{":pk": str(q.pk)}}
	condition := "pk = :pk"
	switch {
	case q.prefix != "":
		condition += " AND begins_with(sk, :prefix)"
		in.ExpressionAttributeValues[":prefix"] = str(q.prefix)
	case q.from != "":
		condition += " AND sk >= :from"
		in.ExpressionAttributeValues[":from"] = str(q.from)
	}
	in.KeyConditionExpression = &condition
	if q.after != "" {
		in.ExclusiveStartKey = key{q.pk, q.after}.item()
	}
	if q.count {
		in.Select = types.SelectCount
	}
	if q.keysOnly {
		in.ProjectionExpression = aws.String("pk, sk, #device")
		in.ExpressionAttributeNames = map[string]string{"#device": "device"}
	}
	return in
}

// query calls f with the items, page by page, until it says stop; it returns
// how many there were.
func (s *Store) query(ctx context.Context, q question, f func(item) (stop bool, err error)) (int, error) {
	in := s.queryInput(&q)
	total := 0
	for {
		if q.limit > 0 {
			in.Limit = aws.Int32(int32(min(q.limit-total, 1000)))
		}
		var out *dynamodb.QueryOutput
		err := s.call(ctx, func(ctx context.Context) (err error) {
			out, err = s.db.Query(ctx, in)
			return err
		})
		if err != nil {
			return total, err
		}
		total += int(out.Count)
		for _, i := range out.Items {
			stop, err := f(i)
			if err != nil || stop {
				return total, err
			}
		}
		if q.last != nil {
			*q.last = item(out.LastEvaluatedKey).str("sk")
		}
		if len(out.LastEvaluatedKey) == 0 || q.limit > 0 && total >= q.limit {
			return total, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// removeAll deletes items without a condition.
func (s *Store) removeAll(ctx context.Context, keys []key) error {
	var writes []types.WriteRequest
	asked := make(map[key]bool, len(keys))
	for _, k := range keys {
		if !asked[k] {
			asked[k] = true
			writes = append(writes, types.WriteRequest{DeleteRequest: &types.DeleteRequest{Key: k.item()}})
		}
	}
	for try := 0; len(writes) > 0; try++ {
		n := min(len(writes), maxBatchPut)
		var rest []types.WriteRequest
		err := s.call(ctx, func(ctx context.Context) error {
			out, err := s.db.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{s.table: writes[:n]}})
			if err == nil {
				rest = out.UnprocessedItems[s.table]
			}
			return err
		})
		if err != nil {
			return err
		}
		writes = append(rest, writes[n:]...)
		if len(rest) == n {
			if err := s.pause(ctx, try); err != nil {
				return err
			}
		}
	}
	return nil
}

// pause waits before another try, longer each time and never all at once.
func (s *Store) pause(ctx context.Context, try int) error {
	longest := 5 * time.Millisecond << min(try, 6)
	t := time.NewTimer(time.Duration(rand.Int64N(int64(longest)) + 1))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return s.translate(ctx, ctx.Err())
	case <-s.closing.Done():
		return s.translate(ctx, errClosed)
	}
}
