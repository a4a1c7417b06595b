package adapters

import (
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// maxLastGateways bounds the devices whose last gateway is remembered.
	maxLastGateways = 100_000
	// tellGatewayEvery is when routers are told anew of a gateway that did not change.
	tellGatewayEvery = time.Hour
)

// lastGateways remembers which gateway routers were told of last for a device, so
// that they are not told with each message. What was not used for long makes room:
// when half of what is allowed is in recent, it becomes older, and what was older goes.
type lastGateways struct {
	mu            sync.Mutex
	recent, older map[commandKey]lastGateway
}

type lastGateway struct {
	gateway iot.DeviceID
	at      time.Time
}

// news reports whether routers have to be told that gateway acted for a device.
func (l *lastGateways) news(k commandKey, gateway iot.DeviceID, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, ok := l.recent[k]
	if !ok {
		last, ok = l.older[k]
	}
	fresh := ok && last.gateway == gateway && now.Sub(last.at) < tellGatewayEvery
	if !fresh {
		last = lastGateway{gateway, now}
	}
	if l.recent == nil || len(l.recent) >= maxLastGateways/2 {
		l.recent, l.older = make(map[commandKey]lastGateway), l.recent
	}
	l.recent[k] = last
	return !fresh
}

// forget has the gateways of all devices told anew.
func (l *lastGateways) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent, l.older = nil, nil
}

// usedGateway tells routers by which gateway a device was heard of last, or that it
// was by itself, where several may act for it (contract: adapters 1.4).
func (p *Pipeline) usedGateway(who Admission) {
	c, r := p.o.Commands, who.e.registration
	if c == nil || c.tell.to == nil || r == nil || len(r.Via) < 2 {
		return
	}
	gateway := who.Gateway()
	if gateway == "" {
		gateway = who.Device()
	}
	if k := (commandKey{who.Tenant(), who.Device()}); c.gateways.news(k, gateway, time.Now()) {
		c.tell.to.LastGateway(k.tenant, k.device, gateway)
	}
}
