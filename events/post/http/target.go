package http

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/events/invoke"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// resolveEvery is how long the addresses behind a name are believed.
	resolveEvery = time.Second
	// forgetAfter is how long a router is remembered whose address is gone.
	forgetAfter = time.Minute
	// maxTargets bounds the routers behind one name.
	maxTargets = 256

	// A router that does not answer is left alone for so long, at first and at most.
	firstPause, longestPause = time.Second, 10 * time.Second
	failures                 = 2
	// patience is how long a router may take that counts as one that answers.
	patience = 100 * time.Millisecond
)

// Resolver finds the addresses behind a host name.
type Resolver func(ctx context.Context, host string) ([]netip.Addr, error)

// systemResolver takes one family of addresses: in the other one there would
// be the same routers again. A name for both, such as localhost, means IPv4.
func systemResolver(ctx context.Context, host string) ([]netip.Addr, error) {
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	four := slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return !a.Unmap().Is4() })
	if len(four) > 0 {
		return four, err
	}
	return all, err
}

// name is one configured URL.
type name struct {
	p   *Poster
	url *url.URL

	turn     chan struct{} // one asks at a time
	mu       sync.Mutex
	current  []*target
	resolved time.Time
	known    map[netip.Addr]*target
}

func newName(p *Poster, u *url.URL) *name {
	return &name{p: p, url: u, turn: make(chan struct{}, 1), known: map[netip.Addr]*target{}}
}

// targets returns the routers behind the name.
func (n *name) targets(ctx context.Context) ([]*target, error) {
	if list, ok := n.fresh(); ok {
		return list, nil
	}
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
	}
	if list, ok := n.fresh(); ok {
		return list, nil
	}
	addrs, err := n.resolve(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.p.m.unresolved.Add(1)
		return n.current, iot.Errorf(iot.ErrUnavailable, "router name %s does not resolve: %v", n.url.Hostname(), err)
	}
	n.use(addrs, time.Now())
	return n.current, nil
}

func (n *name) fresh() ([]*target, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.current, !n.resolved.IsZero() && time.Since(n.resolved) < resolveEvery
}

func (n *name) resolve(ctx context.Context) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(n.url.Hostname()); err == nil {
		return []netip.Addr{a}, nil
	}
	addrs, err := n.p.cfg.Resolve(ctx, n.url.Hostname())
	switch {
	case err != nil:
		return nil, err
	case len(addrs) == 0:
		return nil, errors.New("no address")
	case len(addrs) > maxTargets:
		return nil, fmt.Errorf("%d addresses, at most %d are expected", len(addrs), maxTargets)
	}
	return addrs, nil
}

// use makes addrs the current ones. n is locked.
func (n *name) use(addrs []netip.Addr, now time.Time) {
	n.resolved, n.current = now, nil
	for _, a := range addrs {
		a = a.Unmap()
		t := n.known[a]
		if t == nil {
			t = newTarget(n, a)
			n.known[a] = t
		}
		if t.seen = now; !slices.Contains(n.current, t) {
			n.current = append(n.current, t)
		}
	}
	for a, t := range n.known {
		if now.Sub(t.seen) > forgetAfter {
			t.pool.CloseIdleConnections()
			delete(n.known, a)
		}
	}
}

func (n *name) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.known {
		t.pool.CloseIdleConnections()
	}
}

// target is one router.
type target struct {
	sender
	breaker *invoke.Breaker
	seen    time.Time // guarded by the name
}

func newTarget(n *name, a netip.Addr) *target {
	port := n.url.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[n.url.Scheme]
	}
	address := net.JoinHostPort(a.String(), port)
	t := &target{breaker: invoke.NewBreaker(invoke.BreakerOptions{Failures: failures, Open: firstPause, MaxOpen: longestPause}, nil)}
	t.sender = sender{url: n.url.String(), what: "router " + address, log: n.p.log, m: &n.p.m.ingress}
	t.pool = newPool(n.p.cfg.TLS)
	t.pool.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	t.client = newClient(t.pool)
	return t
}

// post brings batches to the router, in order, and returns the numbers of what it did not
// take. What it says it will never take is not among them: nobody else can make
// it take that.
func (t *target) post(ctx context.Context, batches []batch) (left []int, err error) {
	for i, b := range batches {
		pass, shut := t.breaker.Enter()
		if shut != nil {
			n := rest(batches[i:])
			t.m.skipped.Add(int64(len(n)))
			return append(left, n...), iot.Errorf(iot.ErrUnavailable, "%s did not answer before and is left alone for now", t.what)
		}
		began := time.Now()
		at, lost, batchErr := t.batch(ctx, b)
		switch {
		case !lost:
			t.breaker.Leave(pass, invoke.Answered)
		case ctx.Err() != nil && time.Since(began) < patience:
			t.breaker.Leave(pass, invoke.Aborted) // the writer's time was up, and says nothing about the router
		default:
			t.breaker.Leave(pass, invoke.Lost)
		}
		left = append(left, at...)
		if batchErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", t.what, batchErr))
		}
		if lost {
			return append(left, rest(batches[i+1:])...), err
		}
	}
	return left, err
}

func rest(batches []batch) (n []int) {
	for _, b := range batches {
		for i := range b.items {
			n = append(n, b.at+i)
		}
	}
	return n
}

// batch brings one batch; where the router will never take it, its halves, so that one
// fact does not keep back the others.
func (t *target) batch(ctx context.Context, b batch) (left []int, lost bool, err error) {
	v, err := t.send(ctx, len(b.items), func() (http.Header, []byte, error) {
		return http.Header{"Content-Type": {cehttp.BatchType}}, b.body(), nil
	})
	switch {
	case v == taken:
		return nil, false, nil
	case v == never && len(b.items) > 1:
		half := len(b.items) / 2
		left, lost, err = t.batch(ctx, batch{b.items[:half], b.at})
		if lost {
			return append(left, rest([]batch{{b.items[half:], b.at + half}})...), true, err
		}
		more, lost, err2 := t.batch(ctx, batch{b.items[half:], b.at + half})
		return append(left, more...), lost, errors.Join(err, err2)
	case v == never:
		return nil, false, err
	}
	return rest([]batch{b}), v == lostVerdict, err
}
