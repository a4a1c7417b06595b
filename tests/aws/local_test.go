package aws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/sluice-iot/sluice/localstack/lambdahost"
	"github.com/sluice-iot/sluice/localstack/stack"
)

// start starts the deployment until the test ends.
func start(t *testing.T) *stack.Stack {
	t.Helper()
	if _, err := exec.LookPath("java"); err != nil {
		missing(t, "there is no Java runtime: run localstack/deps")
	}
	needs(t, "localstack/deps", "build", "dynamodb-local")
	needs(t, "localstack/deps", "build", "localstack", "bin", "python")
	sluice, archive := build(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := stack.Start(ctx, stack.Options{Repository: repository(t), Sluice: sluice, Archive: archive, Data: filepath.Join(t.TempDir(), "data"), Idle: time.Hour, NoticeRetry: 2,
		Parameters: map[string]string{"RotationSchedule": "rate(1 minute)", "NoticeReceives": "3"},
		Log:        slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		for _, address := range []string{s.Device, s.Northbound, s.Management, s.Invoke, strings.TrimPrefix(s.Events, "http://")} {
			if c, err := net.Dial("tcp", address); err == nil {
				c.Close()
				t.Errorf("somebody still listens on %s", address)
			}
		}
		if t.Failed() {
			for _, part := range []string{"identity", "events", "management", "router", "adapter"} {
				t.Logf("%s wrote:\n%s", part, s.Log(part))
			}
		}
	})
	return s
}

// TestLocally is one deployment through what it is for, in order.
func TestLocally(t *testing.T) {
	s := start(t)
	for _, start := range s.Host.Starts() {
		t.Logf("the function started: asked for work after %s, answered after %s", start.Init, start.First)
	}
	t.Run("telemetry", func(t *testing.T) { telemetry(t, s) })
	t.Run("from zero", func(t *testing.T) { fromZero(t, s) })
	t.Run("a device is disabled", func(t *testing.T) { disabled(t, s) })
	t.Run("a router is away", func(t *testing.T) { routerAway(t, s) })
	t.Run("a router stays away", func(t *testing.T) { routerStaysAway(t, s) })
	t.Run("keys are rotated", func(t *testing.T) { rotated(t, s) })
	t.Run("events", func(t *testing.T) { storedEvents(t, s) })
}

// upload sends telemetry as a device and returns the status.
func upload(t *testing.T, s *stack.Stack, user, body string) (code int, took time.Duration) {
	t.Helper()
	code, took, err := send(t.Context(), s, "telemetry", user, body)
	if err != nil {
		t.Fatal(err)
	}
	return code, took
}

// send sends a message of a kind as a device.
func send(ctx context.Context, s *stack.Stack, kind, user, body string) (code int, took time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Device+"/"+kind, strings.NewReader(body))
	if err != nil {
		return 0, 0, err
	}
	req.SetBasicAuth(user, stack.DevicePassword)
	req.Header.Set("Content-Type", "text/plain")
	req.Header.Set("QoS-Level", "1")
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, time.Since(began), nil
}

// becomes uploads until the answer is what it is to be.
func becomes(t *testing.T, s *stack.Stack, user string, want int) {
	t.Helper()
	eventually(t, "an upload of "+user, func() error {
		if code, _ := upload(t, s, user, "x"); code != want {
			return fmt.Errorf("answered %d, want %d", code, want)
		}
		return nil
	})
}

func manage(t *testing.T, s *stack.Stack, method, path, body string) {
	t.Helper()
	code, answer, err := s.Manage(t.Context(), method, path, []byte(body))
	if err != nil || code > 299 {
		t.Fatalf("%s %s: %d %s, %v", method, path, code, answer, err)
	}
}

// device makes a device with the password of the others.
func device(t *testing.T, s *stack.Stack, id string) (user string) {
	t.Helper()
	manage(t, s, http.MethodPost, "/v1/devices/"+stack.Tenant+"/"+id, "{}")
	manage(t, s, http.MethodPut, "/v1/credentials/"+stack.Tenant+"/"+id,
		fmt.Sprintf(`[{"type": "hashed-password", "auth-id": %q, "secrets": [{"pwd-plain": %q}]}]`, id, stack.DevicePassword))
	return id + "@" + stack.Tenant
}

func enable(t *testing.T, s *stack.Stack, id string, yes bool) {
	t.Helper()
	manage(t, s, http.MethodPut, "/v1/devices/"+stack.Tenant+"/"+id, fmt.Sprintf(`{"enabled": %t}`, yes))
}

// consume takes telemetry as the application until the test ends.
func consume(t *testing.T, s *stack.Stack) *amqp.Receiver {
	t.Helper()
	return receiver(t, s, "telemetry/"+stack.Tenant)
}

// receiver takes messages of an address as the application until the test ends.
func receiver(t *testing.T, s *stack.Stack, address string) *amqp.Receiver {
	t.Helper()
	conn, err := amqp.Dial(t.Context(), "amqp://"+s.Northbound, &amqp.ConnOptions{SASLType: amqp.SASLTypePlain(stack.App, stack.AppPassword)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	session, err := conn.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := session.NewReceiver(t.Context(), address, &amqp.ReceiverOptions{Credit: 100, SettlementMode: amqp.ReceiverSettleModeFirst.Ptr()})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// accept takes messages until there are no more.
func accept(t *testing.T, r *amqp.Receiver) {
	ctx := t.Context()
	go func() {
		for {
			m, err := r.Receive(ctx, nil)
			if err != nil || r.AcceptMessage(ctx, m) != nil {
				return
			}
		}
	}()
}

func telemetry(t *testing.T, s *stack.Stack) {
	r := consume(t, s)
	got := make(chan string, 1)
	go func() {
		m, err := r.Receive(t.Context(), nil)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- fmt.Sprintf("%s %v", m.GetData(), m.ApplicationProperties["device_id"])
		_ = r.AcceptMessage(t.Context(), m)
	}()
	becomes(t, s, stack.DeviceUser, http.StatusAccepted)
	if text := <-got; text != "x "+stack.DeviceID {
		t.Errorf("got %s", text)
	}
}

// fromZero has a device log in that the adapter does not know, while there is no
// instance of the function.
func fromZero(t *testing.T, s *stack.Stack) {
	accept(t, consume(t, s))
	becomes(t, s, stack.DeviceUser, http.StatusAccepted)
	for n := range 5 {
		user := device(t, s, fmt.Sprintf("cold-%d", n))
		toZero(t, s.Host)
		before := len(s.Host.Starts())
		code, took := upload(t, s, user, "from zero")
		if code != http.StatusAccepted {
			t.Errorf("the first upload is answered with %d", code)
		}
		_, known := upload(t, s, user, "again")
		starts := s.Host.Starts()
		if len(starts) <= before {
			t.Fatal("the function was not started")
		}
		first := starts[before]
		t.Logf("from zero: the upload took %s (of a known device %s); the function asked for work %s after its start and answered after %s",
			took.Round(time.Millisecond), known.Round(100*time.Microsecond), first.Init.Round(time.Millisecond), first.First.Round(time.Millisecond))
	}
}

func toZero(t *testing.T, hosts ...*lambdahost.Host) {
	t.Helper()
	for _, h := range hosts {
		eventually(t, "scaling to zero", func() error {
			h.ToZero()
			if n := h.Instances(); n > 0 {
				return fmt.Errorf("%d instances", n)
			}
			return nil
		})
	}
}

func disabled(t *testing.T, s *stack.Stack) {
	accept(t, consume(t, s))
	becomes(t, s, stack.DeviceUser, http.StatusAccepted)
	enable(t, s, stack.DeviceID, false)
	becomes(t, s, stack.DeviceUser, http.StatusNotFound)
	enable(t, s, stack.DeviceID, true)
	becomes(t, s, stack.DeviceUser, http.StatusAccepted)
}

// depth is how many messages a queue holds, also those that somebody has.
func depth(t *testing.T, s *stack.Stack, url string) (n int) {
	t.Helper()
	out, err := s.SQS.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible}})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range out.Attributes {
		k, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	return n
}

func holds(t *testing.T, s *stack.Stack, url string, want func(int) bool) {
	t.Helper()
	eventually(t, "the messages in "+url, func() error {
		if n := depth(t, s, url); !want(n) {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
}

func none(n int) bool { return n == 0 }

var repeatedFacts = regexp.MustCompile(`(?m)^sluice_router_notices_repeated_total ([0-9.e+]+)$`)

// repeated is how many facts came to the router that it had.
func repeated(t *testing.T, s *stack.Stack) float64 {
	t.Helper()
	resp, err := http.Get(s.RouterMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := repeatedFacts.FindSubmatch(text)
	if found == nil {
		t.Fatalf("the router does not say what was repeated:\n%s", text)
	}
	n, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// routerAway changes a device while the router cannot be told: the change waits in the
// queue and comes to the router when it is back.
func routerAway(t *testing.T, s *stack.Stack) {
	holds(t, s, s.Notices, none)
	before := depth(t, s, s.DeadLetters)
	s.StopRouter()
	eventually(t, "a change in the queue", func() error {
		enable(t, s, stack.DeviceID, false) // the caller waits 500 ms at most, which may be short for a queue on a busy machine
		if depth(t, s, s.Notices) == 0 {
			return fmt.Errorf("it is not queued")
		}
		return nil
	})
	if err := s.StartRouter(t.Context()); err != nil {
		t.Fatal(err)
	}
	holds(t, s, s.Notices, none)
	// A router that starts reads the feed, so it has the change twice.
	eventually(t, "the change at the router", func() error {
		if repeated(t, s) == 0 {
			return fmt.Errorf("its ingress took nothing that the feed had told of")
		}
		return nil
	})
	if n := depth(t, s, s.DeadLetters); n != before {
		t.Errorf("%d dead letters", n-before)
	}
	accept(t, consume(t, s))
	becomes(t, s, stack.DeviceUser, http.StatusNotFound)
}

// routerStaysAway is told of a change until nobody tries any more.
func routerStaysAway(t *testing.T, s *stack.Stack) {
	before := depth(t, s, s.DeadLetters)
	s.StopRouter()
	eventually(t, "a change in the queue", func() error {
		enable(t, s, stack.DeviceID, true)
		if depth(t, s, s.Notices) == 0 {
			return fmt.Errorf("it is not queued")
		}
		return nil
	})
	holds(t, s, s.DeadLetters, func(n int) bool { return n > before })
	holds(t, s, s.Notices, none)
	out, err := s.SQS.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &s.DeadLetters})
	if err != nil || len(out.Messages) == 0 {
		t.Fatalf("%v, %v", out, err)
	}
	has(t, *out.Messages[0].Body, `"type":"io.sluice.registry.device.changed"`, `"tenantid":"`+stack.Tenant+`"`)
	if err := s.StartRouter(t.Context()); err != nil { // which finds it in the feed
		t.Fatal(err)
	}
	accept(t, consume(t, s))
	becomes(t, s, stack.DeviceUser, http.StatusAccepted)
}

// rotated waits for the schedule, which is a rule of EventBridge.
func rotated(t *testing.T, s *stack.Stack) {
	eventually(t, "a second key", func() error {
		code, text, err := s.Manage(t.Context(), http.MethodGet, "/.well-known/jwks.json", nil)
		if err != nil {
			return err
		}
		var set struct{ Keys []struct{ Kid string } }
		if err := json.Unmarshal([]byte(text), &set); err != nil || len(set.Keys) < 2 {
			return fmt.Errorf("%d %s", code, text)
		}
		return nil
	})
	accept(t, consume(t, s))
	becomes(t, s, device(t, s, "after"), http.StatusAccepted)
}
