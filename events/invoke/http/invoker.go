package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/events/invoke"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// MaxReplyBytes is the longest reply that is read: a tenant with many trust
	// anchors stays far below.
	MaxReplyBytes = 4 << 20
	// maxIdle bounds connections kept open to one host.
	maxIdle = 64
)

// Config says where functions are and who asks. URL and Source are required.
type Config struct {
	URL    string      // of the function host: https, or http to a loopback address in tests
	Source string      // CloudEvents source: //I/<component>/<instance>
	TLS    *tls.Config // trusted authorities and the component's own certificate; nil = the system's
	Log    *slog.Logger
	// Token, if not nil, gives the bearer token of each try, for hosts that are not
	// reached by a client certificate.
	Token func(context.Context) (string, error)
	// MaxConns bounds connections to the host, and calls under way, 0 = 64. Calls
	// beyond wait inside their deadline.
	MaxConns int
	Breaker  invoke.BreakerOptions
}

// Invoker calls functions over HTTP. Safe for concurrent use.
type Invoker struct {
	url    string
	token  func(context.Context) (string, error)
	log    *slog.Logger
	guard  *invoke.Guard
	client *http.Client
	pool   *http.Transport
}

var _ events.Invoker = (*Invoker)(nil)

// New checks cfg and opens nothing.
func New(cfg Config) (*Invoker, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return nil, fmt.Errorf("function host %q: want a URL such as https://identity.sluice.svc", cfg.URL)
	}
	if cfg.Source == "" {
		return nil, errors.New("function host " + cfg.URL + ": the caller's source is missing")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = maxIdle
	}
	if u.Path == "" {
		u.Path = "/"
	}
	pool := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       cfg.TLS,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   maxIdle,
		MaxConnsPerHost:       cfg.MaxConns,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 10 * events.DefaultBudget,
	}
	return &Invoker{
		url: u.String(), token: cfg.Token, log: cfg.Log, pool: pool,
		guard: invoke.NewGuard(invoke.Options{Source: cfg.Source, Log: cfg.Log.With("host", u.Host), InFlight: cfg.MaxConns, Breaker: cfg.Breaker}),
		client: &http.Client{Transport: pool, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a call carries secrets: it goes nowhere else
		}},
	}, nil
}

// URL is where the functions are.
func (i *Invoker) URL() string { return i.url }

// Close gives idle connections back. Calls in flight end with their contexts.
func (i *Invoker) Close() { i.pool.CloseIdleConnections() }

// Invoke implements [events.Invoker]; see [invoke.Guard.Do].
func (i *Invoker) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	return i.guard.Do(ctx, req, func(ctx context.Context, env events.Envelope) (events.Reply, invoke.Outcome, error) {
		return i.try(ctx, req, env)
	})
}

func (i *Invoker) try(ctx context.Context, req events.Request, env events.Envelope) (events.Reply, invoke.Outcome, error) {
	post, err := i.post(ctx, req, env)
	if err != nil {
		return nil, invoke.Aborted, err
	}
	resp, err := i.client.Do(post)
	if err != nil {
		return i.lost(ctx, req, err)
	}
	defer resp.Body.Close()
	data, err := cehttp.ReadBody(resp.Body, resp.ContentLength, MaxReplyBytes)
	if err != nil {
		return i.lost(ctx, req, err)
	}
	return answer(req, resp, data)
}

// post makes the request of one try.
func (i *Invoker) post(ctx context.Context, req events.Request, env events.Envelope) (*http.Request, error) {
	call, err := events.EncodeRequest(req, env)
	if err != nil {
		return nil, events.ErrorOf(err)
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url, bytes.NewReader(call.Data()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.EventType(), err)
	}
	if _, err := cehttp.WriteRequest(post.Header, &call); err != nil {
		return nil, iot.Errorf(iot.ErrInvalid, "%s: %s", req.EventType(), err)
	}
	post.Header["Idempotency-Key"] = nil // net/http repeats by itself on a connection that turned out closed
	if i.token != nil {
		token, err := i.token(ctx)
		if err != nil {
			i.log.ErrorContext(ctx, "no token for the function host", "err", err)
			return nil, iot.Errorf(iot.ErrUnavailable, "temporarily unavailable")
		}
		post.Header.Set("Authorization", "Bearer "+token)
	}
	return post, nil
}

// lost is a try without an answer. Whose address it was is for the log only.
func (i *Invoker) lost(ctx context.Context, req events.Request, err error) (events.Reply, invoke.Outcome, error) {
	if outcome, gone := invoke.Gone(ctx); gone != nil {
		return nil, outcome, gone
	}
	i.log.WarnContext(ctx, "function not reached", "type", req.EventType(), "tenant", string(req.Tenant()), "err", err)
	return nil, invoke.Lost, iot.Errorf(iot.ErrUnavailable, "temporarily unavailable")
}

// answer turns a response into a reply or an error. A response that is no
// CloudEvent comes from something in between, and only its status counts.
func answer(req events.Request, resp *http.Response, data []byte) (events.Reply, invoke.Outcome, error) {
	e, err := cehttp.Read(resp.Header, data)
	if err != nil {
		return bare(resp)
	}
	rep, err := events.DecodeReply(req, &e)
	if err == nil && resp.StatusCode >= 300 {
		return bare(resp)
	}
	return rep, invoke.Answered, withRetryAfter(err, resp)
}

// bare is an answer that no function gave: a proxy's, a platform's, or that of
// a host which does not admit this component. Whatever the status, it says
// nothing about a tenant or device.
func bare(resp *http.Response) (events.Reply, invoke.Outcome, error) {
	e := iot.Errorf(iot.ErrUnavailable, "the function host answered %d without a CloudEvent", resp.StatusCode)
	outcome := invoke.Answered // who refuses this component is there
	if resp.StatusCode >= 500 {
		outcome = invoke.Lost
	}
	if resp.StatusCode == http.StatusGatewayTimeout {
		e.Sentinel = iot.ErrTimeout
	}
	return nil, outcome, withRetryAfter(e, resp)
}

// withRetryAfter adds the header Retry-After where the answer itself named no time.
func withRetryAfter(err error, resp *http.Response) error {
	var e *iot.Error
	if !errors.As(err, &e) || e.RetryAfter > 0 || (resp.StatusCode != 429 && resp.StatusCode != 503) {
		return err
	}
	if s, convErr := strconv.Atoi(resp.Header.Get("Retry-After")); convErr == nil && s > 0 {
		e.RetryAfter = time.Duration(min(s, 3600)) * time.Second
	}
	return err
}
