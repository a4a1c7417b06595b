package containers_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// user is who runs in the images.
const user = 65532

// healthPort answers probes in every container.
const healthPort = "8088"

// spec is what one container runs.
type spec struct {
	name    string   // its host name, and the instance of its certificate
	kind    string   // of its certificate: adapter, router, function
	aliases []string // further names on the network
	names   []string // further names in its certificate
	args    []string
	config  string // YAML besides the certificates
	env     map[string]string
	ports   []string // published besides that of probes
	volume  string   // for what is kept
	scratch bool     // a tmpfs for what is not kept
}

func (s *spec) image() string {
	if s.kind == "function" {
		return functionImage
	}
	return edgeImage
}

// box is one container. Its methods are for one goroutine.
type box struct {
	spec
	*testcontainers.DockerContainer
	site *site
}

// create makes the container of s and leaves it stopped; it goes away with the test.
func (n *site) create(t *testing.T, s spec) *box {
	t.Helper()
	folder := n.furnish(t, &s)
	env := map[string]string{"SLUICE_CONFIG": "/etc/sluice/sluice.yaml"}
	for key, value := range s.env {
		env[key] = value
	}
	ports := []string{healthPort + "/tcp"}
	for _, p := range s.ports {
		ports = append(ports, p+"/tcp")
	}
	request := testcontainers.ContainerRequest{
		Image: imageOf(s.image()), Cmd: s.args, Env: env, ExposedPorts: ports, Labels: labels(),
		Networks: []string{n.Name}, NetworkAliases: map[string][]string{n.Name: append([]string{s.name}, s.aliases...)},
		ConfigModifier: func(c *container.Config) {
			c.Hostname = s.name
			c.User = fmt.Sprintf("%d:%d", user, user)
			// Probes of the image run more often than a deployment needs them.
			c.Healthcheck = &container.HealthConfig{Interval: time.Second}
		},
		HostConfigModifier: func(h *container.HostConfig) {
			h.ReadonlyRootfs = true
			h.CapDrop = []string{"ALL"}
			h.SecurityOpt = []string{"no-new-privileges"}
			h.Binds = []string{folder + ":/etc/sluice:ro"}
			h.ExtraHosts = []string{activatorName + ":" + n.gateway.String(), databaseName + ":" + n.gateway.String()}
		},
	}
	if s.volume != "" {
		request.Mounts = testcontainers.Mounts(testcontainers.VolumeMount(s.volume, "/var/lib/sluice"))
	}
	if s.scratch {
		request.Tmpfs = map[string]string{"/var/lib/sluice": "rw,noexec,nosuid,nodev,size=8m"}
	}
	made, err := testcontainers.GenericContainer(t.Context(), testcontainers.GenericContainerRequest{ContainerRequest: request})
	if err != nil {
		t.Fatalf("container %s: %v", s.name, err)
	}
	b := &box{spec: s, DockerContainer: made.(*testcontainers.DockerContainer), site: n}
	t.Cleanup(func() { b.remove(t) })
	return b
}

// furnish writes configuration, certificate and identities into a folder that the
// user of the images can read.
func (n *site) furnish(t *testing.T, s *spec) (folder string) {
	t.Helper()
	folder = filepath.Join(n.dir, s.name)
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	hosts := slices.Concat([]string{s.name}, s.aliases, s.names)
	files, err := n.authority.IssueComponent(folder, s.kind, s.name, hosts, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("identities: /etc/sluice/identities.yaml\ntls: {certificate: %s, key: %s, ca: ca.crt}\n%s",
		filepath.Base(files.Certificate), filepath.Base(files.Key), s.config)
	writeFile(t, filepath.Join(folder, "sluice.yaml"), config)
	for _, name := range []string{"ca.crt", "identities.yaml"} {
		text, err := os.ReadFile(filepath.Join(n.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(folder, name), string(text))
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		giveAway(t, filepath.Join(folder, e.Name()))
	}
	return folder
}

// giveAway lets the user of the images read a file, and nobody else where this
// process may say so.
func giveAway(t *testing.T, path string) {
	t.Helper()
	mode := os.FileMode(0o400)
	if os.Chown(path, user, user) != nil {
		mode = 0o444
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run starts the container and waits until it is ready.
func (b *box) run(t *testing.T) {
	t.Helper()
	if _, err := b.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// begin starts the container, waits until it is ready, and tells how long that took
// from the moment that the engine was asked.
func (b *box) begin(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if err := b.Start(ctx); err != nil {
		return 0, fmt.Errorf("start %s: %w", b.name, err)
	}
	if err := b.awaitReady(ctx); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

// awaitReady asks the readiness probe until it answers 200.
func (b *box) awaitReady(ctx context.Context) error {
	address, err := b.published(ctx, healthPort)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		resp, err := probes.Get("http://" + address + "/readiness")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("readiness: %s", resp.Status)
		}
		state, stateErr := b.State(ctx)
		switch {
		case stateErr != nil:
			return stateErr
		case !state.Running:
			return fmt.Errorf("%s ended with exit code %d before it was ready", b.name, state.ExitCode)
		case time.Now().After(deadline):
			return fmt.Errorf("%s is not ready: %w", b.name, err)
		}
	}
}

// probes keeps no connection: the next start of a container has the same address.
var probes = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// published is where a port of the running container is reached from this host.
func (b *box) published(ctx context.Context, port string) (string, error) {
	p, err := b.MappedPort(ctx, port+"/tcp")
	if err != nil {
		return "", fmt.Errorf("%s: %w", b.name, err)
	}
	return net.JoinHostPort("localhost", p.Port()), nil
}

// inside is where a port of the running container is reached on its network.
func (b *box) inside(ctx context.Context, port string) (string, error) {
	i, err := b.Inspect(ctx)
	if err != nil {
		return "", err
	}
	end := i.NetworkSettings.Networks[b.site.Name]
	if end == nil || !end.IPAddress.IsValid() {
		return "", fmt.Errorf("%s is not on its network", b.name)
	}
	return net.JoinHostPort(end.IPAddress.String(), port), nil
}

// terminate stops the container by SIGTERM, and tells how long that took and with
// which exit code it ended.
func (b *box) terminate(ctx context.Context) (time.Duration, int, error) {
	grace, began := 30*time.Second, time.Now()
	if err := b.Stop(ctx, &grace); err != nil {
		return 0, 0, err
	}
	took := time.Since(began)
	state, err := b.State(ctx)
	if err != nil {
		return 0, 0, err
	}
	return took, state.ExitCode, nil
}

// stop is terminate, and an orderly end.
func (b *box) stop(t *testing.T) time.Duration {
	t.Helper()
	took, code, err := b.terminate(t.Context())
	if err != nil || code != 0 {
		t.Fatalf("%s ended with exit code %d, %v; want 0", b.name, code, err)
	}
	return took
}

// kill ends the container as a loss of power would.
func (b *box) kill(t *testing.T) {
	t.Helper()
	if _, err := b.site.engine.ContainerKill(t.Context(), b.ID, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, b.name+" is gone", func() error {
		state, err := b.State(t.Context())
		if err == nil && state.Running {
			err = fmt.Errorf("it runs")
		}
		return err
	})
}

// remove ends the container for good and shows what it said when the test failed.
func (b *box) remove(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if t.Failed() {
		t.Logf("%s said:\n%s", b.name, b.said(ctx))
	}
	options := []testcontainers.TerminateOption{testcontainers.StopContext(ctx), testcontainers.StopTimeout(5 * time.Second)}
	if b.volume != "" {
		options = append(options, testcontainers.RemoveVolumes(b.volume))
	}
	if err := b.Terminate(ctx, options...); err != nil {
		t.Errorf("remove %s: %v", b.name, err)
	}
}

// said is the end of the container's log.
func (b *box) said(ctx context.Context) string {
	const most = 8 << 10
	r, err := b.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	text, err := readAll(r)
	if err != nil {
		return err.Error()
	}
	return text[max(0, len(text)-most):]
}
