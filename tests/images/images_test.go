package images_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// limit is what an image may have, in bytes.
const limit = 25_000_000

// images are those that there are, with a part of each description.
var images = []struct{ name, about string }{
	{"sluice-edge", "router"},
	{"sluice-function", "functions"},
}

// image is what the tests look at of an image.
type image struct {
	Size   int64
	Config struct {
		User        string
		Env         []string
		Entrypoint  []string
		Volumes     map[string]struct{}
		Labels      map[string]string
		Healthcheck struct{ Test []string }
	}
}

func TestImage(t *testing.T) {
	for _, i := range images {
		t.Run(i.name, func(t *testing.T) {
			ref := i.name + ":" + tag
			need(t, ref)
			var got image
			inspect(t, "image", ref, &got)
			if got.Size > limit {
				t.Errorf("%d bytes, more than %d", got.Size, limit)
			}
			t.Logf("%d bytes", got.Size)
			c := got.Config
			if c.User != "65532:65532" {
				t.Errorf("runs as %q", c.User)
			}
			if !slices.Equal(c.Entrypoint, []string{"/" + i.name}) || !slices.Equal(c.Healthcheck.Test, []string{"CMD", "/" + i.name, "health"}) {
				t.Errorf("entrypoint %q, health check %q", c.Entrypoint, c.Healthcheck.Test)
			}
			if _, ok := c.Volumes["/var/lib/sluice"]; !ok || !slices.Contains(c.Env, "SLUICE_DATA=/var/lib/sluice/data") {
				t.Errorf("volumes %v, environment %v", c.Volumes, c.Env)
			}
			checkLabels(t, c.Labels, i.name, i.about)
			checkFiles(t, ref, i.name)
			if out, err := try("run", "--rm", "--entrypoint", "/bin/sh", ref, "-c", "true"); err == nil {
				t.Errorf("there is a shell: %s", out)
			}
			version := docker(t, append(append([]string{"run", "--rm"}, hardened...), ref, "--version")...)
			if want := i.name + " " + c.Labels["org.opencontainers.image.version"]; version != want {
				t.Errorf("--version printed %q, want %q", version, want)
			}
		})
	}
}

func checkLabels(t *testing.T, labels map[string]string, name, about string) {
	t.Helper()
	get := func(key string) string { return labels["org.opencontainers.image."+key] }
	if get("title") != name || !strings.Contains(get("description"), about) {
		t.Errorf("title %q, description %q", get("title"), get("description"))
	}
	if get("source") != "https://github.com/sluice-iot/sluice" || get("licenses") != "Apache-2.0" {
		t.Errorf("source %q, licenses %q", get("source"), get("licenses"))
	}
	if get("version") == "" || len(get("revision")) != 40 {
		t.Errorf("version %q, revision %q", get("version"), get("revision"))
	}
	if at, err := time.Parse(time.RFC3339, get("created")); err != nil || at.After(time.Now()) {
		t.Errorf("created %q", get("created"))
	}
}

// checkFiles looks at the file system of a container that was never started.
func checkFiles(t *testing.T, ref, name string) {
	t.Helper()
	id := docker(t, "create", ref)
	defer docker(t, "rm", "--volumes", id)
	// Docker adds mount points for what it brings.
	want := map[string]bool{name: false, "etc/ssl/certs/ca-certificates.crt": false, "var/lib/sluice": false}
	its := []string{".dockerenv", "dev", "etc/hosts", "etc/hostname", "etc/mtab", "etc/resolv.conf", "proc", "sys"}
	export, err := exec.Command("docker", "export", id).Output()
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(bytes.NewReader(export)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		path := strings.TrimSuffix(h.Name, "/")
		top, _, _ := strings.Cut(path, "/")
		_, named := want[path]
		switch {
		case named:
			want[path] = true
			user, mode := 0, int64(0)
			if path == "var/lib/sluice" {
				user, mode = 65532, 0o1022
			}
			if h.Uid != user || h.Gid != user || h.Mode&0o1022 != mode {
				t.Errorf("%s belongs to %d:%d and has mode %o", path, h.Uid, h.Gid, h.Mode)
			}
		case h.Typeflag != tar.TypeDir && !slices.Contains(its, path) && !slices.Contains(its, top):
			t.Errorf("%s is in the image", path)
		}
	}
	for path, seen := range want {
		if !seen {
			t.Errorf("%s is not in the image", path)
		}
	}
}
