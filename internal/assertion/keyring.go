package assertion

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// KeySource returns the public keys and for how long they may be kept.
type KeySource func(ctx context.Context) (KeySet, time.Duration, error)

var errUnknownKey = errors.New("unknown key")

const (
	// fetchTimeout ends one question for keys.
	fetchTimeout = 10 * time.Second
	// failureRetry is the shortest time between two questions after a failed one.
	failureRetry = time.Second
)

// keyring holds the verification keys. They are asked for again when their age
// is over or a token names an unknown one, never by two callers at once. Keys
// that cannot be renewed are trusted for their age once more, then not at all.
type keyring struct {
	source     KeySource
	wait, each time.Duration
	onChange   func(map[string]publicKey)

	ctx    context.Context // of the questions in flight
	cancel context.CancelFunc
	flying sync.WaitGroup

	mu      sync.Mutex
	keys    map[string]publicKey
	until   time.Time     // when their age is over
	maxAge  time.Duration // as the source said
	asked   time.Time
	failed  error // of the last question, nil after a good one
	pending chan struct{}
	giveUp  time.Time // when nobody waits any longer for the question in flight
}

func newKeyring(source KeySource, wait, each time.Duration, onChange func(map[string]publicKey)) *keyring {
	k := &keyring{source: source, wait: wait, each: each, onChange: onChange}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

func (k *keyring) close() {
	k.cancel()
	k.flying.Wait()
}

// get returns the key of kid, waiting for a question in flight where it needs to.
func (k *keyring) get(kid string, now time.Time) (publicKey, error) {
	k.mu.Lock()
	pub, ok := k.keys[kid]
	switch {
	case ok && now.Before(k.until):
		k.mu.Unlock()
		return pub, nil
	case ok && now.Before(k.until.Add(k.maxAge)):
		k.ask(now)
		k.mu.Unlock()
		return pub, nil
	}
	pending, wait := k.ask(now), time.Until(k.giveUp)
	k.mu.Unlock()
	if pending != nil {
		k.await(pending, wait)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	pub, ok = k.keys[kid]
	switch {
	case ok && now.Before(k.until):
		return pub, nil
	case k.pending != nil || k.failed != nil || k.keys == nil:
		return publicKey{}, fmt.Errorf("key %w", iot.ErrUnavailable)
	}
	return publicKey{}, errUnknownKey
}

func (k *keyring) await(pending <-chan struct{}, wait time.Duration) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-pending:
	case <-t.C:
	case <-k.ctx.Done():
	}
}

// ask starts a question for the keys unless one is in flight or too recent;
// the channel closes when it is answered. The caller holds k.mu.
func (k *keyring) ask(now time.Time) <-chan struct{} {
	if k.pending != nil {
		return k.pending
	}
	pause := k.each
	if k.failed != nil {
		pause = min(pause, failureRetry)
	}
	if since := now.Sub(k.asked); !k.asked.IsZero() && since >= 0 && since < pause || k.ctx.Err() != nil {
		return nil
	}
	return k.start(now)
}

func (k *keyring) start(now time.Time) <-chan struct{} {
	done := make(chan struct{})
	k.pending, k.asked, k.giveUp = done, now, time.Now().Add(k.wait)
	k.flying.Go(func() {
		ctx, cancel := context.WithTimeout(k.ctx, fetchTimeout)
		defer cancel()
		set, maxAge, err := k.source(ctx)
		k.install(set, maxAge, err, now)
		close(done)
	})
	return done
}

func (k *keyring) install(set KeySet, maxAge time.Duration, err error, now time.Time) {
	keys := make(map[string]publicKey, len(set.Keys))
	for _, raw := range set.Keys {
		if kid, pub, ok := parseJWK(raw); ok {
			keys[kid] = pub
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending, k.failed = nil, err
	if err != nil {
		return
	}
	gone := false
	for kid := range k.keys {
		if _, ok := keys[kid]; !ok {
			gone = true
		}
	}
	k.keys, k.maxAge, k.until = keys, max(maxAge, k.each), now.Add(max(maxAge, k.each))
	if gone {
		k.onChange(keys)
	}
}

// refresh asks now, whenever it was asked before, and waits for the answer.
func (k *keyring) refresh(ctx context.Context, now time.Time) error {
	k.mu.Lock()
	var pending <-chan struct{} = k.pending
	if k.pending == nil {
		if k.ctx.Err() != nil {
			k.mu.Unlock()
			return iot.Errorf(iot.ErrUnavailable, "the verifier is closed")
		}
		pending = k.start(now)
	}
	k.mu.Unlock()
	select {
	case <-pending:
	case <-ctx.Done():
		return ctx.Err()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failed
}
