package peer

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The index against a map, over keys below and above where its pages begin.
func TestIndex(t *testing.T) {
	var x index[uint32]
	want := map[uint32]*uint32{}
	rnd := rand.New(rand.NewPCG(1, 2))
	keys := []uint32{0, 1, lowKeys - 1, lowKeys, pageSize - 1, pageSize, 3 * pageSize, 65535}
	for range 5000 {
		k := keys[rnd.IntN(len(keys))]
		if rnd.IntN(4) == 0 {
			k = rnd.Uint32N(65536)
		}
		if want[k] == nil {
			v := &k
			x.set(k, v)
			want[k] = v
		} else {
			x.del(k)
			delete(want, k)
		}
		if x.get(k) != want[k] || x.n != len(want) {
			t.Fatalf("key %d: got %v and %d entries, want %v and %d", k, x.get(k), x.n, want[k], len(want))
		}
	}
	var got []uint32
	for v := range x.all() {
		got = append(got, *v)
	}
	if len(got) != len(want) || !slices.IsSorted(got) {
		t.Errorf("got %d entries, sorted %v; want %d in order", len(got), slices.IsSorted(got), len(want))
	}
	for k := range want {
		x.del(k)
	}
	if x.n != 0 || x.get(65535) != nil || x.pages != nil {
		t.Errorf("%d entries left", x.n)
	}
}
