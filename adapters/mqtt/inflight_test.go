package mqtt

import (
	"testing"

	"github.com/sluice-iot/sluice/adapters"
)

// TestPacketIdentifiers checks that those in use are passed over, and 0 is, when
// the numbers begin anew.
func TestPacketIdentifiers(t *testing.T) {
	c := &conn{a: &Adapter{}, version: 4, receive: maxReceive, lastID: 65533}
	c.out.flushing = true // nobody sends
	c.commands = &commands{unacknowledged: map[uint16]*delivery{65535: nil, 1: new(delivery), 2: nil}}
	for _, want := range []uint16{65534, 3, 4} {
		d := &delivery{sub: &subscription{qos: 1, c: c}, cmd: &adapters.Command{}, topic: "c"}
		if err := c.sendNumbered(d); err != nil || d.id != want {
			t.Errorf("got packet identifier %d (%v), want %d", d.id, err, want)
		}
	}
}

// TestUnacknowledgedAreBounded checks that a client that never acknowledges gets
// no further commands at some time.
func TestUnacknowledgedAreBounded(t *testing.T) {
	c := &conn{a: &Adapter{}, version: 4, receive: maxReceive}
	c.a.o.CommandAckTimeout = -1
	c.out.flushing = true
	for i := range maxUnacknowledged + maxWaiting + 1 {
		err := c.sendAcknowledged(&delivery{sub: &subscription{qos: 1, c: c}, cmd: &adapters.Command{}, topic: "c"})
		if last := i == maxUnacknowledged+maxWaiting; last != (err != nil) {
			t.Fatalf("command %d: got error %v", i, err)
		}
	}
	if n := len(c.commands.unacknowledged); n != maxUnacknowledged || c.commands.live != n {
		t.Errorf("%d are sent, want %d", n, maxUnacknowledged)
	}
}

func TestRequestSegment(t *testing.T) {
	for _, id := range []string{"003abcreply", "a/b+c#d%e", "%2F", "%", "%%25", "ü\x01\x7f\u0085", ""} {
		segment := escapeSegment(id, true)
		if !isTopicPart(segment) || len(segment) > 0 && segment[0] == '/' {
			t.Errorf("%q is written as %q", id, segment)
		}
		if got := unescapeRequest(segment); got != id {
			t.Errorf("%q comes back as %q", id, got)
		}
	}
}
