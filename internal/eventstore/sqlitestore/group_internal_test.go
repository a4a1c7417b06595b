package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Changes that wait are committed together, each with its own outcome; whoever
// gave up waiting is not in it.
func TestGroup(t *testing.T) {
	s := openFile(t, filepath.Join(t.TempDir(), "events.db"))
	held, end := make(chan bool), make(chan bool)
	var wait sync.WaitGroup
	wait.Go(func() {
		s.Update(context.Background(), []eventstore.Change{{Key: eventstore.Key{Tenant: "first"}, Apply: func(_ *eventstore.Partition, w *eventstore.Writes) error {
			close(held)
			<-end
			w.Unchanged = true
			return nil
		}}})
	})
	<-held
	const callers = 40
	mine := iot.Errorf(iot.ErrExists, "mine")
	var errs [callers][]error
	var gone sync.WaitGroup
	impatient, leave := context.WithCancel(t.Context())
	for i := range callers {
		ctx, group := t.Context(), &wait
		if i%4 == 1 {
			ctx, group = impatient, &gone
		}
		group.Go(func() {
			errs[i] = s.Update(ctx, []eventstore.Change{{Key: eventstore.Key{Tenant: "T"}, Apply: func(p *eventstore.Partition, _ *eventstore.Writes) error {
				if p.Fence++; i%4 == 0 {
					return mine
				}
				return nil
			}}})
		})
	}
	for len(s.writer.requests) < callers {
		runtime.Gosched()
	}
	leave()
	gone.Wait()
	close(end)
	wait.Wait()
	for i, got := range errs {
		want := []error{mine, context.Canceled, nil, nil}[i%4]
		if (got == nil) != (want == nil) || want != nil && !errors.Is(got[0], want) {
			t.Errorf("caller %d: %v, want %v", i, got, want)
		}
	}
	p, err := s.Partition(t.Context(), eventstore.Key{Tenant: "T"})
	if err != nil || p.Fence != callers/2 {
		t.Errorf("%d changes were kept, %v, want %d", p.Fence, err, callers/2)
	}
}

// Nobody waits longer than it wants for a commit that takes long; what the writer
// has begun with may happen all the same.
func TestSlowCommit(t *testing.T) {
	s := openFile(t, filepath.Join(t.TempDir(), "events.db"))
	change := func(tenant iot.TenantID, hold func()) []eventstore.Change {
		return []eventstore.Change{{Key: eventstore.Key{Tenant: tenant}, Apply: func(p *eventstore.Partition, _ *eventstore.Writes) error {
			p.Fence++
			hold()
			return nil
		}}}
	}
	held, end, slow := make(chan bool), make(chan bool), make(chan []error)
	go func() { // the first change of a group, and one that waits behind it
		slow <- s.Update(context.Background(), append(change("first", func() {}), change("slow", func() {
			close(held)
			<-end
		})...))
	}()
	<-held
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan []error)
	go func() {
		gone <- s.Update(ctx, change("late", func() { t.Error("applied though its caller had gone") }))
	}()
	for len(s.writer.requests) == 0 {
		runtime.Gosched()
	}
	leave()
	if errs := <-gone; len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
		t.Errorf("one that the writer had not come to: %v", errs)
	}
	close(end)
	if errs := <-slow; errs != nil {
		t.Error(errs)
	}

	// In one group: the first is applied and waits for the commit, which the second holds up.
	held, end = make(chan bool), make(chan bool)
	again, both, applied := make(chan bool), make(chan bool), make(chan bool)
	go func() {
		slow <- s.Update(context.Background(), change("gate", func() { close(again); <-both }))
	}()
	<-again
	ctx, leave = context.WithCancel(t.Context())
	go func() { gone <- s.Update(ctx, change("T", func() { close(applied) })) }()
	for len(s.writer.requests) == 0 {
		runtime.Gosched()
	}
	second := make(chan []error)
	go func() { second <- s.Update(context.Background(), change("slow", func() { close(held); <-end })) }()
	for len(s.writer.requests) < 2 {
		runtime.Gosched()
	}
	close(both)
	<-held
	<-applied
	leave()
	if errs := <-gone; len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
		t.Errorf("one that waits for the commit: %v", errs)
	}
	close(end)
	if errs := append(<-slow, <-second...); errs != nil {
		t.Error(errs)
	}
	p, err := s.Partition(t.Context(), eventstore.Key{Tenant: "T"})
	if err != nil || p.Fence != 1 {
		t.Errorf("it was applied %d times, %v", p.Fence, err)
	}
}

// What is too much to be removed at once is removed by and by, without another change.
func TestTrimGoesOn(t *testing.T) {
	s := openFile(t, filepath.Join(t.TempDir(), "events.db"))
	p := &producer{log: eventstore.New(s, eventstore.Options{})}
	for range 90 {
		if got := p.bring(t, 250<<10); got != 200 {
			t.Fatal(got)
		}
	}
	key := eventstore.Key{Tenant: "T", Partition: eventstore.PartitionOf("d")}
	errs := s.Update(t.Context(), []eventstore.Change{{Key: key, Apply: func(p *eventstore.Partition, _ *eventstore.Writes) error {
		p.Cursor = p.End - 1
		return nil
	}}})
	if errs != nil {
		t.Fatal(errs)
	}
	for {
		p, err := s.Partition(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if p.Head == 90 {
			if p.Bytes > 300<<10 {
				t.Errorf("%d bytes are left", p.Bytes)
			}
			return
		}
	}
}

// States that were not used lately are forgotten, and read again.
func TestCacheIsBounded(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "events.db"), Options{Cached: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for round := range uint64(3) {
		for n := range 50 {
			errs := s.Update(t.Context(), []eventstore.Change{{Key: eventstore.Key{Tenant: iot.TenantID(fmt.Sprint("T", n))}, Apply: func(p *eventstore.Partition, _ *eventstore.Writes) error {
				if p.Fence != round {
					t.Errorf("T%d is at %d, want %d", n, p.Fence, round)
				}
				p.Fence++
				return nil
			}}})
			if errs != nil {
				t.Fatal(errs)
			}
			if got := len(s.cache.new) + len(s.cache.old); got > 10 {
				t.Fatalf("%d states are kept", got)
			}
		}
	}
}

func TestClosed(t *testing.T) {
	s := openFile(t, filepath.Join(t.TempDir(), "events.db"))
	p := &producer{log: eventstore.New(s, eventstore.Options{})}
	if got := p.bring(t, 10); got != 200 {
		t.Fatal(got)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if got := p.bring(t, 10); got != 503 {
		t.Errorf("when it is closed: %d", got)
	}
	_, err := s.Partition(t.Context(), eventstore.Key{Tenant: "T", Partition: eventstore.PartitionOf("d")})
	_, err2 := s.Batches(t.Context(), eventstore.Key{Tenant: "T"}, 1, 1)
	if !errors.Is(err, iot.ErrUnavailable) || !errors.Is(err2, iot.ErrUnavailable) {
		t.Errorf("when it is closed: %v, %v", err, err2)
	}
}
