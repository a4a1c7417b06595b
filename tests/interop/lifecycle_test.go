package interop_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// stopsWithin is how long Ctrl-C may take.
const stopsWithin = 2 * time.Second

// TestStopAndStartAgain stops the program while clients are connected, and
// expects a second start on the same folder to find everything.
func TestStopAndStartAgain(t *testing.T) {
	in, config := layout(t, "")
	in.start(t, config)
	receiver := startReceiver(t, "go-amqp", in.app("telemetry/"+in.tenant))
	in.mustUpload(t, "before")
	receiver.await(t, "message")
	before := *in

	took, code := in.interrupt(t)
	if code != 0 || took > stopsWithin {
		t.Errorf("ended with exit code %d after %s; want 0 within %s", code, took, stopsWithin)
	}
	in.start(t, config)
	for _, secret := range []struct{ name, got, want string }{
		{"device's", in.devicePassword, before.devicePassword},
		{"application's", in.appPassword, before.appPassword},
		{"operator's", in.operatorSecret, before.operatorSecret},
	} {
		if secret.got != secret.want {
			t.Errorf("the %s password changed with the second start", secret.name)
		}
	}
	receiver = startReceiver(t, "go-amqp", in.app("telemetry/"+in.tenant))
	in.mustUpload(t, "after")
	if got := receiver.await(t, "message"); string(got.Body) != "after" {
		t.Errorf("received %q; want after", got.Body)
	}
}

// TestSecretsAreKeptPrivate looks at the modes of the data folder and of what holds secrets.
func TestSecretsAreKeptPrivate(t *testing.T) {
	in := startInstallation(t, "")
	for name, want := range map[string]os.FileMode{".": 0o700, "demo.env": 0o600, "operator.env": 0o600, "identities.yaml": 0o600} {
		info, err := os.Stat(filepath.Join(in.dir, name))
		if err != nil {
			t.Error(err)
		} else if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o; want %o", name, got, want)
		}
	}
	for _, secret := range []string{in.operatorSecret, in.appPassword} {
		if strings.Contains(in.stderr.String(), secret) {
			t.Errorf("the log holds the secret %q", secret)
		}
	}
}

// residentLimit is what an idle installation may keep in memory.
const residentLimit = 60 << 20

func TestIdleMemory(t *testing.T) {
	in := startInstallation(t, "")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", in.cmd.Process.Pid))
	if err != nil {
		t.Skipf("memory is read from /proc: %v", err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmRSS in\n%s", status)
	}
	kib, _ := strconv.Atoi(string(m[1]))
	t.Logf("%d KiB resident", kib)
	if kib<<10 > residentLimit {
		t.Errorf("%d KiB resident when idle; want at most %d", kib, residentLimit>>10)
	}
}

// TestStartFailures expects one clear line and an exit code for what goes wrong at the start.
func TestStartFailures(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	running := startInstallation(t, "")
	file := writeFile(t, filepath.Join(t.TempDir(), "file"), "")

	for _, tc := range []struct {
		name string
		args func(config, data string) []string
		add  string // to the configuration file
		want []string
	}{
		{name: "a misspelt key", add: "credit-wiat: 1s\n", want: []string{"credit-wiat", "credit-wait"}},
		{name: "a port in use", add: "", args: func(_, data string) []string {
			return []string{"--data", data, "--config", writeFile(t, filepath.Join(t.TempDir(), "taken.yaml"),
				fmt.Sprintf("listeners:\n  - {role: northbound, address: %q}\n", taken.Addr()))}
		}, want: []string{taken.Addr().String()}},
		{name: "a data folder that is a file", args: func(config, _ string) []string {
			return []string{"--data", file, "--config", config}
		}, want: []string{file}},
		{name: "a data folder below a file", args: func(config, _ string) []string {
			return []string{"--data", filepath.Join(file, "data"), "--config", config}
		}, want: []string{file}},
		{name: "a data folder in use", args: func(config, _ string) []string {
			return []string{"--data", running.dir, "--config", config}
		}, want: []string{running.dir}},
		{name: "no such configuration", args: func(_, data string) []string {
			return []string{"--data", data, "--config", "/no/such/file.yaml"}
		}, want: []string{"/no/such/file.yaml"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in, config := layout(t, tc.add)
			args := []string{"--data", in.dir, "--config", config}
			if tc.args != nil {
				args = tc.args(config, in.dir)
			}
			c := startChild(t, "sluice up", exec.Command(program(t), append([]string{"up"}, args...)...), nil)
			_ = c.wait(t)
			if code := c.cmd.ProcessState.ExitCode(); code <= 0 {
				t.Errorf("exit code %d; want a failure", code)
			}
			said := strings.TrimSpace(c.stderr.String())
			last := said[strings.LastIndex(said, "\n")+1:]
			for _, want := range tc.want {
				if !strings.Contains(last, want) {
					t.Errorf("the last line is %q; want it to name %q", last, want)
				}
			}
			if strings.Contains(said, "goroutine ") || strings.Contains(said, "Usage:") {
				t.Errorf("more than a clear line:\n%s", said)
			}
		})
	}
}
