package notification

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/events"
)

// Derive answers one fact for each change, in their order. Equal changes give equal
// facts, whoever asks and however often. iot.ErrInvalid, which names the change and what
// is wrong with it, where one of them is not right: then there is no answer to the others
// either.
func Derive(_ context.Context, req events.NotificationDerive) (*events.NotificationDerived, error) {
	if err := req.Check(); err != nil {
		return nil, err
	}
	facts := make([]events.PresenceFact, len(req.Changes))
	for i := range req.Changes {
		facts[i] = fact(&req.Changes[i])
	}
	return &events.NotificationDerived{Events: facts}, nil
}

// fact is what follows from a change that is right.
func fact(c *events.PresenceChange) events.PresenceFact {
	at := c.At.UTC().Truncate(time.Millisecond)
	switch c.Kind {
	case events.Connected:
		return events.DeviceConnected{Connection: connection(c, at)}
	case events.Disconnected:
		return events.DeviceDisconnected{Connection: connection(c, at)}
	}
	return events.DeviceTTD{TenantID: c.TenantID, DeviceID: c.DeviceID, GatewayID: c.GatewayID, TTDSeconds: ttd(c), At: at}
}

// ttd is the time until disconnect in seconds (contract: messaging 11).
func ttd(c *events.PresenceChange) int {
	switch c.Kind {
	case events.Subscribed:
		return -1
	case events.Unsubscribed:
		return 0
	}
	return c.TTDSeconds
}

func connection(c *events.PresenceChange, at time.Time) events.Connection {
	remote := c.RemoteID
	if remote == "" {
		remote = "unknown"
	}
	return events.Connection{TenantID: c.TenantID, DeviceID: c.DeviceID, GatewayID: c.GatewayID,
		RemoteID: remote, Source: c.Adapter, Data: c.Data, At: at}
}
