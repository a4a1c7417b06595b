package amqp_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// field is one field of a composite: its name by the specification, the value
// that the full example has in it, and whether it is mandatory.
type field struct {
	name      string
	value     any
	mandatory bool
}

type composite struct {
	name   string
	desc   amqp.Descriptor
	full   amqp.Performative
	min    amqp.Performative // as decoded from the mandatory fields alone
	fields []field           // in the order of the specification
}

var (
	info    = amqp.Map{{Key: sym("k"), Value: "v"}}
	symbols = amqp.Array{Code: 0xa3, Values: []any{sym("a"), sym("b")}}
	ab      = []sym{"a", "b"}
	refusal = described(amqp.DescError, list{sym("amqp:not-found"), "no such node", info})
)

// composites are Part 2, section 2.7, and Part 5, section 5.3.3.
func composites(t testing.TB) []composite {
	fail := func() *amqp.Error {
		return &amqp.Error{Condition: amqp.CondNotFound, Description: "no such node", Info: raw(t, info)}
	}
	filter := amqp.Map{{Key: sym("f"), Value: amqp.Described{Descriptor: sym("x:filter"), Value: "a > 1"}}}
	accepted := described(amqp.DescAccepted, list{})
	return []composite{
		{"open", 0x10, &amqp.Open{
			ContainerID: "me", Hostname: "example.org", MaxFrameSize: 4096, ChannelMax: 99, IdleTimeout: 30000,
			OutgoingLocales: []sym{"en-US"}, IncomingLocales: ab, OfferedCapabilities: ab, DesiredCapabilities: ab, Properties: raw(t, info),
		}, &amqp.Open{ContainerID: "me", MaxFrameSize: 4294967295, ChannelMax: 65535}, []field{
			{"container-id", "me", true}, {"hostname", "example.org", false}, {"max-frame-size", uint32(4096), false},
			{"channel-max", uint16(99), false}, {"idle-time-out", uint32(30000), false}, {"outgoing-locales", sym("en-US"), false},
			{"incoming-locales", symbols, false}, {"offered-capabilities", symbols, false}, {"desired-capabilities", symbols, false},
			{"properties", info, false},
		}},
		{"begin", 0x11, &amqp.Begin{
			RemoteChannel: 3, HasRemoteChannel: true, NextOutgoingID: 1 << 31, IncomingWindow: 100, OutgoingWindow: 200, HandleMax: 7,
			OfferedCapabilities: ab, DesiredCapabilities: ab, Properties: raw(t, info),
		}, &amqp.Begin{NextOutgoingID: 1 << 31, IncomingWindow: 100, OutgoingWindow: 200, HandleMax: 4294967295}, []field{
			{"remote-channel", uint16(3), false}, {"next-outgoing-id", uint32(1 << 31), true}, {"incoming-window", uint32(100), true},
			{"outgoing-window", uint32(200), true}, {"handle-max", uint32(7), false}, {"offered-capabilities", symbols, false},
			{"desired-capabilities", symbols, false}, {"properties", info, false},
		}},
		{"attach", 0x12, &amqp.Attach{
			Name: "link", Handle: 5, Role: amqp.RoleSender, SenderSettleMode: amqp.SenderSettled, ReceiverSettleMode: amqp.ReceiverSecond,
			Source: &amqp.Source{
				Address: "s", HasAddress: true, Durable: 2, ExpiryPolicy: "never", Timeout: 60, Dynamic: true,
				DynamicNodeProperties: raw(t, info), DistributionMode: "copy", Filter: raw(t, filter), DefaultOutcome: raw(t, accepted),
				Outcomes: []sym{"amqp:accepted:list", "amqp:rejected:list"}, Capabilities: []sym{"queue"},
			},
			Target: &amqp.Target{
				Address: "t", HasAddress: true, Durable: 1, ExpiryPolicy: "link-detach", Timeout: 61, Dynamic: true,
				DynamicNodeProperties: raw(t, info), Capabilities: ab,
			},
			Unsettled: raw(t, amqp.Map{{Key: []byte{1}, Value: accepted}}), IncompleteUnsettled: true, InitialDeliveryCount: 9, MaxMessageSize: 1 << 40,
			OfferedCapabilities: ab, DesiredCapabilities: ab, Properties: raw(t, info),
		}, &amqp.Attach{Name: "link", Handle: 5, SenderSettleMode: amqp.SenderMixed}, []field{
			{"name", "link", true}, {"handle", uint32(5), true}, {"role", false, true},
			{"snd-settle-mode", uint8(1), false}, {"rcv-settle-mode", uint8(1), false},
			{"source", described(0x28, list{"s", uint32(2), sym("never"), uint32(60), true, info, sym("copy"), filter, accepted,
				amqp.Array{Code: 0xa3, Values: []any{sym("amqp:accepted:list"), sym("amqp:rejected:list")}}, sym("queue")}), false},
			{"target", described(0x29, list{"t", uint32(1), sym("link-detach"), uint32(61), true, info, symbols}), false},
			{"unsettled", amqp.Map{{Key: []byte{1}, Value: accepted}}, false}, {"incomplete-unsettled", true, false},
			{"initial-delivery-count", uint32(9), false}, {"max-message-size", uint64(1 << 40), false},
			{"offered-capabilities", symbols, false}, {"desired-capabilities", symbols, false}, {"properties", info, false},
		}},
		{"flow", 0x13, &amqp.Flow{
			NextIncomingID: 1, HasNextIncomingID: true, IncomingWindow: 2, NextOutgoingID: 3, OutgoingWindow: 4, Handle: 0, HasHandle: true,
			DeliveryCount: 6, HasDeliveryCount: true, LinkCredit: 700, HasLinkCredit: true, Available: 8, HasAvailable: true,
			Drain: true, Echo: true, Properties: raw(t, info),
		}, &amqp.Flow{IncomingWindow: 2, NextOutgoingID: 3, OutgoingWindow: 4}, []field{
			{"next-incoming-id", uint32(1), false}, {"incoming-window", uint32(2), true}, {"next-outgoing-id", uint32(3), true},
			{"outgoing-window", uint32(4), true}, {"handle", uint32(0), false}, {"delivery-count", uint32(6), false},
			{"link-credit", uint32(700), false}, {"available", uint32(8), false}, {"drain", true, false}, {"echo", true, false},
			{"properties", info, false},
		}},
		{"transfer", 0x14, &amqp.Transfer{
			Handle: 1, DeliveryID: 2, HasDeliveryID: true, DeliveryTag: []byte("tag"), MessageFormat: 0, HasMessageFormat: true,
			Settled: false, HasSettled: true, More: true, ReceiverSettleMode: amqp.ReceiverSecond, HasReceiverSettleMode: true,
			State: raw(t, accepted), Resume: true, Aborted: true, Batchable: true,
		}, &amqp.Transfer{Handle: 1}, []field{
			{"handle", uint32(1), true}, {"delivery-id", uint32(2), false}, {"delivery-tag", []byte("tag"), false},
			{"message-format", uint32(0), false}, {"settled", false, false}, {"more", true, false}, {"rcv-settle-mode", uint8(1), false},
			{"state", accepted, false}, {"resume", true, false}, {"aborted", true, false}, {"batchable", true, false},
		}},
		{"disposition", 0x15, &amqp.Disposition{
			Role: amqp.RoleReceiver, First: 10, Last: 20, Settled: true, State: raw(t, accepted), Batchable: true,
		}, &amqp.Disposition{Role: amqp.RoleReceiver, First: 10, Last: 10}, []field{
			{"role", true, true}, {"first", uint32(10), true}, {"last", uint32(20), false}, {"settled", true, false},
			{"state", accepted, false}, {"batchable", true, false},
		}},
		{"detach", 0x16, &amqp.Detach{Handle: 4, Closed: true, Error: fail()}, &amqp.Detach{Handle: 4}, []field{
			{"handle", uint32(4), true}, {"closed", true, false}, {"error", refusal, false},
		}},
		{"end", 0x17, &amqp.End{Error: fail()}, &amqp.End{}, []field{{"error", refusal, false}}},
		{"close", 0x18, &amqp.Close{Error: fail()}, &amqp.Close{}, []field{{"error", refusal, false}}},
		{"sasl-mechanisms", 0x40, &amqp.SASLMechanisms{Mechanisms: ab}, &amqp.SASLMechanisms{Mechanisms: ab}, []field{
			{"sasl-server-mechanisms", symbols, true},
		}},
		{"sasl-init", 0x41, &amqp.SASLInit{Mechanism: "PLAIN", InitialResponse: []byte("\x00u\x00p"), Hostname: "h"}, &amqp.SASLInit{Mechanism: "PLAIN"}, []field{
			{"mechanism", sym("PLAIN"), true}, {"initial-response", []byte("\x00u\x00p"), false}, {"hostname", "h", false},
		}},
		{"sasl-challenge", 0x42, &amqp.SASLChallenge{Challenge: []byte{1}}, &amqp.SASLChallenge{Challenge: []byte{1}}, []field{{"challenge", []byte{1}, true}}},
		{"sasl-response", 0x43, &amqp.SASLResponse{Response: []byte{2}}, &amqp.SASLResponse{Response: []byte{2}}, []field{{"response", []byte{2}, true}}},
		{"sasl-outcome", 0x44, &amqp.SASLOutcome{Code: amqp.SASLSysTemp, AdditionalData: []byte{3}}, &amqp.SASLOutcome{Code: amqp.SASLSysTemp}, []field{
			{"code", uint8(4), true}, {"additional-data", []byte{3}, false},
		}},
	}
}

func (c composite) list(keep func(field) bool) list {
	l := list{}
	for _, f := range c.fields {
		if keep(f) {
			l = append(l, f.value)
		} else {
			l = append(l, nil)
		}
	}
	return l
}

func all(field) bool { return true }

func eachComposite(t *testing.T, do func(t *testing.T, c composite)) {
	for _, c := range composites(t) {
		t.Run(c.name, func(t *testing.T) { do(t, c) })
	}
}

// decodesTo decodes b, with a payload behind it, into a fresh value and into a
// used one.
func decodesTo(t *testing.T, b []byte, want amqp.Performative) {
	t.Helper()
	b = append(b[:len(b):len(b)], "payload"...)
	got, payload, err := amqp.DecodePerformative(b)
	if err != nil {
		t.Fatalf("DecodePerformative(% x): %v", b, err)
	}
	if diff := cmp.Diff(want, got, sameRaw); diff != "" {
		t.Errorf("DecodePerformative (-want +got):\n%s", diff)
	}
	if string(payload) != "payload" {
		t.Errorf("payload %q, want payload", payload)
	}
	for _, c := range composites(t) {
		if reflect.TypeOf(c.full) != reflect.TypeOf(want) {
			continue
		}
		if _, err := amqp.DecodeInto(b, c.full); err != nil {
			t.Fatalf("DecodeInto: %v", err)
		}
		if diff := cmp.Diff(want, c.full, sameRaw); diff != "" {
			t.Errorf("DecodeInto a used value (-want +got):\n%s", diff)
		}
	}
}

// TestFieldOrder holds order, types and descriptors against the table.
func TestFieldOrder(t *testing.T) {
	eachComposite(t, func(t *testing.T, c composite) {
		want := any(described(c.desc, c.list(all)))
		got := decode(t, c.full.Append(nil))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("encoded (-want +got):\n%s", diff)
		}
	})
}

func TestRoundTrip(t *testing.T) {
	eachComposite(t, func(t *testing.T, c composite) {
		decodesTo(t, c.full.Append(nil), c.full)
		decodesTo(t, c.min.Append(nil), c.min)
		prefix := []byte("before")
		if got := c.full.Append(prefix); !bytes.HasPrefix(got, prefix) {
			t.Errorf("Append lost what was there: %q", got)
		}
	})
}

func TestMandatoryFieldsAlone(t *testing.T) {
	eachComposite(t, func(t *testing.T, c composite) {
		l := c.list(func(f field) bool { return f.mandatory })
		decodesTo(t, encode(t, described(c.desc, l)), c.min) // nulls behind the last one
		for len(l) > 0 && l[len(l)-1] == nil {
			l = l[:len(l)-1]
		}
		decodesTo(t, encode(t, described(c.desc, l)), c.min)
	})
}

func TestAlternativeEncodings(t *testing.T) {
	eachComposite(t, func(t *testing.T, c composite) {
		v := described(c.desc, c.list(all))
		decodesTo(t, wide{}.append(nil, v), c.full)
		decodesTo(t, wide{symbolic: true}.append(nil, v), c.full)
		b := append([]byte{0x00, 0xa3, byte(len(c.desc.String()))}, c.desc.String()...) // sym8
		decodesTo(t, append(b, encode(t, v.Value)...), c.full)
	})
}

func TestUnknownTrailingFields(t *testing.T) {
	eachComposite(t, func(t *testing.T, c composite) {
		l := append(c.list(all), "more", amqp.Map{{Key: sym("of"), Value: list{uint8(1)}}}, nil, described(0x99, list{}))
		decodesTo(t, encode(t, described(c.desc, l)), c.full)
	})
}

func TestMissingMandatoryField(t *testing.T) {
	eachComposite(t, func(t *testing.T, c composite) {
		for i, f := range c.fields {
			if !f.mandatory {
				continue
			}
			null := c.list(all)
			null[i] = nil
			for how, l := range map[string]list{"null": null, "absent": c.list(all)[:i]} {
				_, _, err := amqp.DecodePerformative(encode(t, described(c.desc, l)))
				de := decodeError(t, err)
				if want := c.name + "." + f.name; de.Field != want || de.Reason != "mandatory field is missing" {
					t.Errorf("%s %s: got %v, want a missing mandatory field", f.name, how, err)
				}
			}
		}
	})
}

// TestWrongType puts a timestamp, which no performative has, into each field.
func TestWrongType(t *testing.T) {
	eachComposite(t, func(t *testing.T, c composite) {
		for i, f := range c.fields {
			l := c.list(all)
			l[i] = amqp.Timestamp(1)
			b := wide{}.append(nil, described(c.desc, l))
			at := len(wide{}.append(nil, described(c.desc, l[:i]))) // where the field begins
			p, _, err := amqp.DecodePerformative(b)
			de := decodeError(t, err)
			if want := c.name + "." + f.name; de.Field != want || de.Offset != at || p != nil {
				t.Errorf("%s: got %v and %v, want field %s and offset %d", f.name, p, err, want, at)
			}
			if !strings.Contains(err.Error(), "constructor 0x83 where a") {
				t.Errorf("%s: got %v, want the constructor in the error", f.name, err)
			}
		}
	})
}

func TestMultiple(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes []byte
		want  []sym
	}{
		{"null", []byte{0x40 /* null */}, nil},
		{"single sym8", []byte{0xa3 /* sym8 */, 1, 'a'}, []sym{"a"}},
		{"single sym32", []byte{0xb3 /* sym32 */, 0, 0, 0, 1, 'a'}, []sym{"a"}},
		{"array8 of sym8", []byte{0xe0 /* array8 */, 6 /* size */, 2 /* count */, 0xa3 /* sym8 */, 1, 'a', 1, 'b'}, []sym{"a", "b"}},
		{"array8 of one", []byte{0xe0 /* array8 */, 4 /* size */, 1 /* count */, 0xa3 /* sym8 */, 1, 'a'}, []sym{"a"}},
		{"array8 of sym32", []byte{0xe0 /* array8 */, 7 /* size */, 1 /* count */, 0xb3 /* sym32 */, 0, 0, 0, 1, 'a'}, []sym{"a"}},
		{"array32 of sym8", []byte{0xf0 /* array32 */, 0, 0, 0, 7 /* size */, 0, 0, 0, 1 /* count */, 0xa3 /* sym8 */, 1, 'a'}, []sym{"a"}},
		{"array8 of none", []byte{0xe0 /* array8 */, 2 /* size */, 0 /* count */, 0xa3 /* sym8 */}, []sym{}},
	} {
		l := list{"me", nil, nil, nil, nil, nil, nil, amqp.Raw(tt.bytes)}
		p, _, err := amqp.DecodePerformative(encode(t, described(amqp.DescOpen, l)))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, p.(*amqp.Open).OfferedCapabilities); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestTargets(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   any
		want amqp.Attach
	}{
		{"null", nil, amqp.Attach{}},
		{"anonymous", described(amqp.DescTarget, list{}), amqp.Attach{Target: &amqp.Target{}}},
		{"empty address", described(amqp.DescTarget, list{""}), amqp.Attach{Target: &amqp.Target{HasAddress: true}}},
		{"coordinator", described(amqp.DescCoordinator, list{sym("amqp:local-transactions")}), amqp.Attach{Coordinator: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			want.Name, want.Role, want.SenderSettleMode = "l", amqp.RoleReceiver, amqp.SenderMixed
			l := list{"l", uint32(0), true, nil, nil, nil, tt.in}
			decodesTo(t, encode(t, described(amqp.DescAttach, l)), &want)
			decodesTo(t, want.Append(nil), &want)
		})
	}
}

// TestNestedErrors names what is wrong inside of a field.
func TestNestedErrors(t *testing.T) {
	attach := func(source, target any) any {
		return described(amqp.DescAttach, list{"l", uint32(0), true, nil, nil, source, target})
	}
	for _, tt := range []struct {
		name, field, reason string
		value               any
	}{
		{"error without condition", "close.error.condition", "mandatory", described(0x18, list{described(0x1d, list{})})},
		{"condition is a string", "end.error.condition", "a symbol", described(0x17, list{described(0x1d, list{"x"})})},
		{"description is a symbol", "detach.error.description", "a string", described(0x16, list{uint32(0), true, described(0x1d, list{sym("x"), sym("y")})})},
		{"info is a list", "close.error.info", "a map", described(0x18, list{described(0x1d, list{sym("x"), nil, list{}})})},
		{"error is accepted", "close.error", "descriptor amqp:accepted:list where an error is expected", described(0x18, list{described(0x24, list{})})},
		{"error is a number", "close.error", "a list", described(0x18, list{described(0x1d, uint8(1))})},
		{"source is a target", "attach.source", "descriptor amqp:target:list where a source is expected", attach(described(0x29, list{}), nil)},
		{"target is a source", "attach.target", "descriptor amqp:source:list where a target is expected", attach(nil, described(0x28, list{}))},
		{"source address", "source.address", "a string", attach(described(0x28, list{uint8(1)}), nil)},
		{"source durable", "source.durable", "a uint", attach(described(0x28, list{nil, "x"}), nil)},
		{"source filter", "source.filter", "a map", attach(described(0x28, list{nil, nil, nil, nil, nil, nil, nil, "x"}), nil)},
		{"source outcomes", "source.outcomes", "symbols", attach(described(0x28, list{nil, nil, nil, nil, nil, nil, nil, nil, nil,
			amqp.Array{Code: 0xa1, Values: []any{"x"}}}), nil)},
		{"target capabilities", "target.capabilities", "a symbol", attach(nil, described(0x29, list{nil, nil, nil, nil, nil, nil, "x"}))},
		{"described capabilities", "open.offered-capabilities", "symbols", described(0x10, list{"c", nil, nil, nil, nil, nil, nil,
			amqp.Array{Code: 0xa3, Desc: uint64(1), Values: []any{sym("a")}}})},
		{"sender settle mode", "attach.snd-settle-mode", "settle mode 3", described(0x12, list{"l", uint32(0), true, uint8(3)})},
		{"receiver settle mode", "attach.rcv-settle-mode", "settle mode 2", described(0x12, list{"l", uint32(0), true, nil, uint8(2)})},
		{"transfer settle mode", "transfer.rcv-settle-mode", "settle mode 2", described(0x14, list{uint32(0), nil, nil, nil, nil, nil, uint8(2)})},
		{"long tag", "transfer.delivery-tag", "33 bytes, at most 32", described(0x14, list{uint32(0), nil, bytes.Repeat([]byte{1}, 33)})},
		{"state is no list", "transfer.state", "a list", described(0x14, list{uint32(0), nil, nil, nil, nil, nil, nil, described(0x24, "x")})},
		{"state of unknown name", "disposition.state", `unknown descriptor "x"`, described(0x15, list{true, uint32(0), nil, nil,
			amqp.Described{Descriptor: sym("x"), Value: list{}}})},
		{"state without descriptor", "disposition.state", "a described type", described(0x15, list{true, uint32(0), nil, nil, list{}})},
		{"name is no UTF-8", "attach.name", "not valid UTF-8", described(0x12, list{amqp.Raw{0xa1, 1, 0xff}, uint32(0), true})},
		{"mechanism is not ASCII", "sasl-init.mechanism", "not ASCII", described(0x41, list{amqp.Raw{0xa3, 1, 0xff}})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := amqp.DecodePerformative(encode(t, tt.value))
			de := decodeError(t, err)
			if de.Field != tt.field || !strings.Contains(de.Reason, tt.reason) {
				t.Errorf("got %v, want field %s and reason %q", err, tt.field, tt.reason)
			}
		})
	}
}

func TestNoPerformative(t *testing.T) {
	for _, tt := range []struct {
		name, reason string
		bytes        []byte
	}{
		{"nothing", "input ends", nil},
		{"not described", "constructor 0x45 where a described type is expected", []byte{0x45}},
		{"message section", "no performative has descriptor amqp:header:list", []byte{0x00, 0x53, 0x70, 0x45}},
		{"unknown number", "no performative has descriptor 0x99", []byte{0x00, 0x53, 0x99, 0x45}},
		{"unknown domain", "no performative has descriptor 0x100000010", []byte{0x00, 0x80, 0, 0, 0, 1, 0, 0, 0, 0x10, 0x45}},
		{"unknown name", `unknown descriptor "amqp:x"`, append([]byte{0x00, 0xa3, 6}, "amqp:x\x45"...)},
		{"descriptor is a string", "constructor 0xa1 where a ulong is expected", []byte{0x00, 0xa1, 1, 'x', 0x45}},
		{"map for a list", "constructor 0xc1 where a list is expected", []byte{0x00, 0x53, 0x10, 0xc1, 1, 0}},
		{"count beyond size", "9 elements in 1 bytes", []byte{0x00, 0x53, 0x17, 0xc0, 2, 9, 0x40}},
		{"list longer than its fields", "elements end 1 bytes", []byte{0x00, 0x53, 0x17, 0xc0, 3, 1, 0x40, 0x40}},
		{"field beyond the list", "elements end -2 bytes", []byte{0x00, 0x53, 0x42, 0xc0, 2, 1, 0xa0, 1, 7}},
		{"fields beyond the list", "list ends before the field", []byte{0x00, 0x53, 0x11, 0xc0, 5, 4, 0x60, 0, 1, 0x43, 0x43, 0x43}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, payload, err := amqp.DecodePerformative(tt.bytes)
			if de := decodeError(t, err); !strings.Contains(de.Reason, tt.reason) {
				t.Errorf("got %q, want %q", de.Reason, tt.reason)
			}
			if p != nil || payload != nil {
				t.Errorf("got %v and % x beside the error", p, payload)
			}
		})
	}
}

func TestDecodeIntoAnother(t *testing.T) {
	b := (&amqp.Flow{}).Append(nil)
	_, err := amqp.DecodeInto(b, &amqp.Transfer{})
	want := "descriptor amqp:flow:list where amqp:transfer:list is expected"
	if de := decodeError(t, err); de.Reason != want || de.Offset != 0 {
		t.Errorf("got %v, want %s at 0", err, want)
	}
	for _, c := range composites(t) {
		_, err := amqp.DecodeInto(nil, c.full)
		decodeError(t, err)
	}
}

func TestPerformativeEveryPrefix(t *testing.T) {
	eachComposite(t, func(t *testing.T, c composite) {
		v := described(c.desc, c.list(all))
		for _, b := range [][]byte{c.full.Append(nil), c.min.Append(nil), wide{}.append(nil, v), wide{symbolic: true}.append(nil, v)} {
			for n := range len(b) {
				p, _, err := amqp.DecodePerformative(b[:n:n])
				if err == nil {
					t.Errorf("the first %d of %d bytes decode to %+v", n, len(b), p)
					continue
				}
				decodeError(t, err)
				_, err = amqp.DecodeInto(b[:n:n], c.min)
				decodeError(t, err)
			}
		}
	})
}

// TestEveryByteChanged shows that no single wrong byte causes a panic.
func TestEveryByteChanged(t *testing.T) {
	eachComposite(t, func(t *testing.T, c composite) {
		b := c.full.Append(nil)
		for i := range b {
			for _, x := range []byte{0x00, 0x01, 0x40, 0x7f, 0x80, 0xc0, 0xd0, 0xf0, 0xff} {
				changed := bytes.Clone(b)
				changed[i] = x
				if p, _, err := amqp.DecodePerformative(changed); err == nil {
					p.Append(nil)
				} else {
					decodeError(t, err)
				}
			}
		}
	})
}

func TestDescriptorNames(t *testing.T) {
	for d, want := range map[amqp.Descriptor]string{
		0x10: "amqp:open:list", 0x11: "amqp:begin:list", 0x12: "amqp:attach:list", 0x13: "amqp:flow:list", 0x14: "amqp:transfer:list",
		0x15: "amqp:disposition:list", 0x16: "amqp:detach:list", 0x17: "amqp:end:list", 0x18: "amqp:close:list", 0x1d: "amqp:error:list",
		0x23: "amqp:received:list", 0x24: "amqp:accepted:list", 0x25: "amqp:rejected:list", 0x26: "amqp:released:list", 0x27: "amqp:modified:list",
		0x28: "amqp:source:list", 0x29: "amqp:target:list", 0x2b: "amqp:delete-on-close:list", 0x2c: "amqp:delete-on-no-links:list",
		0x2d: "amqp:delete-on-no-messages:list", 0x2e: "amqp:delete-on-no-links-or-messages:list",
		0x30: "amqp:coordinator:list", 0x31: "amqp:declare:list", 0x32: "amqp:discharge:list", 0x33: "amqp:declared:list",
		0x34: "amqp:transactional-state:list", 0x40: "amqp:sasl-mechanisms:list", 0x41: "amqp:sasl-init:list",
		0x42: "amqp:sasl-challenge:list", 0x43: "amqp:sasl-response:list", 0x44: "amqp:sasl-outcome:list",
		0x70: "amqp:header:list", 0x71: "amqp:delivery-annotations:map", 0x72: "amqp:message-annotations:map", 0x73: "amqp:properties:list",
		0x74: "amqp:application-properties:map", 0x75: "amqp:data:binary", 0x76: "amqp:amqp-sequence:list", 0x77: "amqp:amqp-value:*",
		0x78: "amqp:footer:map", 0: "0x0", 0x1f: "0x1f", 1<<64 - 1: "0xffffffffffffffff",
	} {
		if got := d.String(); got != want {
			t.Errorf("0x%02x is %q, want %q", uint64(d), got, want)
		}
		b := amqp.AppendDescriptor(nil, d)
		if got, err := amqp.PeekDescriptor(b); err != nil || got != d {
			t.Errorf("PeekDescriptor(% x) = %v, %v, want %v", b, got, err, d)
		}
		if want[0] != 'a' {
			continue
		}
		b = amqp.AppendSymbol([]byte{0}, sym(want))
		if got, err := amqp.PeekDescriptor(b); err != nil || got != d {
			t.Errorf("PeekDescriptor(% x) = %v, %v, want %v", b, got, err, d)
		}
	}
}

func TestWords(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{amqp.RoleSender.String(), "sender"}, {amqp.RoleReceiver.String(), "receiver"},
		{amqp.SenderUnsettled.String(), "unsettled"}, {amqp.SenderSettled.String(), "settled"}, {amqp.SenderMixed.String(), "mixed"},
		{amqp.SenderSettleMode(9).String(), "SenderSettleMode(9)"}, {amqp.ReceiverFirst.String(), "first"}, {amqp.ReceiverSecond.String(), "second"},
		{amqp.ReceiverSettleMode(9).String(), "ReceiverSettleMode(9)"},
		{(&amqp.Error{Condition: amqp.CondStolen}).Error(), "amqp:link:stolen"},
		{(&amqp.Error{Condition: amqp.CondStolen, Description: "taken"}).Error(), "amqp:link:stolen: taken"},
		{(&amqp.DecodeError{Offset: 3, Field: "open.hostname", Reason: "bad"}).Error(), "amqp: open.hostname: bad at offset 3"},
		{(&amqp.DecodeError{Offset: 3, Reason: "bad"}).Error(), "amqp: bad at offset 3"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}
