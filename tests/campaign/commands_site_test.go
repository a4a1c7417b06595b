package campaign_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Packets of MQTT 3.1.1 by which devices take commands.
const (
	mqttPublishHead = 0x30 // its upper half
	mqttSubscribe   = 0x82
	mqttSuback      = 0x90
	mqttUnsubscribe = 0xa2
	mqttUnsuback    = 0xb0
	mqttDisconnect  = 0xe0
)

const commandFilter = "command///req/#"

// commandSite is an installation that keeps events and whose devices speak MQTT:
// functions, event store, routers and adapter as processes.
type commandSite struct {
	*eventSite
	mqttAdapter      *part
	mqtt, mqttHealth string // host:port
}

func newCommandSite(t *testing.T, routers int) *commandSite {
	t.Helper()
	s := &commandSite{eventSite: newEventSite(t, routers, ""), mqtt: freeAddr(t), mqttHealth: freeAddr(t)}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "certs", "--out", filepath.Join(s.dir, "certs"), "adapter/mqtt-0").CombinedOutput(); err != nil {
		t.Fatalf("certs: %v\n%s", err, out)
	}
	writeFile(t, s.identities, fmt.Sprintf(`identities:
  - name: %s
    secret: "{plain}%s"
    assertions: optional
    authorities:
      - {address: "event/*", may: [read]}
      - {address: "command/*", may: [write]}
      - {address: "command_response/*", may: [read]}
operators:
  - {name: admin, secret: "{plain}%s", scopes: [{tenant: "*", may: [read, write]}]}
`, user, secret, secret))
	s.events = freeAddr(t)
	s.startEvents(t)
	s.startFunction(t)
	for _, r := range s.routers {
		r.start(t, s.events)
	}
	s.startMQTT(t)
	return s
}

// startMQTT starts the adapter and waits until it has a router.
func (s *commandSite) startMQTT(t *testing.T) {
	t.Helper()
	var urls []string
	for _, r := range s.routers {
		urls = append(urls, strconv.Quote("amqps://"+r.internal))
	}
	// A device acknowledges at once here: who does not within five seconds is gone.
	s.mqttAdapter = s.start(t, []string{"adapter", "mqtt"}, "adapter-mqtt-0", fmt.Sprintf(`listeners:
  - {role: adapter/mqtt, address: %q}
  - {role: health, address: %q}
routers: [%s]
functions: {identity: "https://%s"}
adapters: {mqtt: {send-message-to-device-timeout: 5s}}
`, s.mqtt, s.mqttHealth, strings.Join(urls, ", "), s.functions))
	s.mqttAdapter.awaitListener(t, s.mqtt)
	s.mqttAdapter.awaitReady(t, s.mqttHealth)
}

func (s *commandSite) login(i int) mqttLogin {
	return mqttLogin{addr: s.mqtt, source: i, clientID: fmt.Sprint("client-", i), user: eventDevice(i) + "@" + eventTenant, password: devicePass}
}

// subscribed subscribes a connection for its device's commands and waits for the
// answer; it keeps what comes before it.
func subscribed(c net.Conn, r *bufio.Reader, qos byte) (early []mqttCommand, err error) {
	body := append(mqttString([]byte{0, 1}, commandFilter), qos)
	if _, err := c.Write(mqttPacket(nil, mqttSubscribe, body)); err != nil {
		return nil, err
	}
	for {
		head, body, err := readMQTT(r)
		switch {
		case err != nil:
			return nil, err
		case head == mqttSuback && len(body) == 3 && body[2] == qos:
			return early, nil
		case head&0xf0 != mqttPublishHead:
			return nil, fmt.Errorf("%#02x % x in answer to SUBSCRIBE with quality of service %d", head, body, qos)
		}
		m, err := commandOf(head, body)
		if err != nil {
			return nil, err
		}
		early = append(early, m)
	}
}

// mqttCommand is a command as a device gets it.
type mqttCommand struct {
	id      uint16 // packet identifier; 0 = quality of service 0
	dup     bool
	request string // "" = one-way
	name    string
	payload string
}

// commandOf reads a PUBLISH.
func commandOf(head byte, body []byte) (m mqttCommand, err error) {
	if len(body) < 2 || len(body) < 2+int(binary.BigEndian.Uint16(body)) {
		return m, fmt.Errorf("a PUBLISH with % x", body)
	}
	topic, rest := string(body[2:2+binary.BigEndian.Uint16(body)]), body[2+binary.BigEndian.Uint16(body):]
	if head>>1&3 > 0 {
		m.id, rest = binary.BigEndian.Uint16(rest), rest[2:]
	}
	segments := strings.Split(topic, "/")
	if len(segments) != 6 || segments[0] != "command" || segments[3] != "req" {
		return m, fmt.Errorf("a command at %q", topic)
	}
	m.dup, m.request, m.name, m.payload = head&8 != 0, segments[4], segments[5], string(rest)
	return m, nil
}

// puback acknowledges a command.
func puback(id uint16) []byte {
	return mqttPacket(nil, mqttPuback, binary.BigEndian.AppendUint16(nil, id))
}

// mqttAnswer is the response to a command, with quality of service 0. The connection goes on
// where nobody takes it: the adapter would not hear of acknowledgements behind it.
func mqttAnswer(m mqttCommand, payload string) []byte {
	return mqttPacket(nil, mqttPublishHead, append(mqttString(nil, "command///res/"+m.request+"/200/?on-error=ignore"), payload...))
}
