package containers_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"
)

// patience turns a hang into a failure.
const patience = 60 * time.Second

// project labels what this suite makes with the process that made it, so that what a
// killed run left is found.
const project = "io.sluice.test.pid"

// labels are those of everything that this process makes.
func labels() map[string]string { return map[string]string{project: strconv.Itoa(os.Getpid())} }

// left reports whether who made something is gone.
func left(labels map[string]string) bool {
	pid, err := strconv.Atoi(labels[project])
	return err != nil || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// environment is what the library needs here: its reaper is an image that nobody
// pulls, and where this machine is itself a container it would look for published
// ports elsewhere.
var environment = map[string]string{
	"TESTCONTAINERS_RYUK_DISABLED": "true",
	"TESTCONTAINERS_HOST_OVERRIDE": "localhost",
	"DOCKER_BUILDKIT":              "0",
}

// TestMain removes what an earlier run left when it was killed, and prints what was measured.
func TestMain(m *testing.M) {
	for key, value := range environment {
		if err := os.Setenv(key, value); err != nil {
			panic(err)
		}
	}
	tclog.SetDefault(quiet{})
	if cli, err := engine(); err == nil {
		if err := sweep(context.Background(), cli); err != nil {
			fmt.Fprintln(os.Stderr, "what an earlier run left stays:", err)
		}
	}
	code := m.Run()
	if err := measured.print(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// quiet drops what the library says of its own steps.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// engine is the Docker engine's client.
var engine = sync.OnceValues(func() (*testcontainers.DockerClient, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return testcontainers.NewDockerClientWithOpts(ctx)
})

const (
	edgeImage     = "sluice-edge:dev"
	functionImage = "sluice-function:dev"
)

// imageOf is the image that stands for name.
func imageOf(name string) string {
	variable := map[string]string{edgeImage: "SLUICE_EDGE_IMAGE", functionImage: "SLUICE_FUNCTION_IMAGE"}[name]
	if given := os.Getenv(variable); given != "" {
		return given
	}
	return name
}

// needEngine returns the engine's client; without engine or images the test ends.
func needEngine(t *testing.T) *testcontainers.DockerClient {
	t.Helper()
	cli, err := engine()
	need(t, "a Docker engine", err)
	for _, name := range []string{edgeImage, functionImage} {
		_, err := cli.ImageInspect(t.Context(), imageOf(name))
		need(t, "the image "+imageOf(name), err)
	}
	return cli
}

// need skips the test for want of something, or fails it where all tests must run.
func need(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("SLUICE_TEST_ALL") == "1" {
		t.Fatalf("%s is missing (make test-containers sees to it): %v", what, err)
	}
	t.Skipf("%s is missing (make test-containers sees to it): %v", what, err)
}

// sweep removes containers, networks and volumes that a run left which is over.
func sweep(ctx context.Context, cli *testcontainers.DockerClient) error {
	ours := client.Filters{}.Add("label", project)
	list, err := cli.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: ours})
	if err != nil {
		return err
	}
	for _, c := range list.Items {
		if !left(c.Labels) {
			continue
		}
		if _, err := cli.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			return err
		}
	}
	networks, err := cli.NetworkList(ctx, client.NetworkListOptions{Filters: ours})
	if err != nil {
		return err
	}
	for _, n := range networks.Items {
		if !left(n.Labels) {
			continue
		}
		if _, err := cli.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}); err != nil {
			return err
		}
	}
	volumes, err := cli.VolumeList(ctx, client.VolumeListOptions{Filters: ours})
	if err != nil {
		return err
	}
	for _, v := range volumes.Items {
		if !left(v.Labels) {
			continue
		}
		if _, err := cli.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true}); err != nil {
			return err
		}
	}
	return nil
}

// eventually repeats a check until it holds.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// readAll reads at most 1 MiB, which is more than anything here says.
func readAll(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, 1<<20))
	return string(b), err
}
