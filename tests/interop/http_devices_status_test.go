package interop_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestCurlIsRefused asserts every status of an upload, and that the device is told
// what is wrong.
func TestCurlIsRefused(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	p.receives(t, "telemetry", acme, "").ignore(t) // it is nobody's absence
	p.receives(t, "event", acme, "").ignore(t)
	const (
		badCredentials = "bad credentials"
		unknownDevice  = "device is disabled or not registered"
		unknownGateway = "gateway is disabled or not registered"
		unknownTenant  = "tenant is disabled or not registered"
		otherTenant    = "not authorized for this tenant"
		notification   = "application/vnd.eclipse-hono-empty-notification"
	)
	sensor, gw := "sensor-1@"+acme, "gw-1@"+acme
	behind := func(target, user string) request { return request{method: http.MethodPut, target: target, user: user} }
	for _, tt := range []struct {
		name string
		request
		status int
		says   string
	}{
		{"no payload and no content type", request{user: sensor, contentType: "-", body: "-"}, 400, "content type is missing: an upload without payload needs one"},
		{"payload of an empty notification", request{user: sensor, contentType: notification}, 400, "content type " + notification + " does not go with a payload"},
		{"QoS 2", request{user: sensor, header: []string{"QoS-Level: 2"}}, 400, "header QoS-Level: want 0 or 1"},
		{"QoS that is no number", request{user: sensor, header: []string{"QoS-Level: one"}}, 400, "header QoS-Level: want 0 or 1"},
		{"event with QoS 0", request{user: sensor, target: "/event", header: []string{"QoS-Level: 0"}}, 400, "header QoS-Level: events are sent with 1 only"},
		{"bad path", behind("/telemetry//a%00b", gw), 400, "malformed path"},

		{"nothing that proves it", request{}, 401, ""},
		{"wrong password", request{args: []string{"-u", sensor + ":wrong"}}, 401, badCredentials},
		{"unknown auth-id", request{user: "nobody@" + acme}, 401, badCredentials},
		{"unknown tenant", request{user: "sensor-1@NOWHERE"}, 401, badCredentials},
		{"password of another tenant's device", request{user: "gw-1@" + other}, 401, badCredentials},
		{"disabled credentials", request{user: "unused@" + acme}, 401, badCredentials},
		{"device id that is no auth-id", request{user: "meter-1@" + acme}, 401, badCredentials},
		{"user name without a tenant", request{user: "sensor-1"}, 401, "malformed credentials: the user name has to be auth-id@tenant"},
		{"no password", request{args: []string{"-u", sensor + ":"}}, 401, "malformed credentials: empty password"},

		{"adapter disabled", request{user: "sensor-1@NOHTTP"}, 403, "adapter is disabled"},
		{"tenant disabled", request{user: "sensor-1@" + dark}, 403, unknownTenant},
		{"tenant disabled and a wrong password", request{args: []string{"-u", "sensor-1@" + dark + ":wrong"}}, 403, unknownTenant},
		{"gateway not among the device's", behind("/telemetry/"+acme+"/meter-2", "gw-2@"+acme), 403, "gateway is not authorised to act for the device"},
		{"gateway not among the device's, own tenant", behind("/telemetry//meter-2", "gw-2@"+acme), 403, "gateway is not authorised to act for the device"},
		{"gateway of a device that has none", behind("/telemetry//meter-1", gw), 403, "gateway is not authorised to act for the device"},
		{"gateway disabled", behind("/telemetry/"+acme+"/meter-2", "gw-off@"+acme), 403, unknownGateway},
		{"gateway disabled, own tenant", behind("/telemetry//meter-2", "gw-off@"+acme), 403, unknownGateway},
		{"another tenant's device", behind("/telemetry/"+other+"/meter-1", gw), 403, otherTenant},
		{"unknown tenant in the URI", behind("/telemetry/NOWHERE/meter-1", gw), 403, otherTenant},

		{"device disabled", request{user: "meter-off@" + acme}, 404, unknownDevice},
		{"device disabled, behind its gateway", behind("/telemetry//meter-off", gw), 404, unknownDevice},
		{"device unknown to its gateway", behind("/telemetry//unknown", gw), 404, unknownDevice},
		{"no device in the URI", behind("/telemetry", gw), 404, "device id is missing: want /telemetry/{tenant}/{device}"},
		{"tenant alone in the URI", behind("/telemetry/"+acme, gw), 404, ""},
		{"too much in the URI", behind("/telemetry/"+acme+"/meter-2/x", gw), 404, ""},
		{"no such endpoint", request{user: sensor, target: "/t"}, 404, "no such endpoint"},
		{"method", request{user: sensor, method: http.MethodGet, body: "-"}, 405, "method is not allowed: want POST"},

		{"too large", request{user: sensor, body: strings.Repeat("x", 4096)}, 413, "request body is larger than 2048 bytes"},
		{"too large, its length not told", request{user: sensor, body: strings.Repeat("x", 4096), header: []string{"Transfer-Encoding: chunked"}}, 413, "request body is larger than 2048 bytes"},

		{"no consumer", request{user: "sensor-1@" + other}, 503, "no consumer available"},
		{"no consumer, QoS 1", request{user: "sensor-1@" + other, header: []string{"QoS-Level: 1"}}, 503, "no consumer available"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.curl(t, p)
			got.says(t, tt.status, tt.says)
			if challenge := got.header.Values("WWW-Authenticate"); (tt.status == 401) != strings.HasPrefix(strings.Join(challenge, ", "), `Basic realm="Hono"`) {
				t.Errorf("%d with challenge %q", tt.status, challenge)
			}
			if retry := got.header.Get("Retry-After"); (tt.status == 503) != (retry == "2") {
				t.Errorf("%d with Retry-After %q", tt.status, retry)
			}
		})
	}
}

// TestCurlWithRefusedCertificates shows certificates that prove nothing here.
func TestCurlWithRefusedCertificates(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	p.receives(t, "telemetry", acme, "").ignore(t)
	p.anchor["foreign-ca"] = issue(t, "foreign-ca", nil)
	p.anchor["imitation"] = issue(t, "known-ca", nil) // the name of an authority without its key
	for _, tt := range []struct {
		name, cert, by string
		host           string // by which the server is called; "" = its address
		status         int
		says           string
	}{
		{"authority that no tenant trusts", "meter-1", "foreign-ca", "", 401, "bad credentials"},
		{"authority that the tenant does not trust", "meter-1", "foreign-ca", "acme-alias.sluice.example", 401, "bad credentials"},
		{"unknown subject", "meter-9", "known-ca", "", 401, "bad credentials"},
		{"key that is not the authority's", "meter-1", "imitation", "", 401, "bad credentials"},
		{"shared authority without SNI", "meter-1", "shared-ca", "", 401, "bad credentials"},
		{"shared authority, unknown alias", "meter-1", "shared-ca", "nobody.sluice.example", 401, "bad credentials"},
		{"shared authority, SNI without a dot", "meter-1", "shared-ca", "localhost", 400, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert, key := p.certificate(t, tt.cert, tt.by)
			q := request{base: "https://" + p.deviceTLS, args: []string{"-k", "--cert", cert, "--key", key}}
			if tt.host != "" {
				q.base, q.args = "https://"+tt.host+":8443", append(q.args, "--connect-to", tt.host+":8443:"+p.deviceTLS)
			}
			q.curl(t, p).says(t, tt.status, tt.says)
		})
	}
}

// TestCurlWithRefusedTokens shows tokens that prove nothing.
func TestCurlWithRefusedTokens(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	p.receives(t, "telemetry", acme, "").ignore(t)
	now := time.Now().Unix()
	const minute, day = 60, 24 * 3600
	token := func(change jwt.MapClaims) string {
		return p.token(t, "late-1", claims(acme, "late-1", change), nil)
	}
	hs256, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims(acme, "late-1", nil)).SignedString([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims(acme, "late-1", nil)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	good := token(nil)
	for _, tt := range []struct {
		name, token string
		status      int
	}{
		{"good", good, 202},
		{"expired, but by less than clocks differ", token(jwt.MapClaims{"iat": now - 60*minute, "exp": now - 9*minute}), 202},
		{"issued by a clock that is ahead", token(jwt.MapClaims{"iat": now + 9*minute}), 202},
		{"expired", token(jwt.MapClaims{"iat": now - 60*minute, "exp": now - 11*minute}), 401},
		{"issued in the future", token(jwt.MapClaims{"iat": now + 12*minute, "exp": now + 60*minute}), 401},
		{"good for too long", token(jwt.MapClaims{"exp": now + 2*day}), 401},
		{"no end", token(jwt.MapClaims{"exp": nil}), 401},
		{"no beginning", token(jwt.MapClaims{"iat": nil}), 401},
		{"no tenant", token(jwt.MapClaims{"tid": nil}), 401},
		{"unknown tenant", token(jwt.MapClaims{"tid": "NOWHERE"}), 401},
		{"no auth-id", token(jwt.MapClaims{"sub": nil}), 401},
		{"another device's key", p.token(t, "jwt-1", claims(acme, "late-1", nil), nil), 401},
		{"type", p.token(t, "late-1", claims(acme, "late-1", nil), map[string]any{"typ": "JOSE"}), 401},
		{"secret in place of a key", hs256, 401},
		{"signed by nobody", none, 401},
		{"changed after it was signed", good[:strings.LastIndexByte(good, '.')-1] + "A" + good[strings.LastIndexByte(good, '.'):], 401},
		{"no token", "abc", 401},
		{"device in neither token nor URI", token(jwt.MapClaims{"aud": nil}), 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := request{header: []string{"Authorization: Bearer " + tt.token}}.curl(t, p)
			got.says(t, tt.status, "")
			if tt.status == 401 && !strings.Contains(got.body, `{"error":"`) {
				t.Errorf("401 says %s", got.body)
			}
		})
	}
}

// TestCurlTriesPasswords fails to log in until it is told to wait.
func TestCurlTriesPasswords(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	wrong := request{args: []string{"-u", "sensor-1@" + other + ":wrong"}}
	for range 10 {
		wrong.curl(t, p).says(t, 401, "bad credentials")
	}
	for name, q := range map[string]request{"another guess": wrong, "the right one": {user: "sensor-1@" + other}} {
		got := q.curl(t, p)
		got.says(t, 429, "")
		if got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "too many failed") {
			t.Errorf("%s: Retry-After %q, %s", name, got.header.Get("Retry-After"), got.body)
		}
	}
	request{user: "gw-1@" + acme}.curl(t, p).says(t, 503, "no consumer available") // another one may
}

// TestCurlWaitsForTheOutcome has applications that do not take what they get.
func TestCurlWaitsForTheOutcome(t *testing.T) {
	t.Parallel()
	needCurl(t)
	p := startPlant(t, "send-timeout: 300ms\n")
	for _, tt := range []struct {
		answer string
		status int
		says   string
	}{
		{"accepted", 202, ""},
		{"hold", 503, "consumer failed to indicate in time whether it has processed the message"},
		{"released", 503, "consumer didn't process the message"},
		{"modified", 503, "consumer didn't process the message"},
		{"rejected", 400, "as the subject asked"},
	} {
		for qos, status := range map[string]int{"0": 202, "1": tt.status} {
			t.Run(tt.answer+" with QoS "+qos, func(t *testing.T) {
				app := p.receives(t, "telemetry", acme, tt.answer)
				q := request{user: "sensor-1@" + acme, header: []string{"QoS-Level: " + qos}}
				if status == 202 {
					q.curl(t, p).accepted(t)
				} else {
					got := q.curl(t, p)
					got.says(t, status, tt.says)
					if retry := got.header.Get("Retry-After"); (status == 503) != (retry == "2") {
						t.Errorf("%d with Retry-After %q", status, retry)
					}
				}
				app.await(t, "message")
				app.close()
			})
		}
	}
}

// TestCurlAfterChanges changes the registry and expects uploads to be answered
// accordingly.
func TestCurlAfterChanges(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	for _, tenant := range []string{acme, other} {
		p.receives(t, "telemetry", tenant, "").ignore(t)
	}
	sensor := request{user: "sensor-1@" + other}
	becomes := func(q request, status int) {
		t.Helper()
		began := time.Now()
		var took time.Duration // until the first that is answered so was sent
		eventually(t, fmt.Sprintf("an upload is answered with %d", status), func() error {
			took = time.Since(began)
			if got := q.curl(t, p); got.status != status {
				return fmt.Errorf("%d %s", got.status, got.body)
			}
			return nil
		})
		if took > revokedWithin {
			t.Errorf("%d took %s", status, took)
		}
	}
	becomes(sensor, 202)
	for _, step := range []struct {
		method, path, body string
		done               int
		status             int
	}{
		{http.MethodPut, "devices/OTHER/meter-1", `{"enabled": false}`, 204, 404},
		{http.MethodPut, "devices/OTHER/meter-1", `{}`, 204, 202},
		{http.MethodPut, "tenants/OTHER", `{"enabled": false}`, 204, 403},
		{http.MethodPut, "tenants/OTHER", `{"adapters": [{"type": "hono-mqtt", "enabled": true}]}`, 204, 403},
		{http.MethodPut, "tenants/OTHER", `{}`, 204, 202},
		{http.MethodPut, "credentials/OTHER/meter-1", "[" + hashed("sensor-1", "a second password") + "]", 204, 202},
		{http.MethodPut, "credentials/OTHER/meter-1", "[]", 204, 401},
		{http.MethodPut, "credentials/OTHER/meter-1", "[" + hashed("sensor-1") + "]", 204, 202},
		{http.MethodDelete, "devices/OTHER/meter-1", "", 204, 401},
		{http.MethodPost, "devices/OTHER/meter-1", "{}", 201, 401},
		{http.MethodPut, "credentials/OTHER/meter-1", "[" + hashed("sensor-1") + "]", 204, 202},
		{http.MethodDelete, "devices/OTHER", "", 204, 401},
		{http.MethodDelete, "tenants/OTHER", "", 204, 401},
	} {
		p.registers(t, step.method, step.path, step.body, step.done)
		becomes(sensor, step.status)
	}
	gateway := request{method: http.MethodPut, target: "/telemetry//meter-2", user: "gw-1@" + acme}
	becomes(gateway, 202)
	p.registers(t, http.MethodPut, "devices/ACME/meter-2", `{"via": ["gw-2"]}`, 204)
	becomes(gateway, 403)
	becomes(request{method: http.MethodPut, target: "/telemetry//meter-2", user: "gw-2@" + acme}, 202)
}

// TestCurlWithoutTheRegistry uploads while the functions are gone.
func TestCurlWithoutTheRegistry(t *testing.T) {
	needCurl(t)
	s := startThree(t)
	s.register(t)
	s.function.kill()
	p := &plant{installation: &installation{device: s.device}}
	got := request{args: []string{"-u", "meter-1@ACME:secret of the device"}}.curl(t, p)
	if got.says(t, 503, "temporarily unavailable"); got.header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After %q", got.header.Get("Retry-After"))
	}
}

// TestPreflights asks as a browser does before it uploads.
func TestPreflights(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	p.receives(t, "telemetry", acme, "").ignore(t)
	const telemetry, event = "QoS-Level, hono-ttd, authorization, content-type", "hono-ttd, authorization, content-type"
	for _, tt := range []struct{ method, target, headers string }{
		{"POST", "/telemetry", telemetry},
		{"PUT", "/telemetry/" + acme + "/meter-1", telemetry},
		{"PUT", "/telemetry//meter-1", telemetry},
		{"POST", "/event", event},
		{"PUT", "/event/" + acme + "/meter-1", event},
		{"PUT", "/event//meter-1", event},
	} {
		t.Run(tt.method+" "+tt.target, func(t *testing.T) {
			got := runCurl(t, "", "-sS", "-i", "--path-as-is", "-X", "OPTIONS", "-H", "Origin: https://shop.example", "-H", "Access-Control-Request-Method: "+tt.method,
				"-H", "Access-Control-Request-Headers: authorization", "http://"+p.device+tt.target)
			h := got.header
			if got.status != 204 || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Methods") != tt.method || h.Get("Access-Control-Allow-Headers") != tt.headers {
				t.Errorf("answered %d %v; want 204 from * with %s and %s", got.status, h, tt.method, tt.headers)
			}
		})
	}
	for _, tt := range []struct {
		request
		status int
	}{
		{request{user: "sensor-1@" + acme}, 202},
		{request{}, 401},
		{request{user: "sensor-1@" + other}, 503},
	} {
		tt.header = []string{"Origin: https://shop.example"}
		got := tt.curl(t, p)
		if h := got.header; got.status != tt.status || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Expose-Headers") != "hono-command, hono-cmd-req-id" {
			t.Errorf("answered %d %v; want %d that a script may read", got.status, h, tt.status)
		}
	}
}
