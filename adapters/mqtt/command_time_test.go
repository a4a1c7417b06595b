package mqtt_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/internal/iot"
)

// piped is an adapter whose clients are in memory, for tests in time of their own.
type piped struct {
	*commanding
	conns chan net.Conn
}

// withPipes runs f with an adapter, all of which is gone after it.
func withPipes(t *testing.T, change func(*mqtt.Options), f func(t *testing.T, w *piped)) {
	synctest.Test(t, func(t *testing.T) {
		inv, down := &adaptertest.Invoker{}, &adaptertest.Downstream{}
		w := &piped{&commanding{&world{inv: inv, down: down}, adapters.NewCommands(adapters.CommandsOptions{PerSubscription: 2000}), &adaptertest.Announcer{}}, make(chan net.Conn)}
		w.commands.AnnounceTo(w.announcer)
		adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: inv, MaxAge: time.Hour})
		presence := adapters.NewPresence(adapters.PresenceOptions{Invoker: inv})
		pipeline := adapters.NewPipeline(adapters.Options{Type: mqtt.Type, Admissions: adm, Downstream: down, Commands: w.commands, Presence: presence})
		w.sessions = adapters.NewSessions(pipeline, adapters.SessionOptions{})
		o := mqtt.Options{Pipeline: pipeline, Sessions: w.sessions, Presence: presence}
		if change != nil {
			change(&o)
		}
		w.adapter = mqtt.New(o)
		served := make(chan error, 1)
		go func() {
			served <- w.adapter.Serve(t.Context(), &memoryListener{conns: w.conns, closed: make(chan struct{})}, nil)
		}()
		f(t, w)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.adapter.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if n := w.commands.Len(); n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
		wantNothingLeft(t, w.commanding)
		presence.Close()
		w.sessions.Close()
		adm.Close()
	})
}

// connected is a client that has been let in.
func (w *piped) connected(t *testing.T, version byte, change func(*packets.Packet)) *client {
	t.Helper()
	near, far := net.Pipe()
	w.conns <- far
	c := newClient(t, near, version)
	near.SetDeadline(time.Time{})
	c.send(connectPacket(version, change))
	if ack := c.want(packets.Connack); ack.ReasonCode != 0 {
		t.Fatalf("connect: got code %#x %q", ack.ReasonCode, ack.Properties.ReasonString)
	}
	return c
}

// pending checks that there is no outcome yet.
func pending(t *testing.T, outcomes ...<-chan error) {
	t.Helper()
	synctest.Wait()
	for i, o := range outcomes {
		select {
		case err := <-o:
			t.Errorf("command %d has the outcome %v, want none yet", i, err)
		default:
		}
	}
}

// TestNoPuback checks that a command is released when its PUBACK does not come in
// time, and that nothing comes of one that comes late.
func TestNoPuback(t *testing.T) {
	withPipes(t, nil, func(t *testing.T, w *piped) {
		c := w.connected(t, 4, nil)
		c.subscribed(1, "c///q/#")
		first := send(w.commands, brightness(nil))
		late := c.want(packets.Publish).PacketID
		time.Sleep(999 * time.Millisecond)
		pending(t, first)
		time.Sleep(time.Millisecond)
		wantOutcome(t, first, iot.ErrTimeout, "did not acknowledge")

		second := send(w.commands, brightness(nil))
		id := c.want(packets.Publish).PacketID
		if id == late {
			t.Errorf("packet identifier %d is used again while the client may acknowledge it", id)
		}
		c.puback(late, 0, "")
		pending(t, second)
		c.puback(id, 0, "")
		wantOutcome(t, second, nil, "")
		c.wantOpen()
	})
}

// TestPubackForEver checks that a device may have as long as it is connected.
func TestPubackForEver(t *testing.T) {
	withPipes(t, func(o *mqtt.Options) { o.CommandAckTimeout = -1 }, func(t *testing.T, w *piped) {
		c := w.connected(t, 4, nil)
		c.subscribed(1, "c///q/#")
		first := send(w.commands, brightness(nil))
		id := c.want(packets.Publish).PacketID
		time.Sleep(time.Hour)
		pending(t, first)
		c.puback(id, 0, "")
		wantOutcome(t, first, nil, "")
	})
}

// TestReceiveMaximum checks that a client of MQTT 5 gets no more commands at a time
// than it takes, in their order, and that those that wait do so for a while only.
func TestReceiveMaximum(t *testing.T) {
	withPipes(t, nil, func(t *testing.T, w *piped) {
		c := w.connected(t, 5, func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 2 })
		c.subscribed(1, "c///q/#")
		var outcomes []<-chan error
		for _, name := range []string{"0", "1", "2", "3"} {
			outcomes = append(outcomes, send(w.commands, brightness(func(c *adapters.Command) { c.Name = name })))
		}
		var ids []uint16
		get := func(name string) {
			t.Helper()
			pk := c.want(packets.Publish)
			if pk.TopicName != "c///q/"+request+"/"+name {
				t.Errorf("got %s, want command %s", pk.TopicName, name)
			}
			ids = append(ids, pk.PacketID)
		}
		get("0")
		get("1")
		c.wantOpen()
		time.Sleep(600 * time.Millisecond)
		c.puback(ids[1], 0, "")
		get("2")
		wantOutcome(t, outcomes[1], nil, "")
		time.Sleep(600 * time.Millisecond)
		wantOutcome(t, outcomes[0], iot.ErrTimeout, "") // in time
		wantOutcome(t, outcomes[3], iot.ErrTimeout, "") // was not sent
		pending(t, outcomes[2])                         // has its time from when it was sent
		c.puback(ids[2], 0, "")
		wantOutcome(t, outcomes[2], nil, "")
		c.wantOpen()

		last := send(w.commands, brightness(func(c *adapters.Command) { c.Name = "4" }))
		get("4")
		more := send(w.commands, brightness(nil)) // the first is not acknowledged yet
		c.wantOpen()
		c.puback(ids[3], 0, "")
		wantOutcome(t, last, nil, "")
		c.puback(c.want(packets.Publish).PacketID, 0, "")
		wantOutcome(t, more, nil, "")
	})
}

// TestTooManyCommands checks that what waits for a client is bounded.
func TestTooManyCommands(t *testing.T) {
	withPipes(t, nil, func(t *testing.T, w *piped) {
		c := w.connected(t, 5, func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 1 })
		c.subscribed(1, "c///q/#")
		for range 101 {
			send(w.commands, brightness(nil))
		}
		wantOutcome(t, send(w.commands, brightness(nil)), iot.ErrUnavailable, "too many commands")
		c.want(packets.Publish)
	})
}

// TestCommandsToSlowReader checks that commands are released when a client does not read them.
func TestCommandsToSlowReader(t *testing.T) {
	for qos := range byte(2) {
		withPipes(t, nil, func(t *testing.T, w *piped) {
			c := w.connected(t, 4, nil)
			c.subscribed(qos, "c///q/#")
			large := func(c *adapters.Command) { c.Payload = make([]byte, 60<<10) }
			first := send(w.commands, brightness(large))
			synctest.Wait() // it is being written
			second := send(w.commands, brightness(large))
			wantOutcome(t, send(w.commands, brightness(large)), iot.ErrUnavailable, "does not read")
			if qos == 0 {
				pending(t, first, second)
				time.Sleep(20 * time.Second)
				wantOutcome(t, first, iot.ErrUnavailable, "closed")
				wantOutcome(t, second, iot.ErrUnavailable, "closed")
				return
			}
			time.Sleep(time.Second)
			wantOutcome(t, first, iot.ErrTimeout, "")
			wantOutcome(t, second, iot.ErrTimeout, "")
		})
	}
}

// TestShutdownWithCommands checks that a device may still acknowledge what it has
// when the adapter stops, and that nobody is told that it can no longer be reached.
func TestShutdownWithCommands(t *testing.T) {
	withPipes(t, nil, func(t *testing.T, w *piped) {
		c, slow := w.connected(t, 5, nil), w.connected(t, 5, as(gatewayUser, adaptertest.Password))
		c.subscribed(1, "c///q/#")
		slow.subscribed(1, "c///q/#")
		outcome := send(w.commands, brightness(nil))
		never := send(w.commands, brightness(func(c *adapters.Command) { c.Device = adaptertest.Gateway }))
		id := c.want(packets.Publish).PacketID
		slow.want(packets.Publish)
		stopped := make(chan error, 1)
		go func() { stopped <- w.adapter.Shutdown(t.Context()) }()
		synctest.Wait()
		wantOutcome(t, send(w.commands, brightness(nil)), iot.ErrUnavailable, "")
		before := len(w.down.Sent())
		c.send(message("telemetry", 1, "behind the end"))
		c.puback(id, 0, "")
		wantOutcome(t, outcome, nil, "")
		c.wantClosed(0x8b)
		if got := len(w.down.Sent()) - before; got != 0 {
			t.Errorf("%d messages were taken of a device whose connection leaves", got)
		}
		slow.wantClosed(0x8b)
		wantOutcome(t, never, iot.ErrTimeout, "")
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if got := ttds(w.down); len(got) != 2 {
			t.Errorf("notifications %v, want two of -1", got)
		}
	})
}

// ttds are those of the notifications that left.
func ttds(down *adaptertest.Downstream) (all []int) {
	for _, m := range down.Sent() {
		if m.ContentType == adapters.EmptyNotification && m.TTD != nil {
			all = append(all, *m.TTD)
		}
	}
	return all
}
