package mqtt_test

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/internal/iot"
)

const deviceUser = string(adaptertest.Device) + "@" + string(adaptertest.Tenant)

// TestConnack walks over the table of CONNACKs (contract: adapters 8.3).
func TestConnack(t *testing.T) {
	fails := func(err error) func(*world) { return func(w *world) { w.inv.Fail(err) } }
	for _, tt := range []struct {
		name    string
		prepare func(*world)
		connect func(*packets.Packet)
		v3, v5  byte
		reason  string // part of the reason string
	}{
		{"wrong password", nil, as(deviceUser, "wrong"), 4, 0x86, "bad credentials"},
		{"unknown auth-id", nil, as("nobody@tenant-1", adaptertest.Password), 4, 0x86, "bad credentials"},
		{"unknown tenant", nil, as("device-1@nowhere", adaptertest.Password), 4, 0x86, "bad credentials"},
		{"disabled credentials", func(w *world) { w.inv.RemoveSecret(adaptertest.Device, adaptertest.PasswordSecret) }, nil, 4, 0x86, "bad credentials"},
		{"no credentials", nil, func(pk *packets.Packet) {
			pk.Connect.UsernameFlag, pk.Connect.PasswordFlag = false, false
		}, 4, 0x86, "credentials are missing"},
		{"no tenant", nil, as("device-1", adaptertest.Password), 4, 0x86, "auth-id@tenant"},
		{"password empty, user name no Base64 form of it", nil, as(deviceUser, ""), 4, 0x86, "empty password"},
		{"strange token", nil, as("", adaptertest.StrangeToken()), 4, 0x86, "bad credentials"},
		{"adapter disabled", nil, as("device-1@"+string(adaptertest.OffTenant), adaptertest.Password), 5, 0x87, "adapter is disabled"},
		{"tenant disabled", fails(iot.Errorf(iot.ErrForbidden, "tenant is disabled or not registered")), nil, 5, 0x87, "tenant is disabled"},
		{"device disabled", nil, as(string(adaptertest.DisabledDevice)+"@tenant-1", adaptertest.Password), 5, 0x87, "device is disabled or not registered"},
		{"tenant has too many connections", func(w *world) { w.inv.Defaults(nil, nil, `{"max-connections":0}`) }, nil, 5, 0x97, "too many connections"},
		{"service is down", fails(iot.Errorf(iot.ErrUnavailable, "store is down")), nil, 3, 0x88, adapters.TextUnavailable},
		{"service is late", fails(iot.ErrTimeout), nil, 3, 0x88, ""},
		{"service finds the request wrong", fails(iot.Errorf(iot.ErrInvalid, "what?")), nil, 5, 0x87, "what?"},
		{"anything unexpected", fails(errors.New("secret of ours")), nil, 5, 0x80, "internal error"},

		{"protocol version 6", nil, func(pk *packets.Packet) { pk.ProtocolVersion = 6 }, 1, 1, ""},
		{"client identifier too long", nil, func(pk *packets.Packet) { pk.Connect.ClientIdentifier = strings.Repeat("x", 1025) }, 2, 0x85, "1024"},
		{"will with QoS 3", nil, func(pk *packets.Packet) { withWill(pk, "e", 3) }, 0, 0x82, "will"},
		{"wildcard in the will's topic", nil, func(pk *packets.Packet) { withWill(pk, "e/#", 1) }, 0, 0x90, "wildcard"},
	} {
		for _, version := range []byte{4, 5} {
			t.Run(tt.name+map[byte]string{4: " 3.1.1", 5: " 5"}[version], func(t *testing.T) {
				w := newWorld(t, nil)
				if tt.prepare != nil {
					tt.prepare(w)
				}
				c := w.dial(t, version)
				pk := connectPacket(version, tt.connect)
				c.write(encode(t, pk))
				want := tt.v3
				if version == 5 {
					want = tt.v5
				}
				if pk.ProtocolVersion == 6 {
					c.version = 4
				}
				if want == 0 { // MQTT 3.1.1 says nothing to who breaks its rules
					c.wantClosed(0)
					return
				}
				ack := c.want(packets.Connack)
				if ack.ReasonCode != want || ack.SessionPresent {
					t.Errorf("got code %#x %q, want %#x", ack.ReasonCode, ack.Properties.ReasonString, want)
				}
				if c.version == 5 && !strings.Contains(ack.Properties.ReasonString, tt.reason) {
					t.Errorf("got reason %q, want %q in it", ack.Properties.ReasonString, tt.reason)
				}
				c.wantClosed(0)
				eventually(t, "no session is left", func() bool { return w.sessions.Len() == 0 })
			})
		}
	}
}

func withWill(pk *packets.Packet, topic string, qos byte) {
	pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload, pk.Connect.WillQos = true, topic, []byte("gone"), qos
}

func TestConnackOnlyOfMQTT5(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*packets.Packet)
		code   byte
	}{
		"enhanced authentication": {func(pk *packets.Packet) { pk.Properties.AuthenticationMethod = "SCRAM" }, 0x8c},
		"will with QoS 2":         {func(pk *packets.Packet) { withWill(pk, "e", 2) }, 0x9b},
	} {
		t.Run(name, func(t *testing.T) {
			c := newWorld(t, nil).dial(t, 5)
			c.send(connectPacket(5, tt.change))
			if ack := c.want(packets.Connack); ack.ReasonCode != tt.code || ack.Properties.ReasonString == "" {
				t.Errorf("got %#x %q, want %#x with a reason", ack.ReasonCode, ack.Properties.ReasonString, tt.code)
			}
			c.wantClosed(0)
		})
	}
	c := newWorld(t, nil).dial(t, 4)
	c.send(connectPacket(4, func(pk *packets.Packet) { pk.Connect.Clean = false }))
	if ack := c.want(packets.Connack); ack.ReasonCode != 2 {
		t.Errorf("no identifier without Clean Session: got %d, want 2", ack.ReasonCode)
	}
}

func TestTooManyAttempts(t *testing.T) {
	for version, want := range map[byte]byte{4: 3, 5: 0x97} {
		w := newWorld(t, nil)
		for i := range adapters.DefaultFailuresPerAuthID + 1 {
			c := w.dial(t, version)
			c.send(connectPacket(version, as(deviceUser, "wrong")))
			got := c.want(packets.Connack).ReasonCode
			if last := i == adapters.DefaultFailuresPerAuthID; last && got != want || !last && got == want {
				t.Errorf("attempt %d by MQTT %d: got %#x", i, version, got)
			}
			c.wantClosed(0)
		}
	}
}

func TestInstanceLimit(t *testing.T) {
	for version, want := range map[byte]byte{4: 3, 5: 0x9c} {
		for _, open := range []bool{false, true} {
			w := newWorldOf(t, adapters.Options{}, adapters.SessionOptions{Max: 1}, func(o *mqtt.Options) { o.NoAuthentication = open })
			first := w.connected(t, version, nil)
			asked := len(w.inv.Calls())
			c := w.dial(t, version)
			c.send(connectPacket(version, nil))
			if got := c.want(packets.Connack).ReasonCode; got != want {
				t.Errorf("got %#x, want %#x", got, want)
			}
			c.wantClosed(0)
			if n := len(w.inv.Calls()); n != asked {
				t.Error("somebody was authenticated beyond the limit")
			}
			first.wantOpen()
			first.nc.Close()
			eventually(t, "the place is free", func() bool { return !w.sessions.Full() })
			w.connected(t, version, nil).wantOpen()
		}
	}
}

// TestProofs checks which of its proofs lets a device in.
func TestProofs(t *testing.T) {
	cert, elsewhere, strange := adaptertest.Certificate(), adaptertest.CertificateOfUnknownIssuer(), adaptertest.StrangeCertificate()
	bare := func(pk *packets.Packet) { pk.Connect.UsernameFlag, pk.Connect.PasswordFlag = false, false }
	id := func(id, password string) func(*packets.Packet) {
		return func(pk *packets.Packet) {
			pk.Connect.ClientIdentifier = id
			pk.Connect.UsernameFlag, pk.Connect.Password = false, []byte(password)
		}
	}
	base64User := base64.StdEncoding.EncodeToString([]byte(deviceUser + ":" + adaptertest.Password))
	for _, tt := range []struct {
		name    string
		cert    *tls.Certificate
		host    string
		connect func(*packets.Packet)
		v5      byte
	}{
		{"password", nil, "", nil, 0},
		{"password in the user name", nil, "", as(base64User, ""), 0},
		{"alias of the tenant", nil, "", as("device-1@"+string(adaptertest.Alias), adaptertest.Password), 0},
		{"token", nil, "", as("ignored", adaptertest.Token()), 0},
		{"token without user name", nil, "", id("x", adaptertest.Token()), 0},
		{"token and identifier", nil, "", id("tenants/tenant-1/devices/device-1", adaptertest.TokenWithoutClaims()), 0},
		{"token and long identifier", nil, "", id("projects/p/locations/l/registries/tenant-1/devices/device-1", adaptertest.TokenWithoutClaims()), 0},
		{"token and short identifier", nil, "", id("tenant-1/device-1", adaptertest.TokenWithoutClaims()), 0x86},
		{"token and identifier of another", nil, "", id("tenants/tenant-1/devices/device-3", adaptertest.TokenWithoutClaims()), 0x86},
		{"certificate", &cert, "", bare, 0},
		{"certificate and wrong password", &cert, "", as(deviceUser, "wrong"), 0},
		{"strange certificate", &strange, "", bare, 0x86},
		{"strange certificate and password", &strange, "", nil, 0},
		{"strange certificate and token", &strange, "", as("", adaptertest.Token()), 0},
		{"strange certificate and wrong password", &strange, "", as(deviceUser, "wrong"), 0x86},
		{"certificate and host", &elsewhere, "tenant-1.example.org", bare, 0},
		{"certificate and alias as host", &elsewhere, "alias-1.example.org", bare, 0},
		{"certificate and host of nobody", &elsewhere, "nobody.example.org", bare, 0x86},
		{"certificate and host without dot", &elsewhere, "localhost", bare, 0x86},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			server, config := testTLS(t)
			addr := serve(t, w.adapter, server)
			config.InsecureSkipVerify, config.ServerName = true, tt.host
			if tt.cert != nil {
				config.Certificates = []tls.Certificate{*tt.cert}
			}
			nc, err := tls.Dial("tcp", addr, config)
			if err != nil {
				t.Fatal(err)
			}
			c := newClient(t, nc, 5)
			c.send(connectPacket(5, tt.connect))
			if ack := c.want(packets.Connack); ack.ReasonCode != tt.v5 {
				t.Fatalf("got %#x %q, want %#x", ack.ReasonCode, ack.Properties.ReasonString, tt.v5)
			}
			if tt.v5 != 0 {
				return
			}
			c.send(message("e", 1, "x"))
			c.want(packets.Puback)
			if m := w.down.Sent()[0]; m.Tenant != adaptertest.Tenant || m.Device != adaptertest.Device {
				t.Errorf("got a message of %s/%s", m.Tenant, m.Device)
			}
		})
	}
}

func TestClientIdentifierIsContext(t *testing.T) {
	w := newWorld(t, nil)
	w.connected(t, 4, func(pk *packets.Packet) { pk.Connect.ClientIdentifier = "sensor" })
	if got := w.inv.Calls()[0].Context["client-id"]; got != "sensor" {
		t.Errorf("got context client-id %v, want sensor", got)
	}
}

// TestConnackProperties checks what MQTT 5 is told about the adapter.
func TestConnackProperties(t *testing.T) {
	w := newWorldOf(t, adapters.Options{MaxPayload: 1000}, adapters.SessionOptions{}, func(o *mqtt.Options) { o.MaxInFlight = 7 })
	c := w.dial(t, 5)
	c.send(connectPacket(5, func(pk *packets.Packet) {
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 300, true
	}))
	p := c.want(packets.Connack).Properties
	if p.AssignedClientID == "" || p.ReceiveMaximum != 7 || !p.MaximumQosFlag || p.MaximumQos != 1 {
		t.Errorf("got identifier %q, receive maximum %d, maximum QoS %d", p.AssignedClientID, p.ReceiveMaximum, p.MaximumQos)
	}
	if p.MaximumPacketSize < 1000 || p.TopicAliasMaximum != 0 || !p.SessionExpiryIntervalFlag || p.SessionExpiryInterval != 0 {
		t.Errorf("got maximum packet size %d, topic aliases %d, session expiry %d", p.MaximumPacketSize, p.TopicAliasMaximum, p.SessionExpiryInterval)
	}
	if !p.SharedSubAvailableFlag || p.SharedSubAvailable != 0 || !p.SubIDAvailableFlag || p.SubIDAvailable != 0 {
		t.Error("shared subscriptions and subscription identifiers are said to be available")
	}
}

func TestWithoutAuthentication(t *testing.T) {
	w := newWorld(t, func(o *mqtt.Options) { o.NoAuthentication = true })
	for _, version := range []byte{3, 4, 5} {
		c := w.connected(t, version, func(pk *packets.Packet) { pk.Connect.UsernameFlag, pk.Connect.PasswordFlag = false, false })
		c.send(message("t/tenant-1/device-1", 1, "x"), message("e/tenant-1/device:2", 2, "x"))
		c.want(packets.Puback)
		c.want(packets.Puback)
		c.send(message("t", 3, "x"))
		c.wantClosed(0x83)
	}
}

// TestNotMQTT checks that who does not speak MQTT is let go without an answer.
func TestNotMQTT(t *testing.T) {
	for name, bytes := range map[string]string{
		"HTTP":                    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"PUBLISH first":           string(encode(t, message("t", 0, "x"))),
		"PINGREQ first":           "\xc0\x00",
		"too long for a CONNECT":  "\x10\xff\xff\x7f",
		"length of five bytes":    "\x10\xff\xff\xff\xff\x01",
		"flags in the header":     "\x12\x00",
		"empty CONNECT":           "\x10\x00",
		"another protocol":        "\x10\x0c\x00\x04AMQP\x04\x02\x00\x00\x00\x00",
		"CONNECT cut off in MQTT": "\x10\x0a\x00\x04MQTT\x04\xc2\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			c := newWorld(t, nil).dial(t, 4)
			c.write([]byte(bytes))
			c.wantClosed(0)
		})
	}
}

func TestConnectInTime(t *testing.T) {
	w := newWorld(t, func(o *mqtt.Options) { o.ConnectTimeout = 50 * time.Millisecond })
	c := w.dial(t, 4)
	c.write([]byte("\x10"))
	c.wantClosed(0)
	server, _ := testTLS(t)
	nc, err := net.Dial("tcp", serve(t, w.adapter, server))
	if err != nil {
		t.Fatal(err)
	}
	newClient(t, nc, 4).wantClosed(0)
}

func TestConnectionsPerAddress(t *testing.T) {
	limit := adapters.NewConnLimit(2)
	w := newWorld(t, func(o *mqtt.Options) { o.Conns = limit })
	first, second := w.connected(t, 4, nil), w.dial(t, 4)
	w.dial(t, 4).wantClosed(0)
	second.nc.Close()
	first.wantOpen()
	eventually(t, "the place of the second is free", func() bool {
		nc, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		c := newClient(t, nc, 4)
		if _, err := nc.Write(encode(t, connectPacket(4, nil))); err != nil {
			return false
		}
		_, err = c.read()
		return err == nil
	})
}

// TestTLSIsRecent checks that old versions are refused by the handshake.
func TestTLSIsRecent(t *testing.T) {
	w := newWorld(t, nil)
	server, config := testTLS(t)
	server.MinVersion = tls.VersionTLS10
	addr := serve(t, w.adapter, server)
	config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if nc, err := tls.Dial("tcp", addr, config); err == nil {
		nc.Close()
		t.Error("TLS 1.1 was accepted")
	} else if !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("got %v, want an alert about the protocol version", err)
	}
}
