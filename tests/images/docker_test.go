package images_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// tag is that of the images that `make images` made last.
const tag = "dev"

// need skips a test where there is no engine or no image, unless nothing may be
// missing.
func need(t *testing.T, image string) {
	t.Helper()
	missing := t.Skipf
	if os.Getenv("SLUICE_TEST_ALL") != "" {
		missing = t.Fatalf
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "version").CombinedOutput(); err != nil {
		missing("no Docker engine answers (infra/docker/deps starts one): %v: %s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "image", "inspect", image).CombinedOutput(); err != nil {
		missing("no image %s (make images makes it): %v: %s", image, err, out)
	}
}

// try runs the Docker client; its standard error comes with an error only.
func try(args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command("docker", args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		return out.String() + errs.String(), err
	}
	return out.String(), nil
}

// docker runs the Docker client and expects it to succeed.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := try(args...)
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// inspect reads what Docker says of an object.
func inspect(t *testing.T, kind, name string, into any) {
	t.Helper()
	list := []json.RawMessage{}
	if err := json.Unmarshal([]byte(docker(t, kind, "inspect", name)), &list); err != nil || len(list) != 1 {
		t.Fatalf("%s %s: %d objects, %v", kind, name, len(list), err)
	}
	if err := json.Unmarshal(list[0], into); err != nil {
		t.Fatal(err)
	}
}

// hardened are the restrictions under which every container runs.
var hardened = []string{"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}

// container is a running container of a test.
type container struct {
	id    string
	began time.Time // when the engine was told to start it
}

// run starts a container until the test ends.
func run(t *testing.T, flags []string, image string, args ...string) *container {
	t.Helper()
	all := append([]string{"create"}, hardened...)
	all = append(append(append(all, flags...), image), args...)
	c := &container{id: docker(t, all...)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s %s: %s", image, strings.Join(args, " "), c.logs(t))
		}
		if out, err := try("rm", "--force", "--volumes", c.id); err != nil {
			t.Errorf("remove the container: %v: %s", err, out)
		}
	})
	c.began = time.Now()
	docker(t, "start", c.id)
	return c
}

// state is what the tests look at of a container.
type state struct {
	State struct {
		Status   string
		ExitCode int
		Pid      int
		Health   struct{ Status string }
	}
}

func (c *container) state(t *testing.T) (s state) {
	t.Helper()
	inspect(t, "container", c.id, &s)
	return s
}

// logs are what the process wrote, each line after the time at which it did.
func (c *container) logs(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("docker", "logs", "--timestamps", c.id).CombinedOutput()
	if err != nil {
		t.Fatalf("docker logs: %v: %s", err, out)
	}
	return string(out)
}

// healthy waits until the health check of the image says so.
func (c *container) healthy(t *testing.T) {
	t.Helper()
	for {
		s := c.state(t)
		switch {
		case s.State.Status != "running":
			t.Fatalf("the container is %s, exit code %d", s.State.Status, s.State.ExitCode)
		case s.State.Health.Status == "healthy":
			return
		case s.State.Health.Status != "starting":
			t.Fatalf("the container is %q", s.State.Health.Status)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// stop asks the process to end and expects it to do so in order.
func (c *container) stop(t *testing.T) {
	t.Helper()
	docker(t, "stop", c.id)
	if s := c.state(t); s.State.Status != "exited" || s.State.ExitCode != 0 {
		t.Errorf("the container is %s, exit code %d", s.State.Status, s.State.ExitCode)
	}
}
