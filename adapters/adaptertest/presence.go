package adaptertest

import (
	"github.com/sluice-iot/sluice/events"
)

// derive answers as the notification function does.
func derive(q events.NotificationDerive) (events.Reply, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	d := &events.NotificationDerived{}
	for i := range q.Changes {
		d.Events = append(d.Events, fact(&q.Changes[i]))
	}
	return d, nil
}

func fact(c *events.PresenceChange) events.PresenceFact {
	connection := events.Connection{TenantID: c.TenantID, DeviceID: c.DeviceID, GatewayID: c.GatewayID,
		RemoteID: c.RemoteID, Source: c.Adapter, Data: c.Data, At: c.At}
	ttd := c.TTDSeconds
	switch c.Kind {
	case events.Connected:
		return events.DeviceConnected{Connection: connection}
	case events.Disconnected:
		return events.DeviceDisconnected{Connection: connection}
	case events.Subscribed:
		ttd = -1
	}
	return events.DeviceTTD{TenantID: c.TenantID, DeviceID: c.DeviceID, GatewayID: c.GatewayID, TTDSeconds: ttd, At: c.At}
}
