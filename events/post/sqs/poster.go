package sqs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/awsenv"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// Timeout is what a Post gets whose context has no deadline.
	Timeout = 2 * time.Second

	// SQS takes 10 messages and 256 KiB in one request everywhere.
	maxMessages = 10
	maxBytes    = 256 << 10
	// workers is how many requests one Post has under way.
	workers = 8
)

// Config says which queue. Name and URL are required.
type Config struct {
	Name string // of the installation
	URL  string // of the queue; requests go to its host
	Log  *slog.Logger

	Region      string                  // "" = that of the URL's host, else AWS_REGION
	Credentials aws.CredentialsProvider // nil = those of the environment, or of the container
}

// Poster sends facts to one queue. Safe for concurrent use.
type Poster struct {
	name, queue string
	log         *slog.Logger
	client      *sqs.Client
	pool        *http.Transport

	mu   sync.Mutex
	said string
}

var _ events.Poster = (*Poster)(nil)

// New checks cfg and opens nothing.
func New(cfg Config) (*Poster, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case cfg.Name == "":
		return nil, errors.New("queue of facts: the name of the installation is missing")
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "", strings.Trim(u.Path, "/") == "":
		return nil, fmt.Errorf("queue of facts: %q: want the URL of a queue such as https://sqs.eu-central-1.amazonaws.com/123456789012/notices", cfg.URL)
	case u.User != nil:
		return nil, errors.New("queue of facts: user and password do not belong into its URL")
	}
	if cfg.Region == "" {
		if cfg.Region = regionOf(u.Hostname()); cfg.Region == "" {
			return nil, fmt.Errorf("queue of facts %s: no region: set AWS_REGION", cfg.URL)
		}
	}
	if cfg.Credentials == nil {
		cfg.Credentials = awsenv.Credentials()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Poster{name: cfg.Name, queue: cfg.URL, log: cfg.Log, pool: &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: workers, MaxConnsPerHost: 2 * workers,
		IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 5 * time.Second,
	}}
	p.client = sqs.New(sqs.Options{
		Region: cfg.Region, Credentials: cfg.Credentials, BaseEndpoint: aws.String(u.Scheme + "://" + u.Host),
		HTTPClient: &http.Client{Transport: p.pool, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
		// A writer's caller waits: one more try, soon, or the feed has it.
		Retryer: retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts = 2
			r.MaxBackoff = 20 * time.Millisecond
		}),
	})
	return p, nil
}

// regionOf reads sqs.REGION.amazonaws.com and its like.
func regionOf(host string) string {
	parts := strings.Split(host, ".")
	if len(parts) > 3 && parts[0] == "sqs" && parts[2] == "amazonaws" {
		return parts[1]
	}
	return awsenv.Region()
}

// Close gives idle connections back. Posts in flight end with their contexts.
func (p *Poster) Close() { p.pool.CloseIdleConnections() }

// Post implements [events.Poster]: nil when the queue has all facts. Some may be
// in it after an error; facts may come twice.
func (p *Poster) Post(ctx context.Context, facts []events.Fact) error {
	if len(facts) == 0 {
		return nil
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, Timeout)
		defer cancel()
	}
	requests, err := p.encode(facts)
	if err == nil {
		err = p.sendAll(ctx, requests)
	}
	p.say(ctx, err)
	return err
}

// encode cuts facts into what one request may hold.
func (p *Poster) encode(facts []events.Fact) (requests [][]types.SendMessageBatchRequestEntry, err error) {
	var now []types.SendMessageBatchRequestEntry
	size := 0
	for _, f := range facts {
		e, err := events.EncodeFact(f, p.name)
		if err != nil {
			return nil, err
		}
		b, err := e.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.FactType(), err)
		}
		if len(b) > maxBytes {
			return nil, iot.Errorf(iot.ErrTooLarge, "%s has %d bytes, a queue carries at most %d", f.FactType(), len(b), maxBytes)
		}
		if len(now) == maxMessages || size+len(b) > maxBytes {
			requests, now, size = append(requests, now), nil, 0
		}
		now, size = append(now, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(len(now))), MessageBody: aws.String(string(b))}), size+len(b)
	}
	return append(requests, now), nil
}

func (p *Poster) sendAll(ctx context.Context, requests [][]types.SendMessageBatchRequestEntry) error {
	errs := make([]error, len(requests))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(workers, len(requests)) {
		wg.Go(func() {
			for n := range next {
				errs[n] = p.send(ctx, requests[n])
			}
		})
	}
	for n := range requests {
		next <- n
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err // one says it for all: what fails is the queue
		}
	}
	return nil
}

func (p *Poster) send(ctx context.Context, entries []types.SendMessageBatchRequestEntry) error {
	out, err := p.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &p.queue, Entries: entries})
	switch {
	case err != nil && ctx.Err() != nil:
		return iot.Errorf(iot.ErrTimeout, "the queue of facts did not answer in time")
	case err != nil:
		return iot.Errorf(iot.ErrUnavailable, "the queue of facts is not reached: %v", err)
	case len(out.Failed) > 0:
		f := out.Failed[0]
		return iot.Errorf(iot.ErrUnavailable, "the queue of facts refused %d of %d: %s %.200s", len(out.Failed), len(entries), aws.ToString(f.Code), aws.ToString(f.Message))
	}
	return nil
}

// say logs a failure when its kind is another than the last time, and its end.
func (p *Poster) say(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	p.mu.Lock()
	said := p.said
	p.said = text
	p.mu.Unlock()
	switch {
	case (said == "") == (text == ""):
	case text == "":
		p.log.InfoContext(ctx, "facts are queued again", "queue", p.queue)
	default:
		p.log.WarnContext(ctx, "facts are not queued", "queue", p.queue, "err", err)
	}
}
