//go:build unix

package readme_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unpacked is where tests/deps unpacks Keycloak.
func unpacked() string { return filepath.Join(repository(), "build", "keycloak") }

func usesKeycloak(b block) bool {
	return b.lang == "sh" && strings.Contains(b.code, "keycloak/bin/kc.sh")
}

func needKeycloak(t *testing.T) {
	t.Helper()
	if !testAll() {
		t.Skip("Keycloak is started with SLUICE_TEST_ALL=1")
	}
	_, err := os.Stat(filepath.Join(unpacked(), "pom.xml"))
	need(t, "Keycloak", err)
	_, err = exec.LookPath("java")
	need(t, "Java", err)
}

// keycloak gives a section that starts Keycloak a copy of its own, because
// Keycloak writes into its folder.
func (r *reader) keycloak(t *testing.T, s section) {
	t.Helper()
	if !slices.ContainsFunc(s.blocks, usesKeycloak) {
		return
	}
	if err := os.CopyFS(filepath.Join(r.dir, "keycloak"), os.DirFS(unpacked())); err != nil {
		t.Fatal(err)
	}
}
