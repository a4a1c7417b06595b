package arch_test

import (
	"bytes"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// maxLines bounds a hand-written production file.
const maxLines = 600

// longFiles names the files that may be longer, with the reason.
var longFiles = map[string]string{}

// notNames are package names that say nothing.
var notNames = []string{"util", "utils", "common", "helpers", "models", "types", "misc"}

func TestFilesAreShort(t *testing.T) {
	for _, p := range ourPackages(t) {
		for _, file := range p.GoFiles {
			name := p.rel() + "/" + file
			if strings.HasPrefix(file, "z_") || longFiles[name] != "" {
				continue
			}
			src, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(src, []byte("\n")); n > maxLines {
				t.Errorf("%s has %d lines, more than %d: split it, or say in the table why not", name, n, maxLines)
			}
		}
	}
}

func TestPackagesAreDescribed(t *testing.T) {
	for _, p := range ourPackages(t) {
		if slices.Contains(notNames, p.Name) {
			t.Errorf("%s is named %q: name a package for what it provides", p.rel(), p.Name)
		}
		files := []string{"doc.go"}
		if p.Name == "main" {
			files = p.GoFiles
		}
		if !slices.ContainsFunc(files, func(file string) bool { return hasPackageComment(t, filepath.Join(p.Dir, file)) }) {
			t.Errorf("%s: no package comment in %v", p.rel(), files)
		}
	}
}

func hasPackageComment(t *testing.T, file string) bool {
	t.Helper()
	if _, err := os.Stat(file); err != nil {
		return false
	}
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		t.Errorf("%s: %v", file, err)
		return false
	}
	return f.Doc != nil && strings.TrimSpace(f.Doc.Text()) != ""
}
