package command_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/command"
)

// asked answers registration.assert in place of the function.
type asked func(ctx context.Context, req events.RegistrationAssert) (*events.RegistrationAsserted, error)

func (f asked) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	r, err := f(ctx, req.(events.RegistrationAssert))
	if err != nil {
		return nil, err
	}
	return r, nil
}

// through registers every device with the gateways that may act for it.
func through(via ...iot.DeviceID) asked {
	return func(_ context.Context, req events.RegistrationAssert) (*events.RegistrationAsserted, error) {
		return &events.RegistrationAsserted{Registration: events.Registration{DeviceID: req.DeviceID, Via: via}, CacheFor: command.MaxAge}, nil
	}
}

// post is where messages to adapters go.
type post struct {
	mu    sync.Mutex
	sent  map[string][]string // bodies by address
	state amqp.Raw            // what becomes of them; nil = accepted
}

func (p *post) send(address string, message []byte, done func(amqp.Raw)) {
	m, err := amqp.DecodeMessage(message)
	if err != nil || len(m.Data) != 1 || m.Properties.Subject != "superseded" || m.Properties.To != "device_directory" {
		panic(fmt.Sprintf("message to %s: %+v, %v", address, m, err))
	}
	p.mu.Lock()
	state := p.state
	if state == nil {
		state = amqp.StateAccepted
	}
	if p.sent == nil {
		p.sent = map[string][]string{}
	}
	p.sent[address] = append(p.sent[address], string(m.Data[0]))
	p.mu.Unlock()
	done(state)
}

func (p *post) answer(state amqp.Raw) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
}

// taken returns what was sent to a process and forgets it.
func (p *post) taken(instance string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := p.sent["command_internal/"+instance]
	delete(p.sent, "command_internal/"+instance)
	return sent
}

func newDirectory(t testing.TB, invoker events.Invoker, p *post) *command.Directory {
	t.Helper()
	if p == nil {
		p = &post{}
	}
	d := command.NewDirectory(command.Options{Invoker: invoker, Send: p.send})
	t.Cleanup(d.Close)
	return d
}

// announcement is one on the wire.
type announcement struct {
	Adapter string   `json:"adapter"`
	Reset   bool     `json:"reset,omitempty"`
	Set     [][6]any `json:"set,omitempty"`
	Drop    [][2]any `json:"drop,omitempty"`
	Via     [][3]any `json:"via,omitempty"`
}

func (a announcement) encode(t testing.TB) []byte {
	t.Helper()
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// announce announces over a link.
func announce(t testing.TB, l command.Linked, a announcement) {
	t.Helper()
	a.Adapter = "a"
	if err := l.Announce(a.encode(t)); err != nil {
		t.Fatal(err)
	}
}

// row is one of tenant T.
func row(device string, at, until int64, all int) [6]any {
	return [6]any{"T", device, at, until, "hono-mqtt", all}
}

// find is the way to a device of tenant T: "instance", "instance via gateway", or "".
func find(t testing.TB, d *command.Directory, device iot.DeviceID) string {
	t.Helper()
	r, err := d.Find(t.Context(), "T", device)
	if err != nil {
		t.Fatal(err)
	}
	if r.Gateway != "" {
		return r.Instance + " via " + string(r.Gateway)
	}
	return r.Instance
}
