package amqp_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
)

type stateRow struct {
	name     string
	bytes    amqp.Raw
	want     any
	terminal bool
}

func states(t testing.TB) []stateRow {
	return []stateRow{
		{"none", nil, nil, false},
		{"accepted", amqp.StateAccepted, amqp.Accepted{}, true},
		{"released", amqp.StateReleased, amqp.Released{}, true},
		{"delivery failed", amqp.StateDeliveryFailed, &amqp.Modified{DeliveryFailed: true}, true},
		{"accepted with empty list8", amqp.Raw{0, 0x53, 0x24, 0xc0, 1, 0}, amqp.Accepted{}, true},
		{"accepted with a field", raw(t, described(0x24, list{"new"})), amqp.Accepted{}, true},
		{"rejected", amqp.AppendRejected(nil, nil), &amqp.Rejected{}, true},
		{"rejected with error", amqp.AppendRejected(nil, &amqp.Error{Condition: "x", Description: "why", Info: raw(t, info)}),
			&amqp.Rejected{Error: &amqp.Error{Condition: "x", Description: "why", Info: raw(t, info)}}, true},
		{"modified", (&amqp.Modified{UndeliverableHere: true, MessageAnnotations: raw(t, info)}).Append(nil),
			&amqp.Modified{UndeliverableHere: true, MessageAnnotations: raw(t, info)}, true},
		{"modified by order of fields", raw(t, described(0x27, list{true, false, info})),
			&amqp.Modified{DeliveryFailed: true, MessageAnnotations: raw(t, info)}, true},
		{"received", (&amqp.Received{SectionNumber: 1, SectionOffset: 1 << 40}).Append(nil), &amqp.Received{SectionNumber: 1, SectionOffset: 1 << 40}, false},
		{"received by order of fields", raw(t, described(0x23, list{uint32(2), uint64(3)})), &amqp.Received{SectionNumber: 2, SectionOffset: 3}, false},
		{"accepted by name", wide{symbolic: true}.append(nil, described(0x24, list{})), amqp.Accepted{}, true},
		{"received by name", wide{symbolic: true}.append(nil, described(0x23, list{uint32(2), uint64(3)})), &amqp.Received{SectionNumber: 2, SectionOffset: 3}, false},
		{"accepted by long number", wide{}.append(nil, described(0x24, list{})), amqp.Accepted{}, true},
	}
}

func TestStates(t *testing.T) {
	for _, tt := range states(t) {
		t.Run(tt.name, func(t *testing.T) {
			got, err := amqp.DecodeState(tt.bytes)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, sameRaw); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if tt.bytes.Terminal() != tt.terminal {
				t.Errorf("terminal is %v, want %v", !tt.terminal, tt.terminal)
			}
			for n := 1; n < len(tt.bytes); n++ {
				v, err := amqp.DecodeState(tt.bytes[:n:n])
				if err == nil {
					t.Fatalf("the first %d bytes decode to %v", n, v)
				}
				decodeError(t, err)
			}
		})
	}
}

func TestStateKind(t *testing.T) {
	for _, tt := range []struct {
		state amqp.Raw
		want  amqp.Descriptor
	}{
		{nil, 0}, {amqp.StateAccepted, amqp.DescAccepted}, {amqp.StateReleased, amqp.DescReleased}, {amqp.StateDeliveryFailed, amqp.DescModified},
		{amqp.Raw{0x45}, 0}, {amqp.Raw{0}, 0}, {amqp.Raw{0, 0x53, 0x34, 0x45}, amqp.DescTransactionalState},
	} {
		if got := tt.state.StateKind(); got != tt.want {
			t.Errorf("StateKind(% x) = %v, want %v", []byte(tt.state), got, tt.want)
		}
	}
	if want := (&amqp.Modified{DeliveryFailed: true}).Append(nil); !bytes.Equal(want, amqp.StateDeliveryFailed) {
		t.Errorf("StateDeliveryFailed is % x, want % x", []byte(amqp.StateDeliveryFailed), want)
	}
}

func TestMalformedStates(t *testing.T) {
	for _, tt := range []struct {
		name, field, reason string
		value               any
	}{
		{"transactional", "state", "amqp:transactional-state:list is no delivery state", described(0x34, list{[]byte{1}})},
		{"not described", "state", "a described type", list{}},
		{"not a list", "state", "a list", described(0x24, "x")},
		{"received without number", "received.section-number", "mandatory", described(0x23, list{})},
		{"received without offset", "received.section-offset", "mandatory", described(0x23, list{uint32(1)})},
		{"received with uint offset", "received.section-offset", "a ulong", described(0x23, list{uint32(1), uint32(1)})},
		{"rejected with a string", "rejected.error", "a described type", described(0x25, list{"x"})},
		{"modified with a string", "modified.undeliverable-here", "a boolean", described(0x27, list{nil, "x"})},
		{"modified with a list", "modified.message-annotations", "a map", described(0x27, list{nil, nil, list{}})},
		{"bytes behind", "", "1 bytes behind the state", amqp.Raw{0, 0x53, 0x24, 0x45, 0x40}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := amqp.DecodeState(encode(t, tt.value))
			de := decodeError(t, err)
			if de.Field != tt.field || !strings.Contains(de.Reason, tt.reason) || v != nil {
				t.Errorf("got %v, %v, want field %q and reason %q", v, err, tt.field, tt.reason)
			}
		})
	}
}
