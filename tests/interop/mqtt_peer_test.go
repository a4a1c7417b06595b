package interop_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// mqttOptions say how a device connects; see the programs of the peers. Members
// that a version of MQTT does not have mean nothing to its client.
type mqttOptions struct {
	Addr          string       `json:"addr"` // "" = the plant's, plain or TLS
	CA            string       `json:"ca,omitempty"`
	Cert          string       `json:"cert,omitempty"`
	Key           string       `json:"key,omitempty"`
	ServerName    string       `json:"serverName,omitempty"`
	ClientID      string       `json:"clientId,omitempty"`
	User          string       `json:"user,omitempty"`
	Password      string       `json:"password,omitempty"`
	KeepAlive     int          `json:"keepAlive,omitempty"` // s
	Reconnect     bool         `json:"reconnect,omitempty"`
	WebSocket     string       `json:"webSocket,omitempty"` // path
	InFlight      int          `json:"inFlight,omitempty"`
	AuthMethod    string       `json:"authMethod,omitempty"`
	SessionExpiry *int         `json:"sessionExpiry,omitempty"`
	WillDelay     *int         `json:"willDelay,omitempty"`
	Will          *mqttCommand `json:"will,omitempty"`
}

// mqttCommand is what a device is to do, by default to publish.
type mqttCommand struct {
	Cmd         string      `json:"cmd"`
	ID          int         `json:"id,omitempty"`
	Topic       string      `json:"topic,omitempty"`
	Payload     string      `json:"payload,omitempty"`
	QoS         int         `json:"qos,omitempty"`
	Retain      bool        `json:"retain,omitempty"`
	ContentType string      `json:"contentType,omitempty"`
	Expiry      *int        `json:"expiry,omitempty"` // s
	Alias       *int        `json:"alias,omitempty"`
	Properties  [][2]string `json:"properties,omitempty"`
	N           int         `json:"n,omitempty"`
	Filters     []string    `json:"filters,omitempty"`
	Code        int         `json:"code,omitempty"`
}

// mqttEvent is what happened to a device.
type mqttEvent struct {
	Event          string `json:"event"`
	ID             int    `json:"id"`
	Code           int    `json:"code"`
	Codes          []int  `json:"codes"`
	Reason         string `json:"reason"`
	ClientID       string `json:"clientId"`
	SessionPresent bool   `json:"sessionPresent"`
	Limits         struct {
		ReceiveMaximum, MaximumPacketSize, MaximumQoS *int
		TopicAliasMaximum, SessionExpiry              *int
		Retain, SharedSubscriptions, SubscriptionIds  bool
	} `json:"limits"`
	Topic   string `json:"topic"`
	Payload string `json:"payload"`
}

// mqttDevice is an MQTT client that nobody here wrote, in a process of its own.
type mqttDevice struct {
	*child
	five   bool // it speaks MQTT 5
	events chan mqttEvent
	lines  *json.Encoder
}

// needPaho skips or fails where a client is not there: "paho" for Python speaks MQTT
// 3.1.1, "paho5" is paho.golang.
func needPaho(t *testing.T, kind string) *exec.Cmd {
	t.Helper()
	if kind == "paho" {
		need(t, "paho for Python (Debian package python3-paho-mqtt)", pahoMissing())
		return exec.Command(python, "-u", "paho_peer.py")
	}
	path, err := paho5()
	need(t, "paho.golang (by the Go proxy)", err)
	return exec.Command(path)
}

var pahoMissing = sync.OnceValue(func() error {
	if out, err := exec.Command(python, "-c", "import paho.mqtt.client").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
})

// paho5 builds the command of this name, which is in a module of its own. It stays
// in build/, where Go's cache makes the next time short.
var paho5 = sync.OnceValues(func() (string, error) {
	path := filepath.Join(repository(), "build", "paho5")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = "paho5"
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return path, nil
})

// dials starts a device that connects to the plant.
func (p *plant) dials(t *testing.T, kind string, o mqttOptions) *mqttDevice {
	t.Helper()
	cmd := needPaho(t, kind)
	if o.Addr == "" {
		o.Addr = p.mqtt
		if o.CA != "" {
			o.Addr = "localhost:" + port(p.mqttTLS)
		}
	}
	output, input := io.Pipe()
	d := &mqttDevice{child: startChild(t, kind+" "+o.ClientID, cmd, input), five: kind == "paho5", events: make(chan mqttEvent, 4096)}
	go func() {
		<-d.done
		input.Close()
	}()
	go func() {
		defer close(d.events)
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			var e mqttEvent
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				e = mqttEvent{Event: "not JSON: " + lines.Text()}
			}
			select {
			case d.events <- e:
			case <-t.Context().Done():
			}
		}
	}()
	d.lines = json.NewEncoder(d.stdin)
	if err := d.lines.Encode(o); err != nil {
		t.Fatal(err)
	}
	return d
}

// connects returns a device that is connected.
func (p *plant) connects(t *testing.T, kind string, o mqttOptions) *mqttDevice {
	t.Helper()
	d := p.dials(t, kind, o)
	if e := d.await(t, "connack"); e.Code != 0 || e.SessionPresent {
		t.Fatalf("%s: connection refused with %d %s, session present: %t", d.name, e.Code, e.Reason, e.SessionPresent)
	}
	return d
}

// next returns what happens next.
func (d *mqttDevice) next(t *testing.T) mqttEvent {
	t.Helper()
	select {
	case e, ok := <-d.events:
		if !ok {
			t.Fatalf("%s ended", d.name)
		}
		return e
	case <-time.After(patience):
		t.Fatalf("%s says nothing", d.name)
		return mqttEvent{}
	}
}

// await returns the next event, which must be of the given kind.
func (d *mqttDevice) await(t *testing.T, kind string) mqttEvent {
	t.Helper()
	e := d.next(t)
	if e.Event != kind {
		t.Fatalf("%s says %+v; expected %q", d.name, e, kind)
	}
	return e
}

// together returns one event of each of the given kinds, in whatever order they come:
// what clients say of packets of different kinds may be turned round on their way.
func (d *mqttDevice) together(t *testing.T, kinds ...string) map[string]mqttEvent {
	t.Helper()
	got := map[string]mqttEvent{}
	for range kinds {
		e := d.next(t)
		if _, twice := got[e.Event]; twice || !slices.Contains(kinds, e.Event) {
			t.Fatalf("%s says %+v; expected each of %q", d.name, e, kinds)
		}
		got[e.Event] = e
	}
	return got
}

// farewell is what a client says when the server ends its connection.
func (d *mqttDevice) farewell() string {
	if d.five {
		return "disconnect"
	}
	return "closed"
}

// closes expects the server to end the connection, for a reason that MQTT 5 tells
// where there is one.
func (d *mqttDevice) closes(t *testing.T) (code int, reason string) {
	t.Helper()
	e := d.next(t)
	if e.Event == "disconnect" {
		return e.Code, e.Reason
	}
	if e.Event != "closed" {
		t.Fatalf("%s says %+v; expected that its connection is closed", d.name, e)
	}
	return 0, ""
}

func (d *mqttDevice) does(t *testing.T, c mqttCommand) {
	t.Helper()
	if err := d.lines.Encode(c); err != nil {
		t.Fatalf("%s: %v", d.name, err)
	}
}

// publishes sends a message with quality of service 1, which is acknowledged.
func (d *mqttDevice) publishes(t *testing.T, topic, payload string) {
	t.Helper()
	d.does(t, mqttCommand{Cmd: "publish", Topic: topic, Payload: payload, QoS: 1})
	if e := d.await(t, "puback"); e.Code != 0 {
		t.Fatalf("%s: %s is answered with %#x %s", d.name, topic, e.Code, e.Reason)
	}
}

// subscribes expects the filters to be granted with quality of service 0.
func (d *mqttDevice) subscribes(t *testing.T, filters ...string) {
	t.Helper()
	d.does(t, mqttCommand{Cmd: "subscribe", Filters: filters})
	for i, code := range d.await(t, "suback").Codes {
		if code != 0 {
			t.Fatalf("%s: %s is answered with %#x", d.name, filters[i], code)
		}
	}
}

// asSensor is how a plant's device logs in with its password.
func asSensor(user string) mqttOptions {
	authID := user
	for i := range user {
		if user[i] == '@' {
			authID = user[:i]
			break
		}
	}
	return mqttOptions{User: user, Password: password(authID)}
}

// at points to a number, of which 0 is another thing than none.
func at(n int) *int { return &n }
