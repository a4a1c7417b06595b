package adapters_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestLastGateway: routers hear by whom a device was heard of last where several may act
// for it, and not with each message.
func TestLastGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCommandWorld(t, adapters.CommandsOptions{})
		upload := func(who adapters.Admission) {
			t.Helper()
			up := telemetry("x")
			if err := w.p.Publish(t.Context(), who, &up); err != nil {
				t.Fatal(err)
			}
			w.p.Submit(who, &up, func(error) {})
		}
		byGateway := func() adapters.Admission {
			t.Helper()
			r := request(string(adaptertest.Gateway), adaptertest.Password, home)
			r.Admit.DeviceID = adaptertest.Device2
			who, err := w.p.Admit(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			return who
		}
		told := func(want ...iot.DeviceID) {
			t.Helper()
			var got []iot.DeviceID
			for _, g := range w.announcer.Gateways() {
				if g.Tenant != adaptertest.Tenant || g.Device != adaptertest.Device2 {
					t.Errorf("told of device %q of %q, want %q", g.Device, g.Tenant, adaptertest.Device2)
				}
				got = append(got, g.Gateway)
			}
			if !slices.Equal(got, want) {
				t.Errorf("told of gateways %q, want %q", got, want)
			}
		}
		w.inv.Via(adaptertest.Gateway)
		upload(w.admit(t, adaptertest.Device)) // cached: it has one gateway
		w.inv.Via(adaptertest.Gateway, adaptertest.ProvisioningGateway)
		gateway, itself := byGateway(), w.admit(t, adaptertest.Device2)
		told()
		upload(gateway)
		told(adaptertest.Gateway)
		upload(itself)
		told(adaptertest.Gateway, adaptertest.Device2)
		w.subscribe(t, adaptertest.Device2, func(s *adapters.Subscribe) { s.Who = gateway })
		upload(gateway)
		told(adaptertest.Gateway, adaptertest.Device2, adaptertest.Gateway)
		time.Sleep(time.Hour - time.Nanosecond)
		upload(gateway)
		told(adaptertest.Gateway, adaptertest.Device2, adaptertest.Gateway)
		time.Sleep(time.Nanosecond)
		upload(gateway)
		told(adaptertest.Gateway, adaptertest.Device2, adaptertest.Gateway, adaptertest.Gateway)
		w.commands.Subscribed()
		upload(gateway)
		told(adaptertest.Gateway, adaptertest.Device2, adaptertest.Gateway, adaptertest.Gateway, adaptertest.Gateway)
	})
}

// TestLastGatewaysAreBounded: what was not used for long makes room.
func TestLastGatewaysAreBounded(t *testing.T) {
	l := adapters.LastGateways{}
	now := time.Now()
	for i := range 250_000 {
		if !l.News("T", iot.DeviceID(fmt.Sprint(i)), "G", now) {
			t.Fatalf("device %d is known already", i)
		}
		if l.News("T", "often", "G", now) != (i == 0) {
			t.Fatal("a device that is used all the time was forgotten")
		}
	}
	if got := l.Len(); got > 100_000 || got < 50_000 {
		t.Errorf("%d devices are remembered, want 50000 to 100000", got)
	}
}

func TestMaxTTD(t *testing.T) {
	for name, tt := range map[string]struct {
		ext  map[string]any
		want time.Duration
	}{
		"not set":     {nil, time.Minute},
		"set":         {map[string]any{"max-ttd": 30.0}, 30 * time.Second},
		"none":        {map[string]any{"max-ttd": 0.0}, 0},
		"negative":    {map[string]any{"max-ttd": -1.0}, time.Minute},
		"no integer":  {map[string]any{"max-ttd": 1.5}, time.Minute},
		"text":        {map[string]any{"max-ttd": "30"}, time.Minute},
		"very long":   {map[string]any{"max-ttd": 1e15}, 4294967295 * time.Millisecond},
		"other's ext": {map[string]any{"max-other": 30.0}, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCommandWorld(t, adapters.CommandsOptions{})
			w.inv.Adapters(events.TenantAdapter{Type: "hono-coap", Enabled: true, Ext: map[string]any{"max-ttd": 7.0}}, events.TenantAdapter{Type: "hono-http", Enabled: true, Ext: tt.ext})
			who := w.admit(t, adaptertest.Device)
			if got := who.MaxTTD("hono-http"); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if got := who.MaxTTD("hono-coap"); got != 7*time.Second {
				t.Errorf("other adapter: got %v, want 7s", got)
			}
			if got := who.MaxTTD("hono-none"); got != time.Minute {
				t.Errorf("adapter without settings: got %v, want 1m", got)
			}
		})
	}
}
