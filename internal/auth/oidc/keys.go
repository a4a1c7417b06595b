package oidc

import (
	"context"
	"crypto"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// freshFor is how long keys are used before the issuer is asked again, so that a
	// key that it withdrew stops being believed.
	freshFor = 5 * time.Minute
	// usableFor is how long keys are used while the issuer cannot be asked.
	usableFor = time.Hour
	// askEvery is the shortest time between two questions, whatever tokens name.
	askEvery = 10 * time.Second
	// askTimeout bounds one question.
	askTimeout = 3 * time.Second
)

// keys are those of one issuer.
type keys struct {
	fetch   *fetcher
	current atomic.Pointer[keySet]
	lastErr atomic.Pointer[error]

	turn  chan struct{} // held by who asks; guards asked
	asked time.Time
}

// keySet is what one question brought; never changed.
type keySet struct {
	list          []key
	tokenEndpoint string
	from          time.Time
}

func newKeys(f *fetcher) *keys { return &keys{fetch: f, turn: make(chan struct{}, 1)} }

// fault is what went wrong at the last question, for people.
func (k *keys) fault() string {
	if p := k.lastErr.Load(); p != nil {
		return (*p).Error()
	}
	return "asked for moments ago"
}

// find returns the key by that name for the algorithm. A token without a name is
// for the only key that fits. It returns errUnknownKey, or wraps iot.ErrUnavailable.
func (k *keys) find(ctx context.Context, kid, alg string) (crypto.PublicKey, error) {
	start := time.Now()
	set := k.current.Load()
	found, ok := set.find(kid, alg)
	age := set.age(start)
	switch {
	case ok && age < freshFor:
		return found, nil
	case ok && age < usableFor:
		// One login asks; the others need not wait for the answer.
		select {
		case k.turn <- struct{}{}:
			k.ask(ctx)
			<-k.turn
		default:
			return found, nil
		}
	default:
		if err := k.wait(ctx, start); err != nil {
			return nil, err
		}
	}
	next := k.current.Load()
	if next.age(start) >= usableFor {
		return nil, iot.ErrUnavailable
	}
	if found, ok := next.find(kid, alg); ok {
		return found, nil
	}
	return nil, errUnknownKey
}

// tokenEndpoint is where the issuer gives tokens. It wraps iot.ErrUnavailable when
// that cannot be found out now.
func (k *keys) tokenEndpoint(ctx context.Context) (string, error) {
	start := time.Now()
	set := k.current.Load()
	if set.age(start) >= usableFor {
		if err := k.wait(ctx, start); err != nil {
			return "", err
		}
		set = k.current.Load()
	}
	if set.tokenEndpoint == "" {
		return "", iot.Errorf(iot.ErrUnavailable, "the issuer's discovery document names no token_endpoint")
	}
	return set.tokenEndpoint, nil
}

// wait asks for keys, or lets another do it, and returns nil when there is an
// answer of after start.
func (k *keys) wait(ctx context.Context, start time.Time) error {
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return iot.ErrUnavailable
	}
	defer func() { <-k.turn }()
	if set := k.current.Load(); set != nil && set.from.After(start) {
		return nil
	}
	if !k.ask(ctx) {
		return iot.ErrUnavailable
	}
	return nil
}

// ask fetches the keys unless that was done a moment ago, and reports whether it
// brought any. Its caller has the turn.
func (k *keys) ask(ctx context.Context) bool {
	if !k.asked.IsZero() && time.Since(k.asked) < askEvery {
		return false
	}
	k.asked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	list, endpoint, err := k.fetch.keys(ctx)
	if err == nil && len(list) == 0 {
		err = errors.New("none that can be used is published")
	}
	if err != nil {
		k.lastErr.Store(&err)
		return false
	}
	k.lastErr.Store(nil)
	k.current.Store(&keySet{list: list, tokenEndpoint: endpoint, from: time.Now()})
	return true
}

func (s *keySet) age(now time.Time) time.Duration {
	if s == nil {
		return usableFor
	}
	return now.Sub(s.from)
}

func (s *keySet) find(kid, alg string) (crypto.PublicKey, bool) {
	if s == nil {
		return nil, false
	}
	var only crypto.PublicKey
	for i := range s.list {
		switch c := &s.list[i]; {
		case !c.fits(alg) || kid != "" && c.kid != kid:
		case only != nil:
			return nil, false // two: which is meant cannot be told
		default:
			only = c.public
		}
	}
	return only, only != nil
}
