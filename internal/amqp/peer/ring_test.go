package peer_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// TestRing compares the ring with a map, over ids that wrap, come late, jump
// and stay unsettled for long.
func TestRing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 20 {
		var r peer.Ring
		want := map[uint32]bool{}
		id := rnd.Uint32()
		if round%2 == 0 {
			id = 1<<32 - 1000
		}
		for range 20_000 {
			switch n := rnd.IntN(100); {
			case n < 50:
				id++
			case n < 51:
				id += rnd.Uint32N(3000) // settled ones take no slot
			case n == 99 && round%5 == 0:
				id += rnd.Uint32N(1 << 20)
			}
			if n := rnd.IntN(10); n < 5 {
				late := id - rnd.Uint32N(3)
				if got := r.Add(late); got == want[late] {
					t.Fatalf("room for %d: %v", late, got)
				}
				want[late] = true
			} else if settle := id - rnd.Uint32N(40); n < 9 {
				r.Remove(settle)
				delete(want, settle)
			}
			probe := id - rnd.Uint32N(100) + 20
			if r.Get(probe) != want[probe] {
				t.Fatalf("round %d: get %d: %v", round, probe, !want[probe])
			}
		}
		if r.Unsettled() != len(want) {
			t.Fatalf("%d unsettled, want %d", r.Unsettled(), len(want))
		}
		for id := range want {
			if !r.Get(id) {
				t.Fatalf("%d is gone", id)
			}
		}
		if r.Slots() > 1<<14 {
			t.Fatalf("%d slots", r.Slots())
		}
		lost := r.RemoveLink()
		if len(lost) != len(want) || r.Unsettled() != 0 {
			t.Fatalf("%d lost of %d, %d left", len(lost), len(want), r.Unsettled())
		}
		for _, id := range lost {
			if !want[id] {
				t.Fatalf("%d lost twice or never there", id)
			}
			delete(want, id)
		}
	}
}

// TestRingKeepsOne: one delivery that nobody settles costs one map entry while
// millions pass.
func TestRingKeepsOne(t *testing.T) {
	var r peer.Ring
	r.Add(7)
	for id := uint32(8); id < 2_000_000; id++ {
		if !r.Add(id) {
			t.Fatalf("no room for %d", id)
		}
		r.Remove(id)
	}
	if !r.Get(7) || r.Unsettled() != 1 || r.Slots() > 1<<14 {
		t.Errorf("%v, %d unsettled, %d slots", r.Get(7), r.Unsettled(), r.Slots())
	}
	if got := r.Old(0, 10); !slices.Equal(got, []uint32{7}) {
		t.Errorf("got %v", got)
	}
	if got := r.Old(1<<32-5, 1<<32-2); got != nil {
		t.Errorf("got %v", got)
	}
}

// TestRingFull: the unsettled of a session are bounded.
func TestRingFull(t *testing.T) {
	var r peer.Ring
	n := uint32(0)
	for r.Add(n) {
		n++
	}
	if n < 1<<18 || n > 1<<18+1<<14 {
		t.Errorf("%d deliveries", n)
	}
	r.Remove(0)
	if !r.Add(n) {
		t.Error("no room after one was settled")
	}
}

func TestRingOverlap(t *testing.T) {
	for _, base := range []uint32{0, 1000, 1<<32 - 5, 1<<31 - 5} {
		var r peer.Ring
		if _, n := r.Overlap(base, base+10); n != 0 {
			t.Errorf("empty ring: %d", n)
		}
		for i := range uint32(10) {
			r.Add(base + i)
		}
		for _, tt := range []struct{ first, last, start, n uint32 }{
			{0, 9, 0, 10}, {0, 0, 0, 1}, {9, 9, 9, 1}, {3, 5, 3, 3}, {5, 100, 5, 5}, {5, 1<<31 + 4, 5, 5},
			{-100 & (1<<32 - 1), 3, 0, 4}, {1<<32 - 1<<31 + 5, 1<<31 + 1<<31 - 1, 0, 0}, {10, 20, 0, 0}, {1 << 30, 1<<30 + 1<<31 - 1, 0, 0},
			{1<<32 - 1, 1<<31 - 2, 0, 10}, {1<<32 - 3, 1<<32 - 1, 0, 0},
		} {
			start, n := r.Overlap(base+tt.first, base+tt.last)
			if n != tt.n || n > 0 && start != base+tt.start {
				t.Errorf("base %d, %d to %d: got %d at %d, want %d at %d", base, tt.first, tt.last, n, start-base, tt.n, tt.start)
			}
		}
	}
}
