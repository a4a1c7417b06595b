package sqlitestore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/sqlitestore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// crashFile names the file that a child process of this test writes.
const crashFile = "SLUICE_TEST_CRASH_EVENTS"

const crashWriters = 8

func TestMain(m *testing.M) {
	if path := os.Getenv(crashFile); path != "" {
		fmt.Fprintln(os.Stderr, appendUntilKilled(path, os.Getenv(crashFile+"_ROUND")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// appendUntilKilled appends from several goroutines, and says on standard output
// which device's events were acknowledged, and up to which one. Some are accepted at once.
func appendUntilKilled(path, round string) error {
	ctx := context.Background()
	s, err := sqlitestore.Open(ctx, path, sqlitestore.Options{})
	if err != nil {
		return err
	}
	log := eventstore.New(s, eventstore.Options{})
	failed := make(chan error, crashWriters)
	var out sync.Mutex
	for w := range crashWriters {
		go func() {
			device, sent := fmt.Sprint("r", round, "w", w), 0
			for n := 1; ; n++ {
				count := 1 + n%3*w
				if err := crashAppend(ctx, log, uint64(w+1), device, sent, count); err != nil {
					failed <- err
					return
				}
				sent += count
				out.Lock()
				fmt.Println(device, sent) // in one write, as a line
				out.Unlock()
			}
		}()
	}
	return <-failed
}

func crashAppend(ctx context.Context, log *eventstore.Log, writer uint64, device string, sent, count int) error {
	records := make([]eventstore.Record, count)
	for i := range records {
		at := sent + i + 1
		records[i] = eventstore.Record{ID: eventstore.RecordID{Writer: writer, Counter: uint64(at)}, Tenant: iot.TenantID(device[:2]), Device: iot.DeviceID(device), Message: fmt.Append(nil, device, ":", at)}
	}
	out, err := log.Append(ctx, eventstore.AppendRequest{Records: records})
	if err != nil {
		return err
	}
	for _, a := range out.Results {
		if a.Status != 200 {
			return errors.New(a.Error)
		}
	}
	return nil
}

// A process that is killed while it appends loses nothing that it acknowledged,
// and leaves nothing half-written: what is there of a device is there in order, without a gap.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.db")
	acknowledged := map[string]int{}
	for round := range 5 {
		for device, n := range killAfter(t, path, round, 80+60*round) {
			acknowledged[device] = n
		}
		checkAfterCrash(t, path, acknowledged)
	}
}

// killAfter starts an appending process, kills it after so many acknowledgements,
// and returns all that it gave.
func killAfter(t *testing.T, path string, round, lines int) map[string]int {
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
	acknowledged := map[string]int{}
	in := bufio.NewReader(out)
	read := 0
	for ; ; read++ {
		if read == lines {
			if err := c.Process.Kill(); err != nil { // SIGKILL
				t.Error(err)
			}
		}
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) { // a line without its end was not read as an acknowledgement
			break
		}
		device, count, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err2 := strconv.Atoi(count)
		if err != nil || err2 != nil {
			t.Errorf("%q: %v, %v", line, err, err2)
			break
		}
		acknowledged[device] = n
	}
	if c.Wait() == nil || read < lines {
		t.Fatalf("the process ended by itself after %d lines", read)
	}
	return acknowledged
}

func checkAfterCrash(t *testing.T, path string, acknowledged map[string]int) {
	t.Helper()
	s, err := sqlitestore.Open(t.Context(), path, sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	log := eventstore.New(s, eventstore.Options{})
	tenants, err := log.Tenants(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]int{}
	for _, tenant := range tenants {
		for _, id := range eventstore.FirstGeneration() {
			total := 0
			for from, more := uint64(0), true; more; more = from != 0 {
				list, next, err := log.Browse(t.Context(), eventstore.BrowseRequest{Tenant: tenant, Partition: id, From: from, Max: 1000})
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range list {
					device := string(b.Record.Device)
					stored[device]++
					total++
					if want := fmt.Sprint(device, ":", stored[device]); string(b.Record.Message) != want {
						t.Fatalf("%s lies where %s should", b.Record.Message, want)
					}
				}
				from = next
			}
			p, err := s.Partition(t.Context(), eventstore.Key{Tenant: tenant, Partition: id})
			if err != nil || p.Waiting() != int64(total) || p.End != uint64(total)+1 {
				t.Errorf("%s/%v ends at %d and has %d that wait, of %d: %v", tenant, id, p.End, p.Waiting(), total, err)
			}
		}
	}
	for device, n := range acknowledged {
		if stored[device] < n || stored[device] > n+1+2*crashWriters {
			t.Errorf("%s has %d events, %d were acknowledged", device, stored[device], n)
		}
	}
}
