package lambda

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke"
	"github.com/sluice-iot/sluice/internal/awsenv"
	"github.com/sluice-iot/sluice/internal/iot"
)

// MaxPayloadBytes is the longest payload and result of a synchronous invocation.
const MaxPayloadBytes = 6 << 20

// Config says which function is asked and who asks. Function and Source are required.
type Config struct {
	Function string // name or ARN, of an alias or version where it should be one
	Source   string // CloudEvents source: //I/<component>/<instance>
	Log      *slog.Logger

	Region      string                  // "" = that of the ARN, else AWS_REGION
	Endpoint    string                  // URL of the Invoke API; "" = AWS_ENDPOINT_URL_LAMBDA, else that of the region
	Credentials aws.CredentialsProvider // nil = those of the environment, or of the container
	TLS         *tls.Config             // nil = the system's authorities

	// InFlight bounds invocations under way, 0 = 64; each costs an instance of the
	// function. Calls beyond wait inside their deadline.
	InFlight int
	Breaker  invoke.BreakerOptions
}

// Invoker calls functions on Lambda. Safe for concurrent use.
type Invoker struct {
	function string
	log      *slog.Logger
	client   *lambda.Client
	guard    *invoke.Guard
	pool     *http.Transport
}

var _ events.Invoker = (*Invoker)(nil)

// New checks cfg and opens nothing.
func New(cfg Config) (*Invoker, error) {
	if cfg.Function == "" || cfg.Source == "" {
		return nil, errors.New("lambda invoker: function and the caller's source are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.InFlight <= 0 {
		cfg.InFlight = invoke.DefaultInFlight
	}
	if cfg.Credentials == nil {
		cfg.Credentials = awsenv.Credentials()
	}
	if cfg.Region == "" {
		var err error
		if cfg.Region, err = regionOf(cfg.Function); err != nil {
			return nil, fmt.Errorf("lambda invoker: %w", err)
		}
	}
	i := &Invoker{
		function: cfg.Function, log: cfg.Log,
		guard: invoke.NewGuard(invoke.Options{Source: cfg.Source, Log: cfg.Log.With("function", cfg.Function), InFlight: cfg.InFlight, Breaker: cfg.Breaker}),
		pool: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: cfg.TLS, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: cfg.InFlight, MaxConnsPerHost: cfg.InFlight,
			IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 5 * time.Second,
		},
	}
	i.client = lambda.New(lambda.Options{
		Region: cfg.Region, Credentials: cfg.Credentials, BaseEndpoint: endpoint(cfg.Endpoint),
		HTTPClient: &http.Client{Transport: bounded{i.pool}, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a call carries secrets: it goes nowhere else
		}},
		Retryer: aws.NopRetryer{}, // the guard repeats calls, with one id
	})
	return i, nil
}

// Close gives idle connections back. Calls in flight end with their contexts.
func (i *Invoker) Close() { i.pool.CloseIdleConnections() }

// Invoke implements [events.Invoker]; see [invoke.Guard.Do]. iot.ErrTooLarge,
// without asking, for a request beyond [MaxPayloadBytes].
func (i *Invoker) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	return i.guard.Do(ctx, req, func(ctx context.Context, env events.Envelope) (events.Reply, invoke.Outcome, error) {
		return i.try(ctx, req, env)
	})
}

func (i *Invoker) try(ctx context.Context, req events.Request, env events.Envelope) (events.Reply, invoke.Outcome, error) {
	payload, err := encode(req, env)
	if err != nil {
		return nil, invoke.Aborted, err
	}
	out, err := i.client.Invoke(ctx, &lambda.InvokeInput{
		FunctionName: &i.function, InvocationType: types.InvocationTypeRequestResponse, Payload: payload,
	})
	if err != nil {
		return i.refused(ctx, req, err)
	}
	if out.FunctionError != nil {
		return nil, invoke.Answered, i.failed(ctx, req, *out.FunctionError, out.Payload)
	}
	var e event.Event
	if err := e.UnmarshalJSON(out.Payload); err != nil {
		i.log.ErrorContext(ctx, "function answered without a CloudEvent", "type", req.EventType(), "bytes", len(out.Payload))
		return nil, invoke.Answered, iot.Errorf(iot.ErrUnavailable, "the function answered without a CloudEvent")
	}
	rep, err := events.DecodeReply(req, &e)
	return rep, invoke.Answered, err
}

func encode(req events.Request, env events.Envelope) ([]byte, error) {
	call, err := events.EncodeRequest(req, env)
	if err != nil {
		return nil, events.ErrorOf(err)
	}
	payload, err := call.MarshalJSON()
	if err != nil {
		return nil, iot.Errorf(iot.ErrInvalid, "%s: %s", req.EventType(), err)
	}
	if len(payload) > MaxPayloadBytes {
		return nil, iot.Errorf(iot.ErrTooLarge, "%s has %d bytes, Lambda takes at most %d", req.EventType(), len(payload), MaxPayloadBytes)
	}
	return payload, nil
}
