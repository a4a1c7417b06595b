package notification_test

import (
	"errors"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/notification"
	"github.com/sluice-iot/sluice/internal/iot"
)

var at = time.Date(2026, 11, 22, 12, 0, 0, 123_456_789, time.FixedZone("", 3600))

func derive(t *testing.T, changes ...events.PresenceChange) ([]events.PresenceFact, error) {
	t.Helper()
	f := events.NewFunction(notification.Derive)
	rep, err := f.Call(t.Context(), slog.New(slog.DiscardHandler), events.NotificationDerive{Changes: changes})
	if err != nil {
		return nil, err
	}
	return rep.(*events.NotificationDerived).Events, nil
}

func TestWhatFollows(t *testing.T) {
	ms := time.Date(2026, 11, 22, 11, 0, 0, 123_000_000, time.UTC)
	of := func(kind events.PresenceKind) events.PresenceChange {
		return events.PresenceChange{Kind: kind, TenantID: "T", DeviceID: "D", GatewayID: "G", Adapter: "hono-mqtt", At: at}
	}
	uplink, connected := of(events.Uplink), of(events.Connected)
	uplink.TTDSeconds = 20
	connected.RemoteID, connected.Data = "c", []byte(`{"a":1}`)
	got, err := derive(t, of(events.Subscribed), of(events.Unsubscribed), uplink, connected, of(events.Disconnected))
	if err != nil {
		t.Fatal(err)
	}
	ttd := events.DeviceTTD{TenantID: "T", DeviceID: "D", GatewayID: "G", TTDSeconds: -1, At: ms}
	gone, listens := ttd, ttd
	gone.TTDSeconds, listens.TTDSeconds = 0, 20
	c := events.Connection{TenantID: "T", DeviceID: "D", GatewayID: "G", RemoteID: "c", Source: "hono-mqtt", Data: []byte(`{"a":1}`), At: ms}
	d := c
	d.RemoteID, d.Data = "unknown", nil
	want := []events.PresenceFact{ttd, gone, listens, events.DeviceConnected{Connection: c}, events.DeviceDisconnected{Connection: d}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestEqualChangesGiveEqualFacts holds that nothing but the question counts.
func TestEqualChangesGiveEqualFacts(t *testing.T) {
	var changes []events.PresenceChange
	for i := range events.MaxPresenceChanges {
		changes = append(changes, events.PresenceChange{Kind: events.Subscribed, TenantID: "T", DeviceID: iot.DeviceID(strconv.Itoa(i)), Adapter: "a", At: at})
	}
	first, err := derive(t, changes...)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range first {
		alone, err := derive(t, changes[i])
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(alone[0], f) || f.Key() != changes[i].Key() {
			t.Fatalf("alone %+v follows, in company %+v", alone[0], f)
		}
	}
}

func TestOneWrongChangeIsNamed(t *testing.T) {
	good := events.PresenceChange{Kind: events.Subscribed, TenantID: "T", DeviceID: "D", Adapter: "a", At: at}
	bad := good
	bad.DeviceID = ""
	_, err := derive(t, good, good, bad)
	if !errors.Is(err, iot.ErrInvalid) || !strings.Contains(err.Error(), "changes[2]: device-id is missing") {
		t.Errorf("got %v, want iot.ErrInvalid that names changes[2]", err)
	}
	if _, err := derive(t); !errors.Is(err, iot.ErrInvalid) {
		t.Errorf("no change: got %v", err)
	}
	if _, err := derive(t, make([]events.PresenceChange, events.MaxPresenceChanges+1)...); !errors.Is(err, iot.ErrInvalid) {
		t.Errorf("too many changes: got %v", err)
	}
}
