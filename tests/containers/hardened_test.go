package containers_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// boxes are all of the site's containers.
func (n *site) boxes() []*box {
	var all []*box
	for _, some := range [][]*box{n.functions, n.routers, n.adapters} {
		all = append(all, some...)
	}
	return all
}

// status is a line of the kernel's account of a container's process.
func (b *box) status(t *testing.T, key string) string {
	t.Helper()
	state, err := b.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", state.Pid))
	if err != nil {
		t.Skipf("the engine's processes are not seen from here: %v", err)
	}
	m := regexp.MustCompile(`(?m)^` + key + `:\s+(.*)$`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in\n%s", key, text)
	}
	return string(m[1])
}

// testHardened asks the kernel what the processes may do.
func (n *site) testHardened(t *testing.T) {
	const uid = "65532\t65532\t65532\t65532"
	for _, b := range n.boxes() {
		for key, want := range map[string]string{"Uid": uid, "Gid": uid, "CapEff": "0000000000000000", "CapPrm": "0000000000000000",
			"CapBnd": "0000000000000000", "NoNewPrivs": "1"} {
			if got := b.status(t, key); got != want {
				t.Errorf("%s: %s is %q; want %q", b.name, key, got, want)
			}
		}
		i, err := b.Inspect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !i.HostConfig.ReadonlyRootfs {
			t.Errorf("%s may write to its root", b.name)
		}
	}
}

// testHealthy waits until the images' own health checks say so.
func (n *site) testHealthy(t *testing.T) {
	for _, b := range n.boxes() {
		eventually(t, b.name+" is healthy", func() error {
			state, err := b.State(t.Context())
			switch {
			case err != nil:
				return err
			case state.Health == nil:
				t.Fatalf("the image of %s has no health check", b.name)
			case state.Health.Status != container.Healthy:
				return fmt.Errorf("%s: %+v", state.Health.Status, state.Health.Log)
			}
			return nil
		})
	}
}

// idle is how long containers do nothing before their memory is read.
const idle = 5 * time.Second

// measureIdle reads the memory of containers that nobody asks anything.
func (n *site) measureIdle(t *testing.T, store string) {
	time.Sleep(idle)
	for _, b := range n.boxes() {
		result, err := n.engine.ContainerStats(t.Context(), b.ID, client.ContainerStatsOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var stats container.StatsResponse
		err = json.NewDecoder(result.Body).Decode(&stats)
		result.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		kib, err := strconv.ParseUint(regexp.MustCompile(`\d+`).FindString(b.status(t, "VmRSS")), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		anonymous, err := strconv.ParseUint(regexp.MustCompile(`\d+`).FindString(b.status(t, "RssAnon")), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		measure(t, fmt.Sprintf("%s (%s): resident memory, idle", b.name, store), "%s, %s of it anonymous; the engine counts %s",
			mb(kib*1024), mb(anonymous*1024), mb(stats.MemoryStats.Usage))
	}
}
