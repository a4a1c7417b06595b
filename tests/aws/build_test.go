package aws_test

import (
	"os"
	"path/filepath"
	"testing"
)

// build makes the program and the archive of the function, as make build and make
// aws-package do, of what is here now. SLUICE_BIN names a program that was built already.
func build(t *testing.T) (sluice, archive string) {
	t.Helper()
	dir := t.TempDir()
	sluice, archive = filepath.Join(dir, "sluice"), filepath.Join(dir, "function.zip")
	bootstrap := filepath.Join(dir, "bootstrap")
	given := os.Getenv("SLUICE_BIN")
	for _, args := range [][]string{
		{"build", "-o", sluice, "./cmd/sluice"},
		{"build", "-trimpath", "-buildvcs=false", "-tags", "lambda.norpc,nosqlite,nopostgres", "-ldflags", "-s -w", "-o", bootstrap, "./cmd/sluice-function"},
		{"run", "./infra/aws/pack", "-o", archive, bootstrap},
	} {
		if given != "" && args[2] == sluice {
			continue
		}
		if out, err := command(t, []string{"CGO_ENABLED=0"}, "go", args...); err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
	}
	if given != "" {
		var err error
		if sluice, err = filepath.Abs(given); err != nil {
			t.Fatal(err)
		}
	}
	return sluice, archive
}
