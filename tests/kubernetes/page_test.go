package kubernetes_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// testPage has the commands of docs/deploy.md run as they are written: what runs
// every page does it, with names that mean something here.
func testPage(t *testing.T, n *node) {
	n.script(t, "crds")
	script, err := filepath.Abs("node")
	if err != nil {
		t.Fatal(err)
	}
	tools := t.TempDir()
	kubectl := filepath.Join(tools, "kubectl")
	write(t, kubectl, "#!/bin/sh\nexec "+script+" kubectl \"$@\"\n")
	if err := os.Chmod(kubectl, 0o700); err != nil {
		t.Fatal(err)
	}
	words, err := json.Marshal(map[string]string{
		"iot.example":     address,
		"platform-ca.crt": filepath.Join(n.dir, "apiserver.crt"), // any certificate
		"postgres://sluice:SECRET@db.example/iot?sslmode=verify-full": database(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "test", "-count=1", "-v", "-timeout", "20m", "-run", "^TestPages$/^deploy$/^(Kubernetes|Knative)$", "./tests/readme")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(n.env(), "PATH="+tools+":"+os.Getenv("PATH"), "SLUICE_TEST_KUBERNETES="+string(words))
	out, err := cmd.CombinedOutput()
	for _, section := range []string{"Kubernetes", "Knative"} {
		if err != nil || !strings.Contains(string(out), "--- PASS: TestPages/deploy/"+section) {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}
