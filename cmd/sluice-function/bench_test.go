package main_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/functions/host/hosttest"
)

// resident is the memory of a process in KiB.
func resident(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip("no /proc here")
	}
	for line := range strings.Lines(string(text)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kb); err == nil {
			return kb
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// BenchmarkStart starts the program over a registry that exists and waits until it
// answers that it is ready. rss-MB is what it then holds, binary-MB its size.
func BenchmarkStart(b *testing.B) {
	data := b.TempDir()
	start(b, environment("SLUICE_DATA="+data, "PORT=0"), "--functions", "tenant").cmd.Process.Kill()
	var took []time.Duration
	rss := 0.0
	for b.Loop() {
		began := time.Now()
		p := start(b, environment("SLUICE_DATA="+data, "PORT=0"), "--functions", "tenant,credentials,registration,assertion,admission")
		resp, err := http.Get("http://" + p.address(b, "function") + "/readyz")
		if err != nil || resp.StatusCode != 200 {
			b.Fatalf("%v, %v", resp, err)
		}
		resp.Body.Close()
		took = append(took, time.Since(began))
		b.StopTimer()
		rss = max(rss, resident(b, p.cmd.Process.Pid))
		_ = p.cmd.Process.Kill()
		_, _ = p.cmd.Process.Wait()
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(rss/1024, "rss-MB")
	if info, err := os.Stat(program); err == nil {
		b.ReportMetric(float64(info.Size())/1e6, "binary-MB")
	}
}

// BenchmarkStartOnLambda starts the program and waits until it has answered its first
// invocation.
func BenchmarkStartOnLambda(b *testing.B) {
	data := b.TempDir()
	r := hosttest.NewRuntime(b)
	var took []time.Duration
	keys := []byte(`{"specversion":"1.0","id":"1","type":"io.sluice.assertion.keys","source":"//x"}`)
	for b.Loop() {
		began := time.Now()
		p := startOn(b, r, environment("SLUICE_DATA="+data), "--functions", "tenant,credentials,registration,assertion,admission")
		if res, err := r.Invoke(b.Context(), "", keys); err != nil || res.FunctionError != "" {
			b.Fatalf("%+v, %v", res, err)
		}
		took = append(took, time.Since(began))
		b.StopTimer()
		_ = p.cmd.Process.Kill()
		_, _ = p.cmd.Process.Wait()
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
