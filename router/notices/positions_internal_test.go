package notices

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// TestPositionsAgainstASet adds numbers in every order, and compares with a set of them.
func TestPositionsAgainstASet(t *testing.T) {
	for round := range 200 {
		r := rand.New(rand.NewPCG(1, uint64(round)))
		p, set := newPositions(10), map[uint64]bool{}
		for range 100 {
			n := 1 + r.Uint64N(60)
			if got := p.seen("T", n); got != set[n] {
				t.Fatalf("round %d: seen(%d) is %t", round, n, got)
			}
			p.add("T", n, time.Now())
			set[n] = true
			low, high, holes := uint64(100), uint64(0), false
			for m := range set {
				low, high = min(low, m), max(high, m)
			}
			for m := low; m <= high; m++ {
				holes = holes || !set[m]
			}
			if _, gap := p.gaps["T"]; gap != holes {
				t.Fatalf("round %d: gap %t in %v", round, gap, p.m["T"].Value.(*position).spans)
			}
		}
		p.settle("T", 40, 60, time.Now())
		if spans := p.m["T"].Value.(*position).spans; len(p.gaps) != 0 || len(spans) != 1 || spans[0].to < 40 {
			t.Fatalf("settled: %v", spans)
		}
	}
}

func TestPositionsSettle(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		name       string
		seen       []uint64
		top, asked uint64
		want       []span
	}{
		{"all found", []uint64{1, 4, 6}, 6, 6, []span{{1, 6}}},
		{"more was committed", []uint64{1, 4}, 9, 4, []span{{1, 9}}},
		{"more was told meanwhile", []uint64{1, 4, 9}, 4, 4, []span{{1, 4}, {9, 9}}},
		{"never happened", []uint64{1, 1 << 62}, 3, 1 << 62, []span{{1, 3}}},
		{"nothing is there", []uint64{5, 9}, 5, 9, []span{{5, 5}}},
		{"the first did not happen", []uint64{5, 9}, 0, 9, nil},
	} {
		p := newPositions(10)
		for _, n := range tt.seen {
			p.add("T", n, now)
		}
		p.settle("T", tt.top, tt.asked, now)
		var got []span
		if e := p.m["T"]; e != nil {
			got = e.Value.(*position).spans
		}
		if !slices.Equal(got, tt.want) || len(p.gaps) != max(0, len(got)-1) {
			t.Errorf("%s: %v, want %v, %d gaps", tt.name, got, tt.want, len(p.gaps))
		}
	}
	newPositions(1).settle("X", 1, 1, now)
}

// TestPositionsAreBounded forgets facts, never the first span nor the last.
func TestPositionsAreBounded(t *testing.T) {
	p := newPositions(3)
	now := time.Now()
	for i := range 1000 {
		p.add("T", uint64(1+2*i), now)
	}
	spans := p.m["T"].Value.(*position).spans
	if len(spans) != maxSpans || !p.seen("T", 1) || !p.seen("T", 1999) || p.seen("T", 3) {
		t.Errorf("%d spans: %v", len(spans), spans)
	}
	for i := range 10 {
		p.add(iot.TenantID(fmt.Sprint(i)), 1, now)
	}
	if len(p.m) != 3 || p.order.Len() != 3 || len(p.gaps) != 0 {
		t.Errorf("%d tenants, %d in order, %d gaps", len(p.m), p.order.Len(), len(p.gaps))
	}
}
