package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/sluice-iot/sluice/localstack/lambdahost"
	"github.com/sluice-iot/sluice/localstack/template"
)

var local = credentials.NewStaticCredentialsProvider("local", "local", "")

// makeResources makes the tables and the queues of the template.
func (s *Stack) makeResources(ctx context.Context) error {
	secret, err := s.secret()
	if err != nil {
		return err
	}
	parameters := map[string]string{"Management": "true", "RouterIngresses": "https://" + s.addresses.ingress, "DeletionProtection": "false"}
	maps.Copy(parameters, s.o.Parameters)
	s.template, err = template.Open(s.repository("infra", "aws", "template.yaml"), template.Options{
		Stack: Name, Region: lambdahost.Region, Account: lambdahost.Account, Parameters: parameters, Secret: secret})
	if err != nil {
		return err
	}
	for _, name := range []string{"Table", "EventsTable"} {
		if err := s.makeTable(ctx, name); err != nil {
			return fmt.Errorf("the table %s: %w", name, err)
		}
	}
	s.SQS = sqs.New(sqs.Options{Region: lambdahost.Region, Credentials: local, BaseEndpoint: aws.String(s.Events)})
	for _, name := range []string{"DeadLetters", "Notices"} { // the first is the other's redrive
		url, err := s.makeQueue(ctx, name)
		if err != nil {
			return fmt.Errorf("the queue %s: %w", name, err)
		}
		if name == "Notices" {
			s.Notices = url
		} else {
			s.DeadLetters = url
		}
	}
	return nil
}

func (s *Stack) makeTable(ctx context.Context, name string) error {
	p, err := s.template.Properties(name)
	if err != nil {
		return err
	}
	var t struct {
		BillingMode          types.BillingMode
		AttributeDefinitions []struct {
			AttributeName string
			AttributeType types.ScalarAttributeType
		}
		KeySchema []struct {
			AttributeName string
			KeyType       types.KeyType
		}
		TimeToLiveSpecification struct{ AttributeName, Enabled string }
	}
	if err := into(p, &t); err != nil {
		return err
	}
	table := Name + "-" + name
	in := &dynamodb.CreateTableInput{TableName: &table, BillingMode: t.BillingMode}
	for _, a := range t.AttributeDefinitions {
		in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: aws.String(a.AttributeName), AttributeType: a.AttributeType})
	}
	for _, k := range t.KeySchema {
		in.KeySchema = append(in.KeySchema, types.KeySchemaElement{AttributeName: aws.String(k.AttributeName), KeyType: k.KeyType})
	}
	db := dynamodb.New(dynamodb.Options{Region: lambdahost.Region, Credentials: local, BaseEndpoint: aws.String("http://" + s.addresses.dynamo)})
	if _, err := db.CreateTable(ctx, in); err != nil {
		return err
	}
	if _, err := db.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: &table, TimeToLiveSpecification: &types.TimeToLiveSpecification{
		AttributeName: &t.TimeToLiveSpecification.AttributeName, Enabled: aws.Bool(t.TimeToLiveSpecification.Enabled == "true")}}); err != nil {
		return err
	}
	s.template.Made(name, template.Resource{Ref: table})
	return nil
}

// makeQueue makes a queue with all the attributes that the template gives it.
func (s *Stack) makeQueue(ctx context.Context, name string) (url string, err error) {
	p, err := s.template.Properties(name)
	if err != nil {
		return "", err
	}
	attributes := map[string]string{}
	for key, v := range p {
		text, ok := v.(string)
		if !ok { // a policy is JSON there
			b, err := json.Marshal(v)
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		attributes[key] = text
	}
	if name == "Notices" && s.o.NoticeRetry > 0 {
		attributes["VisibilityTimeout"] = strconv.Itoa(s.o.NoticeRetry)
	}
	queue := Name + "-" + name
	out, err := s.SQS.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &queue, Attributes: attributes})
	if err != nil {
		return "", err
	}
	s.template.Made(name, template.Resource{Ref: aws.ToString(out.QueueUrl), Attributes: map[string]string{"Arn": queueARN(queue), "QueueName": queue}})
	return aws.ToString(out.QueueUrl), nil
}

func queueARN(name string) string {
	return fmt.Sprintf("arn:aws:sqs:%s:%s:%s", lambdahost.Region, lambdahost.Account, name)
}

// into reads evaluated properties into a struct.
func into(p map[string]any, target any) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, target)
}

// property is a text below evaluated properties.
func property(p map[string]any, path ...string) (string, error) {
	var v any = p
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return "", fmt.Errorf("%v: no such property", path)
		}
		v = m[name]
	}
	text, ok := v.(string)
	if !ok {
		return "", errors.New("the template does not say " + fmt.Sprint(path))
	}
	return text, nil
}
