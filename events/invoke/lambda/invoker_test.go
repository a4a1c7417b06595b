package lambda_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke"
	"github.com/sluice-iot/sluice/events/invoke/lambda"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

var keys = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret", SessionToken: "session"}, nil
})

// api answers the nth invocation as the test says.
func api(t *testing.T, change func(*lambda.Config), answer func(n int, w http.ResponseWriter, call *event.Event)) (*lambda.Invoker, *atomic.Int32) {
	t.Helper()
	var n atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/2015-03-31/functions/sluice-identity%3Alive/invocations" && r.URL.Path != "/2015-03-31/functions/sluice-identity:live/invocations" {
			t.Errorf("path %s", r.URL.Path)
		}
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=AKID/") || !strings.Contains(r.Header.Get("Authorization"), "/eu-north-1/lambda/") {
			t.Errorf("Authorization %q", r.Header.Get("Authorization"))
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		var call event.Event
		if err := call.UnmarshalJSON(body); err != nil {
			t.Error(err)
		}
		answer(int(n.Add(1)), w, &call)
	}))
	t.Cleanup(srv.Close)
	cfg := lambda.Config{Function: "sluice-identity:live", Source: "//sluice.test/adapters/a-0", Region: "eu-north-1", Endpoint: srv.URL, Credentials: keys}
	if change != nil {
		change(&cfg)
	}
	inv, err := lambda.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inv.Close)
	return inv, &n
}

func reply(t *testing.T, w http.ResponseWriter, call *event.Event, fail error) {
	t.Helper()
	out := events.EncodeError(call, "//sluice.test/functions/tenant", fail, time.Now())
	if fail == nil {
		var err error
		out, err = events.EncodeReply(call, "//sluice.test/functions/tenant", &events.TenantGot{TenantObject: events.TenantObject{ID: "T"}, CacheFor: time.Minute}, time.Now())
		if err != nil {
			t.Error(err)
		}
	}
	b, err := out.MarshalJSON()
	if err != nil {
		t.Error(err)
	}
	_, _ = w.Write(b)
}

func TestAnswers(t *testing.T) {
	functionError := func(payload string) func(*testing.T, http.ResponseWriter, *event.Event) {
		return func(_ *testing.T, w http.ResponseWriter, _ *event.Event) {
			w.Header().Set("X-Amz-Function-Error", "Unhandled")
			_, _ = io.WriteString(w, payload)
		}
	}
	service := func(code int, kind string, header ...string) func(*testing.T, http.ResponseWriter, *event.Event) {
		return func(_ *testing.T, w http.ResponseWriter, _ *event.Event) {
			w.Header().Set("X-Amzn-ErrorType", kind)
			w.Header().Set("Content-Type", "application/json")
			if len(header) > 0 {
				w.Header().Set("Retry-After", header[0])
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, `{"Message":"no"}`)
		}
	}
	good := func(t *testing.T, w http.ResponseWriter, call *event.Event) { reply(t, w, call, nil) }
	fails := func(err error) func(*testing.T, http.ResponseWriter, *event.Event) {
		return func(t *testing.T, w http.ResponseWriter, call *event.Event) { reply(t, w, call, err) }
	}
	for _, tt := range []struct {
		name   string
		answer []func(*testing.T, http.ResponseWriter, *event.Event) // the last one repeats
		tries  int32
		want   error
		after  time.Duration
	}{
		{"reply", []func(*testing.T, http.ResponseWriter, *event.Event){good}, 1, nil, 0},
		{"error", []func(*testing.T, http.ResponseWriter, *event.Event){fails(iot.Errorf(iot.ErrForbidden, "disabled"))}, 1, iot.ErrForbidden, 0},
		{"unavailable, then a reply", []func(*testing.T, http.ResponseWriter, *event.Event){fails(iot.Errorf(iot.ErrUnavailable, "x")), good}, 2, nil, 0},
		{"crashed", []func(*testing.T, http.ResponseWriter, *event.Event){functionError(`{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 1 Error: exit"}`)}, 2, status.ErrInternal, 0},
		{"timed out", []func(*testing.T, http.ResponseWriter, *event.Event){functionError(`{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: 1 Error: Task timed out after 3.00 seconds"}`)}, 3, iot.ErrTimeout, 0},
		{"timed out, as it used to be said", []func(*testing.T, http.ResponseWriter, *event.Event){functionError(`{"errorMessage":"2026-11-22T20:00:00Z 1 Task timed out after 3.00 seconds"}`)}, 3, iot.ErrTimeout, 0},
		{"throttled", []func(*testing.T, http.ResponseWriter, *event.Event){service(429, "TooManyRequestsException", "3600")}, 1, iot.ErrQuota, time.Hour},
		{"throttled, then a reply", []func(*testing.T, http.ResponseWriter, *event.Event){service(429, "TooManyRequestsException"), good}, 2, nil, 0},
		{"Lambda is down", []func(*testing.T, http.ResponseWriter, *event.Event){service(500, "ServiceException")}, 3, iot.ErrUnavailable, 0},
		{"no such function", []func(*testing.T, http.ResponseWriter, *event.Event){service(404, "ResourceNotFoundException")}, 3, iot.ErrUnavailable, 0},
		{"not admitted", []func(*testing.T, http.ResponseWriter, *event.Event){service(403, "AccessDeniedException")}, 3, iot.ErrUnavailable, 0},
		{"too large for Lambda", []func(*testing.T, http.ResponseWriter, *event.Event){service(413, "RequestTooLargeException")}, 1, iot.ErrTooLarge, 0},
		{"no CloudEvent", []func(*testing.T, http.ResponseWriter, *event.Event){func(_ *testing.T, w http.ResponseWriter, _ *event.Event) { _, _ = io.WriteString(w, `null`) }}, 3, iot.ErrUnavailable, 0},
		{"cut", []func(*testing.T, http.ResponseWriter, *event.Event){func(*testing.T, http.ResponseWriter, *event.Event) { panic(http.ErrAbortHandler) }}, 3, iot.ErrUnavailable, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex // a request that is cut orders nothing
			ids := map[string]bool{}
			inv, tries := api(t, nil, func(n int, w http.ResponseWriter, call *event.Event) {
				mu.Lock()
				ids[call.ID()] = true
				mu.Unlock()
				tt.answer[min(n, len(tt.answer))-1](t, w, call)
			})
			got, err := events.Call(t.Context(), inv, events.TenantGet{ID: "T"})
			if !errors.Is(err, tt.want) || tt.want == nil && (err != nil || got.ID != "T" || got.MaxAge() != time.Minute) {
				t.Errorf("got %+v, %v, want %v", got, err, tt.want)
			}
			if after := iot.RetryAfter(err); after != tt.after {
				t.Errorf("retry after %s, want %s", after, tt.after)
			}
			mu.Lock()
			defer mu.Unlock()
			if n := tries.Load(); n != tt.tries || len(ids) != 1 {
				t.Errorf("%d tries with %d ids, want %d with one", n, len(ids), tt.tries)
			}
		})
	}
}

func TestTooLargeIsNotSent(t *testing.T) {
	inv, tries := api(t, nil, func(int, http.ResponseWriter, *event.Event) {})
	_, err := inv.Invoke(t.Context(), events.Admit{Adapter: "a", Credential: &events.Credential{Certificate: make([]byte, lambda.MaxPayloadBytes)}})
	if !errors.Is(err, iot.ErrTooLarge) || !strings.Contains(err.Error(), "6291456") || tries.Load() != 0 {
		t.Errorf("%v after %d tries", err, tries.Load())
	}
}

func TestAResultWithoutEnd(t *testing.T) {
	inv, _ := api(t, nil, func(_ int, w http.ResponseWriter, _ *event.Event) {
		for range lambda.MaxPayloadBytes/(64<<10) + 4 {
			if _, err := io.WriteString(w, strings.Repeat("x", 64<<10)); err != nil {
				return
			}
		}
	})
	if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestTheCircuitOpens(t *testing.T) {
	inv, tries := api(t, func(c *lambda.Config) {
		c.Breaker = invoke.BreakerOptions{Failures: 3, Open: time.Hour, MaxOpen: time.Hour}
	},
		func(_ int, w http.ResponseWriter, _ *event.Event) { w.WriteHeader(502) })
	for range 2 {
		if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
	if tries.Load() != 3 {
		t.Errorf("%d tries", tries.Load())
	}
}

func TestTheDeadline(t *testing.T) {
	leave := make(chan struct{})
	inv, _ := api(t, nil, func(int, http.ResponseWriter, *event.Event) { <-leave })
	defer close(leave)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := inv.Invoke(ctx, events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

func TestTheEnvironment(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} {
		t.Setenv(name, "")
	}
	if _, err := lambda.New(lambda.Config{Function: "sluice-identity:live", Source: "//x"}); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("no region: %v", err)
	}
	for _, cfg := range []lambda.Config{{Function: "f", Region: "r"}, {Source: "//x", Region: "r"}} {
		if _, err := lambda.New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
	if _, err := lambda.New(lambda.Config{Function: "arn:aws:lambda:eu-north-1:123456789012:function:f:live", Source: "//x"}); err != nil {
		t.Errorf("an ARN has its region: %v", err)
	}
	inv, tries := api(t, func(c *lambda.Config) {
		t.Setenv("AWS_REGION", c.Region)
		t.Setenv("AWS_ENDPOINT_URL_LAMBDA", c.Endpoint)
		t.Setenv("AWS_ACCESS_KEY_ID", "AKID")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
		c.Region, c.Endpoint, c.Credentials = "", "", nil
	}, func(_ int, w http.ResponseWriter, call *event.Event) { reply(t, w, call, nil) })
	if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); err != nil || tries.Load() != 1 {
		t.Errorf("%v after %d tries", err, tries.Load())
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrUnavailable) || tries.Load() != 1 {
		t.Errorf("without keys: %v", err)
	}
}

func TestCredentialsOfAContainer(t *testing.T) {
	task := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "pod-token" {
			t.Errorf("Authorization %q", r.Header.Get("Authorization"))
		}
		_, _ = io.WriteString(w, `{"AccessKeyId":"AKID","SecretAccessKey":"secret","Token":"t","Expiration":"2100-01-01T00:00:00Z"}`)
	}))
	defer task.Close()
	inv, _ := api(t, func(c *lambda.Config) {
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", task.URL)
		t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod-token")
		c.Credentials = nil
	}, func(_ int, w http.ResponseWriter, call *event.Event) { reply(t, w, call, nil) })
	if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); err != nil {
		t.Error(err)
	}
}
