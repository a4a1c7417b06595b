package adapters

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// notifySubscribed tells applications that the device can be reached. The error is
// ctx's: what could not be told otherwise does not end the subscription.
func (s *CommandSubscription) notifySubscribed(ctx context.Context) error {
	presence := s.p.o.Presence
	if !s.notify || presence == nil || !s.tells() {
		return nil
	}
	err := presence.Notify(ctx, s.notification(events.Subscribed, time.UnixMilli(s.at)))
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.p.o.Commands.o.Logger.Debug("applications cannot be told that a device takes commands",
		"tenant", s.key().tenant, "device", s.key().device, "err", err)
	return nil
}

// tells notes that applications are told of s; false where it is closed already: a
// command came, and the gateway may no longer act for the device.
func (s *CommandSubscription) tells() bool {
	sh := s.p.o.Commands.shard(s.key())
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.told = !s.closed
	return s.told
}

// notifyUnsubscribed tells applications that the device can no longer be reached.
func (s *CommandSubscription) notifyUnsubscribed() {
	at := time.UnixMilli(max(time.Now().UnixMilli(), s.at+1)) // not before it could be
	s.p.o.Presence.Tell(s.notification(events.Unsubscribed, at))
}

func (s *CommandSubscription) notification(kind events.PresenceKind, at time.Time) Notification {
	return Notification{Change: events.PresenceChange{Kind: kind, At: at}, Who: s.admission(), Pipeline: s.p, Address: s.address}
}

// tellUplink tells subscribers how long a device listens that sent m.
func (p *Pipeline) tellUplink(who Admission, m *iot.Message) {
	if p.o.Presence == nil || m.TTD == nil || *m.TTD <= 0 || m.Endpoint == iot.CommandResponse {
		return
	}
	p.o.Presence.Tell(Notification{
		Change: events.PresenceChange{Kind: events.Uplink, At: m.Created, TTDSeconds: *m.TTD},
		Who:    who, Pipeline: p, Address: m.Address,
	})
}
