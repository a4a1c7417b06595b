package lambdahost_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	awslambda "github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/sluice-iot/sluice/localstack/lambdahost"
)

// TestMain makes the test binary the bootstrap of a function where Lambda starts it.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("AWS_LAMBDA_RUNTIME_API") == "":
		os.Exit(m.Run())
	case os.Getenv("START") == "fails":
		os.Exit(3)
	}
	awslambda.Start(func(ctx context.Context, in json.RawMessage) (any, error) {
		lc, _ := lambdacontext.FromContext(ctx)
		switch text := string(in); {
		case strings.Contains(text, "exit"):
			os.Exit(1)
		case strings.Contains(text, "fail"):
			return nil, errors.New("refused")
		case strings.Contains(text, "wait"):
			select {}
		case strings.Contains(text, "nap"):
			time.Sleep(300 * time.Millisecond)
		case strings.Contains(text, `"requestContext"`):
			return map[string]any{"statusCode": 201, "headers": map[string]string{"X-Kind": "test"}, "body": text}, nil
		}
		return map[string]any{"arn": lc.InvokedFunctionArn, "pid": os.Getpid(), "task": os.Getenv("LAMBDA_TASK_ROOT"), "own": os.Getenv("OWN")}, nil
	})
}

func host(t *testing.T, change func(*lambdahost.Config)) *lambdahost.Host {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := lambdahost.Config{Name: "f", Aliases: []string{"live", "url"}, Program: program, Dir: t.TempDir(), Env: []string{"OWN=yes"}, Timeout: 20 * time.Second, Idle: time.Hour, Output: t.Output()}
	if change != nil {
		change(&c)
	}
	h, err := lambdahost.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

type answer struct {
	ARN  string `json:"arn"`
	PID  int    `json:"pid"`
	Task string `json:"task"`
	Own  string `json:"own"`
}

func invoke(t *testing.T, h *lambdahost.Host, alias, payload string) (a answer) {
	t.Helper()
	res, err := h.Invoke(t.Context(), alias, []byte(payload))
	if err != nil || res.FunctionError != "" || json.Unmarshal(res.Payload, &a) != nil {
		t.Fatalf("%+v, %v", res, err)
	}
	return a
}

// settles waits until so many instances are there.
func settles(t *testing.T, h *lambdahost.Host, want int, each func()) {
	t.Helper()
	for h.Instances() != want {
		each()
		time.Sleep(5 * time.Millisecond)
	}
}

func TestInstancesComeAndGo(t *testing.T) {
	h := host(t, nil)
	if h.Instances() != 0 {
		t.Error("an instance before the first invocation")
	}
	first := invoke(t, h, "live", `"a"`)
	if !strings.HasSuffix(first.ARN, ":function:f:live") || first.Own != "yes" || first.Task == "" {
		t.Errorf("got %+v", first)
	}
	settles(t, h, 0, h.ToZero)
	second := invoke(t, h, "", `"a"`)
	if second.PID == first.PID || !strings.HasSuffix(second.ARN, ":function:f") {
		t.Errorf("got %+v after %+v", second, first)
	}
	if starts := h.Starts(); len(starts) != 2 || starts[1].Init <= 0 || starts[1].First < starts[1].Init {
		t.Errorf("starts: %+v", starts)
	}
	if _, err := h.Invoke(t.Context(), "other", nil); !errors.Is(err, lambdahost.ErrNotFound) {
		t.Errorf("by another alias: %v", err)
	}
	h.Close()
	if _, err := h.Invoke(t.Context(), "live", nil); !errors.Is(err, lambdahost.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestAnIdleInstanceEnds(t *testing.T) {
	h := host(t, func(c *lambdahost.Config) { c.Idle = 50 * time.Millisecond })
	invoke(t, h, "live", `"a"`)
	settles(t, h, 0, func() {})
}

func TestFailures(t *testing.T) {
	long, short := host(t, nil), host(t, func(c *lambdahost.Config) { c.Timeout = 200 * time.Millisecond })
	for payload, want := range map[string]string{`"fail"`: "refused", `"exit"`: "Runtime.ExitError", `"wait"`: "Task timed out after 0.20 seconds"} {
		h := long
		if payload == `"wait"` {
			h = short
		}
		res, err := h.Invoke(t.Context(), "live", []byte(payload))
		if err != nil || res.FunctionError != "Unhandled" || !strings.Contains(string(res.Payload), want) {
			t.Errorf("%s: %s %s, %v", payload, res.FunctionError, res.Payload, err)
		}
	}
	broken := host(t, func(c *lambdahost.Config) { c.Env = []string{"START=fails"} })
	if res, err := broken.Invoke(t.Context(), "live", []byte(`1`)); err != nil || !strings.Contains(string(res.Payload), "Runtime.ExitError") {
		t.Errorf("%s, %v", res.Payload, err)
	}
	if n := broken.Instances(); n != 0 {
		t.Errorf("%d instances that did not start", n)
	}
}

func TestOneInvocationAtATime(t *testing.T) {
	h := host(t, func(c *lambdahost.Config) { c.Instances = 2 })
	results := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := h.Invoke(t.Context(), "live", []byte(`"nap"`))
			results <- err
		}()
	}
	throttled := 0
	for range 3 {
		if err := <-results; errors.Is(err, lambdahost.ErrThrottled) {
			throttled++
		} else if err != nil {
			t.Error(err)
		}
	}
	if throttled != 1 || h.Instances() != 2 {
		t.Errorf("%d of 3 are throttled, %d instances", throttled, h.Instances())
	}
}

func post(t *testing.T, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestInvokeAPI(t *testing.T) {
	h := host(t, nil)
	other := host(t, func(c *lambdahost.Config) { c.Name = "other" })
	srv := httptest.NewServer(lambdahost.API(other, h))
	defer srv.Close()
	base := srv.URL + "/2015-03-31/functions/"
	for _, tt := range []struct {
		path, body string
		header     []string
		code       int
		kind, want string
	}{
		{"f:live/invocations", `1`, nil, 200, "", ":function:f:live"},
		{"other:live/invocations", `1`, nil, 200, "", ":function:other:live"},
		{"f/invocations?Qualifier=live", `1`, nil, 200, "", ":function:f:live"},
		{strings.ReplaceAll(h.ARN("live"), ":", "%3A") + "/invocations", `1`, nil, 200, "", ":function:f:live"},
		{"f:live/invocations", `"fail"`, nil, 200, "", "refused"},
		{"f:live/invocations", `1`, []string{"X-Amz-Invocation-Type", "Event"}, 202, "", ""},
		{"f:none/invocations", `1`, nil, 404, "ResourceNotFoundException", ""},
		{"g/invocations", `1`, nil, 404, "ResourceNotFoundException", ""},
		{"f:live", `1`, nil, 404, "ResourceNotFoundException", ""},
		{"f:live/invocations", strings.Repeat(" ", lambdahost.MaxPayloadBytes+1), nil, 413, "RequestTooLargeException", ""},
	} {
		resp, text := post(t, base+tt.path, tt.body, tt.header...)
		if resp.StatusCode != tt.code || resp.Header.Get("X-Amzn-ErrorType") != tt.kind || !strings.Contains(text, tt.want) {
			t.Errorf("%s: %d %s %s", tt.path, resp.StatusCode, resp.Header.Get("X-Amzn-ErrorType"), text)
		}
		if failed := resp.Header.Get("X-Amz-Function-Error") != ""; failed != (tt.want == "refused") {
			t.Errorf("%s %s: a function error: %t", tt.path, tt.body, failed)
		}
	}
}

func TestFunctionURL(t *testing.T) {
	h := host(t, nil)
	srv := httptest.NewServer(h.URL("url"))
	defer srv.Close()
	resp, text := post(t, srv.URL+"/v1/devices/T/a%2Fb?q=1+2", "{}", "Authorization", "Basic x")
	if resp.StatusCode != 201 || resp.Header.Get("X-Kind") != "test" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	for _, want := range []string{`"rawPath":"/v1/devices/T/a%2Fb"`, `"rawQueryString":"q=1+2"`, `"authorization":"Basic x"`, `"method":"POST"`, `"body":"e30="`, `"isBase64Encoded":true`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in %s", want, text)
		}
	}
	if resp, _ := post(t, srv.URL+"/fail", "{}"); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("a function that fails: %d", resp.StatusCode)
	}
}

// TestKilled ends an instance that is free and one that works: the invocation of that one
// fails, the next starts another.
func TestKilled(t *testing.T) {
	h := host(t, nil)
	first := invoke(t, h, "live", `1`)
	if n := h.Kill(); n != 0 || h.Instances() != 0 {
		t.Errorf("%d worked, %d are left", n, h.Instances())
	}
	if second := invoke(t, h, "live", `1`); second.PID == first.PID {
		t.Error("it lives")
	}
	failed := make(chan string, 1)
	go func() {
		res, err := h.Invoke(t.Context(), "live", []byte(`"wait"`))
		failed <- fmt.Sprintf("%s %v", res.Payload, err)
	}()
	for h.Kill() == 0 {
		time.Sleep(time.Millisecond)
	}
	if text := <-failed; !strings.Contains(text, "Runtime.ExitError") {
		t.Error(text)
	}
	invoke(t, h, "live", `1`)
	if n := h.Invocations(); n != 4 {
		t.Errorf("%d invocations, want 4", n)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := lambdahost.New(lambdahost.Config{}); err == nil {
		t.Error("no function")
	}
}
