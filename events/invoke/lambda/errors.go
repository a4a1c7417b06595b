package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke"
	"github.com/sluice-iot/sluice/internal/awsenv"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

const (
	// throttledFor is when a throttled call may come again that AWS names no time for.
	throttledFor = time.Second
	// maxRetryAfter bounds what AWS names.
	maxRetryAfter = time.Hour
)

// refused is a try that Lambda did not run, or that found no Lambda.
func (i *Invoker) refused(ctx context.Context, req events.Request, err error) (events.Reply, invoke.Outcome, error) {
	if outcome, gone := invoke.Gone(ctx); gone != nil {
		return nil, outcome, gone
	}
	var throttled *types.TooManyRequestsException
	if errors.As(err, &throttled) {
		return nil, invoke.Answered, &iot.Error{Sentinel: iot.ErrQuota, Text: "too many calls at once", RetryAfter: retryAfter(throttled.RetryAfterSeconds)}
	}
	code := 0
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		code = answer.HTTPStatusCode()
	}
	i.log.WarnContext(ctx, "function not invoked", "function", i.function, "type", req.EventType(), "tenant", string(req.Tenant()), "status", code, "err", err)
	switch {
	case code == http.StatusRequestEntityTooLarge:
		return nil, invoke.Answered, iot.Errorf(iot.ErrTooLarge, "%s is longer than Lambda takes", req.EventType())
	case code == http.StatusTooManyRequests:
		return nil, invoke.Answered, &iot.Error{Sentinel: iot.ErrQuota, Text: "too many calls at once", RetryAfter: throttledFor}
	case code == 0 || code >= 500:
		return nil, invoke.Lost, iot.Errorf(iot.ErrUnavailable, "temporarily unavailable")
	}
	// Lambda is there and does not know the function or admit this component, which
	// says nothing about a tenant or device.
	return nil, invoke.Answered, iot.Errorf(iot.ErrUnavailable, "temporarily unavailable")
}

func retryAfter(seconds *string) time.Duration {
	if seconds != nil {
		if n, err := strconv.ParseFloat(*seconds, 64); err == nil && n > 0 {
			return min(time.Duration(n*float64(time.Second)), maxRetryAfter)
		}
	}
	return throttledFor
}

// failed is a function that ended without an answer of its own. What it said is
// for the log only, and only its kind: the text may hold what the request held.
func (i *Invoker) failed(ctx context.Context, req events.Request, kind string, payload []byte) error {
	var d struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}
	_ = json.Unmarshal(payload, &d)
	i.log.ErrorContext(ctx, "function failed", "function", i.function, "type", req.EventType(), "error", kind, "error-type", d.Type)
	if d.Type == "Sandbox.Timedout" || strings.Contains(d.Message, "Task timed out after") {
		return iot.Errorf(iot.ErrTimeout, "the function ran out of time")
	}
	return events.ErrorOf(status.ErrInternal)
}

// regionOf is the region of an ARN, or that of the environment.
func regionOf(function string) (string, error) {
	if parts := strings.Split(function, ":"); len(parts) >= 7 && parts[0] == "arn" && parts[3] != "" {
		return parts[3], nil
	}
	if r := awsenv.Region(); r != "" {
		return r, nil
	}
	return "", fmt.Errorf("function %q: no region: give an ARN, or set AWS_REGION", function)
}

func endpoint(url string) *string {
	if url == "" {
		url = os.Getenv("AWS_ENDPOINT_URL_LAMBDA")
	}
	if url == "" {
		url = os.Getenv("AWS_ENDPOINT_URL")
	}
	if url == "" {
		return nil
	}
	return &url
}

// bounded cuts responses that are longer than Lambda's can be.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, MaxPayloadBytes + 64<<10}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

var errTooLong = errors.New("the response is longer than a result of Lambda can be")

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
