package interop_test

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

//go:embed websocket_page.html
var page []byte

func needChromium(t *testing.T) string {
	t.Helper()
	var missing error
	for _, name := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		path, err := exec.LookPath(name)
		if err == nil {
			return path
		}
		missing = err
	}
	need(t, "Chromium (Debian package chromium-headless-shell)", missing)
	return ""
}

// browse opens a page that is served at another origin than the adapter's, has it do
// something, and decodes what it tells.
func browse(t *testing.T, todo, result any) {
	t.Helper()
	chromium := needChromium(t)
	told := make(chan []byte, 1)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			body, _ := io.ReadAll(r.Body)
			told <- body
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	}))
	t.Cleanup(site.Close)
	text, err := json.Marshal(todo)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--ignore-certificate-errors",
		"--remote-debugging-port=0", "--user-data-dir="+t.TempDir(), site.URL+"/#"+url.PathEscape(string(text)))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has processes of its own
	browser := startChild(t, "chromium", cmd, nil)
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-browser.done
	}()
	select {
	case text = <-told:
	case <-browser.done:
		t.Fatalf("chromium ended: %v", browser.err)
	case <-time.After(patience):
		t.Fatal("the page tells nothing")
	}
	if err := json.Unmarshal(text, result); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

// TestBrowser has a page be a device: MQTT over WebSocket at the HTTPS port, in both
// versions, and uploads across origins, before which the browser asks by itself.
func TestBrowser(t *testing.T) {
	p := startPlant(t, "")
	p.receives(t, "event", acme, "").ignore(t)
	telemetry := p.receives(t, "telemetry", acme, "")
	var result struct {
		Failed  string
		Devices map[string][]json.RawMessage
		Uploads []string
	}
	type headers = map[string]string
	base := "localhost:" + port(p.deviceTLS)
	browse(t, map[string]any{
		"mqtt": "wss://" + base + "/mqtt", "http": "https://" + base, "user": "gw-1@" + acme, "password": password("gw-1"),
		"uploads": []any{
			[]any{"POST", "/telemetry", headers{"QoS-Level": "1"}},
			[]any{"PUT", "/telemetry/" + acme + "/meter-2", headers{"hono-ttd": "0"}},
			[]any{"PUT", "/telemetry//meter-2", headers{}},
			[]any{"POST", "/event", headers{"hono-ttd": "0"}},
			[]any{"PUT", "/event/" + acme + "/meter-2", headers{}},
			[]any{"PUT", "/event//meter-2?hono-ttl=30", headers{}},
			[]any{"PUT", "/telemetry//meter-1", headers{}},
			[]any{"POST", "/telemetry", headers{"hono-ttl": "30"}}, // no header that is allowed
		},
	}, &result)
	if result.Failed != "" {
		t.Fatal(result.Failed)
	}
	for version, code := range map[string]struct{ wrong, failed string }{"mqtt4": {"4", "0"}, "mqtt5": {"134", "128"}} {
		var said []string
		for _, line := range result.Devices[version] {
			text, timestamp, _ := strings.Cut(string(line), `,\"timestamp\":`)
			if timestamp != "" {
				text += " ..."
			}
			said = append(said, text)
		}
		want := []string{
			`{"connack":0,"protocol":"mqtt"}`, `{"suback":0}`, `{"puback":2,"code":0}`, `{"puback":3,"code":0}`,
			`{"message":"error///unknown/c-4/404","payload":"{\"code\":404,\"message\":\"no such endpoint\" ...`,
			`{"puback":4,"code":` + code.failed + `}`, `{"pong":true}`, `{"closed":true}`, `{"wrong":` + code.wrong + `}`,
		}
		if got, want := strings.Join(said, "\n"), strings.Join(want, "\n"); got != want {
			t.Errorf("%s: the page says\n%s\nwant\n%s", version, got, want)
		}
		for _, body := range []string{"from a browser", "in two frames"} {
			origin{acme, "gw-1", "hono-mqtt", "telemetry", "1", "application/vnd.acme", body}.arrived(t, telemetry.await(t, "message"), "telemetry")
		}
	}
	want := []string{"202 ", "202 ", "202 ", "202 ", "202 ", "202 ", `403 {"error":"gateway is not authorised to act for the device"}`, "TypeError: Failed to fetch"}
	if got, want := strings.Join(result.Uploads, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("uploads are answered\n%s\nwant\n%s", got, want)
	}
	for i, device := range []string{"gw-1", "meter-2", "meter-2"} {
		m := telemetry.await(t, "message")
		for i > 0 && string(m.Body) == fmt.Sprint("from a page ", i-1) { // repeated
			m = telemetry.await(t, "message")
		}
		if string(m.Body) != fmt.Sprint("from a page ", i) || m.Annotations["device_id"] != device || m.Properties["orig_adapter"] != "hono-http" {
			t.Errorf("the application got %q of %v; want upload %d of %s", m.Body, m.Annotations["device_id"], i, device)
		}
	}
}

// TestPahoOverWebSocket has a device that is no browser: its client certificate counts. It
// uploads, and gets commands and answers them.
func TestPahoOverWebSocket(t *testing.T) {
	p := startPlant(t, patient)
	commands := p.commands(t, "rhea", acme, "")
	app := p.receives(t, "telemetry", acme, "")
	cert, key := p.certificate(t, "meter-1", "known-ca")
	plain, secure := asSensor("sensor-1@"+acme), mqttOptions{CA: p.ca, Cert: cert, Key: key}
	plain.Addr, secure.Addr = p.device, "localhost:"+port(p.deviceTLS)
	for _, o := range []mqttOptions{plain, secure} {
		o.WebSocket = "/mqtt"
		d := p.connects(t, "paho", o)
		d.publishes(t, "telemetry", "22.5")
		origin{acme, "meter-1", "hono-mqtt", "telemetry", "1", "application/vnd.acme", "22.5"}.arrived(t, app.await(t, "message"), "telemetry")
		for qos := range 2 {
			d.does(t, mqttCommand{Cmd: "subscribe", Filters: []string{"command///req/#"}, QoS: qos})
			if e := d.await(t, "suback"); len(e.Codes) != 1 || e.Codes[0] != qos {
				t.Fatalf("the subscription is answered with %v, want [%d]", e.Codes, qos)
			}
			commands.sends(t, "meter-1", outgoing{ReplyTo: "answers", Body: []byte(strings.Repeat("brighter ", 100*qos) + "50")})
			commands.hears(t, "accepted")
			got := d.await(t, "message")
			if want := strings.Repeat("brighter ", 100*qos) + "50"; got.Payload != want {
				t.Errorf("the device got %q, want %q", got.Payload, want)
			}
			d.publishes(t, "command///res/"+requestOf(t, got.Topic)+"/200/?content-type=text%2Fplain", "done")
			commands.answered(t, "meter-1", "200", textPlain, "done")
		}
	}
}

// TestBrowserWithoutMQTT expects nothing at the path where a protocol is asked for that is
// not MQTT, and by requests that ask for none.
func TestBrowserWithoutMQTT(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	for name, args := range map[string][]string{
		"no upgrade":     nil,
		"other protocol": {"-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "-H", "Sec-WebSocket-Protocol: chat"},
	} {
		got := runCurl(t, "", append([]string{"-sS", "-i", "--max-time", "30", "http://" + p.device + "/mqtt"}, args...)...)
		if got.status < 400 || got.body == "" {
			t.Errorf("%s is answered %d %s", name, got.status, got.body)
		}
	}
}
