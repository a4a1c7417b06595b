package main_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke/lambda"
	"github.com/sluice-iot/sluice/functions/host/hosttest"
	"github.com/sluice-iot/sluice/internal/eventstore"
)

// byURL asks the management API as a function URL does.
func byURL(r *hosttest.Runtime, password string) do {
	return func(t *testing.T, method, path, body string) (int, string) {
		t.Helper()
		payload, err := json.Marshal(map[string]any{
			"version": "2.0", "rawPath": path, "body": base64.StdEncoding.EncodeToString([]byte(body)), "isBase64Encoded": true,
			"headers": map[string]string{"content-type": "application/json", "content-length": "999",
				"authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:"+password))},
			"requestContext": map[string]any{"http": map[string]any{"method": method, "path": path, "sourceIp": "192.0.2.1"}, "domainName": "x.lambda-url.on.aws"},
		})
		if err != nil {
			t.Fatal(err)
		}
		res, err := r.Invoke(t.Context(), "", payload)
		var answer struct {
			StatusCode int
			Body       string
		}
		if err != nil || res.FunctionError != "" || json.Unmarshal(res.Payload, &answer) != nil {
			t.Fatalf("%s: %s, %v", res.FunctionError, res.Payload, err)
		}
		return answer.StatusCode, answer.Body
	}
}

// invoker calls the function by the Invoke API.
func invoker(t testing.TB, r *hosttest.Runtime) events.Invoker {
	t.Helper()
	api := httptest.NewServer(r)
	t.Cleanup(api.Close)
	inv, err := lambda.New(lambda.Config{
		Function: "sluice", Source: "//sluice.local/adapters/0", Region: "eu-north-1", Endpoint: api.URL,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret"}, nil
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inv.Close)
	return inv
}

func TestOnLambda(t *testing.T) {
	data := t.TempDir()
	_, password := operator(t, data)
	r := hosttest.NewRuntime(t)
	p := startOn(t, r, environment("SLUICE_DATA="+data, "SLUICE_LAMBDA_ACCEPT=direct,http,schedule:cron"))
	register(t, byURL(r, password))
	var items []string
	for i := range 500 {
		items = append(items, fmt.Sprintf(`{"op":"create","id":"bulk-%d"}`, i))
	}
	status, reply := byURL(r, password)(t, "POST", "/v1/bulk/devices/T", "["+strings.Join(items, ",")+"]")
	if status != 200 || !strings.Contains(reply, `"done":true`) || strings.Count(reply, `"status":201`) != 500 {
		t.Errorf("bulk: %d %.300s", status, reply)
	}
	inv := invoker(t, r)
	admits(t, inv)
	keys := func() int {
		set, err := events.Call(t.Context(), inv, events.AssertionKeys{})
		if err != nil {
			t.Fatal(err)
		}
		return len(set.Keys)
	}
	before := keys()
	scheduled := []byte(`{"version":"0","source":"aws.events","detail-type":"Scheduled Event","time":"2040-01-01T00:00:00Z","detail":{}}`)
	if res, err := r.Invoke(t.Context(), "live", scheduled); err != nil || res.FunctionError == "" || keys() != before {
		t.Errorf("by another alias: %+v, %v", res, err)
	}
	res, err := r.Invoke(t.Context(), "cron", scheduled)
	if err != nil || res.FunctionError != "" || keys() != before+1 {
		t.Errorf("the schedule: %+v, %v, %d keys", res, err, keys())
	}
	if strings.Contains(p.log(), "hunter2") || strings.Contains(p.log(), password) {
		t.Error("a secret is logged")
	}
}

// TestOverlapOnLambda has a schedule end the old key at once, as it is configured.
func TestOverlapOnLambda(t *testing.T) {
	data := t.TempDir()
	_, password := operator(t, data)
	r := hosttest.NewRuntime(t)
	startOn(t, r, environment("SLUICE_DATA="+data, "SLUICE_LAMBDA_ACCEPT=direct,http,schedule", "SLUICE_ASSERTIONS_OVERLAP=0s"))
	register(t, byURL(r, password))
	inv := invoker(t, r)
	admits(t, inv)
	res, err := r.Invoke(t.Context(), "", []byte(`{"source":"aws.events","detail-type":"Scheduled Event","time":"2040-01-01T00:00:00Z","detail":{}}`))
	if err != nil || res.FunctionError != "" {
		t.Fatalf("%+v, %v", res, err)
	}
	set, err := events.Call(t.Context(), inv, events.AssertionKeys{})
	if err != nil || len(set.Keys) != 1 || !strings.Contains(string(set.Keys[0]), "r20400101-") {
		t.Errorf("got %s, %v, want the new key alone", set.Keys, err)
	}
}

// TestEventsAloneOnLambda needs neither a key-encryption key nor a registry.
func TestEventsAloneOnLambda(t *testing.T) {
	r := hosttest.NewRuntime(t)
	startOn(t, r, environment("SLUICE_DATA="+t.TempDir(), "SLUICE_SERVE=events", "SLUICE_LAMBDA_ACCEPT=direct,schedule:cron", "SLUICE_LAMBDA_DIRECT=router"))
	inv := invoker(t, r)
	record := eventstore.Record{ID: eventstore.RecordID{Writer: 1, Counter: 1}, Tenant: "T", Device: "D", Message: []byte("x")}
	got, err := events.Call(t.Context(), inv, events.EventAppend{AppendRequest: eventstore.AppendRequest{Records: []eventstore.Record{record}}})
	if err != nil || len(got.Results) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	purge := events.EventPurge{PurgeRequest: eventstore.PurgeRequest{Tenant: "T", Partition: got.Results[0].Partition}}
	if _, err := inv.Invoke(t.Context(), purge); err == nil {
		t.Error("a router purges")
	}
	res, err := r.Invoke(t.Context(), "cron", []byte(`{"source":"aws.events","detail-type":"Scheduled Event","time":"2040-01-01T00:00:00Z","detail":{}}`))
	if err != nil || res.FunctionError != "" {
		t.Errorf("the schedule: %s, %v", res.Payload, err)
	}
}

// TestNotificationAloneOnLambda needs no store at all, nor a data folder.
func TestNotificationAloneOnLambda(t *testing.T) {
	r := hosttest.NewRuntime(t)
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	startOn(t, r, environment("SLUICE_DATA="+nowhere, "SLUICE_SERVE=notification", "SLUICE_LAMBDA_ACCEPT=direct", "SLUICE_LAMBDA_DIRECT=router"))
	derives(t, invoker(t, r))
	if _, err := os.Stat(nowhere); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a data folder was made: %v", err)
	}
}

// sqs is a batch of one message.
func sqs(t *testing.T, e event.Event) []byte {
	t.Helper()
	body, err := e.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(map[string]any{"Records": []any{map[string]any{"messageId": "1", "eventSource": "aws:sqs", "body": string(body)}}})
	if err != nil {
		t.Fatal(err)
	}
	return payload
}
