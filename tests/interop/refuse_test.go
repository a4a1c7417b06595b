package interop_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestRefusedUploads checks what a device hears that did something wrong.
func TestRefusedUploads(t *testing.T) {
	in := startInstallation(t, "")
	startReceiver(t, "go-amqp", in.app("telemetry/"+in.tenant)).ignore(t)
	url := "http://" + in.device
	in.mustUpload(t, "the device itself is fine")
	authID, _, _ := strings.Cut(in.deviceUser, "@")
	for _, tc := range []struct {
		name, method, path, user, password string
		body                               []byte
		want                               int
	}{
		{"wrong password", http.MethodPost, "/telemetry", in.deviceUser, in.devicePassword + "x", []byte("x"), 401},
		{"no password", http.MethodPost, "/telemetry", in.deviceUser, "", []byte("x"), 401},
		{"unknown auth-id", http.MethodPost, "/telemetry", "nobody@" + in.tenant, in.devicePassword, []byte("x"), 401},
		{"unknown tenant", http.MethodPost, "/telemetry", authID + "@NO-SUCH-TENANT", in.devicePassword, []byte("x"), 401},
		{"user without tenant", http.MethodPost, "/telemetry", authID, in.devicePassword, []byte("x"), 401},
		{"body at the limit", http.MethodPost, "/telemetry", in.deviceUser, in.devicePassword, bytes.Repeat([]byte("x"), 2048), 202},
		{"body over the limit", http.MethodPost, "/telemetry", in.deviceUser, in.devicePassword, bytes.Repeat([]byte("x"), 2049), 413},
		{"for a device of another tenant", http.MethodPut, "/telemetry/OTHER/" + in.deviceID, in.deviceUser, in.devicePassword, []byte("x"), 403},
		{"for itself, tenant implied", http.MethodPut, "/telemetry//" + in.deviceID, in.deviceUser, in.devicePassword, []byte("x"), 202},
		{"for an unknown device", http.MethodPut, "/telemetry//no-such-device", in.deviceUser, in.devicePassword, []byte("x"), 404},
		{"no such endpoint", http.MethodPost, "/nonsense", in.deviceUser, in.devicePassword, []byte("x"), 404},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := call(t, tc.method, url+tc.path, tc.user, tc.password, "text/plain", tc.body)
			if err != nil || got.status != tc.want {
				t.Errorf("%+v, %v; want %d", got, err, tc.want)
			}
			if strings.Contains(got.body, in.devicePassword) {
				t.Error("the answer repeats the password")
			}
		})
	}
}

// TestNoConsumer expects 503 with Retry-After for both qualities of service; events
// need no consumer.
func TestNoConsumer(t *testing.T) {
	in := startInstallation(t, "")
	for path, want := range map[string]int{"/telemetry": http.StatusServiceUnavailable, "/event": http.StatusAccepted} {
		got, err := call(t, http.MethodPost, "http://"+in.device+path, in.deviceUser, in.devicePassword, "text/plain", []byte("x"))
		if err != nil || got.status != want || (got.retryAfter == "") != (want == http.StatusAccepted) {
			t.Errorf("%s: %+v, %v; want %d, Retry-After with 503", path, got, err, want)
		}
	}
	if got, err := in.upload(t, "at least once"); err != nil || got.status != http.StatusServiceUnavailable || got.retryAfter == "" {
		t.Errorf("at least once: %+v, %v; want 503 with Retry-After", got, err)
	}
}

// disabledWithin is how long a disabled device may still be heard.
const disabledWithin = 2 * time.Second

// TestDisabledDevice disables the demo's device through the management API.
func TestDisabledDevice(t *testing.T) {
	in := startInstallation(t, "")
	startReceiver(t, "go-amqp", in.app("telemetry/"+in.tenant)).ignore(t)
	in.mustUpload(t, "before")

	in.enableDevice(t, false)
	began := time.Now()
	for {
		got, err := in.upload(t, "after")
		if err != nil {
			t.Fatal(err)
		}
		if got.status == http.StatusNotFound {
			break
		}
		if got.status != http.StatusAccepted {
			t.Fatalf("%+v; want 202 and then 404", got)
		}
		if time.Since(began) > disabledWithin {
			t.Fatalf("%+v %s after the device was disabled; want 404", got, time.Since(began))
		}
	}
	in.enableDevice(t, true)
	eventually(t, "the device is heard again", func() error {
		got, err := in.upload(t, "again")
		if err == nil && got.status != http.StatusAccepted {
			err = fmt.Errorf("%+v", got)
		}
		return err
	})
}

// enableDevice reads the device, changes one member and writes it back.
func (in *installation) enableDevice(t *testing.T, enabled bool) {
	t.Helper()
	url := "http://" + in.management + "/v1/devices/" + in.tenant + "/" + in.deviceID
	got, err := call(t, http.MethodGet, url, in.operatorUser, in.operatorSecret, "", nil)
	if err != nil || got.status != http.StatusOK {
		t.Fatalf("GET %s: %+v, %v", url, got, err)
	}
	var device map[string]any
	if err := json.Unmarshal([]byte(got.body), &device); err != nil {
		t.Fatal(err)
	}
	delete(device, "status") // read-only
	device["enabled"] = enabled
	body, err := json.Marshal(device)
	if err != nil {
		t.Fatal(err)
	}
	got, err = call(t, http.MethodPut, url, in.operatorUser, in.operatorSecret, "application/json", body)
	if err != nil || got.status != http.StatusNoContent {
		t.Fatalf("PUT %s: %+v, %v; want 204", url, got, err)
	}
}

// TestManagementAsksForAnOperator checks the first door of the registry.
func TestManagementAsksForAnOperator(t *testing.T) {
	in := startInstallation(t, "")
	url := "http://" + in.management + "/v1/tenants/" + in.tenant
	for _, tc := range []struct {
		name, user, password string
		want                 int
	}{
		{"the operator", in.operatorUser, in.operatorSecret, 200},
		{"wrong password", in.operatorUser, "x", 401},
		{"the application", in.appUser, in.appPassword, 401},
		{"nobody", "", "", 401},
	} {
		got, err := call(t, http.MethodGet, url, tc.user, tc.password, "", nil)
		if err != nil || got.status != tc.want {
			t.Errorf("%s: %+v, %v; want %d", tc.name, got, err, tc.want)
		}
	}
}

// TestGarbageClosesItsConnectionOnly sends nonsense to the AMQP port: that
// connection ends, and the ones that are there do not notice.
func TestGarbageClosesItsConnectionOnly(t *testing.T) {
	in := startInstallation(t, "")
	receiver := startReceiver(t, "go-amqp", in.app("telemetry/"+in.tenant))
	saslHeader, amqpHeader := "AMQP\x03\x01\x00\x00", "AMQP\x00\x01\x00\x00"
	for _, tc := range []struct{ name, bytes string }{
		{"HTTP", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"},
		{"AMQP 0-9-1", "AMQP\x00\x00\x09\x01"},
		{"zeros", strings.Repeat("\x00", 64)},
		{"a frame of 4 GiB", saslHeader + "\xff\xff\xff\xff\x02\x01\x00\x00"},
		{"a frame shorter than its header", saslHeader + "\x00\x00\x00\x04\x02\x01\x00\x00"},
		{"a performative that is none", saslHeader + "\x00\x00\x00\x0c\x02\x01\x00\x00\x00\x53\xff\x45"},
		{"no login", amqpHeader + "\x00\x00\x00\x0c\x02\x00\x00\x00\x00\x53\x10\x45"},
		{"random", string(randomBytes(t, 4096))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", in.northbound)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write([]byte(tc.bytes))
			if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
				t.Error("the connection stays open")
			}
			in.mustUpload(t, tc.name)
			if got := receiver.await(t, "message"); string(got.Body) != tc.name {
				t.Errorf("received %q; want %q", got.Body, tc.name)
			}
		})
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}
