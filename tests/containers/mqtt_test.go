package containers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// addMQTT makes an MQTT adapter, which asks functions at host:port and knows all routers
// by one name, as the HTTP adapter does.
func (n *site) addMQTT(t *testing.T, functions string) *box {
	t.Helper()
	b := n.create(t, spec{
		name: "mqtt-0", kind: "adapter", args: []string{"adapter", "mqtt"}, ports: []string{"8883"},
		config: fmt.Sprintf(`functions: {identity: "https://%s"}
routers: ["amqps://router:5673"]
listeners:
  - {role: adapter/mqtt, address: "0.0.0.0:8883", tls: {}}
  - %s
`, functions, probe),
	})
	n.adapters = append(n.adapters, b)
	return b
}

// mosquitto is a client of Mosquitto that logs in at an adapter as a device, with TLS.
func (n *site) mosquitto(ctx context.Context, t *testing.T, adapter *box, program, id string, args ...string) *exec.Cmd {
	t.Helper()
	_, err := exec.LookPath(program)
	need(t, program+" (Debian package mosquitto-clients)", err)
	address, err := adapter.published(ctx, "8883")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(ctx, program, append([]string{"-h", host, "-p", port, "--cafile", filepath.Join(n.dir, "ca.crt"),
		"-V", "mqttv5", "-u", id + "@" + tenant, "-P", secretOf(id)}, args...)...)
}

// publish has a device publish a message with QoS 1 on a connection of its own. It
// returns nil when the PUBACK came: the client waits for it.
func (n *site) publish(t *testing.T, adapter *box, id, body string) error {
	t.Helper()
	// It tries for ever to get one when its connection is closed without.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := n.mosquitto(ctx, t, adapter, "mosquitto_pub", id, "-q", "1", "-t", telemetry, "-m", body)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// testMQTT has a device reach the application by the MQTT adapter, and disables it
// while it is connected.
func (n *site) testMQTT(t *testing.T, adapter *box, app *application, id string) {
	eventually(t, "a message is acknowledged", func() error { return n.publish(t, adapter, id, "by MQTT") })
	app.await(t, "by MQTT")
	if err := n.publish(t, adapter, "nobody", "x"); err == nil || !strings.Contains(strings.ToLower(err.Error()), "password") {
		t.Errorf("a device without credentials: %v", err)
	}

	var said bytes.Buffer
	connected := n.mosquitto(t.Context(), t, adapter, "mosquitto_sub", id, "-d", "-t", "error///#")
	connected.Stdout, connected.Stderr = &said, &said
	if err := connected.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- connected.Wait() }()
	adapter.awaitConnections(t, 1)
	n.enable(t, n.functions[0], id, false)
	began := time.Now()
	adapter.awaitConnections(t, 0)
	measure(t, "operator answered to the end of the MQTT connection of a disabled device", "%s", ms(time.Since(began)))
	// The client ends when it is told why it has to go.
	select {
	case err := <-ended:
		if !strings.Contains(said.String(), "DISCONNECT (135)") {
			t.Errorf("the client ended with %v; want one that got a DISCONNECT for want of authority:\n%s", err, &said)
		}
	case <-time.After(patience):
		t.Error("the client of a disabled device does not end")
		connected.Process.Kill()
		<-ended
	}
	if err := n.publish(t, adapter, id, "while disabled"); err == nil || !strings.Contains(err.Error(), "Not authorized") {
		t.Errorf("a disabled device: %v", err)
	}
	n.enable(t, n.functions[0], id, true)
	eventually(t, "a message of a device enabled again is acknowledged", func() error { return n.publish(t, adapter, id, "enabled again, by MQTT") })
	app.await(t, "enabled again, by MQTT")
}

// connections is the adapter's own figure of devices that are connected.
var connections = regexp.MustCompile(`(?m)^hono_connections_authenticated\{[^}]*\} (\d+)$`)

// awaitConnections waits until so many devices are connected.
func (b *box) awaitConnections(t *testing.T, want int) {
	t.Helper()
	address, err := b.published(t.Context(), healthPort)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("%d connections of devices", want), func() error {
		text, err := figures(t.Context(), address)
		if err != nil {
			return err
		}
		var got []string
		for _, m := range connections.FindAllStringSubmatch(text, -1) {
			got = append(got, m[1])
		}
		// A tenant without a connection may be there with 0, or not at all.
		if all := strings.Join(got, "+"); all != fmt.Sprint(want) && (want > 0 || all != "") {
			return fmt.Errorf("there are %q", all)
		}
		return nil
	})
}

func figures(ctx context.Context, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := probes.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := readAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New(resp.Status))
	}
	return text, err
}
