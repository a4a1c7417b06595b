package interop_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sh runs a printed line as a person would paste it, with bin/sluice being the program under test.
func sh(t *testing.T, line string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program(t), filepath.Join(dir, "bin", "sluice")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "exec "+line)
	cmd.Dir = dir
	return cmd
}

func needCurl(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath("curl")
	need(t, "curl", err)
}

// TestPastedLines starts the demo, pastes the two lines that it printed, and
// expects the message in the application's output.
func TestPastedLines(t *testing.T) {
	needCurl(t)
	in := startInstallation(t, "")
	consume := startChild(t, "consume", sh(t, in.printedLine(t, "bin/sluice consume")), nil)
	upload := in.printedLine(t, "curl ")
	eventually(t, "the message is printed", func() error {
		out, err := sh(t, upload).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", upload, err, out)
		}
		if !strings.Contains(consume.stdout.String(), in.deviceID) {
			return fmt.Errorf("consume printed %q", consume.stdout)
		}
		return nil
	})
	if _, code := consume.interrupt(t); code != 0 {
		t.Errorf("consume ended with exit code %d; want 0", code)
	}
}

// TestConsumeForMachines expects one JSON object a line.
func TestConsumeForMachines(t *testing.T) {
	in := startInstallation(t, "")
	line := in.printedLine(t, "bin/sluice consume")
	consume := startChild(t, "consume", sh(t, line+" -o json"), nil)
	eventually(t, "a line of JSON", func() error {
		if got, err := in.upload(t, `{"temp": 21}`); err != nil || got.status != 202 {
			return fmt.Errorf("upload: %+v, %v", got, err)
		}
		first, rest, ok := strings.Cut(consume.stdout.String(), "\n")
		if !ok {
			return fmt.Errorf("no line yet: %q", first+rest)
		}
		var object map[string]any
		if err := json.Unmarshal([]byte(first), &object); err != nil {
			t.Fatalf("not JSON: %q: %v", first, err)
		}
		return nil
	})
}

// TestUploadReachesEveryClient uploads with curl and looks at what each AMQP client got.
func TestUploadReachesEveryClient(t *testing.T) {
	needCurl(t)
	in := startInstallation(t, "")
	for _, kind := range kinds {
		for _, secure := range []bool{false, true} {
			name := kind + " in plain text"
			o := in.app("telemetry/" + in.tenant)
			url, args := "http://"+in.device+"/telemetry", []string(nil)
			if secure {
				name = kind + " over TLS"
				// By name: Proton compares no IP addresses with a certificate.
				_, port, err := net.SplitHostPort(in.northboundTLS)
				if err != nil {
					t.Fatal(err)
				}
				o.addr, o.ca = "localhost:"+port, in.ca
				url, args = "https://"+in.deviceTLS+"/telemetry", []string{"--cacert", in.ca}
			}
			t.Run(name, func(t *testing.T) {
				receiver := startReceiver(t, kind, o)
				for _, qos := range []string{"0", "1"} {
					body := randomBytes(t, 700)
					in.curl(t, "202", append(args, "-H", "QoS-Level: "+qos, "-H", "Content-Type: application/octet-stream", url), body)
					in.checkTelemetry(t, receiver.await(t, "message"), "application/octet-stream", qos, body)
				}
				body := []byte(`{"temp": 21.5}`)
				in.curl(t, "202", append(args, "-H", "Content-Type: application/json", url+"?of=interest"), body)
				got := receiver.await(t, "message")
				in.checkTelemetry(t, got, "application/json", "0", body)
				if address := got.Properties["orig_address"]; address != "/telemetry?of=interest" {
					t.Errorf("orig_address is %q; want /telemetry?of=interest", address)
				}
			})
		}
	}
}

// curl uploads as the demo's device and expects a status.
func (in *installation) curl(t *testing.T, status string, args []string, body []byte) {
	t.Helper()
	cmd := exec.Command("curl", append([]string{"-sS", "-o", os.DevNull, "-w", "%{http_code}",
		"-u", in.deviceUser + ":" + in.devicePassword, "--data-binary", "@-"}, args...)...)
	cmd.Stdin = bytes.NewReader(body)
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != status {
		t.Fatalf("curl: %s, %v; want %s", out, err, status)
	}
}

// checkTelemetry holds a message against the northbound contract of a telemetry message.
func (in *installation) checkTelemetry(t *testing.T, got event, contentType, qos string, body []byte) {
	t.Helper()
	if !bytes.Equal(got.Body, body) {
		t.Errorf("body %q; want %q", got.Body, body)
	}
	for _, field := range []struct{ name, got, want string }{
		{"content-type", got.ContentType, contentType},
		{"to", got.To, "telemetry/" + in.tenant},
		{"annotation device_id", fmt.Sprint(got.Annotations["device_id"]), in.deviceID},
		{"annotation tenant_id", fmt.Sprint(got.Annotations["tenant_id"]), in.tenant},
		{"annotation resource", fmt.Sprint(got.Annotations["resource"]), "telemetry/" + in.tenant + "/" + in.deviceID},
		{"property device_id", fmt.Sprint(got.Properties["device_id"]), in.deviceID},
		{"property orig_adapter", fmt.Sprint(got.Properties["orig_adapter"]), "hono-http"},
		{"property qos", fmt.Sprint(got.Properties["qos"]), qos},
	} {
		if field.got != field.want {
			t.Errorf("%s is %q; want %q", field.name, field.got, field.want)
		}
	}
	if got.MessageID == "" {
		t.Error("no message-id")
	}
	for _, section := range []map[string]any{got.DeliveryAnnotations, got.Annotations, got.Properties} {
		for _, name := range []string{"x-opt-reg-assertion", "reg_assertion", "registration_assertion"} {
			if _, leaked := section[name]; leaked {
				t.Errorf("the application sees %s", name)
			}
		}
	}
}
