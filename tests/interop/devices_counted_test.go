package interop_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// counts reads the program's metrics: figures by name and tags.
func (p *plant) counts(t *testing.T) map[string]string {
	t.Helper()
	resp, err := client.Get("http://" + p.health + "/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			all[line[:i]] = line[i+1:]
		}
	}
	return all
}

// TestDevicesAreCounted looks at what is counted of uploads and connections, in Hono's
// names and tags.
func TestDevicesAreCounted(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	for _, endpoint := range []string{"telemetry", "event"} {
		p.receives(t, endpoint, acme, "").ignore(t)
	}
	p.registers(t, http.MethodPut, "tenants/"+other, `{"resource-limits": {"max-connections": 1}}`, 204)
	sensor := request{user: "sensor-1@" + acme}
	sensor.curl(t, p).accepted(t)
	request{user: sensor.user, header: []string{"QoS-Level: 1"}}.curl(t, p).accepted(t)
	request{user: sensor.user, target: "/event"}.curl(t, p).accepted(t)
	request{user: "sensor-1@" + other}.curl(t, p).says(t, 503, "")

	d := p.connects(t, "paho5", asSensor(sensor.user))
	for range 2 {
		d.publishes(t, "t", "22.5")
	}
	d.publishes(t, "e", "22.5")
	d.does(t, mqttCommand{Cmd: "publish", Topic: "t/?on-error=ignore", QoS: 1}) // without payload and content type
	d.await(t, "puback")
	p.connects(t, "paho5", asSensor("sensor-1@"+other)).publishesNothing(t)
	for user, code := range map[string]int{"nobody@" + acme: 0x86, "meter-off@" + acme: 0x87, "sensor-1@" + other: 0x97, "sensor-1@NOMQTT": 0x87} {
		if e := p.dials(t, "paho5", asSensor(user)).await(t, "connack"); e.Code != code {
			t.Errorf("%s is answered %#x %s; want %#x", user, e.Code, e.Reason, code)
		}
	}

	counted := p.counts(t)
	host := ""
	for name := range counted {
		if _, rest, ok := strings.Cut(name, `,host="`); ok && strings.HasPrefix(name, "hono_") {
			host, _, _ = strings.Cut(rest, `"`)
		}
	}
	for _, want := range []struct{ name, component, tags, n string }{
		{"hono_telemetry_payload_bytes_count", "hono-http", `qos="0",status="forwarded",tenant="ACME",ttd="none",type="telemetry"`, "1"},
		{"hono_telemetry_payload_bytes_sum", "hono-http", `qos="1",status="forwarded",tenant="ACME",ttd="none",type="telemetry"`, "4"},
		{"hono_telemetry_payload_bytes_sum", "hono-http", `qos="1",status="forwarded",tenant="ACME",ttd="none",type="event"`, "4"},
		{"hono_telemetry_payload_bytes_count", "hono-http", `qos="0",status="undeliverable",tenant="OTHER",ttd="none",type="telemetry"`, "1"},
		{"hono_telemetry_processing_duration_seconds_count", "hono-http", `qos="1",status="forwarded",tenant="ACME",ttd="none",type="event"`, "1"},
		{"hono_telemetry_payload_bytes_sum", "hono-mqtt", `qos="1",status="forwarded",tenant="ACME",ttd="none",type="telemetry"`, "8"},
		{"hono_telemetry_payload_bytes_count", "hono-mqtt", `qos="1",status="forwarded",tenant="ACME",ttd="none",type="event"`, "1"},
		{"hono_telemetry_payload_bytes_count", "hono-mqtt", `qos="1",status="unprocessable",tenant="ACME",ttd="none",type="telemetry"`, "1"},
		{"hono_telemetry_payload_bytes_count", "hono-mqtt", `qos="1",status="undeliverable",tenant="OTHER",ttd="none",type="telemetry"`, "1"},
		{"hono_connections_authenticated", "hono-mqtt", `tenant="ACME"`, "1"},
		{"hono_connections_authenticated", "hono-mqtt", `tenant="OTHER"`, "1"},
		{"hono_connections_unauthenticated", "hono-mqtt", "", "0"},
		{"hono_connections_attempts_total", "hono-mqtt", `outcome="succeeded",tenant="ACME"`, "1"},
		{"hono_connections_attempts_total", "hono-mqtt", `outcome="unauthorized",tenant="ACME"`, "1"},
		{"hono_connections_attempts_total", "hono-mqtt", `outcome="registration-assertion-failure",tenant="ACME"`, "1"},
		{"hono_connections_attempts_total", "hono-mqtt", `outcome="tenant-connections-exceeded",tenant="OTHER"`, "1"},
		// A tenant of which nobody was let in is not named: names would be anybody's to invent.
		{"hono_connections_attempts_total", "hono-mqtt", `outcome="adapter-disabled",tenant="UNKNOWN"`, "1"},
	} {
		tags := `component_name="` + want.component + `",component_type="adapter",host="` + host + `"`
		if strings.HasPrefix(want.tags, "outcome") {
			tags = `cipher_suite="UNKNOWN",` + tags
		}
		if want.tags != "" {
			tags += "," + want.tags
		}
		if name := want.name + "{" + tags + "}"; counted[name] != want.n {
			t.Errorf("%s is %q; want %s", name, counted[name], want.n)
		}
	}
}
