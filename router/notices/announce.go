package notices

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

// The addresses of notifications (contract: messaging, section 14).
const (
	tenantAddress = "notification/registry-tenant"
	deviceAddress = "notification/registry-device"
)

const (
	// maxUnsettled is how many notifications are on their way to receivers. It
	// is half of what one that does not follow may fall behind before it is detached.
	maxUnsettled = 500
	// settleWait is how long they may all stay unsettled before more follow
	// nevertheless: a receiver that is stuck then falls behind, and is detached.
	settleWait = time.Second
)

// announcer sends notifications to adapters, in the order in which they were queued.
type announcer struct {
	publisher Publisher
	log       *slog.Logger
	m         *counters
	queue     chan events.RegistryChanged
	moved     chan struct{} // there is room again
}

func newAnnouncer(p Publisher, log *slog.Logger, m *counters) *announcer {
	return &announcer{publisher: p, log: log, m: m,
		queue: make(chan events.RegistryChanged, maxQueued), moved: make(chan struct{}, 1)}
}

// enqueue reports false when the queue is full.
func (a *announcer) enqueue(c events.RegistryChanged) bool {
	select {
	case a.queue <- c:
		return true
	default:
		return false
	}
}

// wait waits for room.
func (a *announcer) wait(ctx context.Context) error {
	t := time.NewTimer(10 * time.Millisecond) // several may wait, and one is told
	defer t.Stop()
	select {
	case <-ctx.Done():
		return iot.Errorf(iot.ErrUnavailable, "%d notifications wait for adapters", len(a.queue))
	case <-a.moved:
	case <-t.C:
	}
	return nil
}

// run sends what is queued until ctx ends.
func (a *announcer) run(ctx context.Context) {
	unsettled := make(chan struct{}, maxUnsettled)
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-a.queue:
			wake(a.moved)
			if !a.turn(ctx, unsettled) {
				unsettled = make(chan struct{}, maxUnsettled)
				unsettled <- struct{}{}
			}
			a.send(&c, unsettled)
		}
	}
}

// turn waits until fewer than the most are unsettled; it reports false where
// none was settled in time.
func (a *announcer) turn(ctx context.Context, unsettled chan struct{}) bool {
	select {
	case unsettled <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(settleWait)
	defer t.Stop()
	select {
	case unsettled <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	case <-t.C:
		a.m.stuck.Add(1)
		a.log.Warn("notifications are not settled: who does not take them is detached", "unsettled", maxUnsettled)
		return false
	}
}

func (a *announcer) send(c *events.RegistryChanged, unsettled chan struct{}) {
	address := deviceAddress
	if c.Type == events.TypeTenantChanged {
		address = tenantAddress
	}
	message, err := notification(address, c)
	if err != nil {
		a.log.Error("notification does not encode", "tenant", string(c.TenantID), "err", err)
		<-unsettled
		return
	}
	a.publisher.Publish(address, message, func(state amqp.Raw) {
		<-unsettled
		switch state.StateKind() {
		case amqp.DescReleased:
			a.m.unheard.Add(1) // no adapter is there, or none takes it any more
		default:
			a.m.announced.Add(1)
		}
	})
}

func notification(address string, c *events.RegistryChanged) ([]byte, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	m := amqp.Message{
		Properties: &amqp.Properties{To: address, ContentType: "application/json", CreationTime: amqp.TimestampOf(c.At)},
		Data:       [][]byte{data},
	}
	return m.Append(nil)
}

// provisioningType is the content type of messaging 12.3.
const provisioningType = "application/vnd.eclipse-hono-device-provisioning-notification"

// takeWait bounds how long an application may think about an event.
const takeWait = 5 * time.Second

// provisioned sends the event of messaging 12.3 to the tenant's applications,
// once for each fact.
func (f *Follower) provisioned(ctx context.Context, p events.DeviceProvisioned) error {
	id := sentKey{p.TenantID, p.DeviceID, p.At.UnixMilli()}
	if f.sent.has(id) {
		f.m.took(p.FactType(), fromFact, false)
		return nil
	}
	message, err := provisioningEvent(&p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, takeWait)
	defer cancel()
	outcome := make(chan amqp.Descriptor, 1)
	f.o.Publisher.Publish("event/"+string(p.TenantID), message, func(state amqp.Raw) {
		kind := state.StateKind()
		if kind == amqp.DescAccepted || kind == amqp.DescRejected {
			f.sent.add(id) // also when nobody waits any more
		}
		outcome <- kind
	})
	select {
	case <-ctx.Done():
		return iot.Errorf(iot.ErrUnavailable, "the event was not settled in time")
	case kind := <-outcome:
		switch kind {
		case amqp.DescRejected: // who does not want it will not want it again
			f.log.Warn("an application rejected a provisioning event", "tenant", string(p.TenantID), "device", string(p.DeviceID))
		case amqp.DescAccepted:
		default:
			return iot.Errorf(iot.ErrUnavailable, "nobody takes events of tenant %.80q now", string(p.TenantID))
		}
	}
	f.m.took(p.FactType(), fromFact, true)
	return nil
}

func provisioningEvent(p *events.DeviceProvisioned) ([]byte, error) {
	tenant, device := string(p.TenantID), string(p.DeviceID)
	properties := amqp.Map{
		{Key: "hono_registration_status", Value: "NEW"}, {Key: "tenant_id", Value: tenant}, {Key: "device_id", Value: device},
		{Key: "orig_adapter", Value: "hono-device-registry"}, {Key: "orig_address", Value: "event"}, {Key: "qos", Value: int32(1)},
	}
	if p.GatewayID != "" {
		properties = append(properties, amqp.Pair{Key: "gateway_id", Value: string(p.GatewayID)})
	}
	m := amqp.Message{
		Header: &amqp.Header{Durable: true},
		MessageAnnotations: amqp.Map{
			{Key: amqp.Symbol("device_id"), Value: device}, {Key: amqp.Symbol("tenant_id"), Value: tenant},
			{Key: amqp.Symbol("resource"), Value: "event/" + tenant + "/" + device},
		},
		Properties: &amqp.Properties{MessageID: events.NewID(), To: "event/" + tenant, ContentType: provisioningType,
			CreationTime: amqp.TimestampOf(p.At)},
		ApplicationProperties: properties,
	}
	return m.Append(nil)
}

// sentKey tells one provisioning from another of the same device, which may
// have been deleted in between.
type sentKey struct {
	tenant iot.TenantID
	device iot.DeviceID
	at     int64
}

// recent remembers the last keys.
type recent struct {
	mu   sync.Mutex
	m    map[sentKey]struct{}
	ring []sentKey
	next int
}

func (r *recent) has(k sentKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.m[k]
	return ok
}

func (r *recent) add(k sentKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = map[sentKey]struct{}{}
	}
	if _, there := r.m[k]; there {
		return
	}
	if len(r.ring) < maxProvisioned {
		r.ring = append(r.ring, k)
	} else {
		delete(r.m, r.ring[r.next])
		r.ring[r.next] = k
		r.next = (r.next + 1) % maxProvisioned
	}
	r.m[k] = struct{}{}
}
