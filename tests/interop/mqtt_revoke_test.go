package interop_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// lives expects that a device is still connected.
func (d *mqttDevice) lives(t *testing.T) {
	t.Helper()
	d.publishesNothing(t)
}

// revoked expects that the connections of devices are closed within the time that a
// change may take after the management API's answer.
func revoked(t *testing.T, began time.Time, devices ...*mqttDevice) {
	t.Helper()
	for _, d := range devices {
		if code, reason := d.closes(t); code != 0x87 && code != 0x98 || reason == "" {
			t.Errorf("%s: closed with %#x %q; want it told why", d.name, code, reason)
		}
	}
	if took := time.Since(began); took > revokedWithin {
		t.Errorf("closed after %s", took)
	}
}

// TestMQTTClosesOnChanges makes each of the five changes of the registry that end
// connections, and expects that no others end.
func TestMQTTClosesOnChanges(t *testing.T) {
	p := startPlant(t, "")
	connect := func(authID, tenant string) *mqttDevice {
		o := asSensor(authID + "@" + tenant)
		o.ClientID = fmt.Sprint(tenant, "-", authID, "-", time.Now().UnixNano())
		return p.connects(t, "paho5", o)
	}
	for i, tt := range []struct{ name, method, path, body string }{
		{"device deleted", http.MethodDelete, "devices/T%d/d-1", ""},
		{"device disabled", http.MethodPut, "devices/T%d/d-1", `{"enabled": false}`},
		{"all devices deleted", http.MethodDelete, "devices/T%d", ""},
		{"tenant deleted", http.MethodDelete, "tenants/T%d", ""},
		{"tenant disabled", http.MethodPut, "tenants/T%d", `{"enabled": false}`},
		{"adapter disabled", http.MethodPut, "tenants/T%d", `{"adapters": [{"type": "hono-http", "enabled": true}]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tenant := fmt.Sprintf("T%d", i)
			p.registers(t, http.MethodPost, "tenants/"+tenant, "{}", 201)
			for _, id := range []string{"d-1", "d-2"} {
				p.registersDevice(t, tenant, id, "{}", hashed(id))
			}
			first, again, second, stranger := connect("d-1", tenant), connect("d-1", tenant), connect("d-2", tenant), connect("sensor-1", other)
			p.registers(t, tt.method, fmt.Sprintf(tt.path, i), tt.body, 204)
			began := time.Now()
			revoked(t, began, first, again)
			if tt.path == "devices/T%d/d-1" {
				second.lives(t)
			} else {
				revoked(t, began, second)
			}
			stranger.lives(t)
			o := asSensor("d-1@" + tenant)
			if e := p.dials(t, "paho5", o).await(t, "connack"); e.Code != 0x86 && e.Code != 0x87 {
				t.Errorf("it gets in again: %#x", e.Code)
			}
		})
	}
}

// TestMQTTClosesWhoUsedTheCredential removes credentials one by one: only the
// connections end that came in with them, and none when one is added.
func TestMQTTClosesWhoUsedTheCredential(t *testing.T) {
	p := startPlant(t, "")
	const path = "credentials/" + acme + "/meter-1"
	var byID []map[string]any
	read := func() {
		t.Helper()
		byID = nil
		if err := json.Unmarshal([]byte(p.registers(t, http.MethodGet, path, "", 200)), &byID); err != nil {
			t.Fatal(err)
		}
	}
	write := func() time.Time {
		t.Helper()
		text, err := json.Marshal(byID)
		if err != nil {
			t.Fatal(err)
		}
		p.registers(t, http.MethodPut, path, string(text), 204)
		return time.Now()
	}
	find := func(kind, authID string) map[string]any {
		t.Helper()
		for _, c := range byID {
			if c["type"] == kind && c["auth-id"] == authID {
				return c
			}
		}
		t.Fatalf("no %s of %s", kind, authID)
		return nil
	}
	remove := func(kind, authID string) {
		for i, c := range byID {
			if c["type"] == kind && c["auth-id"] == authID {
				byID = append(byID[:i], byID[i+1:]...)
				return
			}
		}
	}
	cert, key := p.certificate(t, "meter-1", "known-ca")
	byPassword := func(clientID, pw string) *mqttDevice {
		return p.connects(t, "paho5", mqttOptions{ClientID: clientID, User: "sensor-1@" + acme, Password: pw})
	}
	old := []*mqttDevice{byPassword("old-1", password("sensor-1")), byPassword("old-2", password("sensor-1"))}
	byCertificate := p.connects(t, "paho5", mqttOptions{ClientID: "cert", CA: p.ca, Cert: cert, Key: key})
	byToken := p.connects(t, "paho5", mqttOptions{ClientID: "token", User: "-", Password: p.token(t, "sensor-1", claims(acme, "sensor-1", nil), nil)})
	all := append(append([]*mqttDevice{}, old...), byCertificate, byToken)

	// A second password, and another device's credentials, are no concern of theirs.
	read()
	pw := find("hashed-password", "sensor-1")
	pw["secrets"] = append(pw["secrets"].([]any), map[string]any{"pwd-plain": "the new one"})
	write()
	p.credentials(t, acme, "gw-2", hashed("gw-2", "more"))
	newer := byPassword("new", "the new one")
	for _, d := range append(all, newer) {
		d.lives(t)
	}

	// The first password goes.
	read()
	pw = find("hashed-password", "sensor-1")
	pw["secrets"] = pw["secrets"].([]any)[1:]
	revoked(t, write(), old...)
	for _, d := range []*mqttDevice{newer, byCertificate, byToken} {
		d.lives(t)
	}
	// The certificate's.
	read()
	remove("x509-cert", "CN=meter-1,O=Sluice")
	revoked(t, write(), byCertificate)
	newer.lives(t)
	byToken.lives(t)
	// The key's is disabled.
	read()
	find("rpk", "sensor-1")["enabled"] = false
	revoked(t, write(), byToken)
	newer.lives(t)
	// All.
	byID = []map[string]any{}
	revoked(t, write(), newer)
}

// TestMQTTClosesWhoCameByTheAnchor removes a trust anchor.
func TestMQTTClosesWhoCameByTheAnchor(t *testing.T) {
	p := startPlant(t, "")
	one, two := p.anchor["known-ca"], issue(t, "second-ca", nil)
	p.anchor["second-ca"] = two
	p.registers(t, http.MethodPut, "tenants/"+acme, fmt.Sprintf(`{"trusted-ca": [%s, %s]}`, trusts(one, ""), trusts(two, "")), 204)
	connect := func(by string) *mqttDevice {
		cert, key := p.certificate(t, "meter-1", by)
		return p.connects(t, "paho5", mqttOptions{ClientID: by, CA: p.ca, Cert: cert, Key: key})
	}
	first, second := connect("known-ca"), connect("second-ca")
	byPassword := p.connects(t, "paho5", asSensor("sensor-1@"+acme))
	p.registers(t, http.MethodPut, "tenants/"+acme, fmt.Sprintf(`{"trusted-ca": [%s]}`, trusts(two, "")), 204)
	revoked(t, time.Now(), first)
	second.lives(t)
	byPassword.lives(t)
}
