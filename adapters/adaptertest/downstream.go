package adaptertest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Downstream records messages and answers as told. Safe for concurrent use.
type Downstream struct {
	mu      sync.Mutex
	sent    []*iot.Message
	outcome func(*iot.Message) error
	gate    chan struct{}
	entered chan struct{}
}

var _ adapters.Downstream = (*Downstream)(nil)

// Sent returns copies of the messages so far, refused ones included.
func (d *Downstream) Sent() []*iot.Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sent)
}

// Outcome makes f decide about every message from now on; nil accepts all.
func (d *Downstream) Outcome(f func(*iot.Message) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outcome = f
}

// Block holds every message from now on until release is called; entered gets
// a value when one is there.
func (d *Downstream) Block() (entered <-chan struct{}, release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gate := make(chan struct{})
	d.gate, d.entered = gate, make(chan struct{}, 1)
	return d.entered, sync.OnceFunc(func() {
		d.mu.Lock()
		d.gate = nil
		d.mu.Unlock()
		close(gate)
	})
}

// Send implements [adapters.Downstream].
func (d *Downstream) Send(ctx context.Context, m *iot.Message) error {
	m, gate, outcome := d.record(m)
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if outcome != nil {
		return outcome(m)
	}
	return nil
}

// Start implements [adapters.Downstream]. Only a message that is held needs
// more time than the call.
func (d *Downstream) Start(m *iot.Message, done func(error)) {
	m, gate, outcome := d.record(m)
	if outcome == nil {
		outcome = func(*iot.Message) error { return nil }
	}
	if gate == nil {
		done(outcome(m))
		return
	}
	go func() {
		<-gate
		done(outcome(m))
	}()
}

// record notes m and says what is to become of it.
func (d *Downstream) record(m *iot.Message) (copied *iot.Message, gate chan struct{}, outcome func(*iot.Message) error) {
	m = clone(m)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent = append(d.sent, m)
	if d.gate != nil {
		select {
		case d.entered <- struct{}{}:
		default:
		}
	}
	return m, d.gate, d.outcome
}

// Ready implements [adapters.Downstream].
func (d *Downstream) Ready() bool { return true }

func clone(m *iot.Message) *iot.Message {
	c := *m
	c.Payload = slices.Clone(m.Payload)
	c.Properties = maps.Clone(m.Properties)
	return &c
}

// Discard accepts every message and keeps none, for benchmarks.
type Discard struct{}

var _ adapters.Downstream = Discard{}

// Send implements [adapters.Downstream].
func (Discard) Send(context.Context, *iot.Message) error { return nil }

// Start implements [adapters.Downstream].
func (Discard) Start(_ *iot.Message, done func(error)) { done(nil) }

// Ready implements [adapters.Downstream].
func (Discard) Ready() bool { return true }
