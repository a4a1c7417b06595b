package mqtt

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// ConnectionEvents says who learns that devices connect and disconnect (contract:
// adapters 14). Clients that are not authenticated are never spoken of.
type ConnectionEvents string

// Who learns of connections; "" stands for ConnectionsLogged.
const (
	ConnectionsIgnored ConnectionEvents = "none"
	ConnectionsLogged  ConnectionEvents = "logging" // at level info
	ConnectionsSent    ConnectionEvents = "events"  // the applications of the tenant, by an event
)

// check returns what e stands for.
func (e ConnectionEvents) check(p *adapters.Presence) ConnectionEvents {
	switch e {
	case "":
		return ConnectionsLogged
	case ConnectionsIgnored, ConnectionsLogged:
		return e
	case ConnectionsSent:
		if p == nil {
			panic("mqtt: New needs Presence to send connection events")
		}
		return e
	}
	panic(fmt.Sprintf("mqtt: unknown ConnectionEvents %q", string(e)))
}

// lastWordTimeout is how long it may take to find out by which assertion a
// disconnected device's last event is sent.
const lastWordTimeout = 5 * time.Second

// tellConnected tells that the device is connected, before the client is told that
// it is in. An error means that it cannot be let in.
func (c *conn) tellConnected(ctx context.Context) error {
	if c.session.Anonymous() {
		return nil
	}
	c.logConnection("device connected")
	if c.a.o.ConnectionEvents != ConnectionsSent {
		return nil
	}
	who, err := c.own(ctx)
	if err == nil {
		err = c.a.o.Presence.Notify(ctx, c.connectionEvent(events.Connected, who))
	}
	if err != nil {
		return fmt.Errorf("connection event: %w: %v", iot.ErrUnavailable, err)
	}
	c.announced = true
	return nil
}

// tellDisconnected tells that the device is no longer connected: not where the
// same client is connected anew, nor where the registry no longer lets it in, nor
// when the adapter stops.
func (c *conn) tellDisconnected() {
	if c.session.Anonymous() {
		return
	}
	c.mu.Lock()
	quiet := c.back || c.untold
	c.mu.Unlock()
	c.logConnection("device disconnected")
	if !c.announced || quiet {
		return
	}
	if who, err := c.freshen(); err == nil {
		c.a.o.Presence.Tell(c.connectionEvent(events.Disconnected, who))
	}
}

// freshen sees to it that what is told of a client that is gone has an assertion
// that holds: one that was silent may have an old one, and the session is about to end.
func (c *conn) freshen() (adapters.Admission, error) {
	if c.session.Anonymous() {
		return adapters.Admission{}, nil
	}
	ctx, cancel := context.WithTimeout(c.a.ctx, lastWordTimeout)
	defer cancel()
	who, err := c.own(ctx)
	if err != nil {
		c.debug("assertion of a client that is gone not renewed", "err", err)
	}
	return who, err
}

// own is the admission of the client's own device.
func (c *conn) own(ctx context.Context) (adapters.Admission, error) {
	if who, ok, err := c.session.TryAdmit("", ""); ok {
		return who, err
	}
	return c.session.Admit(ctx, "", "")
}

func (c *conn) connectionEvent(kind events.PresenceKind, who adapters.Admission) adapters.Notification {
	return adapters.Notification{
		Change: events.PresenceChange{Kind: kind, At: time.Now(), Cause: string(kind), RemoteID: c.remoteID()},
		Who:    who, Pipeline: c.a.o.Pipeline, Address: string(iot.Event),
	}
}

// remoteID is the client identifier, which a client chooses.
func (c *conn) remoteID() string {
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(c.id, "\uFFFD"))
}

func (c *conn) logConnection(text string) {
	if c.a.o.ConnectionEvents == ConnectionsLogged {
		c.log().Info(text, "client", c.remoteID())
	}
}
