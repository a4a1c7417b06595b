package notices

import (
	"fmt"
	"math/rand/v2"
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
		p.bridge("T", 60, time.Now())
		if len(p.gaps) != 0 || !p.seen("T", 60) {
			t.Fatal("bridged, and there is a gap")
		}
	}
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
