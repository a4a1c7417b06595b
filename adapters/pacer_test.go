package adapters_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
)

func TestPacer(t *testing.T) {
	p := adapters.NewPacer[string](3, 2, time.Second, 10)
	now := time.Now()
	for i, want := range []int{0, 0, 0, 1, 2, 2, 2} {
		if got := p.Add("x", now); got != time.Duration(want)*time.Second {
			t.Errorf("the %d. makes it wait %v, want %ds", i+1, got, want)
		}
	}
	for _, tt := range []struct {
		k     string
		after time.Duration
		want  time.Duration
	}{
		{"x", 0, 2 * time.Second},
		{"x", 1500 * time.Millisecond, 500 * time.Millisecond},
		{"x", 2 * time.Second, 0},
		{"x", time.Hour, 0},
		{"y", 0, 0},
	} {
		if got := p.Wait(tt.k, now.Add(tt.after)); got != tt.want {
			t.Errorf("%s waits %v after %v, want %v", tt.k, got, tt.after, tt.want)
		}
	}
	if got := p.Add("x", now.Add(2*time.Second)); got != time.Second {
		t.Errorf("one more makes it wait %v, want 1s", got)
	}
}

// TestPacerIsBounded: at its bound it forgets others, those first that are forgiven.
func TestPacerIsBounded(t *testing.T) {
	p := adapters.NewPacer[string](3, 2, time.Second, 10)
	now := time.Now()
	for i := range 100 {
		p.Add("often", now)
		p.Add(fmt.Sprint(i), now.Add(time.Duration(i/50)*time.Minute))
		if p.Len() > 10 {
			t.Fatalf("%d are remembered, want 10 at most", p.Len())
		}
	}
	later := now.Add(time.Hour)
	for i := range 10 {
		p.Add(fmt.Sprint("later", i), later)
	}
	if got := p.Wait("often", now); got != 0 {
		t.Errorf("who is forgiven long since is remembered beside ten others, and waits %v", got)
	}
}
