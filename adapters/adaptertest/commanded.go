package adaptertest

import (
	"context"
	"testing"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Commanded is a [Client] of a protocol in which devices take commands.
type Commanded interface {
	Client
	// Listen logs in on a connection of its own and has the device listen for commands.
	// It need not wait for the adapter's answer. A refusal is an error here, or of the
	// first [Listener.Next].
	Listen(ctx context.Context, l Listen) (Listener, error)
	// Respond sends a response to a command, logged in as r.Login. Errors are those of Send.
	Respond(ctx context.Context, r Response) error
}

// Listen says who listens for which commands.
type Listen struct {
	Login
	TargetDevice iot.DeviceID // on whose behalf a gateway listens; "" = its own
	All          bool         // a gateway listens for all the devices that it may act for
}

// Listener is a device that listens. It takes one command at least.
type Listener interface {
	// Next returns the next command that the device gets.
	Next(ctx context.Context) (Received, error)
	// Close stops listening, from the device's side.
	Close() error
}

// Received is a command as the device sees it.
type Received struct {
	Name      string
	RequestID string       // "" = one-way
	Device    iot.DeviceID // named as its target; "" = none is
	Payload   []byte
}

// Response is one that the harness has to send in its protocol.
type Response struct {
	Login
	TargetDevice iot.DeviceID // for which it is, by a gateway; "" = the device itself
	RequestID    string
	Status       int
	Payload      []byte
}

// HandOver gives c to those who listen, as a router does, and returns its outcome as
// in [adapters.CommandHandler], or ctx's error.
func HandOver(ctx context.Context, to adapters.CommandHandler, c *adapters.Command) error {
	outcome := make(chan error, 1)
	to.Command(c, func(err error) { outcome <- err })
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// brightness is a command for Device that wants a response.
func brightness() adapters.Command {
	return adapters.Command{
		Tenant: Tenant, Device: Device, Name: "setBrightness", CorrelationID: "correlation-1", ReplyID: "reply-1",
		ContentType: "application/json", Payload: []byte(`{"brightness":87}`),
	}
}

// listen has l listen, and waits until routers know.
func (e env) listen(t *testing.T, l Listen) Listener {
	t.Helper()
	device := iot.DeviceID(l.AuthID)
	if l.TargetDevice != "" {
		device = l.TargetDevice
	}
	before, _ := e.announcer.Now(Tenant, device)
	listener, err := e.Client.(Commanded).Listen(t.Context(), l)
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	t.Cleanup(func() { listener.Close() })
	await(func() bool {
		now, there := e.announcer.Now(Tenant, device)
		return there && now.At > before.At
	})
	return listener
}

// hand gives c to the device that listens, and returns what that got.
func (e env) hand(t *testing.T, c adapters.Command, to Listener) Received {
	t.Helper()
	outcome := make(chan error, 1)
	go func() { outcome <- HandOver(t.Context(), e.commands, &c) }()
	got, err := to.Next(t.Context())
	if err != nil {
		t.Errorf("no command came: %v", err)
	}
	if err := <-outcome; err != nil {
		t.Errorf("outcome of a command that the device got: %v, want accepted", err)
	}
	if got.Name != c.Name || string(got.Payload) != string(c.Payload) {
		t.Errorf("got command %q %q, want %q %q", got.Name, got.Payload, c.Name, c.Payload)
	}
	return got
}
