package inproc_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/post/inproc"
)

var (
	born   events.Fact = events.DeviceProvisioned{TenantID: "T", DeviceID: "D"}
	change events.Fact = events.RegistryChanged{Type: events.TypeDevicesDeleted, TenantID: "T", Sequence: 1}
	seen   events.Fact = events.DeviceTTD{TenantID: "T", DeviceID: "D", TTDSeconds: -1}
	errNo              = errors.New("no")
)

// others notes what is asked of it.
type others struct {
	did []string
	err error
}

func (o *others) Post(context.Context, []events.Fact) error {
	o.did = append(o.did, "post")
	return o.err
}
func (o *others) Copy(context.Context, []events.Fact) { o.did = append(o.did, "copy") }
func (o *others) Tell(context.Context, []events.Fact) error {
	o.did = append(o.did, "tell")
	return o.err
}

func TestPost(t *testing.T) {
	asked := 0
	p := inproc.Poster(func(_ context.Context, facts []events.Fact) error {
		asked++
		return errNo
	})
	if err := p.Post(t.Context(), nil); err != nil || asked > 0 {
		t.Error("nothing is posted as something")
	}
	if err := p.Post(t.Context(), []events.Fact{born}); !errors.Is(err, errNo) || asked != 1 {
		t.Error(err, asked)
	}
}

func TestBoth(t *testing.T) {
	for _, tt := range []struct {
		name       string
		facts      []events.Fact
		own, other error
		did        []string
		fails      bool
	}{
		{"change", []events.Fact{change}, nil, nil, []string{"post"}, false},
		{"change, not taken here", []events.Fact{change}, errNo, nil, []string{"post"}, true},
		{"change, not taken there", []events.Fact{change}, nil, errNo, []string{"post"}, true},
		{"provisioned", []events.Fact{born}, nil, nil, []string{"copy"}, false},
		{"provisioned, not taken here", []events.Fact{born}, errNo, nil, []string{"tell", "copy"}, false},
		{"provisioned, not taken", []events.Fact{born}, errNo, errNo, []string{"tell", "copy"}, true},
		{"both", []events.Fact{born, change}, nil, nil, []string{"post", "copy"}, false},
		{"presence", []events.Fact{seen}, errNo, errNo, []string{"copy"}, false},
		{"all", []events.Fact{born, seen, change}, nil, nil, []string{"post", "copy"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := &others{err: tt.other}
			p := inproc.Both(func(context.Context, []events.Fact) error { return tt.own }, o)
			if err := p.Post(t.Context(), tt.facts); (err != nil) != tt.fails {
				t.Error(err)
			}
			if !slices.Equal(o.did, tt.did) {
				t.Errorf("the others were asked to %v, want %v", o.did, tt.did)
			}
		})
	}
}
