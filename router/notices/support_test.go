package notices_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/notices"
)

// feed is a change feed in memory, with the order of a store that lists
// tenants by name.
type feed struct {
	mu    sync.Mutex
	rows  map[iot.TenantID][]events.RegistryChanged
	err   error
	asked []events.RegistryChanges
}

func newFeed() *feed { return &feed{rows: map[iot.TenantID][]events.RegistryChanged{}} }

// change commits a change, and returns the fact of it.
func (s *feed) change(tenant iot.TenantID, device iot.DeviceID, change string) events.RegistryChanged {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := events.RegistryChanged{Type: events.TypeDeviceChanged, TenantID: tenant, DeviceID: device, Change: change,
		Enabled: change == "CREATE", At: time.Now(), Sequence: 1}
	if device == "" {
		c.Type = events.TypeTenantChanged
	}
	if n := len(s.rows[tenant]); n > 0 {
		c.Sequence = s.rows[tenant][n-1].Sequence + 1
	}
	s.rows[tenant] = append(s.rows[tenant], c)
	return c
}

// forget drops the first rows of a tenant, as time does.
func (s *feed) forget(tenant iot.TenantID, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[tenant] = s.rows[tenant][n:]
}

func (s *feed) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *feed) calls() []events.RegistryChanges {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// Invoke implements events.Invoker.
func (s *feed) Invoke(_ context.Context, req events.Request) (events.Reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := req.(events.RegistryChanges)
	s.asked = append(s.asked, q)
	if err := q.Check(); err != nil {
		return nil, err
	}
	if s.err != nil {
		return nil, s.err
	}
	found := &events.ChangesFound{Now: time.Now()}
	for _, tenant := range slices.Sorted(maps.Keys(s.rows)) {
		after, known := q.Sequences[tenant]
		for _, c := range s.rows[tenant] {
			if known && c.Sequence <= after || !known && (q.Since.IsZero() || c.At.Before(q.Since)) {
				continue
			}
			if len(found.Changes) == q.Max {
				found.More = true
				return found, nil
			}
			found.Changes = append(found.Changes, c)
		}
	}
	return found, nil
}

type voided struct {
	Tenant iot.TenantID
	Device iot.DeviceID
	Rev    string
}

// verifier notes what it is told.
type verifier struct {
	mu    sync.Mutex
	voids []voided
	limit time.Duration
	used  chan struct{}
}

func (v *verifier) Void(tenant iot.TenantID, device iot.DeviceID, rev string, _ time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.voids = append(v.voids, voided{tenant, device, rev})
}

func (v *verifier) LimitAge(d time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.limit = d
}

func (v *verifier) NextUse() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.used == nil {
		v.used = make(chan struct{})
	}
	return v.used
}

// use is a token that is looked at.
func (v *verifier) use() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.used != nil {
		close(v.used)
		v.used = nil
	}
}

func (v *verifier) limited() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.limit
}

func (v *verifier) all() []voided {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.voids)
}

type published struct {
	Address string
	Message *amqp.Message
}

// publisher notes what is sent and answers with state; nil = never.
type publisher struct {
	mu    sync.Mutex
	state amqp.Raw
	sent  []published
}

func (p *publisher) Publish(address string, message []byte, done func(amqp.Raw)) {
	m, err := amqp.DecodeMessage(message)
	if err != nil {
		panic(err)
	}
	p.mu.Lock()
	p.sent = append(p.sent, published{address, m})
	state := p.state
	p.mu.Unlock()
	if state != nil {
		done(state)
	}
}

func (p *publisher) answer(state amqp.Raw) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
}

func (p *publisher) all() []published {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sent)
}

// told are the notifications as JSON.
func (p *publisher) told(t *testing.T) (list []map[string]any) {
	for _, x := range p.all() {
		var m map[string]any
		if err := json.Unmarshal(x.Message.Data[0], &m); err != nil {
			t.Error(err)
		}
		list = append(list, m)
	}
	return list
}

// system is a follower with all that it needs.
type system struct {
	*notices.Follower
	feed *feed
	v    *verifier
	p    *publisher
}

// follow runs a follower until the test ends.
func follow(t *testing.T, o notices.Options, s *feed) *system {
	x := &system{feed: s, v: &verifier{}, p: &publisher{state: amqp.StateAccepted}}
	o.Verifier, o.Publisher = x.v, x.p
	if s != nil {
		o.Invoker = s
	}
	x.Follower = notices.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { x.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return x
}

func (x *system) take(t *testing.T, facts ...events.Fact) {
	t.Helper()
	if err := x.Take(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
}
