package stack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/sluice-iot/sluice/localstack/lambdahost"
)

// makeSchedule makes a rule of the template that invokes a function by its alias cron. Its
// target is the queue that stands for the function there.
func (s *Stack) makeSchedule(ctx context.Context, name string, h *lambdahost.Host) (lambdahost.Queue, error) {
	p, err := s.template.Properties(name)
	if err != nil {
		return lambdahost.Queue{}, err
	}
	var rule struct {
		ScheduleExpression, Description string
		Targets                         []struct{ Arn string }
	}
	if err := into(p, &rule); err != nil {
		return lambdahost.Queue{}, err
	}
	if len(rule.Targets) != 1 || rule.Targets[0].Arn != h.ARN("cron") {
		return lambdahost.Queue{}, fmt.Errorf("the template's rule %s has the targets %v, want the function's alias cron", name, rule.Targets)
	}
	name = Name + "-" + name
	queue, err := s.SQS.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		return lambdahost.Queue{}, err
	}
	if err := s.event(ctx, "PutRule", map[string]any{"Name": name, "ScheduleExpression": rule.ScheduleExpression, "Description": rule.Description}); err != nil {
		return lambdahost.Queue{}, err
	}
	err = s.event(ctx, "PutTargets", map[string]any{"Rule": name, "Targets": []any{map[string]string{"Id": "function", "Arn": queueARN(name)}}})
	return lambdahost.Queue{Client: s.SQS, URL: *queue.QueueUrl, ARN: queueARN(name), Alias: "cron"}, err
}

// event makes a request to EventBridge.
func (s *Stack) event(ctx context.Context, action string, in any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Events, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-Amz-Target", "AWSEvents."+action)
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	c, err := local.Retrieve(ctx)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, c, req, hex.EncodeToString(sum[:]), "events", lambdahost.Region, time.Now()); err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	var out struct{ FailedEntryCount int }
	if resp.StatusCode != http.StatusOK || json.Unmarshal(said, &out) != nil || out.FailedEntryCount > 0 {
		return fmt.Errorf("EventBridge, %s: %d %s", action, resp.StatusCode, said)
	}
	return nil
}
