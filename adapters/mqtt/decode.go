package mqtt

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/mochi-mqtt/server/v2/packets"
)

// maxFilters bounds the filters of one SUBSCRIBE or UNSUBSCRIBE.
const maxFilters = 2 * maxSubscriptions

// decode reads the body of a packet. Strings and slices of pk are parts of it.
// What the codec takes for granted is checked before; a panic that is left
// counts as a malformed packet. Errors are of type *fault.
func (c *conn) decode(pk *packets.Packet, body []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log().Error("packet codec panicked", "type", packets.PacketNames[pk.FixedHeader.Type], "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = malformed(nil)
		}
	}()
	switch pk.FixedHeader.Type {
	case packets.Connect:
		if c.version == 5 {
			if err = checkConnect(body); err != nil {
				break
			}
		}
		if err = pk.ConnectDecode(body); errors.Is(err, packets.ErrClientIdentifierNotValid) {
			err = packets.ErrMalformedPacket // it is not there, or no text: not refused for what it says
		}
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback:
		err = pk.PubackDecode(body)
	case packets.Subscribe:
		if err = checkFilters(pk, body, 1); err == nil {
			err = pk.SubscribeDecode(body)
		}
	case packets.Unsubscribe:
		if err = checkFilters(pk, body, 0); err == nil {
			err = pk.UnsubscribeDecode(body)
		}
	case packets.Disconnect:
		err = pk.DisconnectDecode(body)
	}
	if err != nil {
		return malformed(err)
	}
	return nil
}

// checkFilters walks over the filters of a SUBSCRIBE or UNSUBSCRIBE: the codec
// reads the options after a filter without looking whether they are there, and
// it takes any number of filters.
func checkFilters(pk *packets.Packet, body []byte, options int) error {
	rest, ok := cut(body, 2) // packet identifier
	if ok && pk.ProtocolVersion == 5 {
		n, size, good := varint(rest)
		if !good {
			return packets.ErrMalformedProperties
		}
		rest, ok = cut(rest, size+n)
	}
	if !ok {
		return packets.ErrMalformedPacket
	}
	for n := 0; len(rest) > 0; n++ {
		if n == maxFilters {
			return packets.ErrQuotaExceeded
		}
		if len(rest) < 2 {
			return packets.ErrMalformedTopic
		}
		if rest, ok = cut(rest, 2+int(rest[0])<<8+int(rest[1])+options); !ok {
			return packets.ErrMalformedTopic
		}
	}
	return nil
}

// cut takes n bytes off the front of b.
func cut(b []byte, n int) ([]byte, bool) {
	if n > len(b) {
		return nil, false
	}
	return b[n:], true
}

// varint reads a variable byte integer and how many bytes it has.
func varint(b []byte) (n, size int, ok bool) {
	for i := range min(len(b), 4) {
		n |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return n, i + 1, true
		}
	}
	return 0, 0, false
}
