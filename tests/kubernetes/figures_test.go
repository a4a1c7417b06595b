package kubernetes_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// pods are the names of a deployment's pods.
func (s *site) pods(t *testing.T, deployment string) []string {
	t.Helper()
	return strings.Fields(s.kubectl(t, "get", "pods", "-n", s.namespace, "-l", "app.kubernetes.io/name="+deployment, "-o=jsonpath={.items[*].metadata.name}"))
}

// memory logs what each program uses that was started by a pod, as the kernel
// counts it, and that no pod was restarted.
func (s *site) memory(t *testing.T) {
	for _, program := range []string{"sluice-edge", "sluice-function"} {
		out, err := exec.Command("pgrep", "-x", program[:min(len(program), 15)]).Output()
		if err != nil {
			t.Errorf("no process of %s: %v", program, err)
		}
		for pid := range strings.FieldsSeq(string(out)) {
			line, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
			if in, _ := os.ReadFile(filepath.Join("/proc", pid, "cgroup")); err != nil || !bytes.Contains(in, []byte("k8s.io")) && !bytes.Contains(in, []byte("pod")) {
				continue // another container's
			}
			t.Logf("%-40s resident %6s, of its group %s", bytes.ReplaceAll(line, []byte{0}, []byte{' '}), kib(status(pid, "VmRSS")), group(pid))
		}
	}
	if out := s.kubectl(t, "get", "pods", "-n", s.namespace, "-o=jsonpath={.items[*].status.containerStatuses[*].restartCount}"); strings.Trim(out, "0 ") != "" {
		t.Errorf("restarts: %s", out)
	}
}

// status is a number of /proc/PID/status.
func status(pid, key string) int {
	text, _ := os.ReadFile(filepath.Join("/proc", pid, "status"))
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(value)[0])
			return n
		}
	}
	return 0
}

func kib(n int) string { return fmt.Sprintf("%.1f MiB", float64(n)/1024) }

// group is the memory of a process's cgroup, version 1 or 2.
func group(pid string) string {
	text, _ := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		file := ""
		switch {
		case parts[1] == "memory":
			file = filepath.Join("/sys/fs/cgroup/memory", parts[2], "memory.usage_in_bytes")
		case parts[0] == "0":
			file = filepath.Join("/sys/fs/cgroup", parts[2], "memory.current")
		}
		if n, err := os.ReadFile(file); err == nil {
			bytes, _ := strconv.Atoi(strings.TrimSpace(string(n)))
			return kib(bytes / 1024)
		}
	}
	return "unknown"
}
