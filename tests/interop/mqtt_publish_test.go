package interop_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// ofMeterMQTT is what an application is to get of meter-1 of a tenant over MQTT.
func ofMeterMQTT(tenant, topic, qos string) origin {
	return origin{tenant, "meter-1", "hono-mqtt", topic, qos, "application/vnd.acme", "22.5"}
}

// TestMosquittoProvesItself publishes with every proof and to every topic there is.
func TestMosquittoProvesItself(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, "")
	certificate := func(name, by string, more ...string) mosquitto {
		cert, key := p.certificate(t, name, by)
		return mosquitto{secure: true, args: append([]string{"--cert", cert, "--key", key}, more...)}
	}
	token := func(authID, clientID string, c jwt.MapClaims) mosquitto {
		return mosquitto{args: []string{"-i", clientID, "-u", "unused", "-P", p.token(t, authID, c, nil)}}
	}
	sensor, gateway := mosquitto{user: "sensor-1@" + acme}, mosquitto{user: "gw-1@" + acme}
	noNames := claims("", "", jwt.MapClaims{"aud": nil, "tid": nil, "sub": nil})
	behind := func(device, topic string) origin {
		return origin{acme, device, "hono-mqtt", topic, "1", "application/vnd.acme", "22.5"}
	}
	for _, tt := range []struct {
		name string
		mosquitto
		topic string
		want  origin
	}{
		{"password", sensor, "telemetry", ofMeterMQTT(acme, "telemetry", "1")},
		{"short", sensor, "t", ofMeterMQTT(acme, "t", "1")},
		{"slash at the end", sensor, "telemetry/", ofMeterMQTT(acme, "telemetry/", "1")},
		{"own tenant", sensor, "telemetry/" + acme + "/meter-1", ofMeterMQTT(acme, "telemetry/"+acme+"/meter-1", "1")},
		{"own device", sensor, "t//meter-1", ofMeterMQTT(acme, "t//meter-1", "1")},
		{"tenant by its alias", mosquitto{user: "sensor-1@acme-alias"}, "telemetry", ofMeterMQTT(acme, "telemetry", "1")},
		{"TLS", mosquitto{user: "sensor-1@" + acme, secure: true}, "telemetry", ofMeterMQTT(acme, "telemetry", "1")},
		{"TLS 1.2", mosquitto{user: "sensor-1@" + acme, secure: true, args: []string{"--tls-version", "tlsv1.2"}}, "telemetry", ofMeterMQTT(acme, "telemetry", "1")},
		{"TLS 1.3", mosquitto{user: "sensor-1@" + acme, secure: true, args: []string{"--tls-version", "tlsv1.3"}}, "telemetry", ofMeterMQTT(acme, "telemetry", "1")},
		{"certificate", certificate("meter-1", "known-ca"), "telemetry", ofMeterMQTT(acme, "telemetry", "1")},
		{"certificate that vouches for itself", certificate("alone", "alone"), "telemetry", ofMeterMQTT(acme, "telemetry", "1")},
		{"bad certificate, good password", certificate("nobody-knows-it", "shared-ca", "-u", "sensor-1@"+acme, "-P", password("sensor-1")), "telemetry", ofMeterMQTT(acme, "telemetry", "1")},
		{"token", token("sensor-1", "sensor", claims(acme, "sensor-1", nil)), "telemetry", ofMeterMQTT(acme, "telemetry", "1")},
		{"token, named by the client identifier", token("sensor-1", "tenants/"+acme+"/devices/sensor-1", noNames), "telemetry", ofMeterMQTT(acme, "telemetry", "1")},
		{"token, named as by Google", token("sensor-1", "projects/p/locations/l/registries/"+acme+"/devices/sensor-1", noNames), "telemetry", ofMeterMQTT(acme, "telemetry", "1")},
		{"gateway", gateway, "telemetry//meter-2", behind("meter-2", "telemetry//meter-2")},
		{"gateway, short", gateway, "t//meter-2", behind("meter-2", "t//meter-2")},
		{"gateway, tenant", gateway, "t/" + acme + "/meter:3", behind("meter:3", "t/"+acme+"/meter:3")},
		{"gateway by its certificate", certificate("gw-1", "known-ca"), "t//meter-2", behind("meter-2", "t//meter-2")},
		{"gateway for itself", gateway, "t", behind("gw-1", "t")},
		{"unknown device behind a gateway", mosquitto{user: "gw-auto@" + acme}, "t//behind-1", behind("behind-1", "t//behind-1")},
		{"unknown device with a certificate", certificate("new-1", "enrol-ca"), "t", behind("made-new-1", "t")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := p.receives(t, "telemetry", tt.want.tenant, "")
			for _, version := range versions {
				m := tt.mosquitto
				m.version = version
				m.publishes(t, p, "-t", tt.topic, "-m", "22.5")
				tt.want.arrived(t, app.await(t, "message"), "telemetry")
			}
			app.close()
		})
	}
}

// TestMosquittoSays looks at what a message says about itself, in both versions.
func TestMosquittoSays(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, "")
	telemetry, events := p.receives(t, "telemetry", acme, ""), p.receives(t, "event", acme, "")
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	const hour = 3600_000 // ms, the tenant's default for every message
	five := []string{"mqttv5"}
	for _, tt := range []struct {
		name     string
		versions []string
		qos      string
		topic    string
		args     []string
		want     event // content type, ttl, and whether it is retained and traced by the Subject
	}{
		{"nothing", versions, "0", "telemetry", nil, event{TTL: hour, ContentType: "application/vnd.acme"}},
		{"content type in the bag", versions, "1", "telemetry/?content-type=text%2Fplain", nil, event{TTL: hour, ContentType: textPlain}},
		{"names without case", versions, "1", "t/?Content-Type=text%2Fplain", nil, event{TTL: hour, ContentType: textPlain}},
		{"content type of MQTT 5", five, "1", "telemetry", []string{"-D", "publish", "content-type", textPlain}, event{TTL: hour, ContentType: textPlain}},
		{"bag before MQTT 5", five, "1", "t/?content-type=text%2Fcsv", []string{"-D", "publish", "content-type", textPlain}, event{TTL: hour, ContentType: "text/csv"}},
		{"user property", five, "1", "t", []string{"-D", "publish", "user-property", "content-type", textPlain}, event{TTL: hour, ContentType: textPlain}},
		{"retained", versions, "1", "t", []string{"-r"}, event{TTL: hour, ContentType: "application/vnd.acme", Subject: "retained"}},
		{"retained, QoS 0", versions, "0", "t", []string{"-r"}, event{TTL: hour, ContentType: "application/vnd.acme", Subject: "retained"}},
		{"traced", versions, "1", "t/?traceparent=" + parent, nil, event{TTL: hour, ContentType: "application/vnd.acme", Subject: "traced"}},
		{"traced by user property", five, "1", "t", []string{"-D", "publish", "user-property", "traceparent", parent}, event{TTL: hour, ContentType: "application/vnd.acme", Subject: "traced"}},
		{"gateway", versions, "1", "t//meter-1/?content-type=text%2Fplain", nil, event{TTL: hour, ContentType: textPlain}},

		{"event", versions, "1", "event", nil, event{ContentType: "application/vnd.acme", TTL: hour}},
		{"short event", versions, "1", "e", nil, event{ContentType: "application/vnd.acme", TTL: hour}},
		{"ttl", versions, "1", "e/?hono-ttl=30", nil, event{ContentType: "application/vnd.acme", TTL: 30_000}},
		{"ttl beyond the tenant's", versions, "1", "e/?hono-ttl=86400", nil, event{ContentType: "application/vnd.acme", TTL: 2 * hour}},
		{"negative ttl", versions, "1", "e/?hono-ttl=-1", nil, event{ContentType: "application/vnd.acme", TTL: hour}},
		{"message expiry", five, "1", "e", []string{"-D", "publish", "message-expiry-interval", "40"}, event{ContentType: "application/vnd.acme", TTL: 40_000}},
		{"bag before message expiry", five, "1", "e/?hono-ttl=30", []string{"-D", "publish", "message-expiry-interval", "40"}, event{ContentType: "application/vnd.acme", TTL: 30_000}},
	} {
		for _, version := range tt.versions {
			t.Run(tt.name+" "+version, func(t *testing.T) {
				m := mosquitto{version: version, user: "sensor-1@" + acme}
				args := append([]string{"-q", tt.qos, "-t", tt.topic, "-m", "22.5"}, tt.args...)
				if r := m.run(t, p, "pub", args...); r.code != 0 {
					t.Fatalf("mosquitto_pub ended with %d: %s", r.code, r.stderr)
				}
				app, endpoint := telemetry, "telemetry"
				if tt.topic[0] == 'e' {
					app, endpoint = events, "event"
				}
				got := app.await(t, "message")
				origin{acme, "meter-1", "hono-mqtt", tt.topic, tt.qos, tt.want.ContentType, "22.5"}.arrived(t, got, endpoint)
				if got.TTL > tt.want.TTL || got.TTL < tt.want.TTL-int(patience.Milliseconds()) {
					t.Errorf("of use for %d ms; want %d", got.TTL, tt.want.TTL)
				}
				if retained := got.Annotations["x-opt-retain"] == true; retained != (tt.want.Subject == "retained") {
					t.Errorf("retained: %t", retained)
				}
				if traced := traceOf(got)["traceparent"] == parent; traced != (tt.want.Subject == "traced") {
					t.Errorf("traced: %t", traced)
				}
				if got.Properties["site"] != "north" || fmt.Sprint(got.Properties["floor"]) != "2" {
					t.Errorf("properties %v; want site north of the tenant, floor 2 of the device", got.Properties)
				}
			})
		}
	}
}

// TestMosquittoBodies looks at what arrives of empty and of the largest messages, with
// a client that nobody here wrote at both ends.
func TestMosquittoBodies(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, "")
	const notification = "application%2Fvnd.eclipse-hono-empty-notification"
	for _, kind := range []string{"go-amqp", "proton"} {
		app := startReceiver(t, kind, p.app("telemetry/"+acme))
		for _, version := range versions {
			m := mosquitto{version: version, user: "sensor-1@" + acme}
			m.publishes(t, p, "-t", "t/?content-type="+notification, "-n")
			if e := app.await(t, "message"); e.Size != 0 || e.ContentType != "application/vnd.eclipse-hono-empty-notification" {
				t.Errorf("%s %s: got %d bytes of %q; want an empty notification", kind, version, e.Size, e.ContentType)
			}
			body := strings.Repeat("x", 2048)
			m.publishes(t, p, "-t", "t", "-m", body)
			if e := app.await(t, "message"); string(e.Body) != body {
				t.Errorf("%s %s: got %d bytes; want %d", kind, version, len(e.Body), len(body))
			}
		}
		app.close()
	}
}

// TestPaho5CallsItsTenant shows certificates of an authority that two tenants trust.
func TestPaho5CallsItsTenant(t *testing.T) {
	p := startPlant(t, "")
	cert, key := p.certificate(t, "meter-1", "shared-ca")
	for host, tenant := range map[string]string{"SHARE-A.sluice.example": "SHARE-A", "share-b.sluice.example": "SHARE-B"} {
		app := p.receives(t, "telemetry", tenant, "")
		d := p.connects(t, "paho5", mqttOptions{CA: p.ca, Cert: cert, Key: key, ServerName: host})
		d.publishes(t, "t", "22.5")
		origin{tenant, "meter-1", "hono-mqtt", "t", "1", "application/octet-stream", "22.5"}.arrived(t, app.await(t, "message"), "telemetry")
	}
	for _, host := range []string{"nobody.sluice.example", "localhost"} {
		d := p.dials(t, "paho5", mqttOptions{CA: p.ca, Cert: cert, Key: key, ServerName: host})
		if e := d.await(t, "connack"); e.Code != 0x86 || e.Reason == "" {
			t.Errorf("SNI %s is answered %#x %q; want 0x86", host, e.Code, e.Reason)
		}
	}
}

// TestPaho5UserProperties expects the application to get what the device says beside the payload.
func TestPaho5UserProperties(t *testing.T) {
	p := startPlant(t, "")
	app := p.receives(t, "telemetry", acme, "")
	d := p.connects(t, "paho5", asSensor("sensor-1@"+acme))
	d.does(t, mqttCommand{Cmd: "publish", ID: 7, Topic: "telemetry", Payload: "22.5", QoS: 1, ContentType: textPlain, Properties: [][2]string{
		{"batch", "17"}, {"floor", "9"}, {"device_id", "meter-2"}, {"tenant_id", other}, {"orig_adapter", "mine"}, {"reg_assertion", "forged"}, {"x-opt-retain", "true"},
	}})
	if e := d.await(t, "puback"); e.Code != 0 || e.ID != 7 {
		t.Errorf("answered %+v", e)
	}
	m := app.await(t, "message")
	origin{acme, "meter-1", "hono-mqtt", "telemetry", "1", textPlain, "22.5"}.arrived(t, m, "telemetry")
	for name, want := range map[string]any{"batch": "17", "floor": "9", "site": "north", "reg_assertion": nil, "x-opt-retain": nil, "tenant_id": nil} {
		if got := m.Properties[name]; got != want {
			t.Errorf("property %s is %v; want %v", name, got, want)
		}
	}
}
