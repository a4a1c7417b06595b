package mqtt_test

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

func TestFirst(t *testing.T) {
	for _, v := range []byte{3, 4, 5} {
		w := newWorld(t, nil)
		c := w.connected(t, v, nil)
		c.send(message("t", 0, "a"), message("telemetry", 1, "b"), message("e", 2, "c"), message("event/?content-type=text%2Fplain", 3, "d"))
		for id := range uint16(3) {
			if ack := c.want(packets.Puback); ack.PacketID != id+1 {
				t.Fatalf("got %d", ack.PacketID)
			}
		}
		c.wantOpen()
		c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
		c.wantClosed(0)
		if n := len(w.down.Sent()); n != 4 {
			t.Fatal(n)
		}
	}
}
