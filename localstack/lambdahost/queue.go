package lambdahost

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Queue is where invocations come from.
type Queue struct {
	Client *sqs.Client
	URL    string
	ARN    string
	Alias  string // by which the function is invoked
	Batch  int32  // messages of one invocation, 0 = 10
}

// Follow invokes the function with the messages of a queue, as an event source
// mapping does that has ReportBatchItemFailures, until ctx ends.
func (h *Host) Follow(ctx context.Context, q Queue) {
	h.follow(ctx, q, func(messages []types.Message) (failed map[string]bool) {
		payload, err := json.Marshal(map[string]any{"Records": records(q.ARN, messages)})
		if err != nil {
			return nil
		}
		return h.batch(ctx, q.Alias, payload)
	})
}

// FollowEvents invokes the function with each message as it is: events of a rule of
// EventBridge whose target is the queue, in the place of the function.
func (h *Host) FollowEvents(ctx context.Context, q Queue) {
	h.follow(ctx, q, func(messages []types.Message) (failed map[string]bool) {
		failed = map[string]bool{}
		for _, m := range messages {
			res, err := h.Invoke(ctx, q.Alias, []byte(aws.ToString(m.Body)))
			if err != nil || res.FunctionError != "" {
				failed[aws.ToString(m.MessageId)] = true
			}
		}
		return failed
	})
}

// follow gives messages to handle and deletes those that did not fail; nil is that all failed.
func (h *Host) follow(ctx context.Context, q Queue, handle func([]types.Message) map[string]bool) {
	if q.Batch <= 0 {
		q.Batch = 10
	}
	for ctx.Err() == nil {
		out, err := q.Client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &q.URL, MaxNumberOfMessages: q.Batch, WaitTimeSeconds: 5,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			if ctx.Err() == nil {
				h.log.Warn("queue not read", "queue", q.URL, "err", err)
			}
			pause(ctx, time.Second)
			continue
		}
		if len(out.Messages) == 0 {
			continue
		}
		failed := handle(out.Messages)
		h.log.Info("messages brought to the function", "alias", q.Alias, "messages", len(out.Messages), "failed", len(failed), "all-failed", failed == nil)
		if failed != nil {
			h.deleteOthers(ctx, q, out.Messages, failed)
		}
	}
}

func (h *Host) deleteOthers(ctx context.Context, q Queue, messages []types.Message, failed map[string]bool) {
	in := &sqs.DeleteMessageBatchInput{QueueUrl: &q.URL}
	for n, m := range messages {
		if !failed[aws.ToString(m.MessageId)] {
			in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(n)), ReceiptHandle: m.ReceiptHandle})
		}
	}
	if len(in.Entries) == 0 {
		return
	}
	if _, err := q.Client.DeleteMessageBatch(ctx, in); err != nil && ctx.Err() == nil {
		h.log.Warn("messages not deleted", "queue", q.URL, "err", err)
	}
}

func records(arn string, messages []types.Message) []map[string]any {
	list := make([]map[string]any, len(messages))
	for n, m := range messages {
		list[n] = map[string]any{"messageId": m.MessageId, "receiptHandle": m.ReceiptHandle, "body": m.Body, "attributes": m.Attributes,
			"messageAttributes": map[string]any{}, "md5OfBody": m.MD5OfBody, "eventSource": "aws:sqs", "eventSourceARN": arn, "awsRegion": Region}
	}
	return list
}

// batch invokes the function with a batch and reads which messages failed; nil is that all did.
func (h *Host) batch(ctx context.Context, alias string, payload []byte) map[string]bool {
	res, err := h.Invoke(ctx, alias, payload)
	if err != nil || res.FunctionError != "" {
		return nil
	}
	var out struct {
		BatchItemFailures []struct {
			ItemIdentifier string `json:"itemIdentifier"`
		} `json:"batchItemFailures"`
	}
	if json.Unmarshal(res.Payload, &out) != nil {
		return nil
	}
	failed := map[string]bool{}
	for _, f := range out.BatchItemFailures {
		if f.ItemIdentifier == "" {
			return nil
		}
		failed[f.ItemIdentifier] = true
	}
	return failed
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
