package arch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"sync"
	"testing"
)

// pkg is what `go list -json` tells of one package.
type pkg struct {
	ImportPath string
	Name       string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
	Standard   bool
	Module     *struct {
		Path string
		Main bool
	}
}

func (p *pkg) ours() bool { return p.Module != nil && p.Module.Main }

// rel is the path inside the module; "." is its root.
func (p *pkg) rel() string { return inModule(p.ImportPath) }

const module = "github.com/sluice-iot/sluice"

func inModule(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

// list runs `go list` once for all tests of this package.
var list = sync.OnceValues(func() ([]*pkg, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Name,Dir,GoFiles,Imports,Deps,Standard,Module", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New("go list: " + err.Error() + "\n" + stderr.String())
	}
	var all []*pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := &pkg{}
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

// ourPackages returns the packages of this module.
func ourPackages(t *testing.T) []*pkg {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatal(err)
	}
	var ours []*pkg
	for _, p := range all {
		if p.ours() {
			ours = append(ours, p)
		}
	}
	return ours
}

// matching returns our packages that a pattern names; none is an error of the table.
func matching(t *testing.T, pattern string) []*pkg {
	t.Helper()
	var found []*pkg
	for _, p := range ourPackages(t) {
		if match(pattern, p.rel()) {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		t.Errorf("the rule names %q, but no such package exists: mend the table", pattern)
	}
	return found
}

// match reports whether a path is named by a pattern: "*" stands for anything but
// a slash, a closing "/..." for the path itself and everything below it.
func match(pattern, name string) bool {
	if base, below := strings.CutSuffix(pattern, "/..."); below {
		depth := strings.Count(base, "/") + 1
		parts := strings.Split(name, "/")
		if len(parts) < depth {
			return false
		}
		return match(base, strings.Join(parts[:depth], "/"))
	}
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if match(p, name) {
			return true
		}
	}
	return false
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"router", "router", true},
		{"router", "router/forward", false},
		{"router/...", "router", true},
		{"router/...", "router/forward", true},
		{"router/...", "routers", false},
		{"functions/*", "functions/tenant", true},
		{"functions/*", "functions/host/knative", false},
		{"*/*store", "registry/sqlitestore", true},
		{"functions/*/...", "functions/host/knative", true},
		{"functions/*/...", "functions", false},
	} {
		if got := match(tc.pattern, tc.name); got != tc.want {
			t.Errorf("match(%q, %q) = %v, want %v", tc.pattern, tc.name, got, tc.want)
		}
	}
}
