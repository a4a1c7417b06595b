package interop_test

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// versions are the ways in which mosquitto's clients speak.
var versions = []string{"mqttv311", "mqttv5"}

func needMosquitto(t *testing.T) {
	t.Helper()
	for _, name := range []string{"mosquitto_pub", "mosquitto_sub", "mosquitto_rr"} {
		_, err := exec.LookPath(name)
		need(t, name+" (Debian package mosquitto-clients)", err)
	}
}

// ran is what came of one of mosquitto's clients.
type ran struct {
	code           int // its exit code, which is that of CONNACK or SUBACK where one of these refuses
	stdout, stderr string
}

// mosquitto is how one of mosquitto's clients connects.
type mosquitto struct {
	version string   // "" = its default
	user    string   // auth-id@tenant, with the password of a plant's device
	args    []string // further ones
	secure  bool     // the TLS listener, by its name
}

// command makes the command line of one of mosquitto's clients.
func (m mosquitto) command(p *plant, program string, args ...string) *exec.Cmd {
	all := []string{"-h", "127.0.0.1", "-p", port(p.mqtt)}
	if m.secure {
		all = []string{"-h", "localhost", "-p", port(p.mqttTLS), "--cafile", p.ca}
	}
	if m.version != "" {
		all = append(all, "-V", m.version)
	}
	if m.user != "" {
		authID, _, _ := strings.Cut(m.user, "@")
		all = append(all, "-u", m.user, "-P", password(authID))
	}
	return exec.Command("mosquitto_"+program, append(append(all, m.args...), args...)...)
}

// run waits for the end of one of mosquitto's clients.
func (m mosquitto) run(t *testing.T, p *plant, program string, args ...string) ran {
	t.Helper()
	cmd := m.command(p, program, args...)
	return runs(t, cmd)
}

func runs(t *testing.T, cmd *exec.Cmd) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// publishes expects a message with quality of service 1 to be acknowledged.
func (m mosquitto) publishes(t *testing.T, p *plant, args ...string) {
	t.Helper()
	if r := m.run(t, p, "pub", append([]string{"-q", "1"}, args...)...); r.code != 0 || r.stderr != "" {
		t.Fatalf("mosquitto_pub %q ended with %d: %s", args, r.code, r.stderr)
	}
}
