package management

import (
	"errors"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
)

func TestStreams(t *testing.T) {
	var s streams
	var leave []func()
	for _, step := range []struct {
		tenant iot.TenantID
		room   bool
	}{{"A", true}, {"A", true}, {"A", true}, {"A", false}, {"B", true}, {"B", true}, {"B", true}, {"B", false}, {"C", true}, {"C", true}, {"C", false}, {"D", false}} {
		out, err := s.enter(step.tenant)
		if (err == nil) != step.room || err != nil && (!errors.Is(err, iot.ErrUnavailable) || iot.RetryAfter(err) == 0) {
			t.Fatalf("%s: got %v, want room %v", step.tenant, err, step.room)
		}
		if err == nil {
			leave = append(leave, out)
		}
	}
	for _, out := range leave {
		out()
		out()
	}
	if s.all != 0 || len(s.tenant) != 0 {
		t.Errorf("got %d and %v after all left", s.all, s.tenant)
	}
}
