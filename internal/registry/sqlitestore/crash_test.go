package sqlitestore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
)

// crashFile names the file that a child process of this test writes.
const crashFile = "SLUICE_TEST_CRASH_FILE"

const crashWriters = 8

func TestMain(m *testing.M) {
	if path := os.Getenv(crashFile); path != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(path, os.Getenv(crashFile+"_ROUND")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeUntilKilled registers devices from several goroutines, singly and in
// bulk, and says on standard output which ones were acknowledged.
func writeUntilKilled(path, round string) error {
	ctx := context.Background()
	s, err := sqlitestore.Open(ctx, path, sqlitestore.Options{Indexes: [][]string{{"ext", "serial"}}})
	if err != nil {
		return err
	}
	failed := make(chan error, crashWriters)
	var out sync.Mutex
	for w := range crashWriters {
		go func() {
			for n := 0; ; n++ {
				ids, err := crashWrite(ctx, s, w, fmt.Sprintf("r%s-w%d-%d", round, w, n))
				if err != nil {
					failed <- err
					return
				}
				out.Lock()
				fmt.Println(strings.Join(ids, " ")) // in one write, as a line
				out.Unlock()
			}
		}()
	}
	return <-failed
}

func crashWrite(ctx context.Context, s *sqlitestore.Store, writer int, id string) ([]string, error) {
	device := func(id string) registry.DeviceRecord {
		d := registry.DeviceRecord{Tenant: "T", ID: iot.DeviceID(id), Version: "v"}
		d.Status.Created.Time = time.UnixMilli(1_700_000_000_000)
		d.Status.Updated = d.Status.Created
		d.Device.Ext = []byte(`{"serial":"` + id + `"}`)
		return d
	}
	if writer%2 == 0 {
		return []string{id}, s.CreateDevice(ctx, device(id), "c", -1)
	}
	ids := make([]string, 20)
	writes := make([]registry.DeviceWrite, len(ids))
	for i := range ids {
		ids[i] = fmt.Sprint(id, "-", i)
		set := []iot.Credential{{Type: iot.PSK, AuthID: ids[i], Secrets: []iot.Secret{{ID: "s", Key: []byte("k")}}}}
		writes[i] = registry.DeviceWrite{Op: registry.CreateOp, Device: device(ids[i]), CredentialsVersion: "c",
			Credentials: &registry.CredentialsRecord{Tenant: "T", Device: iot.DeviceID(ids[i]), Version: "c", Set: set}}
	}
	results, err := s.ApplyDevices(ctx, "T", writes, -1)
	return ids, errors.Join(append(results, err)...)
}

// A process that is killed while it writes loses nothing that it acknowledged,
// and leaves nothing half-written.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	s := open(t, path)
	if err := errors.Join(s.CreateTenant(t.Context(), registry.TenantRecord{ID: "T", Version: "v", Created: time.Now()}), s.Close()); err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]bool{}
	for round := range 3 {
		maps.Copy(acknowledged, killAfter(t, path, round, 150+100*round))
		checkAfterCrash(t, path, acknowledged)
	}
}

// killAfter starts a writing process, kills it after so many acknowledgements,
// and returns all that it gave.
func killAfter(t *testing.T, path string, round, lines int) map[string]bool {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0])
	c.Env = append(os.Environ(), crashFile+"="+path, fmt.Sprintf("%s_ROUND=%d", crashFile, round))
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]bool{}
	in := bufio.NewReader(out)
	for n := 0; ; n++ {
		if n == lines {
			if err := c.Process.Kill(); err != nil { // SIGKILL
				t.Error(err)
			}
		}
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) { // a line without its end was not read as an acknowledgement
			break
		}
		if err != nil {
			t.Error(err)
			break
		}
		for id := range strings.FieldsSeq(line) {
			if acknowledged[id] {
				t.Errorf("%s was created twice", id)
			}
			acknowledged[id] = true
		}
	}
	if c.Wait() == nil || len(acknowledged) < lines {
		t.Fatalf("the process ended by itself after %d devices", len(acknowledged))
	}
	return acknowledged
}

func checkAfterCrash(t *testing.T, path string, acknowledged map[string]bool) {
	t.Helper()
	s := openIndexed(t, path, []string{"ext", "serial"})
	defer s.Close()
	stored := map[string]bool{}
	after := iot.DeviceID("")
	for {
		some, err := s.Export(t.Context(), "T", after, 500)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range some {
			after = d.Device.ID
			stored[string(after)] = true
			wantSet := 0
			if strings.Count(string(after), "-") == 3 { // of a bulk
				wantSet = 1
			}
			if len(d.Credentials.Set) != wantSet {
				t.Errorf("%s has %d credentials, want %d", after, len(d.Credentials.Set), wantSet)
			}
		}
		if len(some) < 500 {
			break
		}
	}
	for id := range acknowledged {
		if !stored[id] {
			t.Errorf("%s was acknowledged and is gone", id)
		}
	}
	if more := len(stored) - len(acknowledged); more > 3*crashWriters*20 {
		t.Errorf("%d devices were not acknowledged, more than can be under way", more)
	}
	checkFeed(t, s, stored)
	page, err := s.SearchDevices(t.Context(), "T", registry.Search{Limit: 1})
	if err != nil || page.Total != len(stored) {
		t.Errorf("the count is %d, %v, want %d", page.Total, err, len(stored))
	}
	page, err = s.SearchDevices(t.Context(), "T", registry.Search{Limit: 1, Filters: []registry.Filter{{Path: []string{"ext", "serial"}, Value: "r*"}}})
	if err != nil || page.Total != len(stored) {
		t.Errorf("the index has %d, %v, want %d", page.Total, err, len(stored))
	}
}

// checkFeed wants one change for the tenant and for each device, without gaps.
func checkFeed(t *testing.T, s *sqlitestore.Store, stored map[string]bool) {
	t.Helper()
	created := map[string]bool{}
	sequence := uint64(0)
	for more := true; more; {
		var changes []registry.Change
		var err error
		changes, more, err = s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": sequence}}, 500)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if sequence++; c.Sequence != sequence {
				t.Fatalf("sequence %d follows %d", c.Sequence, sequence-1)
			}
			if c.Kind == registry.DeviceChanged {
				created[string(c.Device)] = true
			}
		}
	}
	if want := uint64(len(stored) + 1); sequence != want {
		t.Errorf("the last sequence is %d, want %d", sequence, want)
	}
	if !maps.Equal(created, stored) {
		t.Errorf("the feed tells of %d devices, stored are %d: %v", len(created), len(stored), slices.Sorted(maps.Keys(created))[:1])
	}
}
