//go:build unix

package readme_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var inlineCode = regexp.MustCompile("`([^`\n]+)`")

// TestMakeTargets expects that make knows every target that a page names.
func TestMakeTargets(t *testing.T) {
	_, err := exec.LookPath("make")
	need(t, "make", err)
	targets := map[string]bool{"run": true, "test": true, "test-all": true, "check": true, "bench": true, "fuzz": true}
	for _, p := range pages(t) {
		for _, m := range inlineCode.FindAllStringSubmatch(p.outside(), -1) {
			if words := strings.Fields(m[1]); words[0] == "make" && len(words) > 1 {
				targets[words[1]] = true
			}
		}
	}
	for target := range targets {
		cmd := exec.CommandContext(t.Context(), "make", "-n", target)
		// Lines with $(MAKE) are run in spite of -n, by this.
		cmd.Args = append(cmd.Args, "MAKE=true", "SHELL=/bin/true")
		cmd.Dir, cmd.Env = repository(), environment(t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("make -n %s: %v\n%s", target, err, out)
		}
	}
}

// TestCommandsInProse expects that the program knows every command that a page names.
func TestCommandsInProse(t *testing.T) {
	bin := filepath.Join(sourceCopy(t), "bin", "sluice")
	seen := map[string]bool{}
	for _, p := range pages(t) {
		for _, m := range inlineCode.FindAllStringSubmatch(p.outside(), -1) {
			words := strings.Fields(m[1])
			if words[0] != "sluice" && words[0] != "bin/sluice" || seen[m[1]] {
				continue
			}
			seen[m[1]] = true
			cmd := exec.CommandContext(t.Context(), bin, append(words[1:], "--help")...)
			cmd.Env = environment(t.TempDir())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s names %s: %v\n%s", p.name, m[1], err, out)
			}
		}
	}
	if len(seen) == 0 {
		t.Error("no page names a command: does this test still find them?")
	}
}

// TestLinks expects that every relative link leads to a file.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	for _, p := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(p.outside(), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(repository(), filepath.Dir(p.name), m[1])); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
		}
	}
}

// TestPagesAreLinked expects that README.md leads to every page.
func TestPagesAreLinked(t *testing.T) {
	all := pages(t)
	for _, p := range all[1:] {
		if !strings.Contains(all[0].text, "]("+p.name+")") {
			t.Errorf("README.md has no link to %s", p.name)
		}
	}
}

// TestConfigurationTable holds the table of keys against the program's defaults.
func TestConfigurationTable(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), filepath.Join(sourceCopy(t), "bin", "sluice"), "config", "-o", "json")
	cmd.Dir = t.TempDir()
	cmd.Env = environment(cmd.Dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var values []struct {
		Key   string
		Value any
	}
	if err := json.Unmarshal(out, &values); err != nil {
		t.Fatal(err)
	}
	defaults := documentedDefaults(t)
	// Their defaults are told in words.
	inWords := map[string]bool{"data": true, "listeners": true, "identities": true}
	known := map[string]bool{}
	for _, v := range values {
		key, _, _ := strings.Cut(v.Key, "[")
		known[key] = true
		got, ok := defaults[key]
		if !ok {
			t.Errorf("%s is not in the table of docs/configuration.md", key)
			continue
		}
		if want := shown(t, v.Value); !inWords[key] && got != want {
			t.Errorf("%s: the table says %q; the program %q", key, got, want)
		}
	}
	for key := range defaults {
		if !known[key] {
			t.Errorf("%s is in the table of docs/configuration.md, but no setting", key)
		}
	}
}

// shown is a value as the table has it.
func shown(t *testing.T, v any) string {
	t.Helper()
	if s, ok := v.(string); ok {
		return s
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) == "null" {
		return "[]"
	}
	return string(text)
}

// documentedDefaults reads the table of keys.
func documentedDefaults(t *testing.T) map[string]string {
	t.Helper()
	for _, p := range pages(t) {
		if p.name != "docs/configuration.md" {
			continue
		}
		_, text, _ := strings.Cut(p.text, "\n## Keys\n")
		text, _, _ = strings.Cut(text, "\n## ")
		defaults := map[string]string{}
		for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (?:`([^`]*)`)?").FindAllStringSubmatch(text, -1) {
			defaults[m[1]] = m[2]
		}
		if len(defaults) > 0 {
			return defaults
		}
	}
	t.Fatal("docs/configuration.md has no table of keys")
	return nil
}
