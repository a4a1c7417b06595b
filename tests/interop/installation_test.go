package interop_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// installation is a running `sluice up --demo`.
type installation struct {
	*child
	dir                          string // the data folder
	northbound, northboundTLS    string // host:port
	device, deviceTLS            string // host:port of the HTTP adapter
	management, health           string // host:port
	tenant, deviceID             string
	deviceUser, devicePassword   string
	appUser, appPassword         string
	ca                           string // file
	operatorUser, operatorSecret string
}

// layout picks the addresses of an installation and writes its configuration.
func layout(t *testing.T, extra string) (*installation, string) {
	t.Helper()
	in := &installation{
		dir: filepath.Join(t.TempDir(), "data"), northbound: freeAddr(t), northboundTLS: freeAddr(t), device: freeAddr(t),
		deviceTLS: freeAddr(t), management: freeAddr(t), health: freeAddr(t),
	}
	config := fmt.Sprintf(`listeners:
  - {role: northbound, address: %q}
  - {role: northbound, address: %q, tls: {}}
  - {role: adapter/http, address: %q}
  - {role: adapter/http, address: %q, tls: {}}
  - {role: management, address: %q}
  - {role: health, address: %q}
%s`, in.northbound, in.northboundTLS, in.device, in.deviceTLS, in.management, in.health, extra)
	return in, writeFile(t, filepath.Join(t.TempDir(), "sluice.yaml"), config)
}

// startInstallation starts everything in one process; extra is more of its configuration file.
func startInstallation(t *testing.T, extra string) *installation {
	t.Helper()
	in, config := layout(t, extra)
	in.start(t, config)
	return in
}

func (in *installation) start(t *testing.T, config string) {
	t.Helper()
	in.child = startChild(t, "sluice up", exec.Command(program(t), "up", "--data", in.dir, "--config", config, "--demo"), nil)
	for _, addr := range []string{in.northbound, in.northboundTLS, in.device, in.deviceTLS, in.management, in.health} {
		in.awaitListener(t, addr)
	}
	eventually(t, "the demo is there", func() error {
		demo, err := readEnv(filepath.Join(in.dir, "demo.env"))
		if err != nil {
			return err
		}
		in.tenant, in.deviceID, in.ca = demo["SLUICE_TENANT"], demo["SLUICE_DEVICE"], demo["SLUICE_CA"]
		in.deviceUser = demo["SLUICE_DEVICE_AUTH_ID"] + "@" + in.tenant
		in.devicePassword = demo["SLUICE_DEVICE_PASSWORD"]
		in.appUser, in.appPassword = demo["SLUICE_APP_USER"], demo["SLUICE_APP_PASSWORD"]
		for key, value := range demo {
			if value == "" {
				return fmt.Errorf("demo.env: %s is empty", key)
			}
		}
		operator, err := readEnv(filepath.Join(in.dir, "operator.env"))
		if err != nil {
			return err
		}
		in.operatorUser, in.operatorSecret = operator["SLUICE_USER"], operator["SLUICE_PASSWORD"]
		if in.operatorUser == "" || in.operatorSecret == "" {
			return fmt.Errorf("operator.env has no user or no password: %v", operator)
		}
		return nil
	})
	eventually(t, "ready", func() error { return getOK("http://" + in.health + "/readiness") })
}

func getOK(url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}

// printedLine waits for a line of standard output that starts with the given words.
func (in *installation) printedLine(t *testing.T, prefix string) string {
	t.Helper()
	found := ""
	eventually(t, "a printed line starting with "+prefix, func() error {
		for line := range strings.Lines(in.stdout.String()) {
			if strings.HasPrefix(line, prefix) && strings.HasSuffix(line, "\n") {
				found = strings.TrimSpace(line)
				return nil
			}
		}
		return fmt.Errorf("not among:\n%s", in.stdout)
	})
	return found
}

// app is how the demo's application reaches the router.
func (in *installation) app(address string) linkOptions {
	return linkOptions{addr: in.northbound, user: in.appUser, password: in.appPassword, address: address}
}

// answer is what a device or an operator got.
type answer struct {
	status     int
	retryAfter string
	body       string
}

// call makes one request with Basic authentication.
func call(t *testing.T, method, url, user, password, contentType string, body []byte) (answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return send(req, user, password, contentType, body)
}

// client gives up where a hang would otherwise end the run without a word.
var client = &http.Client{Timeout: patience}

func send(req *http.Request, user, password, contentType string, body []byte) (answer, error) {
	if len(body) > 0 {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	req.SetBasicAuth(user, password)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("Retry-After"), string(text)}, err
}

// upload sends telemetry at least once as the demo's device and returns the answer.
func (in *installation) upload(t *testing.T, body string) (answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+in.device+"/telemetry", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("QoS-Level", "1")
	return send(req, in.deviceUser, in.devicePassword, "text/plain", []byte(body))
}

// mustUpload expects that the upload reached an application.
func (in *installation) mustUpload(t *testing.T, body string) {
	t.Helper()
	got, err := in.upload(t, body)
	if err != nil || got.status != http.StatusAccepted {
		t.Fatalf("upload %q: %+v, %v; want 202", body, got, err)
	}
}
