package kubernetes_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// address is the node's, for everything on this machine and in the pods.
const address = "10.200.255.1"

// overlays, relative to this folder.
const infra = "../../infra/kubernetes"

// images are what the node runs; `make images` builds them.
var images = []string{"sluice-edge:dev", "sluice-function:dev"}

// node is the running cluster.
type node struct {
	dir string
}

// need skips the test for want of something, or fails it where all tests must run.
func need(t *testing.T, what string, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("SLUICE_TEST_ALL") == "1":
		t.Fatalf("%s (make test-kubernetes sees to it): %v", what, err)
	default:
		t.Skipf("%s (make test-kubernetes sees to it): %v", what, err)
	}
}

// start brings the node up and loads the images. It goes down with the test, and
// what it leaves behind is a failure.
func start(t *testing.T) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		need(t, "a node needs root", os.ErrPermission)
	}
	_, err := exec.LookPath("docker")
	need(t, "a Docker engine has the images", err)
	need(t, "a Docker engine has the images", exec.Command("docker", append([]string{"image", "inspect"}, images...)...).Run())
	need(t, "the Kubernetes programs are not built", exec.Command("./node", "built").Run())
	dir := os.Getenv("KUBE_NODE_DIR")
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "node")
	}
	n := &node{dir}
	t.Cleanup(func() {
		n.script(t, "down")
		n.gone(t)
	})
	n.script(t, "up")
	n.script(t, append([]string{"load"}, images...)...)
	return n
}

// gone looks for what a node leaves when it does not go down as it should.
func (n *node) gone(t *testing.T) {
	t.Helper()
	for _, name := range []string{"kube-node", "cni0"} {
		if exec.Command("ip", "link", "show", name).Run() == nil {
			t.Errorf("the network interface %s is left", name)
		}
	}
	if out, _ := exec.Command("ip", "netns", "list").Output(); bytes.Contains(out, []byte("cni-")) {
		t.Errorf("network namespaces are left: %s", out)
	}
	if out, _ := exec.Command("iptables-save").Output(); bytes.Contains(out, []byte("KUBE-")) || bytes.Contains(out, []byte("kube-node")) {
		t.Errorf("rules of the packet filter are left:\n%s", out)
	}
	if mounts, err := os.ReadFile("/proc/mounts"); err != nil || bytes.Contains(mounts, []byte(n.dir)) || bytes.Contains(mounts, []byte("/run/kube-node")) {
		t.Errorf("mounts are left (%v):\n%s", err, mounts)
	}
	out, _ := exec.Command("pgrep", "-af", "/run/kube-node/|kube-node/v[0-9.]*/|"+n.dir+"/(etcd|containerd|kube)").Output()
	if len(out) > 0 {
		t.Errorf("processes are left:\n%s", out)
	}
}

func (n *node) env() []string {
	return append(os.Environ(), "KUBE_NODE_DIR="+n.dir, "KUBECONFIG="+filepath.Join(n.dir, "kubeconfig"))
}

// script runs the script node.
func (n *node) script(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("./node", args...)
	cmd.Env = n.env()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("node %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// command is kubectl with arguments, not yet begun.
func (n *node) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "./node", append([]string{"kubectl"}, args...)...)
	cmd.Env = n.env()
	return cmd
}

// try runs kubectl and returns what it prints.
func (n *node) try(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, bad bytes.Buffer
	cmd := n.command(context.WithoutCancel(t.Context()), args...) // also at the end of a test
	cmd.Stdout, cmd.Stderr = &out, &bad
	err = cmd.Run()
	return out.String(), bad.String(), err
}

// kubectl runs kubectl; an error or a warning is a failure.
func (n *node) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, bad, err := n.try(t, args...)
	if err != nil || strings.Contains(bad, "Warning") {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, bad)
	}
	return out
}

// apply applies files or overlays as strictly as there is.
func (n *node) apply(t *testing.T, args ...string) string {
	t.Helper()
	return n.kubectl(t, append([]string{"apply", "--server-side", "--validate=strict"}, args...)...)
}

// overlay writes a kustomization that uses one of ours and says more, and returns
// its folder.
func overlay(t *testing.T, name, more string) string {
	t.Helper()
	dir := t.TempDir()
	ours, err := filepath.Abs(filepath.Join(infra, name))
	if err != nil {
		t.Fatal(err)
	}
	ours, err = filepath.Rel(dir, ours) // kustomize takes no absolute paths
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "kustomization.yaml"), "resources: ["+ours+"]\n"+more)
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
