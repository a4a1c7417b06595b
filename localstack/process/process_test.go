package process_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/localstack/process"
)

func TestProcess(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	start := func(script string) *process.Process {
		p, err := process.Start(process.Options{Name: "it", Path: sh, Args: []string{"-c", script}, Env: []string{"A=b"}, Dir: t.TempDir(), Output: out})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := start("echo $A; exec sleep 1000")
	if p.Exit() != "" || p.PID() == 0 {
		t.Error("it ended at once")
	}
	p.Freeze()
	p.Thaw()
	p.Stop(time.Hour)
	if !strings.Contains(p.Exit(), "it ended: signal: terminated") {
		t.Error(p.Exit())
	}
	deaf := start("trap '' TERM; exec sleep 1000")
	deaf.Freeze() // also what does not run is ended
	deaf.Stop(10 * time.Millisecond)
	if deaf.Exit() == "" {
		t.Error("it did not end")
	}
	if _, err := process.Start(process.Options{Name: "it", Path: filepath.Join(t.TempDir(), "none")}); err == nil || !strings.Contains(err.Error(), "it: ") {
		t.Errorf("what is not there: %v", err)
	}
}
