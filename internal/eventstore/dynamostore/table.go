package dynamostore

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// schema is the version of the design of items that this program writes.
const schema = 1

// ttl is the attribute with the time, in Unix seconds, from which DynamoDB
// removes an item by itself.
const ttl = "ttl"

// prepare checks that the table is there and of a known design.
func (s *Store) prepare(ctx context.Context, create bool) error {
	meta, err := s.get(ctx, metaKey)
	if hasCode(err, "ResourceNotFoundException") {
		if !create {
			return fmt.Errorf("it does not exist: create it with the partition key pk and the sort key sk (both strings) and time to live on the attribute %s, or open it with Create", ttl)
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
	switch v := meta.num("schema"); {
	case v > schema:
		return fmt.Errorf("its design has version %d, newer than this program's %d", v, schema)
	case v == schema:
		return nil
	}
	i := metaKey.item()
	i["schema"] = number(schema)
	return s.call(ctx, func(ctx context.Context) error {
		_, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.table, Item: i})
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

// expire has DynamoDB remove batches after their time.
func (s *Store) expire(ctx context.Context) error {
	err := s.call(ctx, func(ctx context.Context) error {
		_, err := s.db.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: &s.table,
			TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String(ttl), Enabled: aws.Bool(true)}})
		return err
	})
	if hasCode(err, "ValidationException") {
		return nil // it is on already: another process was faster
	}
	return err
}
