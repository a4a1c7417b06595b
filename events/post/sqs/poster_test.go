package sqs_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/post/sqs"
	"github.com/sluice-iot/sluice/internal/iot"
)

// queue is SQS as far as a sender sees it.
type queue struct {
	*httptest.Server
	mu       sync.Mutex
	code     int
	refuse   string // tenant whose facts are refused
	requests []int  // messages of each
	bodies   []string
}

type entry struct{ Id, MessageBody string }

func newQueue(t *testing.T) *queue {
	t.Helper()
	q := &queue{code: 200}
	q.Server = httptest.NewServer(q)
	t.Cleanup(q.Close)
	return q
}

func (q *queue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var in struct {
		QueueUrl string
		Entries  []entry
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil || r.Header.Get("X-Amz-Target") != "AmazonSQS.SendMessageBatch" ||
		!strings.Contains(r.Header.Get("Authorization"), "/eu-north-1/sqs/aws4_request") || !strings.HasSuffix(in.QueueUrl, "/1/notices") {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if q.code != 200 {
		w.WriteHeader(q.code)
		return
	}
	q.requests = append(q.requests, len(in.Entries))
	var out struct {
		Successful []map[string]string
		Failed     []map[string]any
	}
	for _, e := range in.Entries {
		if q.refuse != "" && strings.Contains(e.MessageBody, `"tenantid":"`+q.refuse+`"`) {
			out.Failed = append(out.Failed, map[string]any{"Id": e.Id, "Code": "InternalError", "SenderFault": false})
			continue
		}
		q.bodies = append(q.bodies, e.MessageBody)
		out.Successful = append(out.Successful, map[string]string{"Id": e.Id, "MessageId": "m" + e.Id, "MD5OfMessageBody": sum(e.MessageBody)})
	}
	_ = json.NewEncoder(w).Encode(out)
}

func fact(tenant string, n int) events.Fact {
	return events.RegistryChanged{Type: events.TypeDeviceChanged, TenantID: iot.TenantID(tenant), DeviceID: "D", Sequence: uint64(n), Change: "UPDATE", At: time.Unix(1, 0)}
}

func poster(t *testing.T, q *queue, log *strings.Builder) *sqs.Poster {
	t.Helper()
	p, err := sqs.New(sqs.Config{Name: "sluice.test", URL: q.URL + "/1/notices", Region: "eu-north-1", Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), Log: logger(log)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestFactsAreQueued(t *testing.T) {
	q, log := newQueue(t), &strings.Builder{}
	p := poster(t, q, log)
	var facts []events.Fact
	for n := range 23 {
		facts = append(facts, fact("T", n+1))
	}
	if err := p.Post(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(q.requests); !slices.Equal(q.requests, []int{3, 10, 10}) {
		t.Errorf("requests of %v messages", q.requests)
	}
	seen := map[uint64]bool{}
	for _, body := range q.bodies {
		e, err := events.ParseJSON([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		f, err := events.DecodeFact(&e)
		if err != nil {
			t.Fatal(err)
		}
		seen[f.(events.RegistryChanged).Sequence] = true
	}
	if len(seen) != 23 {
		t.Errorf("%d of 23 are queued", len(seen))
	}
	if err := p.Post(t.Context(), nil); err != nil || len(q.requests) != 3 {
		t.Errorf("nothing makes a request: %v", err)
	}
}

func TestWhatTheQueueDoesNotTakeIsAnError(t *testing.T) {
	q, log := newQueue(t), &strings.Builder{}
	p := poster(t, q, log)
	q.refuse = "U"
	err := p.Post(t.Context(), []events.Fact{fact("T", 1), fact("U", 1)})
	if !errors.Is(err, iot.ErrUnavailable) || !strings.Contains(err.Error(), "1 of 2") {
		t.Errorf("got %v", err)
	}
	q.mu.Lock()
	q.code = 503
	q.mu.Unlock()
	if err := p.Post(t.Context(), []events.Fact{fact("T", 2)}); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	q.mu.Lock()
	q.code, q.refuse = 200, ""
	q.mu.Unlock()
	if err := p.Post(t.Context(), []events.Fact{fact("T", 2)}); err != nil {
		t.Error(err)
	}
	q.CloseClientConnections()
	q.Close()
	if err := p.Post(t.Context(), []events.Fact{fact("T", 3)}); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if text := log.String(); strings.Count(text, "not queued") != 2 || strings.Count(text, "queued again") != 1 {
		t.Errorf("each outage is told of once:\n%s", text)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	for url, want := range map[string]string{
		"":                                       "want the URL of a queue",
		"https://sqs.eu-central-1.amazonaws.com": "want the URL of a queue",
		"ftp://host/1/notices":                   "want the URL of a queue",
		"https://u:p@host/1/notices":             "user and password",
		"https://host/1/notices":                 "AWS_REGION",
		"https://sqs.eu-central-1.amazonaws.com/1/notices": "",
	} {
		p, err := sqs.New(sqs.Config{Name: "sluice.test", URL: url})
		if want == "" {
			if err != nil {
				t.Error(err)
				continue
			}
			p.Close()
		} else if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
	if _, err := sqs.New(sqs.Config{URL: "https://sqs.eu-central-1.amazonaws.com/1/notices"}); err == nil {
		t.Error("without a name")
	}
}
