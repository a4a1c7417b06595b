package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// Timeout is what a Post gets whose context has no deadline: a writer's own
	// caller waits meanwhile (contract: events, 4.2).
	Timeout = 500 * time.Millisecond

	// An ingress takes 1,000 CloudEvents and 1 MiB.
	defaultMaxBatch = 500
	defaultMaxBytes = 512 << 10
)

// SinkVariable names the environment variable that Knative sets to the URL that
// gets a copy of every fact: [Config].Sink.
const SinkVariable = "K_SINK"

// Config says where facts go. Name is required, and TLS for https.
type Config struct {
	Name string      // of the installation
	URLs []string    // of ingresses, such as https://routers.example:5674/events
	TLS  *tls.Config // trusted authorities and the component's own certificate

	// Fallback is the URL of a broker or queue that takes what a router did not:
	// it repeats that into the ingress. "" = none. Provisioned devices do not go
	// there: they are told again by whoever provisioned them.
	Fallback string
	// Queue takes what a router did not, in the place of Fallback; nil = none. It
	// is closed with the poster.
	Queue Queue
	// Sink gets a copy of every fact (K_SINK); "" = none. Where it is also the
	// fallback, a fact goes there once.
	Sink string
	// SinkTLS is for both; nil = the system's authorities.
	SinkTLS *tls.Config
	// SinkBatched posts batches to both, for a receiver that is known to take them.
	SinkBatched bool

	MaxBatch      int // CloudEvents in one request; 0 = 500
	MaxBatchBytes int // 0 = 512 KiB; a larger CloudEvent goes alone
	Resolve       Resolver
	Log           *slog.Logger
}

// Queue keeps facts until a router takes them. It says in the log what is wrong with it.
type Queue interface {
	events.Poster
	Close()
}

// Poster posts facts. Safe for concurrent use.
type Poster struct {
	cfg      Config
	log      *slog.Logger
	names    []*name
	fallback *sink
	sink     *sink
	m        counters
}

var _ events.Poster = (*Poster)(nil)

// New checks cfg and opens nothing.
func New(cfg Config) (*Poster, error) {
	if cfg.Name == "" {
		return nil, errors.New("facts: the name of the installation is missing")
	}
	if cfg.Fallback != "" && cfg.Queue != nil {
		return nil, errors.New("facts: a broker and a queue: want one place for what routers do not take")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxBatch <= 0 {
		cfg.MaxBatch = defaultMaxBatch
	}
	if cfg.MaxBatchBytes <= 0 {
		cfg.MaxBatchBytes = defaultMaxBytes
	}
	if cfg.Resolve == nil {
		cfg.Resolve = systemResolver
	}
	p := &Poster{cfg: cfg, log: cfg.Log}
	for _, text := range cfg.URLs {
		u, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("router ingress: %w", err)
		}
		if u.Scheme == "https" && cfg.TLS == nil {
			return nil, fmt.Errorf("router ingress %s: https needs a TLS configuration", text)
		}
		if u.Path == "" || u.Path == "/" {
			u.Path = "/events"
		}
		p.names = append(p.names, newName(p, u))
	}
	for _, s := range []struct {
		what, url string
		to        **sink
	}{{"broker of facts", cfg.Fallback, &p.fallback}, {"sink of facts", cfg.Sink, &p.sink}} {
		if s.url == "" {
			continue
		}
		u, err := parse(s.url)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.what, err)
		}
		*s.to = newSink(p, s.what, u)
	}
	if cfg.Fallback == cfg.Sink {
		p.fallback = p.sink
	}
	return p, nil
}

func parse(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is no URL", text)
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, fmt.Errorf("%q: want a URL such as https://routers.example:5674/events", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("%q: user and password do not belong there", u.Redacted())
	}
	return u, nil
}

// Close gives idle connections back. Posts in flight end with their contexts.
func (p *Poster) Close() {
	for _, n := range p.names {
		n.close()
	}
	for _, s := range []*sink{p.fallback, p.sink} {
		if s != nil {
			s.pool.CloseIdleConnections()
		}
	}
	if p.cfg.Queue != nil {
		p.cfg.Queue.Close()
	}
}

// item is a fact on its way.
type item struct {
	fact  events.Fact
	event event.Event
	json  []byte // structured
}

// Post implements [events.Poster]. What the fallback took counts as taken.
// That the sink did not get its copy is logged and counted, and is no error:
// to repeat the whole for it would repeat it for all others. Facts about the presence of
// devices go to the sink only: routers have them as events.
func (p *Poster) Post(ctx context.Context, facts []events.Fact) error {
	if len(facts) == 0 {
		return nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	changes, provisioned, presence, err := p.encode(facts)
	if err != nil {
		return err
	}
	var copied chan []item
	if p.sink != nil {
		copied = make(chan []item, 1)
		go func() {
			left, err := p.sink.post(ctx, slices.Concat(changes, provisioned, presence))
			p.sink.say(ctx, err)
			copied <- left
		}()
	}
	var targets []*target
	if len(changes)+len(provisioned) > 0 {
		targets, err = p.targets(ctx)
	}
	errs := []error{err}
	missed, postErr := p.spread(ctx, targets, changes, err != nil)
	errs = append(errs, postErr)
	if len(p.names) > 0 {
		errs = append(errs, p.tellOne(ctx, targets, provisioned))
	}
	var notCopied []item
	if copied != nil {
		notCopied = <-copied
	}
	if len(missed) > 0 && p.saved(ctx, missed, notCopied) {
		errs = errs[2:]
	}
	return errors.Join(errs...)
}

// Tell brings each fact to one router that takes it, and to nobody else.
// iot.ErrUnavailable when there is none.
func (p *Poster) Tell(ctx context.Context, facts []events.Fact) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	changes, provisioned, _, err := p.encode(facts)
	if err != nil {
		return err
	}
	targets, err := p.targets(ctx)
	return errors.Join(err, p.tellOne(ctx, targets, append(changes, provisioned...)))
}

// Copy brings facts to the sink, where there is one, and to nobody else.
func (p *Poster) Copy(ctx context.Context, facts []events.Fact) {
	if p.sink == nil {
		return
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	changes, provisioned, presence, err := p.encode(facts)
	if err == nil {
		_, err = p.sink.post(ctx, slices.Concat(changes, provisioned, presence))
	}
	p.sink.say(ctx, err)
}

// bounded gives ctx a deadline where it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, Timeout)
}

// saved reports whether the queue or the fallback has what was missed.
func (p *Poster) saved(ctx context.Context, missed, notCopied []item) bool {
	switch {
	case p.cfg.Queue != nil:
		return p.queued(ctx, missed)
	case p.fallback == nil:
		return false
	case p.fallback == p.sink: // it was asked already
		return len(notCopied) == 0
	}
	_, err := p.fallback.post(ctx, missed)
	p.fallback.say(ctx, err)
	return err == nil
}

func (p *Poster) queued(ctx context.Context, missed []item) bool {
	facts := make([]events.Fact, len(missed))
	for i := range missed {
		facts[i] = missed[i].fact
	}
	result := taken
	if err := p.cfg.Queue.Post(ctx, facts); err != nil {
		result = lostVerdict // it says itself what is wrong
	}
	p.m.queue.by[result].Add(int64(len(facts)))
	return result == taken
}

// encode tells facts apart by who takes them: every router, one of them, or the sink alone.
func (p *Poster) encode(facts []events.Fact) (changes, provisioned, presence []item, err error) {
	for _, f := range facts {
		e, err := events.EncodeFact(f, p.cfg.Name)
		if err != nil {
			return nil, nil, nil, err
		}
		b, err := e.MarshalJSON()
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", f.FactType(), err)
		}
		it := item{f, e, b}
		switch f.(type) {
		case events.DeviceProvisioned:
			provisioned = append(provisioned, it)
		case events.PresenceFact:
			presence = append(presence, it)
		default:
			changes = append(changes, it)
		}
	}
	return changes, provisioned, presence, nil
}

// targets are the routers behind all names. What is known stays in use where a
// name does not resolve, and the error says so.
func (p *Poster) targets(ctx context.Context) (all []*target, err error) {
	var errs []error
	for _, n := range p.names {
		list, err := n.targets(ctx)
		all, errs = append(all, list...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

// spread brings changes to every router at once, and returns those that one of
// them has not; all where some router may not be known.
func (p *Poster) spread(ctx context.Context, targets []*target, changes []item, unknown bool) (missed []item, err error) {
	if len(changes) == 0 {
		return nil, nil
	}
	if p.cfg.Queue != nil || p.fallback != nil && p.fallback != p.sink {
		var cancel context.CancelFunc
		ctx, cancel = shorter(ctx) // the fallback needs time of its own
		defer cancel()
	}
	batches := p.batches(changes)
	left := make([]bool, len(changes))
	errs := make([]error, len(targets))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			at, err := t.post(ctx, batches)
			errs[i] = err
			mu.Lock()
			defer mu.Unlock()
			for _, n := range at {
				left[n] = true
			}
		})
	}
	wg.Wait()
	for n := range changes {
		if left[n] || unknown {
			missed = append(missed, changes[n])
		}
	}
	return missed, errors.Join(errs...)
}

// shorter leaves a third of the time to what comes after.
func shorter(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, _ := ctx.Deadline()
	return context.WithTimeout(ctx, time.Until(deadline)*2/3)
}

// tellOne brings each provisioned device to one router that takes it: where one has no
// application that listens, another may have.
func (p *Poster) tellOne(ctx context.Context, targets []*target, provisioned []item) error {
	var errs []error
	for i := range provisioned {
		err := error(iot.Errorf(iot.ErrUnavailable, "there is no router"))
		for n, k := range rand.Perm(len(targets)) {
			deadline, _ := ctx.Deadline()
			each, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(targets)-n))
			_, err = targets[k].post(each, []batch{{items: provisioned[i : i+1]}})
			cancel()
			if err == nil {
				break
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// batch is a part of the items of one Post, of which the first has number at.
type batch struct {
	items []item
	at    int
}

// batches cuts items into what one request may hold.
func (p *Poster) batches(items []item) (list []batch) {
	for at := 0; at < len(items); {
		n, size := 0, 2
		for at+n < len(items) && n < p.cfg.MaxBatch && (n == 0 || size+len(items[at+n].json)+1 <= p.cfg.MaxBatchBytes) {
			size += len(items[at+n].json) + 1
			n++
		}
		list = append(list, batch{items[at : at+n], at})
		at += n
	}
	return list
}

// body is a JSON array.
func (b batch) body() []byte {
	size := 2
	for i := range b.items {
		size += len(b.items[i].json) + 1
	}
	out := append(make([]byte, 0, size), '[')
	for i := range b.items {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, b.items[i].json...)
	}
	return append(out, ']')
}
