package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

const (
	tries        = 3
	firstBackoff = 50 * time.Millisecond
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
	// MaxConns bounds connections to the host, 0 = 64. Calls beyond wait inside their deadline.
	MaxConns int
}

// Invoker calls functions over HTTP. Safe for concurrent use.
type Invoker struct {
	url    string
	source string
	log    *slog.Logger
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
		url: u.String(), source: cfg.Source, log: cfg.Log, pool: pool,
		client: &http.Client{Transport: pool, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a call carries secrets: it goes nowhere else
		}},
	}, nil
}

// Close gives idle connections back. Calls in flight end with their contexts.
func (i *Invoker) Close() { i.pool.CloseIdleConnections() }

// Invoke implements [events.Invoker]: up to three tries inside the deadline of
// ctx, all with one id, with full-jitter back-off from 50 ms, or after the time
// that the answer names.
func (i *Invoker) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, events.DefaultBudget)
		defer cancel()
	}
	id, made := events.NewID(), time.Now()
	for try := 1; ; try++ {
		rep, err := i.try(ctx, req, id, made)
		if err == nil {
			return rep, nil
		}
		if try == tries || ctx.Err() != nil || !again(err, try) {
			return nil, err
		}
		if !pause(ctx, backoff(try, iot.RetryAfter(err))) {
			return nil, err // the deadline would pass first: what is known now is the answer
		}
		i.log.DebugContext(ctx, "function call repeated", "type", req.EventType(), "try", try+1, "err", err)
	}
}

// again reports whether a call that failed with err may be repeated: a quota
// only after the time it names, an unknown error once.
func again(err error, try int) bool {
	row := status.Of(err)
	switch {
	case row.Once:
		return try == 1
	case row.Err == iot.ErrQuota:
		return iot.RetryAfter(err) > 0
	}
	return row.Retry
}

// backoff returns how long to wait after a failed try.
func backoff(try int, retryAfter time.Duration) time.Duration {
	return max(retryAfter, rand.N(firstBackoff<<(try-1)))
}

// pause waits for d and reports false at once where ctx ends earlier.
func pause(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (i *Invoker) try(ctx context.Context, req events.Request, id string, made time.Time) (events.Reply, error) {
	deadline, _ := ctx.Deadline()
	call, err := events.EncodeRequest(req, events.Envelope{Source: i.source, ID: id, Time: made, Timeout: time.Until(deadline)})
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
	resp, err := i.client.Do(post)
	if err != nil {
		return nil, i.lost(ctx, req, err)
	}
	defer resp.Body.Close()
	data, err := cehttp.ReadBody(resp.Body, resp.ContentLength, MaxReplyBytes)
	if err != nil {
		return nil, i.lost(ctx, req, err)
	}
	return answer(req, resp, data)
}

// lost is a call without an answer. Whose address it was is for the log only.
func (i *Invoker) lost(ctx context.Context, req events.Request, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return iot.Errorf(iot.ErrTimeout, "timed out")
	case ctx.Err() != nil:
		return events.ErrorOf(ctx.Err())
	}
	i.log.WarnContext(ctx, "function not reached", "type", req.EventType(), "tenant", string(req.Tenant()), "err", err)
	return iot.Errorf(iot.ErrUnavailable, "temporarily unavailable")
}

// answer turns a response into a reply or an error. A response that is no
// CloudEvent comes from something in between, and only its status counts.
func answer(req events.Request, resp *http.Response, data []byte) (events.Reply, error) {
	e, err := cehttp.Read(resp.Header, data)
	if err != nil {
		return nil, bare(resp)
	}
	rep, err := events.DecodeReply(req, &e)
	if err == nil && resp.StatusCode >= 300 {
		return nil, bare(resp)
	}
	return rep, withRetryAfter(err, resp)
}

// bare is an answer that no function gave: a proxy's, a platform's, or that of
// a host which does not admit this component. Whatever the status, it says
// nothing about a tenant or device.
func bare(resp *http.Response) error {
	e := iot.Errorf(iot.ErrUnavailable, "the function host answered %d without a CloudEvent", resp.StatusCode)
	if resp.StatusCode == http.StatusGatewayTimeout {
		e.Sentinel = iot.ErrTimeout
	}
	return withRetryAfter(e, resp)
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
