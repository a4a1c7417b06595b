package interop_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const textPlain = "text/plain"

// ofMeter is what an application is to get of meter-1 of a tenant over HTTP.
func ofMeter(tenant, address, qos string) origin {
	return origin{tenant, "meter-1", "hono-http", address, qos, textPlain, "22.5"}
}

// TestCurlProvesItself uploads with every proof and from every address there is.
func TestCurlProvesItself(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	sensor := "sensor-1@" + acme
	whole := base64.StdEncoding.EncodeToString([]byte(sensor + ":" + password("sensor-1")))
	token := p.token(t, "sensor-1", claims(acme, "sensor-1", nil), nil)
	byURI := p.token(t, "jwt-1", jwt.MapClaims{"iat": claims("", "", nil)["iat"], "exp": claims("", "", nil)["exp"]}, nil)
	certificate := func(name, by string) []string {
		cert, key := p.certificate(t, name, by)
		return []string{"--cert", cert, "--key", key}
	}
	meter, gateway := certificate("meter-1", "known-ca"), certificate("gw-1", "known-ca")
	shared, selfSigned := certificate("meter-1", "shared-ca"), certificate("alone", "alone")
	// The name by which the server is called is all that is true of its address.
	called := func(host string, args []string) request {
		return request{base: "https://" + host + ":8443", args: append([]string{"-k", "--connect-to", host + ":8443:" + p.deviceTLS}, args...)}
	}
	for _, tt := range []struct {
		name string
		request
		want    origin
		version string // of HTTP; "" = 1.1
	}{
		{"password", request{user: sensor}, ofMeter(acme, "/telemetry", "0"), ""},
		{"password over TLS 1.2", request{user: sensor, secure: true, args: []string{"--http1.1", "--tls-max", "1.2"}}, ofMeter(acme, "/telemetry", "0"), ""},
		{"password over TLS 1.3", request{user: sensor, secure: true, args: []string{"--http1.1", "--tlsv1.3"}}, ofMeter(acme, "/telemetry", "0"), ""},
		{"password and HTTP/2", request{user: sensor, secure: true, args: []string{"--http2"}}, ofMeter(acme, "/telemetry", "0"), "HTTP/2"},
		{"tenant by its alias", request{user: "sensor-1@acme-alias"}, ofMeter(acme, "/telemetry", "0"), ""},
		{"all in the user name", request{args: []string{"-u", whole + ":"}}, ofMeter(acme, "/telemetry", "0"), ""},
		{"all in the URL", request{base: "http://" + whole + "@" + p.device}, ofMeter(acme, "/telemetry", "0"), ""},
		{"query", request{user: sensor, target: "/telemetry?of=interest"}, ofMeter(acme, "/telemetry?of=interest", "0"), ""},
		{"QoS 1", request{user: sensor, header: []string{"QoS-Level: 1"}}, ofMeter(acme, "/telemetry", "1"), ""},
		{"QoS 1 in lower case", request{user: sensor, header: []string{"qos-level: 1"}}, ofMeter(acme, "/telemetry", "1"), ""},
		{"charset is dropped", request{user: sensor, contentType: "text/plain; charset=utf-8"}, ofMeter(acme, "/telemetry", "0"), ""},
		{"chunked", request{user: sensor, header: []string{"Transfer-Encoding: chunked"}}, ofMeter(acme, "/telemetry", "0"), ""},

		{"token", request{header: []string{"Authorization: Bearer " + token}}, ofMeter(acme, "/telemetry", "0"), ""},
		{"token over TLS", request{secure: true, args: []string{"--http2"}, header: []string{"Authorization: Bearer " + token}}, ofMeter(acme, "/telemetry", "0"), "HTTP/2"},
		{"token whose device is in the URI", request{method: "PUT", target: "/telemetry/" + acme + "/jwt-1", header: []string{"Authorization: Bearer " + byURI}},
			origin{acme, "jwt-1", "hono-http", "/telemetry/" + acme + "/jwt-1", "0", textPlain, "22.5"}, ""},

		{"certificate", request{secure: true, args: append([]string{"--http1.1"}, meter...)}, ofMeter(acme, "/telemetry", "0"), ""},
		{"certificate over TLS 1.2", request{secure: true, args: append([]string{"--http1.1", "--tls-max", "1.2"}, meter...)}, ofMeter(acme, "/telemetry", "0"), ""},
		{"certificate and HTTP/2", request{secure: true, args: append([]string{"--http2"}, meter...)}, ofMeter(acme, "/telemetry", "0"), "HTTP/2"},
		{"certificate that vouches for itself", request{secure: true, args: append([]string{"--http1.1"}, selfSigned...)}, ofMeter(acme, "/telemetry", "0"), ""},
		{"certificate before a wrong password", request{secure: true, args: append([]string{"--http1.1", "-u", "sensor-1@" + other + ":wrong"}, meter...)}, ofMeter(acme, "/telemetry", "0"), ""},
		{"shared authority, tenant by SNI", called("SHARE-A.sluice.example", append([]string{"--http1.1"}, shared...)), ofMeter("SHARE-A", "/telemetry", "0"), ""},
		{"shared authority, alias by SNI", called("share-b.sluice.example", append([]string{"--http1.1"}, shared...)), ofMeter("SHARE-B", "/telemetry", "0"), ""},

		{"gateway for a device", request{method: "PUT", target: "/telemetry/" + acme + "/meter-2", user: "gw-1@" + acme},
			origin{acme, "meter-2", "hono-http", "/telemetry/" + acme + "/meter-2", "0", textPlain, "22.5"}, ""},
		{"gateway, its own tenant", request{method: "PUT", target: "/telemetry//meter-2", user: "gw-1@" + acme},
			origin{acme, "meter-2", "hono-http", "/telemetry//meter-2", "0", textPlain, "22.5"}, ""},
		{"gateway, encoded id", request{method: "PUT", target: "/telemetry//meter%3A3", user: "gw-1@" + acme},
			origin{acme, "meter:3", "hono-http", "/telemetry//meter%3A3", "0", textPlain, "22.5"}, ""},
		{"gateway by its certificate", request{method: "PUT", target: "/telemetry//meter-2", secure: true, args: append([]string{"--http1.1"}, gateway...)},
			origin{acme, "meter-2", "hono-http", "/telemetry//meter-2", "0", textPlain, "22.5"}, ""},
		{"gateway for itself", request{user: "gw-1@" + acme}, origin{acme, "gw-1", "hono-http", "/telemetry", "0", textPlain, "22.5"}, ""},
		{"device by its own URI", request{method: "PUT", target: "/telemetry//meter-1", user: sensor}, ofMeter(acme, "/telemetry//meter-1", "0"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := p.receives(t, "telemetry", tt.want.tenant, "")
			got := tt.curl(t, p)
			got.accepted(t)
			if tt.version == "" {
				tt.version = "HTTP/1.1"
			}
			if got.version != tt.version {
				t.Errorf("answered in %s; want %s", got.version, tt.version)
			}
			tt.want.arrived(t, app.await(t, "message"), "telemetry")
		})
	}
}

// TestCurlSendsEvents looks at how long events are of use, and at what reaches the application.
func TestCurlSendsEvents(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	app := p.receives(t, "event", acme, "")
	const hour = 3600_000 // ms, the tenant's default
	for _, tt := range []struct {
		name string
		request
		ttl int // ms
	}{
		{"default", request{target: "/event"}, hour},
		{"header", request{target: "/event", header: []string{"hono-ttl: 30"}}, 30_000},
		{"query", request{target: "/event?hono-ttl=40"}, 40_000},
		{"header before query", request{target: "/event?hono-ttl=40", header: []string{"hono-ttl: 30"}}, 30_000},
		{"more than the tenant allows", request{target: "/event?hono-ttl=86400"}, 2 * hour},
		{"no number", request{target: "/event?hono-ttl=soon"}, hour},
		{"negative", request{target: "/event", header: []string{"hono-ttl: -1"}}, hour},
		{"QoS 1", request{target: "/event", header: []string{"QoS-Level: 1"}}, hour},
		{"gateway", request{method: "PUT", target: "/event//meter-2", user: "gw-1@" + acme}, hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			device := "meter-2"
			if tt.user == "" {
				tt.user, device = "sensor-1@"+acme, "meter-1"
			}
			tt.curl(t, p).accepted(t)
			m := app.await(t, "message")
			origin{acme, device, "hono-http", tt.target, "1", textPlain, "22.5"}.arrived(t, m, "event")
			// The time that it spent with us is taken off.
			if m.TTL > tt.ttl || m.TTL < tt.ttl-int(patience.Milliseconds()) {
				t.Errorf("of use for %d ms; want %d", m.TTL, tt.ttl)
			}
		})
	}
}

// TestCurlToEachApplication looks at bodies, defaults and traces with clients that nobody here wrote.
func TestCurlToEachApplication(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, kind := range []string{"go-amqp", "proton"} {
		t.Run(kind, func(t *testing.T) {
			app := startReceiver(t, kind, p.app("telemetry/"+acme))
			sensor := "sensor-1@" + acme
			request{user: sensor, header: []string{"traceparent: " + parent, "tracestate: vendor=1"}}.curl(t, p).accepted(t)
			m := app.await(t, "message")
			if kind == "go-amqp" {
				if got := traceOf(m); got["traceparent"] != parent || got["tracestate"] != "vendor=1" {
					t.Errorf("trace context %v; want %s, vendor=1", got, parent)
				}
			} else if got := fmt.Sprint(m.Annotations["x-opt-trace-context"]); !strings.Contains(got, parent) {
				t.Errorf("trace context %s; want %s", got, parent)
			}
			if m.Properties["site"] != "north" || fmt.Sprint(m.Properties["floor"]) != "2" {
				t.Errorf("properties %v; want site north of the tenant, floor 2 of the device", m.Properties)
			}
			for _, section := range []map[string]any{m.DeliveryAnnotations, m.Annotations, m.Properties} {
				if section["x-opt-reg-assertion"] != nil || section["reg_assertion"] != nil {
					t.Errorf("the application sees the assertion: %v", section)
				}
			}

			request{user: sensor, contentType: "-"}.curl(t, p).accepted(t)
			if m = app.await(t, "message"); m.ContentType != "application/vnd.acme" {
				t.Errorf("content type %q; want the tenant's default", m.ContentType)
			}
			request{user: "sensor-1@" + other, contentType: "-"}.curl(t, p).says(t, 503, "no consumer available")

			const notification = "application/vnd.eclipse-hono-empty-notification"
			request{user: sensor, contentType: notification, body: "-"}.curl(t, p).accepted(t)
			if m = app.await(t, "message"); m.ContentType != notification || m.Size != 0 {
				t.Errorf("got %d bytes of %q; want an empty notification", m.Size, m.ContentType)
			}
			body := strings.Repeat("\x00\xff", 1024) // the largest
			request{user: sensor, body: body, contentType: "application/octet-stream"}.curl(t, p).accepted(t)
			if m = app.await(t, "message"); string(m.Body) != body {
				t.Errorf("got %d bytes; want %d", len(m.Body), len(body))
			}
		})
	}
}

// TestCurlOfUnknownDevices uploads for devices that nobody registered.
func TestCurlOfUnknownDevices(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	app := p.receives(t, "telemetry", acme, "")
	for _, tt := range []struct {
		name, by, id string
		gateway      bool
	}{
		{"new-1", "enrol-ca", "made-new-1", false},
		{"gw-new", "gateway-ca", "gw-new", true},
	} {
		t.Run("by certificate of "+tt.by, func(t *testing.T) {
			cert, key := p.certificate(t, tt.name, tt.by)
			for range 2 { // the second time it is known
				request{secure: true, args: []string{"--cert", cert, "--key", key}}.curl(t, p).accepted(t)
				if m := app.await(t, "message"); m.Annotations["device_id"] != tt.id {
					t.Errorf("message of %v; want %s", m.Annotations["device_id"], tt.id)
				}
			}
			d := p.provisioned(t, acme, tt.id)
			if !d.Status.AutoProvisioned || (len(d.Authorities) > 0) != tt.gateway {
				t.Errorf("registered as %+v; want it provisioned, a gateway: %t", d, tt.gateway)
			}
		})
	}
	t.Run("by gateway", func(t *testing.T) {
		q := request{method: http.MethodPut, target: "/telemetry//behind-1", user: "gw-auto@" + acme}
		q.curl(t, p).accepted(t)
		if m := app.await(t, "message"); m.Annotations["device_id"] != "behind-1" {
			t.Errorf("message of %v; want behind-1", m.Annotations["device_id"])
		}
		if d := p.provisioned(t, acme, "behind-1"); !d.Status.AutoProvisioned || fmt.Sprint(d.Via) != "[gw-auto]" {
			t.Errorf("registered as %+v; want it provisioned, via gw-auto", d)
		}
	})
	t.Run("by a gateway that may not", func(t *testing.T) {
		request{method: http.MethodPut, target: "/telemetry//behind-2", user: "gw-1@" + acme}.curl(t, p).says(t, 404, "device is disabled or not registered")
		p.registers(t, http.MethodGet, "devices/"+acme+"/behind-2", "", 404)
	})
	t.Run("by a certificate of an authority that only vouches", func(t *testing.T) {
		cert, key := p.certificate(t, "new-2", "known-ca")
		request{secure: true, args: []string{"--cert", cert, "--key", key}}.curl(t, p).says(t, 401, "bad credentials")
	})
}

// TestCurlWithoutAuthentication has devices that name themselves in the URI.
func TestCurlWithoutAuthentication(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "adapters: {http: {authentication-required: false}}\n")
	p.registers(t, http.MethodPut, "tenants/"+other, `{"adapters": [{"type": "hono-http", "enabled": true, "device-authentication-required": false}]}`, 204)
	app := p.receives(t, "telemetry", other, "")
	own := "/telemetry/" + other + "/meter-1"
	request{method: http.MethodPut, target: own}.curl(t, p).accepted(t)
	ofMeter(other, own, "0").arrived(t, app.await(t, "message"), "telemetry")
	for _, tt := range []struct {
		method, target string
		status         int
	}{
		{"PUT", "/telemetry", 404},
		{"PUT", "/telemetry/" + other, 404},
		{"PUT", "/telemetry//meter-1", 404},
		{"PUT", "/telemetry/" + other + "/nobody", 404},
		{"PUT", "/telemetry/NOWHERE/meter-1", 404},
		{"PUT", "/telemetry/" + dark + "/meter-1", 403},
		{"PUT", "/telemetry/NOHTTP/meter-1", 403},
		{"PUT", "/telemetry/" + acme + "/meter-1", 401}, // a tenant whose devices have to say who they are
		{"POST", "/telemetry", 404},
	} {
		got := request{method: tt.method, target: tt.target}.curl(t, p)
		if got.says(t, tt.status, ""); !strings.HasPrefix(got.body, `{"error":"`) {
			t.Errorf("%s %s: %d says %s", tt.method, tt.target, got.status, got.body)
		}
	}
}

// TestEventsOfDevicesAreKept sends events while no application is there.
func TestEventsOfDevicesAreKept(t *testing.T) {
	needCurl(t)
	needMosquitto(t)
	p := startPlant(t, "")
	sensor := "sensor-1@" + acme
	request{user: sensor, target: "/event?hono-ttl=1", body: "expired"}.curl(t, p).accepted(t)
	request{user: sensor, target: "/event", body: "by HTTP"}.curl(t, p).accepted(t)
	m := mosquitto{version: "mqttv5", user: sensor}
	m.publishes(t, p, "-t", "event", "-m", "expired, too", "-D", "publish", "message-expiry-interval", "1")
	m.publishes(t, p, "-t", "event/?hono-ttl=1", "-m", "expired as well")
	m.publishes(t, p, "-t", "event", "-m", "by MQTT")
	time.Sleep(1100 * time.Millisecond) // what is of no use any more
	app := p.receives(t, "event", acme, "")
	for _, want := range []origin{
		{acme, "meter-1", "hono-http", "/event", "1", textPlain, "by HTTP"},
		{acme, "meter-1", "hono-mqtt", "event", "1", "application/vnd.acme", "by MQTT"},
	} {
		want.arrived(t, app.await(t, "message"), "event")
	}
}

// TestDevicesWithWrongTLS shows what no device may use.
func TestDevicesWithWrongTLS(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	late := issue(t, "meter-1", p.anchor["known-ca"])
	late.cert.NotBefore, late.cert.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, late.cert, p.anchor["known-ca"].cert, late.key.Public(), p.anchor["known-ca"].key)
	if err != nil {
		t.Fatal(err)
	}
	late.text = base64.StdEncoding.EncodeToString(der)
	cert, key := writeCertificate(t, late)
	for name, args := range map[string][]string{
		"TLS 1.1":             {"--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"},
		"expired certificate": {"--cert", cert, "--key", key},
	} {
		for _, addr := range []string{p.deviceTLS, p.mqttTLS} {
			out, err := exec.Command("curl", append([]string{"-sS", "--http1.1", "--cacert", p.ca, "https://localhost:" + port(addr)}, args...)...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "SSL") && !strings.Contains(string(out), "alert") {
				t.Errorf("%s at %s: %v: %s; want the handshake to fail", name, addr, err, out)
			}
		}
	}
}
