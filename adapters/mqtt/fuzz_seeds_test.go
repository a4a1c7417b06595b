package mqtt_test

import (
	"bytes"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters/adaptertest"
)

type fuzzSeed struct {
	client byte
	data   []byte
}

// fuzzSeeds are whole packets of each kind, sent by clients of both versions,
// and some that are none.
func fuzzSeeds() []fuzzSeed {
	var seeds []fuzzSeed
	for _, version := range []byte{4, 5} {
		client := byte(fuzzConnected)
		if version == 5 {
			client |= fuzzVersion5
		}
		all := seedPackets(version)
		for _, b := range all {
			seeds = append(seeds, fuzzSeed{client, b}, fuzzSeed{client | fuzzGateway | fuzzPieces, b})
		}
		whole := bytes.Join(all, nil)
		for _, more := range []byte{0, fuzzGateway, fuzzHeld, fuzzHeld | fuzzGateway | fuzzStays, fuzzNobody, fuzzStays, fuzzSmall | fuzzGateway, fuzzPieces | fuzzHeld, fuzzPieces | fuzzGateway} {
			seeds = append(seeds, fuzzSeed{client | more, whole})
		}
		for _, connect := range seedConnects(version) {
			seeds = append(seeds, fuzzSeed{0, connect}, fuzzSeed{fuzzNobody | fuzzStays, append(connect, whole...)}, fuzzSeed{fuzzPieces, connect[:len(connect)-1]})
		}
	}
	for _, properties := range []string{"", "\x21\x00\x00", "\x27\x00\x00\x00\x00", "\x21\x00\x01\x21\x00\x01", "\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\xff", "\x15\x00\x01x\x16\xff"} {
		raw := connectWith(properties)
		seeds = append(seeds, fuzzSeed{0, raw}, fuzzSeed{fuzzNobody | fuzzPieces, raw})
	}
	for _, raw := range [][]byte{
		nil, {0}, {0x10}, {0x10, 0xff, 0xff, 0xff, 0x7f}, {0x10, 0xff, 0xff, 0xff, 0xff, 0x7f}, {0x30, 0x80, 0x80, 0x80, 0x01},
		{0x82, 0x05, 0, 1, 0, 1, 'e'}, {0x82, 0x02, 0, 1}, {0xa2, 0x04, 0, 1, 0, 9}, {0xf0, 0}, {0xff, 0x01, 0}, {0x36, 0x02, 0, 0}, {0x40, 0x02, 0, 0},
		[]byte("GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n"), {0x16, 0x03, 0x01, 0x02, 0x00},
	} {
		seeds = append(seeds, fuzzSeed{0, raw}, fuzzSeed{fuzzConnected, raw}, fuzzSeed{fuzzConnected | fuzzVersion5 | fuzzStays, raw})
	}
	for _, many := range []string{"\x32\x05\x00\x01t\x00\x01", "\x30\x03\x00\x01t", "\xc0\x00", "\x32\x17\x00\x13t/?on-error=skip-ack\x00\x01", "\x82\x06\x00\x01\x00\x01e\x00", "\xa2\x05\x00\x01\x00\x01e"} {
		seeds = append(seeds, fuzzSeed{fuzzConnected, bytes.Repeat([]byte(many), 200)}, fuzzSeed{fuzzConnected | fuzzHeld, bytes.Repeat([]byte(many), 20)})
	}
	return seeds
}

func seedPackets(version byte) [][]byte {
	v5 := packets.Properties{}
	if version == 5 {
		v5 = packets.Properties{
			ContentType: "text/plain", MessageExpiryInterval: 5, CorrelationData: []byte("cd"), ResponseTopic: "r",
			User: []packets.UserProperty{{Key: "on-error", Val: "ignore"}, {Key: "k", Val: "v"}, {Key: "device_id", Val: "x"}},
		}
	}
	publish := func(qos byte, id uint16, topic, payload string) packets.Packet {
		return packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, PacketID: id, TopicName: topic, Payload: []byte(payload), Properties: v5}
	}
	retained := publish(1, 8, "e//device:2/?hono-ttl=9", "retained")
	retained.FixedHeader.Retain, retained.FixedHeader.Dup = true, true
	list := []packets.Packet{
		{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1, Filters: packets.Subscriptions{
			{Filter: "error///#"}, {Filter: "e//device:2/#"}, {Filter: "e//device-3/#"}, {Filter: "c///q/#", Qos: 1}, {Filter: "c//device:2/q/#"}, {Filter: "e/tenant-1/+/#", Qos: 1}, {Filter: "nowhere", Qos: 2}, {Filter: "e/t/d/#"}, {Filter: "error//+/#"},
		}},
		publish(0, 0, "t", "zero"),
		publish(1, 2, "telemetry/?content-type=a%2Fb&correlation-id=%2F", "one"),
		publish(1, 3, "t//device:2", "two"),
		publish(1, 4, "e/?on-error=ignore", "!no credit"),
		publish(1, 5, "event//device:2/?on-error=skip-ack", "?other"),
		publish(0, 0, "e/?on-error=ignore", "events need QoS 1"),
		publish(1, 6, "nowhere/?on-error=ignore", "x"),
		publish(1, 7, "c///s/r/200/?on-error=ignore", "response"),
		retained,
		publish(1, 9, "t/tenant-1/device-3/?on-error=ignore", "not allowed"),
		publish(1, 10, "t/?on-error=ignore", strings.Repeat("large", 400)),
		{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: 1},
		{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: 2, ReasonCode: 0x99, Properties: packets.Properties{ReasonString: "broken"}},
		{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: 11},
		{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 20, Filters: packets.Subscriptions{
			{Filter: "command/tenant-1/device-1/req/#", Qos: 1}, {Filter: "c//+/q/#"}, {Filter: "c//device:2/req/#", Qos: 1}, {Filter: "c///q/#", Qos: 2},
		}},
		publish(1, 21, "c///s/103abcr%2F%2B/200", "response"),
		publish(0, 0, "command//device:2/res/003abcr/404", "no response"),
		{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}},
		{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 12, Filters: packets.Subscriptions{{Filter: "e//device:2/#"}, {Filter: "nowhere"}, {Filter: "c///q/#"}}},
		publish(1, 13, "t", "!reported"),
		publish(2, 14, "t", "twice"),
		{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: 14},
		{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}},
	}
	if version == 5 {
		list = append(list, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ReasonCode: 4, Properties: packets.Properties{ReasonString: "bye"}},
			packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Auth}, ReasonCode: 0x18, Properties: packets.Properties{AuthenticationMethod: "SCRAM", AuthenticationData: []byte("x")}})
	}
	var encoded [][]byte
	for _, pk := range list {
		pk.ProtocolVersion = version
		encoded = append(encoded, encodePacket(pk))
	}
	return encoded
}

// seedConnects are logins of every kind, with and without a will.
func seedConnects(version byte) [][]byte {
	user := []byte(string(adaptertest.Device) + "@" + string(adaptertest.Tenant))
	var encoded [][]byte
	for _, p := range []packets.ConnectParams{
		{},
		{UsernameFlag: true, Username: user},
		{UsernameFlag: true, Username: user, PasswordFlag: true, Password: []byte("wrong")},
		{UsernameFlag: true, Username: user, PasswordFlag: true, Password: []byte(adaptertest.Password), ClientIdentifier: "tenants/t/devices/d", Keepalive: 1},
		{UsernameFlag: true, Username: user, PasswordFlag: true, Password: []byte(adaptertest.Password), WillFlag: true, WillTopic: "e//device-1/?hono-ttl=3", WillPayload: []byte("gone"), WillQos: 1, WillRetain: true},
		{UsernameFlag: true, Username: []byte("ignored"), PasswordFlag: true, Password: []byte("eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJhdWQiOiJob25vLWFkYXB0ZXIiLCJ0aWQiOiJ0Iiwic3ViIjoiZCJ9.AAAA")},
		{UsernameFlag: true, Username: user, PasswordFlag: true},
	} {
		p.ProtocolName, p.Clean = []byte("MQTT"), true
		pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: version, Connect: p}
		if version == 5 {
			pk.Properties = packets.Properties{SessionExpiryInterval: 60, SessionExpiryIntervalFlag: true, ReceiveMaximum: 1, MaximumPacketSize: 64, TopicAliasMaximum: 3,
				User: []packets.UserProperty{{Key: "a", Val: "b"}}, AuthenticationMethod: "x"}
			if p.WillFlag {
				pk.Properties = packets.Properties{}
				pk.Connect.WillProperties = packets.Properties{WillDelayInterval: 30, MessageExpiryInterval: 4, ContentType: "text/plain", User: []packets.UserProperty{{Key: "a", Val: "b"}}}
			}
		}
		encoded = append(encoded, encodePacket(pk))
	}
	return encoded
}
