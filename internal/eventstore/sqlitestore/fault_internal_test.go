package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

func openFile(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, Options{Busy: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

type producer struct {
	log *eventstore.Log
	n   uint64
}

// bring appends an event of so many bytes, and returns its status.
func (p *producer) bring(t *testing.T, size int) int {
	t.Helper()
	p.n++
	out, err := p.log.Append(t.Context(), eventstore.AppendRequest{Records: []eventstore.Record{{ID: eventstore.RecordID{Writer: 1, Counter: p.n}, Tenant: "T", Device: "d", Message: make([]byte, size)}}})
	if err != nil {
		t.Fatal(err)
	}
	if a := out.Results[0]; a.Status == 503 && a.RetryAfterSeconds == 0 {
		t.Error("refused without a time to come again")
	}
	return out.Results[0].Status
}

func waiting(t *testing.T, log *eventstore.Log) int64 {
	t.Helper()
	s, err := log.Stats(t.Context(), "T")
	if err != nil {
		t.Fatal(err)
	}
	return s.Waiting
}

// onWriterOf lets a test use the writing connection.
func (s *Store) onWriterOf(t *testing.T, f func(*conn)) {
	t.Helper()
	errs := s.Update(context.Background(), []eventstore.Change{{Key: eventstore.Key{Tenant: "none"}, Apply: func(_ *eventstore.Partition, w *eventstore.Writes) error {
		w.Unchanged = true
		f(s.writer.c)
		return nil
	}}})
	if errs != nil {
		t.Fatal(errs)
	}
}

// onWriter executes a statement there.
func (s *Store) onWriter(t *testing.T, text string) {
	t.Helper()
	s.onWriterOf(t, func(c *conn) {
		if _, err := c.sql.ExecContext(context.Background(), text); err != nil {
			t.Error(err)
		}
	})
}

// A full disk refuses, and when there is room again all goes on.
func TestFull(t *testing.T) {
	s := openFile(t, filepath.Join(t.TempDir(), "events.db"))
	p := &producer{log: eventstore.New(s, eventstore.Options{})}
	s.onWriter(t, "PRAGMA max_page_count = 200")
	stored := int64(0)
	for p.bring(t, 20_000) == 200 {
		if stored++; stored > 100 {
			t.Fatal("it is never full")
		}
	}
	for range 5 {
		if got := p.bring(t, 20_000); got != 503 {
			t.Fatalf("when it is full: %d", got)
		}
	}
	if got := waiting(t, p.log); got != stored {
		t.Errorf("%d wait, want %d", got, stored)
	}
	s.onWriter(t, "PRAGMA max_page_count = 2000")
	for range 5 {
		if got := p.bring(t, 20_000); got != 200 {
			t.Fatalf("when there is room again: %d", got)
		}
	}
	if got := waiting(t, p.log); got != stored+5 {
		t.Errorf("%d wait, want %d", got, stored+5)
	}
}

// So does one that somebody else holds, or that may only be read.
func TestRefusedForAWhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.db")
	s, other := openFile(t, path), openFile(t, path)
	p := &producer{log: eventstore.New(s, eventstore.Options{})}
	if got := p.bring(t, 10); got != 200 {
		t.Fatal(got)
	}
	held, end, done := make(chan bool), make(chan bool), make(chan []error)
	go func() {
		done <- other.Update(context.Background(), []eventstore.Change{{Key: eventstore.Key{Tenant: "U"}, Apply: func(p *eventstore.Partition, _ *eventstore.Writes) error {
			close(held)
			<-end
			p.Fence++
			return nil
		}}})
	}()
	<-held
	if got := p.bring(t, 10); got != 503 {
		t.Errorf("while another holds it: %d", got)
	}
	close(end)
	if errs := <-done; errs != nil {
		t.Error(errs)
	}
	if got := p.bring(t, 10); got != 200 {
		t.Errorf("afterwards: %d", got)
	}

	s.onWriter(t, "PRAGMA query_only = 1")
	if got := p.bring(t, 10); got != 503 {
		t.Errorf("while it may only be read: %d", got)
	}
	if got := p.bring(t, 10); got != 200 { // by a connection that is new
		t.Errorf("when it may be written: %d", got)
	}
	if got := waiting(t, p.log); got != 3 {
		t.Errorf("%d wait, want 3", got)
	}
}

// What another process writes is seen, though states are kept.
func TestTwoStores(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.db")
	a, b := openFile(t, path), openFile(t, path)
	for n := range 10 {
		for i, s := range []*Store{a, b} {
			errs := s.Update(t.Context(), []eventstore.Change{{Key: eventstore.Key{Tenant: "T"}, Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
				if p.Fence != uint64(2*n+i) {
					t.Errorf("store %d sees %d, want %d", i, p.Fence, 2*n+i)
				}
				p.Fence++
				return nil
			}}, {Key: eventstore.Key{Tenant: iot.TenantID(fmt.Sprint("new-", n, i))}, Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
				p.Fence++
				return nil
			}}})
			if errs != nil {
				t.Fatal(errs)
			}
		}
	}
}

// A file that is damaged refuses, and when it is put right all goes on.
func TestDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.db")
	first := openFile(t, path)
	p := &producer{log: eventstore.New(first, eventstore.Options{})}
	for range 50 {
		if got := p.bring(t, 5000); got != 200 {
			t.Fatal(got)
		}
	}
	if err := first.Close(); err != nil { // the log is copied into the file
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := openFile(t, path)
	bad := append([]byte(nil), good...)
	for i := 4096; i < len(bad); i++ {
		bad[i] = 0xaa
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(bad)
	p.log = eventstore.New(s, eventstore.Options{})
	if got := p.bring(t, 10); got != 503 {
		t.Errorf("damaged: %d", got)
	}
	if _, err := p.log.Stats(t.Context(), "T"); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("damaged: %v", err)
	}
	write(good)
	if got := p.bring(t, 10); got != 200 {
		t.Errorf("put right: %d", got)
	}
	if got := waiting(t, p.log); got != 51 {
		t.Errorf("%d wait, want 51", got)
	}
}
