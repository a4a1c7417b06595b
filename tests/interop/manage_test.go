package interop_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestProtonManages asks the management node with Proton's request/response client.
func TestProtonManages(t *testing.T) {
	need(t, "Proton for Python (Debian package python3-qpid-proton)", protonMissing())
	in := startInstallation(t, "")
	operator, err := readEnv(filepath.Join(in.dir, "operator.env"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(python, "proton_manage.py", "amqp://"+in.northbound, operator["SLUICE_ROUTER_USER"], operator["SLUICE_ROUTER_PASSWORD"]).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := `{"types": [200, ["address", "connection", "identity", "link", "listener", "router"]], ` +
		`"names": ["identity", "user", "sasl"], "results": 2, "read": [200, "admin@local", "PLAIN"], "missing": 404}`
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
