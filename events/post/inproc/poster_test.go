package inproc_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/post/inproc"
)

func TestPost(t *testing.T) {
	var got []events.Fact
	bad := errors.New("bad")
	take := inproc.Poster(func(_ context.Context, facts []events.Fact) error {
		got = append(got, facts...)
		return nil
	})
	fail := inproc.Poster(func(context.Context, []events.Fact) error { return bad })
	f := []events.Fact{events.DeviceProvisioned{TenantID: "T"}}
	if err := take.Post(t.Context(), f); err != nil || len(got) != 1 {
		t.Error(err, got)
	}
	if err := fail.Post(t.Context(), nil); err != nil {
		t.Error("nothing is posted as something")
	}
	if err := inproc.Both(fail, take).Post(t.Context(), f); !errors.Is(err, bad) || len(got) != 2 {
		t.Error(err, got)
	}
}
