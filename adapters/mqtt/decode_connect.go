package mqtt

import (
	"encoding/binary"

	"github.com/mochi-mqtt/server/v2/packets"
)

// checkConnect walks over the properties of a CONNECT of MQTT 5: the codec takes
// the last of several that may be there once, and does not tell a limit of 0 from none
// (MQTT 5, section 3.1.2.11). What is no property of a CONNECT is left to the codec.
func checkConnect(body []byte) error {
	rest, ok := cut(body, textSize(body)+4) // name, level, flags, keep-alive
	if !ok {
		return packets.ErrMalformedPacket
	}
	n, size, ok := varint(rest)
	if !ok || size+n > len(rest) {
		return packets.ErrMalformedProperties
	}
	rest = rest[size : size+n]
	var seen [packets.PropSharedSubAvailable + 1]bool
	for len(rest) > 0 {
		id := rest[0]
		size, known := connectPropertySize(id, rest[1:])
		if !known {
			return nil
		}
		if size >= len(rest) {
			return packets.ErrMalformedProperties
		}
		if seen[id] && id != packets.PropUser {
			return protocolError("a property is there twice")
		}
		seen[id] = true
		if err := notZero(id, rest[1:1+size]); err != nil {
			return err
		}
		rest = rest[1+size:]
	}
	return nil
}

// connectPropertySize is how many bytes the value of a property of a CONNECT has that b
// begins with; more than b has where it is cut off.
func connectPropertySize(id byte, b []byte) (size int, known bool) {
	switch id {
	case packets.PropRequestProblemInfo, packets.PropRequestResponseInfo:
		return 1, true
	case packets.PropReceiveMaximum, packets.PropTopicAliasMaximum:
		return 2, true
	case packets.PropSessionExpiryInterval, packets.PropMaximumPacketSize:
		return 4, true
	case packets.PropAuthenticationMethod, packets.PropAuthenticationData:
		return textSize(b), true
	case packets.PropUser:
		name := textSize(b)
		if name > len(b) {
			return name, true
		}
		return name + textSize(b[name:]), true
	}
	return 0, false
}

// textSize is how many bytes a string takes with its length.
func textSize(b []byte) int {
	if len(b) < 2 {
		return 2
	}
	return 2 + int(binary.BigEndian.Uint16(b))
}

// notZero checks a limit that may not be 0.
func notZero(id byte, value []byte) error {
	switch {
	case id == packets.PropReceiveMaximum && binary.BigEndian.Uint16(value) == 0:
		return protocolError("Receive Maximum is 0")
	case id == packets.PropMaximumPacketSize && binary.BigEndian.Uint32(value) == 0:
		return protocolError("Maximum Packet Size is 0")
	}
	return nil
}

func protocolError(text string) error {
	return packets.Code{Code: packets.ErrProtocolViolation.Code, Reason: text}
}
