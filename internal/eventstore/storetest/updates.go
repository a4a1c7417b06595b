package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

var updates = []test{
	{"State", updateState},
	{"ManyPartitions", updateMany},
	{"OwnErrors", updateErrors},
	{"Unchanged", updateUnchanged},
	{"Serialised", updateSerialised},
	{"EndedContext", updateEnded},
}

func updateState(t *testing.T, s eventstore.Store) {
	k := key("T", 3)
	same(t, "a partition that nobody touched", partition(t, s, k), eventstore.NewPartition())
	want := eventstore.Partition{
		Cursor: 5, Mark: 90, End: 100,
		Done:  []eventstore.Span{{From: 7, To: 8}, {From: 10, To: 12}},
		Runs:  []eventstore.Run{{From: 13, To: 14, Attempt: 3, Failed: 2, Next: math.MaxInt64}, {From: 20, To: 20, Attempt: math.MaxUint16}},
		Fence: math.MaxUint64, Holder: "rüter-1/\"x\"", Ingress: "https://[::1]:8080/events?a=b&c", Until: 1, Wanted: "<b>", Seen: 2,
		Writers: []eventstore.Writer{{ID: math.MaxUint64, Counter: 1 << 60, Position: 99}, {ID: 1, Counter: 1, Position: 1}},
		Bytes:   0, Dead: 7,
	}
	update(t, s, k, func(p *eventstore.Partition, _ *eventstore.Writes) {
		same(t, "what the first change sees", *p, eventstore.NewPartition())
		*p = want.Clone()
	})
	same(t, "the state", partition(t, s, k), want)
	update(t, s, k, func(p *eventstore.Partition, _ *eventstore.Writes) {
		same(t, "what the second change sees", *p, want)
		p.Done, p.Runs, p.Writers = p.Done[:0], nil, p.Writers[1:]
		p.Holder = ""
	})
	want.Done, want.Runs, want.Writers, want.Holder = nil, nil, want.Writers[1:], ""
	same(t, "the state after less", partition(t, s, k), want)
	same(t, "another partition", partition(t, s, key("T", 4)), eventstore.NewPartition())
	same(t, "another tenant", partition(t, s, key("t", 3)), eventstore.NewPartition())

	// A copy is the caller's.
	p := partition(t, s, k)
	p.Writers[0].Counter = 77
	same(t, "the state after a copy was changed", partition(t, s, k), want)
}

func updateMany(t *testing.T, s eventstore.Store) {
	var changes []eventstore.Change
	for _, tenant := range []iot.TenantID{"A", "B", "C"} {
		for n := range uint16(8) {
			changes = append(changes, eventstore.Change{Key: key(tenant, n), Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
				add(p, w, 1+int(n), 10+int(n), 0)
				w.Dead = []eventstore.DeadLetter{{Position: 1, Reason: "r", Record: []byte{byte(n)}}}
				return nil
			}})
		}
	}
	if errs := s.Update(t.Context(), changes); errs != nil {
		t.Fatal(errs)
	}
	for _, c := range changes {
		n := c.Key.Partition.Number
		p := partition(t, s, c.Key)
		same(t, "end, head, bytes", []any{p.End, p.Head, p.Bytes}, []any{2 + n, 1 + n, 10 + n})
		same(t, "batches", spans(t, s, c.Key, 1, 1), fmt.Sprintf("[1-%d]", 1+n))
		dead, err := s.DeadLetters(t.Context(), c.Key, 0, 10)
		if err != nil || len(dead) != 1 || dead[0].Record[0] != byte(n) {
			t.Errorf("dead letters of %v: %v, %v", c.Key, dead, err)
		}
	}
	if errs := s.Update(t.Context(), nil); errs != nil {
		t.Errorf("no change at all: %v", errs)
	}
}

func updateErrors(t *testing.T, s eventstore.Store) {
	mine := iot.Errorf(iot.ErrExists, "not yours")
	change := func(n uint16, err error) eventstore.Change {
		return eventstore.Change{Key: key("T", n), Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
			add(p, w, 1, 10, 0)
			w.Dead = []eventstore.DeadLetter{{Position: 1, Record: []byte("x")}}
			p.Dead++
			return err
		}}
	}
	errs := s.Update(t.Context(), []eventstore.Change{change(0, nil), change(1, mine), change(2, nil), change(3, errors.ErrUnsupported)})
	if len(errs) != 4 || errs[0] != nil || errs[2] != nil {
		t.Fatalf("errors are %v, want those of the second and the fourth", errs)
	}
	if !errors.Is(errs[1], mine) || !errors.Is(errs[3], errors.ErrUnsupported) {
		t.Errorf("errors are %v, want those of the changes themselves", errs)
	}
	for n, want := range []uint64{2, 1, 2, 1} {
		k := key("T", uint16(n))
		same(t, fmt.Sprint("end of ", n), partition(t, s, k).End, want)
		dead, err := s.DeadLetters(t.Context(), k, 0, 10)
		if err != nil || len(dead) != int(want-1) {
			t.Errorf("partition %d has dead letters %v, %v", n, dead, err)
		}
		if got := spans(t, s, k, 1, 1); (got == "[]") != (want == 1) {
			t.Errorf("partition %d has batches %s", n, got)
		}
	}
	if errs := s.Update(t.Context(), []eventstore.Change{change(1, nil)}); errs != nil {
		t.Errorf("a change after one that failed: %v", errs)
	}
	same(t, "end of 1 then", partition(t, s, key("T", 1)).End, uint64(2))
}

func updateUnchanged(t *testing.T, s eventstore.Store) {
	k := key("T", 0)
	nothing := func(p *eventstore.Partition, w *eventstore.Writes) {
		add(p, w, 1, 10, 0)
		w.Dead = []eventstore.DeadLetter{{Position: 1, Record: []byte("x")}}
		w.Drop, w.DropDead = []uint64{1}, []uint64{1}
		w.Unchanged = true
	}
	check := func(want string, listed int) {
		t.Helper()
		same(t, "batches", spans(t, s, k, 1, 1000), want)
		stored, err := s.PartitionsOf(t.Context(), "T")
		if err != nil || len(stored) != listed {
			t.Errorf("partitions: %v, %v, want %d", stored, err, listed)
		}
	}
	update(t, s, k, nothing)
	check("[]", 0)
	update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) { add(p, w, 2, 10, 0) })
	before := partition(t, s, k)
	update(t, s, k, nothing)
	check("[1-2]", 1)
	same(t, "the state", partition(t, s, k), before)
}

// Changes of a partition happen one after the other, each with the state that the
// one before left, whoever brings them.
func updateSerialised(t *testing.T, s eventstore.Store) {
	const workers, rounds, parts = 6, 12, 3
	var wrong atomic.Int64
	var done [parts]atomic.Int64
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for range rounds {
				var changes []eventstore.Change
				for n := range uint16(parts) {
					changes = append(changes, eventstore.Change{Key: key("T", n), Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
						if len(w.Batches)+len(w.Dead)+len(w.Drop)+len(w.DropDead) > 0 || w.Unchanged || p.Fence+1 != p.End {
							wrong.Add(1)
						}
						p.Fence++
						add(p, w, 1, 10, 0)
						return nil
					}})
				}
				errs := s.Update(t.Context(), changes)
				for n := range parts {
					switch {
					case errs == nil || errs[n] == nil:
						done[n].Add(1)
					case !errors.Is(errs[n], iot.ErrUnavailable): // too much of a crowd may be too much
						t.Errorf("Update: %v", errs[n])
					}
				}
			}
		})
	}
	wait.Wait()
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d changes began with writes of another, or with a state that was none", n)
	}
	for n := range uint16(parts) {
		p, want := partition(t, s, key("T", n)), done[n].Load()
		if want < workers*rounds/2 {
			t.Errorf("only %d changes of %d succeeded", want, workers*rounds)
		}
		same(t, "end, fence, bytes", []any{p.End, p.Fence, p.Bytes}, []any{want + 1, want, want * 10})
		found, err := s.Batches(t.Context(), key("T", n), 0, math.MaxInt32)
		if err != nil || len(found) != int(want) {
			t.Fatalf("%d batches, %v, want %d", len(found), err, want)
		}
		for i, b := range found {
			if b.First != uint64(i+1) || b.Last != b.First {
				t.Fatalf("batch %d is %d-%d", i, b.First, b.Last)
			}
		}
	}
}

func updateEnded(t *testing.T, s eventstore.Store) {
	update(t, s, key("T", 0), func(p *eventstore.Partition, w *eventstore.Writes) { add(p, w, 1, 1, 0) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs := s.Update(ctx, []eventstore.Change{{Key: key("T", 0), Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
		add(p, w, 1, 1, 0)
		return nil
	}}})
	if len(errs) != 1 {
		t.Fatalf("Update with an ended context: %v, want one error", errs)
	}
	_, err := s.Partition(ctx, key("T", 1))
	_, err2 := s.PartitionsOf(ctx, "T")
	_, err3 := s.Tenants(ctx, "", 1)
	_, err4 := s.Batches(ctx, key("T", 0), 1, 1)
	_, err5 := s.Expired(ctx, 1, 1)
	_, err6 := s.DeadLetters(ctx, key("T", 0), 0, 1)
	for i, err := range []error{errs[0], err, err2, err3, err4, err5, err6} {
		if !errors.Is(err, context.Canceled) && !errors.Is(err, iot.ErrTimeout) {
			t.Errorf("call %d with an ended context: %v, want context.Canceled or iot.ErrTimeout", i, err)
		}
	}
}
