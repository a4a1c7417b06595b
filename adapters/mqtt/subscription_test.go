package mqtt

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/internal/iot"
)

var (
	gateway = owner{tenant: "tenant-1", device: "gateway-1"}
	called  = owner{tenant: "tenant-1", device: "gateway-1", alias: "alias-1"}
	nobody  = owner{}
)

// TestFilter goes through the rules of the filters (contract: adapters 8.8, 8.9).
func TestFilter(t *testing.T) {
	long := strings.Repeat("x", maxSegment+1)
	for _, tt := range []struct {
		filter string
		qos    byte
		who    owner
		key    owner
		err    error
	}{
		{"error///#", 0, gateway, gateway, nil},
		{"e///#", 0, gateway, gateway, nil},
		{"error//+/#", 0, gateway, gateway, nil},
		{"error/tenant-1//#", 0, gateway, gateway, nil},
		{"error/tenant-1/+/#", 0, gateway, gateway, nil},
		{"error/tenant-1/gateway-1/#", 0, gateway, gateway, nil},
		{"e//device-1/#", 0, gateway, owner{tenant: "tenant-1", device: "device-1"}, nil},
		{"e/tenant-1/device-1/#", 0, gateway, owner{tenant: "tenant-1", device: "device-1"}, nil},
		{"error/ten/dev/#", 0, nobody, owner{tenant: "ten", device: "dev"}, nil},
		{"error/alias-1//#", 0, called, gateway, nil},
		{"error/alias-1/device-1/#", 0, called, owner{tenant: "tenant-1", device: "device-1"}, nil},
		{"error///#", 0, called, gateway, nil},
		{"error/alias-1//#", 0, gateway, owner{}, errFilterTenant},
		{"error///#", 1, gateway, gateway, errFilterQoS},
		{"error///#", 2, gateway, gateway, errFilterQoS},
		{"error/tenant-2//#", 0, gateway, owner{}, errFilterTenant},
		{"error/tenant-2/device-1/#", 0, gateway, owner{}, errFilterTenant},
		{"error///#", 0, nobody, owner{}, errFilterAddress},
		{"error/ten//#", 0, nobody, owner{}, errFilterAddress},
		{"error//dev/#", 0, nobody, owner{}, errFilterAddress},
		{"error/ten/+/#", 0, nobody, owner{}, errFilterAddress},
		{"error/+//#", 0, gateway, owner{}, errErrorFilter},
		{"error/+/dev/#", 0, nobody, owner{}, errErrorFilter},
		{"error//a+/#", 0, gateway, owner{}, errErrorFilter},
		{"error//#/#", 0, gateway, owner{}, errErrorFilter},
		{"error//" + long + "/#", 0, gateway, owner{}, errErrorFilter},
		{"error//\x01/#", 0, gateway, owner{}, errErrorFilter},
		{"error", 0, gateway, owner{}, errErrorFilter},
		{"error/#", 0, gateway, owner{}, errErrorFilter},
		{"error//#", 0, gateway, owner{}, errErrorFilter},
		{"error///+", 0, gateway, owner{}, errErrorFilter},
		{"error///#/", 0, gateway, owner{}, errErrorFilter},
		{"error////#", 0, gateway, owner{}, errErrorFilter},
		{"error///telemetry/#", 0, gateway, owner{}, errErrorFilter},
		{"es///#", 0, gateway, owner{}, errFilter},

		{"command///req/#", 1, gateway, gateway, nil},
		{"c///q/#", 0, gateway, gateway, nil},
		{"c//+/q/#", 1, gateway, gateway, nil},
		{"c//device-1/req/#", 1, gateway, owner{tenant: "tenant-1", device: "device-1"}, nil},
		{"c/tenant-1/gateway-1/q/#", 1, gateway, gateway, nil},
		{"c/tenant-1/+/q/#", 0, gateway, gateway, nil},
		{"c/alias-1/+/q/#", 1, called, gateway, nil},
		{"c/tenant-1//q/#", 1, called, gateway, nil},
		{"c/alias-2//q/#", 1, called, owner{}, errFilterTenant},
		{"c/ten/dev/q/#", 1, nobody, owner{tenant: "ten", device: "dev"}, nil},
		{"c///q/#", 2, gateway, gateway, errCommandQoS},
		{"c/ten/+/q/#", 1, nobody, owner{}, errFilterAddress},
		{"c//dev/q/#", 1, nobody, owner{}, errFilterAddress},
		{"c/+/dev/q/#", 1, nobody, owner{}, errCommandFilter},
		{"c//#/q/#", 1, gateway, owner{}, errCommandFilter},
		{"c///q/set/#", 1, gateway, owner{}, errCommandFilter},
		{"c///q/#/", 1, gateway, owner{}, errCommandFilter},
		{"command", 1, gateway, owner{}, errCommandFilter},
		{"c///q/#", 1, nobody, owner{}, errFilterAddress},
		{"c/tenant-2//q/#", 1, gateway, owner{}, errFilterTenant},
		{"c/+//q/#", 1, gateway, owner{}, errCommandFilter},
		{"c///q", 1, gateway, owner{}, errCommandFilter},
		{"c///q/+", 1, gateway, owner{}, errCommandFilter},
		{"c///res/#", 1, gateway, owner{}, errCommandFilter},
		{"c////q/#", 1, gateway, owner{}, errCommandFilter},
		{"control/+/+/req/#", 1, gateway, owner{}, errFilter},

		{"", 0, gateway, owner{}, errFilter},
		{"#", 0, gateway, owner{}, errFilter},
		{"+/+/+/#", 0, gateway, owner{}, errFilter},
		{"telemetry/#", 0, gateway, owner{}, errFilter},
		{"/error//#", 0, gateway, owner{}, errFilter},
		{"$share/group/error///#", 0, gateway, owner{}, errShared},
		{"$SYS/#", 0, gateway, owner{}, errFilter},
	} {
		t.Run(fmt.Sprintf("%s with %d by %s", tt.filter, tt.qos, tt.who.device), func(t *testing.T) {
			sub, err := parseFilter(tt.filter, tt.qos, tt.who)
			if err != tt.err {
				t.Errorf("got error %v, want %v", err, tt.err)
			}
			if sub.key.owner != tt.key && (err == nil || tt.key != owner{}) {
				t.Errorf("got key %v, want %v", sub.key.owner, tt.key)
			}
			if want := tt.who.device == gateway.device && tt.key == (owner{tenant: "tenant-1", device: "device-1"}); err == nil && sub.behalf(tt.who) != want {
				t.Errorf("on behalf of another device: got %t, want %t", !want, want)
			}
		})
	}
}

func TestReadSubscribe(t *testing.T) {
	var filters packets.Subscriptions
	for _, filter := range []string{"error///#", "c///q/#", "e//device-1/#", "nowhere", "error//+/#", "e/tenant-1/device-1/#"} {
		filters = append(filters, packets.Subscription{Filter: filter})
	}
	filters = append(filters, packets.Subscription{Filter: "e///#", Qos: 1})
	got := readSubscribe(filters, gateway)
	for i, want := range []struct {
		like int
		err  error
	}{{4, nil}, {-1, nil}, {5, nil}, {-1, errFilter}, {-1, nil}, {-1, nil}, {-1, errFilterQoS}} {
		if got[i].like != want.like || got[i].err != want.err {
			t.Errorf("%s: got %d, %v; want %d, %v", filters[i].Filter, got[i].like, got[i].err, want.like, want.err)
		}
	}
}

func TestSubscriptions(t *testing.T) {
	var s subscriptions
	add := func(filter string, who owner) {
		t.Helper()
		sub, err := parseFilter(filter, 0, who)
		if err != nil {
			t.Fatal(err)
		}
		s.add(&sub)
	}
	find := func(tenant iot.TenantID, device iot.DeviceID, who owner, want string) {
		t.Helper()
		got := "none"
		if sub := s.errorsOf(tenant, device, who); sub != nil {
			got = strings.Join([]string{sub.spelling, sub.tenant, sub.device, "#"}, "/")
		}
		if got != want {
			t.Errorf("errors of %q/%q go to %s, want %s", tenant, device, got, want)
		}
	}
	find("", "", gateway, "none")
	add("e//device-1/#", gateway)
	find("", "", gateway, "none")
	find("", "device-1", gateway, "e//device-1/#")
	find("tenant-1", "device-1", gateway, "e//device-1/#")
	find("alias-1", "device-1", called, "e//device-1/#")
	find("alias-1", "device-1", gateway, "none")
	find("", "device-2", gateway, "none")
	add("error///#", gateway)
	find("", "", gateway, "error///#")
	find("", "device-1", gateway, "e//device-1/#")
	find("", "device-2", gateway, "error///#")
	find("tenant-2", "device-1", gateway, "error///#") // another's device, but the client's mistake
	add("e/tenant-1/+/#", gateway)
	find("", "device-2", gateway, "e/tenant-1/+/#")
	if len(s.list) != 2 {
		t.Errorf("got %d subscriptions, want 2", len(s.list))
	}
	for _, tt := range []struct {
		filter string
		want   byte
	}{{"error//device-1/#", 0}, {"error//device-1/#", unsubackNone}, {"c///q/#", unsubackNone}, {"telemetry", subackFailure}, {"error///#", 0}} {
		if _, got := s.remove(tt.filter, gateway); got != tt.want {
			t.Errorf("unsubscribe %s: got 0x%02x, want 0x%02x", tt.filter, got, tt.want)
		}
	}
	find("", "device-1", gateway, "none")

	add("e/ten/dev/#", nobody)
	find("ten", "dev", nobody, "e/ten/dev/#")
	find("ten", "other", nobody, "none")
	find("", "", nobody, "none")
}

func TestSubscriptionsAreBounded(t *testing.T) {
	var s subscriptions
	for i := range maxSubscriptions + 1 {
		sub, err := parseFilter(fmt.Sprintf("e//device-%d/#", i), 0, gateway)
		if err == nil {
			err = s.room(sub.key, 0)
		}
		if err == nil {
			s.add(&sub)
		}
		if i < maxSubscriptions && err != nil || i == maxSubscriptions && err != error(errSubscriptions) {
			t.Fatalf("subscription %d: got %v", i, err)
		}
	}
	again, _ := parseFilter("error//device-0/#", 0, gateway)
	if err := s.room(again.key, 1); err != nil || s.add(&again) == nil || s.errorsOf("", "device-0", gateway).spelling != "error" {
		t.Errorf("a subscription cannot be replaced: %v", err)
	}
}

// FuzzFilter checks that what is granted can be found and ended again.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"error///#", "e//device-1/#", "e/tenant-1/+/#", "c///q/#", "command//+/req/#", "$share/g/e///#", "", "////", "e//\xff/#"} {
		f.Add(s, byte(0), true)
		f.Add(s, byte(1), false)
	}
	f.Fuzz(func(t *testing.T, filter string, qos byte, known bool) {
		who := owner{}
		if known {
			who = gateway
		}
		sub, err := parseFilter(filter, qos, who)
		var r *refusal
		if err != nil {
			if !errors.As(err, &r) || r.code < subackFailure || r.text == "" {
				t.Fatalf("error %v cannot be answered", err)
			}
			return
		}
		var s subscriptions
		s.add(&sub)
		if sub.key.purpose == forErrors && s.errorsOf(sub.key.tenant, sub.key.device, who) == nil {
			t.Errorf("%q is granted, but gets nothing", filter)
		}
		if known && sub.key.tenant != who.tenant {
			t.Errorf("%q is of tenant %q", filter, sub.key.tenant)
		}
		if old, code := s.remove(filter, who); old != &sub || code != 0 || len(s.list) != 0 {
			t.Errorf("%q cannot be ended: 0x%02x", filter, code)
		}
	})
}
