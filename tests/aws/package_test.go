package aws_test

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTheArchiveIsTheSameTwice builds and packs twice, into different folders and at
// different times.
func TestTheArchiveIsTheSameTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("it links the program twice")
	}
	pack := filepath.Join(t.TempDir(), "pack")
	if out, err := command(t, nil, "go", "build", "-o", pack, "./infra/aws/pack"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var archives [2][]byte
	for n := range archives {
		dir := t.TempDir()
		program, files, archive := filepath.Join(dir, "bootstrap"), filepath.Join(dir, "files"), filepath.Join(dir, "function.zip")
		env := []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64"}
		if out, err := command(t, env, "go", "build", "-trimpath", "-buildvcs=false", "-tags", "lambda.norpc,nosqlite,nopostgres", "-ldflags", "-s -w -X main.version=test", "-o", program, "./cmd/sluice-function"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, name := range []string{"z.txt", "identities.yaml", "sub/a.txt"} {
			path := filepath.Join(files, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(name), []fs.FileMode{0o600, 0o644}[n]); err != nil {
				t.Fatal(err)
			}
			at := time.Unix(int64(1e9*(n+1)), 0)
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
		out, err := command(t, nil, pack, "-o", archive, "-files", files, program)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		has(t, out, "sha256", "MB")
		if archives[n], err = os.ReadFile(archive); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Fatal("two archives of the same source differ")
	}
	contents(t, archives[0])
}

func contents(t *testing.T, archive []byte) {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range r.File {
		names = append(names, f.Name)
		want := fs.FileMode(0o644)
		if f.Name == "bootstrap" {
			want = 0o755
			if f.UncompressedSize64 > 25e6 {
				t.Errorf("the program has %d bytes, want 25 MB at most", f.UncompressedSize64)
			}
		}
		if f.Mode() != want {
			t.Errorf("%s has the mode %s", f.Name, f.Mode())
		}
	}
	if got := strings.Join(names, " "); got != "bootstrap identities.yaml sub/a.txt z.txt" {
		t.Errorf("the archive has %s", got)
	}
}
