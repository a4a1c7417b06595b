package dynamostore

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const (
	// Limits of DynamoDB.
	maxBatchPut    = 25      // writes of one BatchWriteItem
	maxGets        = 100     // reads of one transaction
	maxTransaction = 4 << 20 // bytes of a transaction

	// maxTries is how often a request is sent.
	maxTries = 3
)

// call runs one request with a deadline of its own inside the caller's.
func (s *Store) call(ctx context.Context, f func(context.Context) error) error {
	return s.translate(ctx, s.raw(ctx, f))
}

// raw is call with the SDK's error.
func (s *Store) raw(ctx context.Context, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	inner, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	return f(inner)
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

// gone reports whether there is no item, and no transaction under way
// that puts it there: a plain read would not see such an item yet.
func (s *Store) gone(ctx context.Context, k key) (bool, error) {
	n, calm, err := s.count(ctx, []key{k})
	return calm && n == 0, err
}

// count returns how many of the items there are. calm is false when a transaction on one
// of them is under way.
func (s *Store) count(ctx context.Context, keys []key) (n int, calm bool, err error) {
	in := &dynamodb.TransactGetItemsInput{}
	for _, k := range keys {
		in.TransactItems = append(in.TransactItems, types.TransactGetItem{
			Get: &types.Get{TableName: &s.table, Key: k.item(), ProjectionExpression: aws.String("pk")}})
	}
	err = s.call(ctx, func(ctx context.Context) error {
		out, err := s.db.TransactGetItems(ctx, in)
		if hasCode(err, "TransactionCanceledException") {
			return nil
		}
		if err != nil {
			return err
		}
		calm = true
		for _, r := range out.Responses {
			if len(r.Item) > 0 {
				n++
			}
		}
		return nil
	})
	return n, calm, err
}

// question is a query of one partition key in the order of its sort keys.
type question struct {
	pk     string
	from   string            // least sort key
	after  string            // sort key to begin after, in place of from
	below  string            // sort keys are less than this, with neither of the others
	limit  func() int        // rows of the next page; nil = as many as fit
	fields string            // of each item; "" = all
	names  map[string]string // of fields
}

func (s *Store) queryInput(q *question) *dynamodb.QueryInput {
	in := &dynamodb.QueryInput{TableName: &s.table, ConsistentRead: aws.Bool(true),
		ExpressionAttributeValues: item{":pk": str(q.pk)}}
	condition := "pk = :pk"
	switch {
	case q.after != "":
		condition += " AND sk > :sk"
		in.ExpressionAttributeValues[":sk"] = str(q.after)
	case q.below != "":
		condition += " AND sk < :sk"
		in.ExpressionAttributeValues[":sk"] = str(q.below)
	case q.from != "":
		condition += " AND sk >= :sk"
		in.ExpressionAttributeValues[":sk"] = str(q.from)
	}
	in.KeyConditionExpression = &condition
	if q.fields != "" {
		in.ProjectionExpression, in.ExpressionAttributeNames = &q.fields, q.names
	}
	return in
}

// query calls f with the items, page by page, until it says stop.
func (s *Store) query(ctx context.Context, q question, f func(item) (stop bool, err error)) error {
	in := s.queryInput(&q)
	for {
		if q.limit != nil {
			in.Limit = aws.Int32(int32(q.limit()))
		}
		var out *dynamodb.QueryOutput
		err := s.call(ctx, func(ctx context.Context) (err error) {
			out, err = s.db.Query(ctx, in)
			return err
		})
		if err != nil {
			return err
		}
		for _, i := range out.Items {
			if stop, err := f(i); err != nil || stop {
				return err
			}
		}
		if len(out.LastEvaluatedKey) == 0 {
			return nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// remove deletes items without a condition.
func (s *Store) remove(ctx context.Context, keys []key) error {
	var writes []types.WriteRequest
	for _, k := range keys {
		writes = append(writes, types.WriteRequest{DeleteRequest: &types.DeleteRequest{Key: k.item()}})
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
		if len(rest) == n { // nothing was done: throttled
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
