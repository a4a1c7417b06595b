package service_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/service"
)

// told is a CommandRouter that keeps what it was told last.
type told struct {
	op       string
	consumer service.Consumer
	tenant   iot.TenantID
	gateways map[iot.DeviceID]iot.DeviceID
	err      error
}

func (c *told) Register(_ context.Context, x service.Consumer) error {
	c.op, c.consumer = "register", x
	return c.err
}

func (c *told) Unregister(_ context.Context, x service.Consumer) error {
	c.op, c.consumer = "unregister", x
	return c.err
}

func (c *told) LastGateways(t iot.TenantID, g map[iot.DeviceID]iot.DeviceID) {
	c.op, c.tenant, c.gateways = "gateways", t, g
}

// route returns a server for the Command Router API whose peers may do what is granted.
func route(t testing.TB, c service.CommandRouter, granted ...string) *service.Server {
	s := service.New(service.Options{Invoker: never(t), Commands: c, May: func(_ *peer.Conn, address, operation string) bool {
		for _, g := range granted {
			if g == address+":"+operation {
				return true
			}
		}
		return len(granted) == 0
	}})
	t.Cleanup(s.Close)
	return s
}

func TestConsumers(t *testing.T) {
	for _, tt := range []struct {
		name, subject string
		properties    amqp.Map
		op            string
		want          service.Consumer
	}{
		{"register", "register-command-consumer", with("device_id", "d", "adapter_instance_id", "a-1"), "register",
			service.Consumer{Tenant: "T", Device: "d", Instance: "a-1", Lifespan: -1}},
		{"specified spelling", "register-cmd-consumer", with("device_id", "d", "adapter_instance_id", "a-1"), "register",
			service.Consumer{Tenant: "T", Device: "d", Instance: "a-1", Lifespan: -1}},
		{"all", "register-command-consumer", with("device_id", "d", "adapter_instance_id", "a-1", "lifespan", int32(20), "send_event", true), "register",
			service.Consumer{Tenant: "T", Device: "d", Instance: "a-1", Lifespan: 20 * time.Second, SendEvent: true}},
		{"no lifespan", "register-command-consumer", with("device_id", "d", "adapter_instance_id", "a-1", "lifespan", int32(0)), "register",
			service.Consumer{Tenant: "T", Device: "d", Instance: "a-1"}},
		{"any lifespan", "register-command-consumer", with("device_id", "d", "adapter_instance_id", "a-1", "lifespan", int32(-7)), "register",
			service.Consumer{Tenant: "T", Device: "d", Instance: "a-1", Lifespan: -1}},
		{"unregister", "unregister-command-consumer", with("device_id", "d", "adapter_instance_id", "a-1", "send_event", true), "unregister",
			service.Consumer{Tenant: "T", Device: "d", Instance: "a-1", Lifespan: -1, SendEvent: true}},
		{"unregister, specified spelling", "unregister-cmd-consumer", with("device_id", "d", "adapter_instance_id", "a-1"), "unregister",
			service.Consumer{Tenant: "T", Device: "d", Instance: "a-1", Lifespan: -1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &told{}
			m := ask(t, route(t, c), "cmd_router/T", request(t, tt.subject, tt.properties, nil))
			checkDone(t, m, "cmd_router/T/d", "d")
			if diff := cmp.Diff(tt.want, c.consumer); diff != "" || c.op != tt.op {
				t.Errorf("%s (-want +got):\n%s", c.op, diff)
			}
		})
	}
}

// checkDone expects a reply that says no more than 204.
func checkDone(t *testing.T, m *amqp.Message, to, device string) {
	t.Helper()
	want := with("status", int32(204), "tenant_id", "T")
	if device != "" {
		want = append(want, amqp.Pair{Key: "device_id", Value: device})
	}
	if diff := cmp.Diff(want, m.ApplicationProperties); diff != "" {
		t.Errorf("application properties (-want +got):\n%s", diff)
	}
	if m.Properties.To != to || m.Properties.CorrelationID != "m-1" || m.Properties.MessageID == nil || m.Properties.ContentType != "" || m.Data != nil {
		t.Errorf("got %+v with %q", m.Properties, m.Data)
	}
}

func TestLastGateways(t *testing.T) {
	for _, tt := range []struct {
		name, subject string
		properties    amqp.Map
		body          any
		want          map[iot.DeviceID]iot.DeviceID
	}{
		{"one", "set-last-known-gw", with("device_id", "d", "gateway_id", "g"), nil, map[iot.DeviceID]iot.DeviceID{"d": "g"}},
		{"specified spelling", "set-last-gw", with("device_id", "d", "gateway_id", "d"), nil, map[iot.DeviceID]iot.DeviceID{"d": "d"}},
		{"batch", "set-last-known-gw", nil, section(`{"d1":"g1","d2":"g2"}`), map[iot.DeviceID]iot.DeviceID{"d1": "g1", "d2": "g2"}},
		{"batch as text", "set-last-known-gw", nil, `{"d1":"g1"}`, map[iot.DeviceID]iot.DeviceID{"d1": "g1"}},
		{"what is no name is passed over", "set-last-known-gw", nil, section(`{"d1":"g1","d2":7,"d3":null,"":"g","d4":"","d5":["g"]}`), map[iot.DeviceID]iot.DeviceID{"d1": "g1"}},
		{"empty batch", "set-last-known-gw", nil, section(`{}`), map[iot.DeviceID]iot.DeviceID{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &told{}
			to, device := "cmd_router/T", ""
			if tt.properties != nil {
				to, device = to+"/d", "d"
			}
			checkDone(t, ask(t, route(t, c), "cmd_router/T", request(t, tt.subject, tt.properties, tt.body)), to, device)
			if diff := cmp.Diff(tt.want, c.gateways); diff != "" || c.tenant != "T" {
				t.Errorf("tenant %s (-want +got):\n%s", c.tenant, diff)
			}
		})
	}
}

func TestEnableCommandRouting(t *testing.T) {
	for _, body := range []any{section(`["T","OTHER"]`), section(` []`), `["T"]`, []byte(`["T"]`)} {
		c := &told{}
		checkDone(t, ask(t, route(t, c), "cmd_router/T", request(t, "enable-command-routing", nil, body)), "cmd_router/T", "")
		if c.op != "" {
			t.Errorf("%s was called", c.op)
		}
	}
}

func TestCommandRequestsThatAreRefused(t *testing.T) {
	const register, unregister, gateway, enable = "register-command-consumer", "unregister-command-consumer", "set-last-known-gw", "enable-command-routing"
	for _, tt := range []struct {
		name, subject string
		properties    amqp.Map
		body          any
		code          int32
		text          string
	}{
		{"unknown operation", "register", nil, nil, 400, `unknown operation "register"`},
		{"no device", register, with("adapter_instance_id", "a"), nil, 400, "application property device_id is missing: expected a string"},
		{"no instance", unregister, with("device_id", "d"), nil, 400, "application property adapter_instance_id is missing: expected a string"},
		{"device is a symbol", register, with("device_id", amqp.Symbol("d"), "adapter_instance_id", "a"), nil, 400, "application property device_id is of AMQP type symbol: expected a string"},
		{"lifespan is a long", register, with("device_id", "d", "adapter_instance_id", "a", "lifespan", int64(1)), nil, 400,
			"application property lifespan is of AMQP type long: expected an int (signed, 32 bits)"},
		{"send_event is a string", unregister, with("device_id", "d", "adapter_instance_id", "a", "send_event", "true"), nil, 400,
			"application property send_event is of AMQP type string: expected a boolean"},
		{"instance too long", register, with("device_id", "d", "adapter_instance_id", strings.Repeat("a", 513)), nil, 400, "application property adapter_instance_id is too long"},
		{"device with a line end", register, with("device_id", "d\n", "adapter_instance_id", "a"), nil, 400, "application property device_id has control characters"},
		{"gateway without device", gateway, with("gateway_id", "g"), nil, 400, "application property device_id is missing: expected a string"},
		{"device without gateway", gateway, with("device_id", "d"), nil, 400, "application property gateway_id is missing: expected a string"},
		{"gateway is an int", gateway, with("device_id", "d", "gateway_id", int32(1)), nil, 400, "application property gateway_id is of AMQP type int: expected a string"},
		{"no batch", gateway, nil, nil, 400, "expected the application properties device_id and gateway_id, or a body with a gateway for each device"},
		{"a batch that is a list", gateway, nil, section(`[]`), 400, "the body is no JSON object"},
		{"a torn batch", gateway, nil, section(`{"d":`), 400, "the body is no JSON object"},
		{"no tenants", enable, nil, nil, 400, "the body is no JSON array of strings: expected the ids of tenants"},
		{"tenants are an object", enable, nil, section(`{}`), 400, "the body is no JSON array of strings: expected the ids of tenants"},
		{"a tenant is a number", enable, nil, section(`["T",1]`), 400, "the body is no JSON array of strings: expected the ids of tenants"},
		{"tenants are a number of AMQP", enable, nil, int32(1), 400, "the body is no JSON array of strings: expected the ids of tenants"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &told{}
			checkFailure(t, ask(t, route(t, c), "cmd_router/T", request(t, tt.subject, tt.properties, tt.body)), tt.code, tt.text)
			if c.op != "" {
				t.Errorf("%s was called", c.op)
			}
		})
	}
}

func TestWhatTheCommandRouterRefuses(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int32
		text string
	}{
		{iot.Errorf(iot.ErrNotFound, "no such tenant"), 404, "no such tenant"},
		{iot.Errorf(iot.ErrVersion, "another instance has it"), 412, "another instance has it"},
		{iot.Errorf(iot.ErrUnavailable, "away"), 503, "away"},
		{context.DeadlineExceeded, 503, "timed out"},
	} {
		c := &told{err: tt.err}
		for _, subject := range []string{"register-command-consumer", "unregister-command-consumer"} {
			checkFailure(t, ask(t, route(t, c), "cmd_router/T", request(t, subject, with("device_id", "d", "adapter_instance_id", "a"), nil)), tt.code, tt.text)
		}
	}
	checkFailure(t, ask(t, route(t, nil), "cmd_router/T", request(t, "enable-command-routing", nil, section(`["T"]`))), 503, "commands are not routed here")
}

// TestEitherSpellingIsGranted has authorities that name the operation in one way,
// and clients that name it in the other.
func TestEitherSpellingIsGranted(t *testing.T) {
	properties := with("device_id", "d", "adapter_instance_id", "a")
	for _, tt := range []struct {
		granted, subject string
		want             int32
	}{
		{"cmd_router/T:register-command-consumer", "register-command-consumer", 204},
		{"cmd_router/T:register-command-consumer", "register-cmd-consumer", 204},
		{"cmd_router/T:register-cmd-consumer", "register-cmd-consumer", 204},
		{"cmd_router/T:register-cmd-consumer", "unregister-cmd-consumer", 403},
		{"cmd_router/OTHER:register-command-consumer", "register-command-consumer", 403},
		{"cmd_router/T:unknown", "register-command-consumer", 403},
	} {
		m := ask(t, route(t, &told{}, tt.granted), "cmd_router/T", request(t, tt.subject, properties, nil))
		if got := m.ApplicationProperties.Get("status"); got != tt.want {
			t.Errorf("%s with %s: got %v, want %d", tt.subject, tt.granted, got, tt.want)
		}
	}
}
