package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// schema is the version of the design of keys that this program writes.
const schema = 1

// expires is the attribute with the time, in Unix seconds, from which DynamoDB
// removes an item by itself.
const expires = "expires"

// prepare checks that the table is there and of a known design, and which
// indexes it has.
func (s *Store) prepare(ctx context.Context, o *Options) error {
	meta, err := s.get(ctx, metaKey)
	if hasCode(err, "ResourceNotFoundException") {
		if !o.Create {
			return fmt.Errorf("it does not exist: create it with the partition key pk and the sort key sk (both strings) and time to live on the attribute %s, or open it with Create", expires)
		}
		if err = s.createTable(ctx); err == nil {
			meta, err = s.get(ctx, metaKey)
		}
	}
	if hasCode(err, "ValidationException") {
		return fmt.Errorf("its keys are not pk and sk, both strings: %w", err)
	}
	if err != nil {
		return err
	}
	if v := meta.num("schema"); v > schema {
		return fmt.Errorf("its design has version %d, newer than this program's %d", v, schema)
	}
	return s.prepareIndexes(ctx, meta, o.Indexes)
}

// prepareIndexes records indexes that are new. Where there are no tenants yet
// they are complete at once.
func (s *Store) prepareIndexes(ctx context.Context, meta item, declared [][]string) error {
	s.indexes = meta.strs("indexes")
	var added []string
	for _, path := range declared {
		if p := pointer(path); !slices.Contains(s.indexes, p) && !slices.Contains(added, p) {
			added = append(added, p)
		}
	}
	ready := meta.strs("ready")
	if len(added) > 0 || meta == nil {
		if err := s.addMeta(ctx, "indexes", added); err != nil {
			return err
		}
		n, err := s.query(ctx, question{pk: tenantsPK, limit: 1, count: true}, nil)
		if err != nil {
			return err
		}
		if n == 0 && len(added) > 0 {
			if err := s.addMeta(ctx, "ready", added); err != nil {
				return err
			}
			ready = append(ready, added...)
		}
	}
	s.indexes = append(s.indexes, added...)
	slices.Sort(s.indexes)
	for _, p := range ready {
		s.ready = append(s.ready, pathOf(p))
	}
	return nil
}

// readyPaths are the paths that searches may use an index for.
func (s *Store) readyPaths() [][]string { return s.ready }

// addMeta adds to a set that describes the table.
func (s *Store) addMeta(ctx context.Context, set string, pointers []string) error {
	in := &dynamodb.UpdateItemInput{TableName: &s.table, Key: metaKey.item(),
		UpdateExpression: aws.String("SET #schema = :schema"), ExpressionAttributeNames: map[string]string{"#schema": "schema"},
		ExpressionAttributeValues: item{":schema": number(schema)}}
	if len(pointers) > 0 {
		in.UpdateExpression = aws.String("SET #schema = :schema ADD #set :pointers")
		in.ExpressionAttributeNames["#set"] = set
		in.ExpressionAttributeValues[":pointers"] = strs(pointers)
	}
	return s.call(ctx, func(ctx context.Context) error {
		_, err := s.db.UpdateItem(ctx, in)
		return err
	})
}

func (s *Store) createTable(ctx context.Context) error {
	err := s.call(ctx, func(ctx context.Context) error {
		_, err := s.db.CreateTable(ctx, &dynamodb.CreateTableInput{
			TableName: &s.table, BillingMode: types.BillingModePayPerRequest,
			AttributeDefinitions: []types.AttributeDefinition{
				{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS},
				{AttributeName: aws.String("sk"), AttributeType: types.ScalarAttributeTypeS},
			},
			KeySchema: []types.KeySchemaElement{
				{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash},
				{AttributeName: aws.String("sk"), KeyType: types.KeyTypeRange},
			},
		})
		return err
	})
	if err != nil && !hasCode(err, "ResourceInUseException") {
		return err
	}
	for try := 0; ; try++ {
		var status types.TableStatus
		err := s.call(ctx, func(ctx context.Context) error {
			out, err := s.db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &s.table})
			if err == nil {
				status = out.Table.TableStatus
			}
			return err
		})
		if err != nil && !hasCode(err, "ResourceNotFoundException") {
			return err
		}
		if status == types.TableStatusActive {
			return s.expire(ctx)
		}
		if try > 200 {
			return errors.New("it was created but does not become active")
		}
		if err := s.pause(ctx, try); err != nil {
			return err
		}
	}
}

// expire has DynamoDB remove rows of the feed after their time.
func (s *Store) expire(ctx context.Context) error {
	err := s.call(ctx, func(ctx context.Context) error {
		_, err := s.db.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: &s.table,
			TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String(expires), Enabled: aws.Bool(true)}})
		return err
	})
	if hasCode(err, "ValidationException") {
		return nil // it is on already: another process was faster
	}
	return err
}
