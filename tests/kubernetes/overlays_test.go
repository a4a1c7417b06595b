package kubernetes_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testOverlays applies both overlays beside each other, and shows that this says
// something: a misspelt member is refused by its name.
func testOverlays(t *testing.T, n *node) {
	n.script(t, "crds")
	for _, name := range []string{"plain", "knative"} {
		t.Run(name, func(t *testing.T) {
			namespace := "try-" + name
			n.namespace(t, namespace)
			dir := overlay(t, name, "namespace: "+namespace)
			applied := n.apply(t, "-k", dir)
			if strings.Count(applied, "serverside-applied") < 15 {
				t.Errorf("little was applied:\n%s", applied)
			}
			// The pods themselves are admitted as the level "restricted" has it; their
			// secrets are not there, so nothing runs.
			for _, d := range []string{"sluice-router", "sluice-adapter-http", "sluice-adapter-mqtt"} {
				n.kubectl(t, "wait", "-n", namespace, "deployment/"+d, "--for=jsonpath={.status.replicas}=2", "--timeout=30s")
				if out := n.kubectl(t, "get", "-n", namespace, "deployment", d, `-o=jsonpath={.status.conditions[?(@.type=="ReplicaFailure")].message}`); out != "" {
					t.Errorf("%s: %s", d, out)
				}
			}
			n.kubectl(t, "delete", "service", "--all", "-n", namespace) // their ports are the node's
			n.kubectl(t, "delete", "namespace", namespace, "--wait=false")
		})
	}
	for _, tt := range []struct{ overlay, right, wrong string }{
		{"plain", "readOnlyRootFilesystem:", "readOnlyRootFileSystem:"},
		{"plain", "topologyKey:", "topologykey:"},
		{"plain", "terminationGracePeriodSeconds:", "terminationGracePeriod:"},
		{"knative", "containerConcurrency:", "containerConcurency:"},
		{"knative", "timeoutSeconds: 65", "timeoutSecond: 65"},
	} {
		t.Run(tt.overlay+" with "+strings.TrimRight(tt.wrong, ": 65"), func(t *testing.T) {
			text := n.kubectl(t, "kustomize", overlay(t, tt.overlay, "namespace: default"))
			if !strings.Contains(text, tt.right) {
				t.Fatalf("no %s", tt.right)
			}
			file := t.TempDir() + "/wrong.yaml"
			write(t, file, strings.ReplaceAll(text, tt.right, tt.wrong))
			out, bad, err := n.try(t, "apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", file)
			name, _, _ := strings.Cut(tt.wrong, ":")
			if err == nil || !strings.Contains(bad, name) {
				t.Errorf("%v\n%s%s", err, out, bad)
			}
		})
	}
	t.Run("a pod that is not restricted", func(t *testing.T) {
		n.namespace(t, "try-level")
		_, bad, err := n.try(t, "run", "-n", "try-level", "root", "--image=sluice-edge:dev")
		if err == nil || !strings.Contains(bad, `violates PodSecurity "restricted`) {
			t.Errorf("%v\n%s", err, bad)
		}
		n.kubectl(t, "delete", "namespace", "try-level", "--wait=false")
	})
}

// namespace makes our namespace under another name.
func (n *node) namespace(t *testing.T, name string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(infra, "namespace.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "namespace.yaml")
	write(t, file, strings.Replace(string(text), "name: sluice", "name: "+name, 1))
	n.apply(t, "-f", file)
}
