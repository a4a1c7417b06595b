package adaptertest

import (
	"errors"
	"testing"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// commandSuite checks how commands reach devices, and what comes back.
func (h Harness) commandSuite(t *testing.T) {
	if !h.Commands {
		t.Skip("devices take no commands in this protocol")
	}
	t.Run("handed over", h.handedOver)
	t.Run("for devices behind a gateway", h.behindGateway)
	t.Run("the latest who listens", h.latestListens)
	t.Run("nobody listens any more", h.nobodyListens)
	t.Run("who may not listen", h.mayNotListen)
	t.Run("responses", h.responses)
	t.Run("responses refused", h.refusedResponses)
	t.Run("notifications", h.notifications)
}

func (h Harness) handedOver(t *testing.T) {
	for name, change := range map[string]func(*adapters.Command){
		"request":         func(*adapters.Command) {},
		"one-way":         func(c *adapters.Command) { c.CorrelationID, c.ReplyID = "", "" },
		"without payload": func(c *adapters.Command) { c.ContentType, c.Payload = "", nil },
		"reply to the device's own": func(c *adapters.Command) {
			c.ReplyID = string(c.Device) + "/reply"
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := h.start(t)
			c := brightness()
			change(&c)
			got := e.hand(t, c, e.listen(t, Listen{Login: passwordOf(Device)}))
			if c.OneWay() {
				if got.RequestID != "" {
					t.Errorf("one-way command with request id %q, want none", got.RequestID)
				}
				return
			}
			to, err := adapters.ParseRequestID(got.RequestID, Device)
			if want := (adapters.ResponseTo{CorrelationID: c.CorrelationID, ReplyID: c.ReplyID}); err != nil || to != want {
				t.Errorf("request id %q means %+v (%v), want %+v", got.RequestID, to, err, want)
			}
		})
	}
}

func (h Harness) behindGateway(t *testing.T) {
	for _, tt := range []struct {
		name    string
		listen  Listen
		gateway iot.DeviceID // of the command
		named   bool         // the gateway has to be told for which device it is
	}{
		{"one device", Listen{Login: passwordOf(Gateway), TargetDevice: Device2}, "", false},
		{"all devices", Listen{Login: passwordOf(Gateway), All: true}, Gateway, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := h.start(t)
			l := e.listen(t, tt.listen)
			if a, _ := e.announcer.Now(Tenant, Gateway); a.All != tt.listen.All {
				t.Errorf("announced for all devices of the gateway: %v, want %v", a.All, tt.listen.All)
			}
			c := brightness()
			c.Device, c.Gateway = Device2, tt.gateway
			got := e.hand(t, c, l)
			if tt.named && got.Device != Device2 {
				t.Errorf("the gateway is told of device %q, want %q", got.Device, Device2)
			}
			r := Response{Login: passwordOf(Gateway), TargetDevice: Device2, RequestID: got.RequestID, Status: 200, Payload: []byte("done")}
			if err := e.Client.(Commanded).Respond(t.Context(), r); err != nil {
				t.Fatalf("response: %v", err)
			}
			if m := e.response(t); m.Device != Device2 || m.Gateway != Gateway || m.ReplyID != c.ReplyID {
				t.Errorf("got a response of %q by %q to %q, want of %q by %q to %q", m.Device, m.Gateway, m.ReplyID, Device2, Gateway, c.ReplyID)
			}
		})
	}
}

// response is the one that left.
func (e env) response(t *testing.T) *iot.Message {
	t.Helper()
	var found []*iot.Message
	for _, m := range e.down.Sent() {
		if m.Endpoint == iot.CommandResponse {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		t.Fatalf("got %d responses, want 1", len(found))
	}
	return found[0]
}

func (h Harness) latestListens(t *testing.T) {
	e := h.start(t)
	e.listen(t, Listen{Login: passwordOf(Device)})
	e.hand(t, brightness(), e.listen(t, Listen{Login: passwordOf(Device)}))
}

func (h Harness) nobodyListens(t *testing.T) {
	e := h.start(t)
	l := e.listen(t, Listen{Login: passwordOf(Device)})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	await(func() bool {
		_, there := e.announcer.Now(Tenant, Device)
		return !there
	})
	c := brightness()
	if err := HandOver(t.Context(), e.commands, &c); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("outcome %v, want released", err)
	}
}

func (h Harness) mayNotListen(t *testing.T) {
	for name, l := range map[string]Listen{
		"gateway for another's device": {Login: passwordOf(Gateway), TargetDevice: OtherDevice},
		"gateway for nobody":           {Login: passwordOf(Gateway), TargetDevice: "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			e := h.start(t)
			listener, err := e.Client.(Commanded).Listen(t.Context(), l)
			if err == nil {
				t.Cleanup(func() { listener.Close() })
				_, err = listener.Next(t.Context())
			}
			if err == nil {
				t.Error("it listens, want a refusal")
			}
			if n := len(e.announcer.Told()); n != 0 {
				t.Errorf("%d announcements, want none", n)
			}
		})
	}
}

func (h Harness) responses(t *testing.T) {
	e := h.start(t)
	c := brightness()
	got := e.hand(t, c, e.listen(t, Listen{Login: passwordOf(Device)}))
	r := Response{Login: passwordOf(Device), RequestID: got.RequestID, Status: 201, Payload: []byte("done")}
	if err := e.Client.(Commanded).Respond(t.Context(), r); err != nil {
		t.Fatalf("response: %v", err)
	}
	m := e.response(t)
	if m.CorrelationID != c.CorrelationID || m.ReplyID != c.ReplyID || m.Status != 201 {
		t.Errorf("got a response to %q %q with status %d, want to %q %q with 201", m.ReplyID, m.CorrelationID, m.Status, c.ReplyID, c.CorrelationID)
	}
	if m.Tenant != Tenant || m.Device != Device || string(m.Payload) != "done" {
		t.Errorf("got a response of %q %q: %q, want of %q %q: done", m.Tenant, m.Device, m.Payload, Tenant, Device)
	}
}

func (h Harness) refusedResponses(t *testing.T) {
	c := brightness()
	id, err := c.RequestID()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		request string
		status  int
		outcome error
		want    error
	}{
		{"status of no response", id, 302, nil, iot.ErrInvalid},
		{"no request id", "9zz", 200, nil, iot.ErrInvalid},
		{"nobody takes it", id, 200, iot.ErrNoCredit, iot.ErrNoCredit},
		{"refused by the application", id, 200, iot.ErrInvalid, iot.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := h.start(t)
			e.down.Outcome(func(*iot.Message) error { return tt.outcome })
			err := e.Client.(Commanded).Respond(t.Context(), Response{Login: passwordOf(Device), RequestID: tt.request, Status: tt.status})
			if !errors.Is(err, h.Report(tt.want)) {
				t.Errorf("got error %v, want one that wraps %q", err, h.Report(tt.want))
			}
		})
	}
}

// notifications checks that applications learn when a device can be reached, where
// the protocol is one that tells them.
func (h Harness) notifications(t *testing.T) {
	if !h.Notifies {
		t.Skip("the protocol announces no subscriptions to applications")
	}
	e := h.start(t)
	l := e.listen(t, Listen{Login: passwordOf(Device)})
	await(func() bool { return len(e.ttds()) == 1 })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	await(func() bool { return len(e.ttds()) == 2 })
	if got := e.ttds(); got[0] != -1 || got[1] != 0 {
		t.Errorf("notifications with ttd %v, want -1 and then 0", got)
	}
}

// ttds are those of the notifications that left.
func (e env) ttds() (all []int) {
	for _, m := range e.down.Sent() {
		if m.Endpoint == iot.Event && m.ContentType == adapters.EmptyNotification && m.TTD != nil {
			all = append(all, *m.TTD)
		}
	}
	return all
}
