package interop_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
)

// Content types of what applications are told of devices.
const (
	emptyNotification = "application/vnd.eclipse-hono-empty-notification"
	connectionEvent   = "application/vnd.eclipse-hono-dc-notification+json"
)

// TestApplicationsHearOfDevices counts what applications are told of subscriptions
// and of connections.
func TestApplicationsHearOfDevices(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, "adapters: {mqtt: {connection-events: events}}\n")
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			tenant := "HEARS-" + kind // what one kind has not settled when it ends, others would get
			p.registers(t, http.MethodPost, "tenants/"+tenant, "{}", 201)
			p.registersDevice(t, tenant, "meter-1", `{}`, hashed("sensor-1"))
			p.registersDevice(t, tenant, "meter-2", `{"via": ["gw-1"]}`)
			p.registersDevice(t, tenant, "gw-1", `{}`, hashed("gw-1"))
			events := startReceiver(t, kind, p.app("event/"+tenant))
			hears := func(want ...string) {
				t.Helper()
				var got []string
				for range want {
					got = append(got, notice(t, events.await(t, "message"), tenant))
				}
				slices.Sort(got)
				if slices.Sort(want); !slices.Equal(got, want) {
					t.Fatalf("told\n%q; want\n%q", got, want)
				}
			}
			m := mosquitto{version: "mqttv5", user: "sensor-1@" + tenant, args: []string{"-i", "lamp"}}
			l := m.listens(t, p, 1, "-t", "c///q/#")
			hears("meter-1 connected as lamp", "meter-1 ttd -1 at c///q/#")
			l.interrupt(t)
			hears("meter-1 ttd 0 at c///q/#", "meter-1 disconnected as lamp")

			gateway := mosquitto{version: "mqttv311", user: "gw-1@" + tenant, args: []string{"-i", "gateway"}}
			l = gateway.listens(t, p, 0, "-t", "c//meter-2/q/#", "-t", "command//+/req/#")
			hears("gw-1 connected as gateway", "meter-2 ttd -1 at c//meter-2/q/#", "gw-1 ttd -1 at command//+/req/#")
			l.kill()
			hears("gw-1 disconnected as gateway", "meter-2 ttd 0 at c//meter-2/q/#", "gw-1 ttd 0 at command//+/req/#")

			// Nothing is said of the end of a subscription whose place another has taken.
			first := m.listens(t, p, 1, "-t", "c///q/#")
			hears("meter-1 connected as lamp", "meter-1 ttd -1 at c///q/#")
			m.args[1] = "other lamp"
			second := m.listens(t, p, 1, "-t", "command///req/#")
			hears("meter-1 connected as other lamp", "meter-1 ttd -1 at command///req/#")
			first.interrupt(t)
			hears("meter-1 disconnected as lamp")
			second.interrupt(t)
			hears("meter-1 ttd 0 at command///req/#", "meter-1 disconnected as other lamp")

			// Waiting over HTTP is told with what is uploaded, and with nothing else.
			request{user: "sensor-1@" + tenant, target: "/event?hono-ttd=1"}.curl(t, p).accepted(t)
			hears("meter-1 22.5 with ttd 1")
			m.publishes(t, p, "-t", "event", "-m", "end")
			hears("meter-1 connected as other lamp", "meter-1 end", "meter-1 disconnected as other lamp")
		})
	}
}

// notice is what an event tells, in a line.
func notice(t *testing.T, e event, tenant string) string {
	t.Helper()
	device, ttd := fmt.Sprint(e.Properties["device_id"]), fmt.Sprint(e.Properties["ttd"])
	adapter, qos := e.Properties["orig_adapter"], fmt.Sprint(e.Properties["qos"])
	if !e.Durable || qos != "1" || e.To != "event/"+tenant || e.MessageID == "" {
		t.Errorf("told %+v", e)
	}
	switch e.ContentType {
	case emptyNotification:
		if len(e.Body) != 0 || adapter != "hono-mqtt" {
			t.Errorf("told %+v", e)
		}
		return fmt.Sprintf("%s ttd %s at %v", device, ttd, e.Properties["orig_address"])
	case connectionEvent:
		var got struct {
			Cause  string `json:"cause"`
			Remote string `json:"remote-id"`
			Source string `json:"source"`
		}
		if err := json.Unmarshal(e.Body, &got); err != nil || got.Source != "hono-mqtt" {
			t.Errorf("told %q: %v", e.Body, err)
		}
		return fmt.Sprintf("%s %s as %s", device, got.Cause, got.Remote)
	}
	if e.Properties["ttd"] == nil {
		return fmt.Sprintf("%s %s", device, e.Body)
	}
	return fmt.Sprintf("%s %s with ttd %s", device, e.Body, ttd)
}
