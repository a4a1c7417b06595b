package http

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"

	cehttp "github.com/sluice-iot/sluice/events/http"
)

// sinkWorkers is how many requests to a sink one Post has under way.
const sinkWorkers = 8

// sink is a broker or another place that takes facts of every kind.
type sink struct {
	sender
	p *Poster
}

func newSink(p *Poster, what string, u *url.URL) *sink {
	s := &sink{p: p, sender: sender{url: u.String(), what: what, log: p.log, m: &p.m.sink}}
	s.pool = newPool(p.cfg.SinkTLS)
	s.pool.Proxy = http.ProxyFromEnvironment
	s.client = newClient(s.pool)
	return s
}

// post sends items, each in binary mode or all in batches, and returns those
// that were not taken.
func (s *sink) post(ctx context.Context, items []item) (left []item, err error) {
	parts := s.p.batches(items)
	if !s.p.cfg.SinkBatched {
		parts = parts[:0]
		for i := range items {
			parts = append(parts, batch{items[i : i+1], i})
		}
	}
	errs := make([]error, len(parts))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(sinkWorkers, len(parts)) {
		wg.Go(func() {
			for n := range next {
				_, errs[n] = s.tell(ctx, parts[n])
			}
		})
	}
	for n := range parts {
		next <- n
	}
	close(next)
	wg.Wait()
	for n := range parts {
		if errs[n] != nil {
			left, err = append(left, parts[n].items...), errs[n]
		}
	}
	return left, err
}

// tell makes one request. The log has its failure once for all of a Post.
func (s *sink) tell(ctx context.Context, b batch) (v verdict, err error) {
	if err := ctx.Err(); err != nil {
		s.m.skipped.Add(int64(len(b.items)))
		return lostVerdict, errors.New("no time left")
	}
	v, err = s.try(ctx, func() (http.Header, []byte, error) {
		h := http.Header{}
		if s.p.cfg.SinkBatched {
			h.Set("Content-Type", cehttp.BatchType)
			return h, b.body(), nil
		}
		body, err := cehttp.WriteRequest(h, &b.items[0].event)
		return h, body, err
	})
	s.m.by[v].Add(int64(len(b.items)))
	return v, err
}
