package status_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

func TestEverySentinelHasItsRow(t *testing.T) {
	for _, sentinel := range iot.Sentinels {
		t.Run(sentinel.Error(), func(t *testing.T) {
			row := status.Of(fmt.Errorf("while testing: %w", iot.Errorf(sentinel, "text")))
			if row.Err != sentinel {
				t.Fatalf("got the row of %v", row.Err)
			}
			if row.Code == "" || row.Status < 400 || row.HTTP < 400 || row.CoAP < 4<<5 || row.MQTT < 0x80 || row.MQTT311 == 0 || row.AMQP == "" {
				t.Errorf("row has an empty column: %+v", row)
			}
			back, ok := status.FromCode(row.Code)
			if !ok {
				t.Fatalf("code %q leads nowhere", row.Code)
			}
			if want := sentinel; back != want && sentinel != iot.ErrNoCredit {
				t.Errorf("code %q came back as %v, want %v", row.Code, back, want)
			}
			if got := status.FromStatus(row.Status); got != back {
				t.Errorf("status %d came back as %v, want %v", row.Status, got, back)
			}
		})
	}
}

func TestRows(t *testing.T) {
	for _, tt := range []struct {
		name    string
		err     error
		op      status.Op
		status  int
		http    int
		coap    uint8
		mqtt    uint8
		mqtt311 uint8
		amqp    string
		release bool
		retry   bool
	}{
		{"invalid", iot.ErrInvalid, status.Any, 400, 400, 0x80, 0x87, 5, "hono:bad-request", false, false},
		{"unauthenticated", iot.ErrUnauthenticated, status.Any, 401, 401, 0x81, 0x86, 4, "amqp:unauthorized-access", false, false},
		{"forbidden", iot.ErrForbidden, status.Any, 403, 403, 0x83, 0x87, 5, "amqp:unauthorized-access", false, false},
		{"not found", iot.ErrNotFound, status.Any, 404, 404, 0x84, 0x86, 4, "amqp:not-found", false, false},
		{"too large", iot.ErrTooLarge, status.Any, 413, 413, 0x8d, 0x95, 5, "amqp:link:message-size-exceeded", false, false},
		{"quota", iot.ErrQuota, status.Any, 429, 429, 0x9d, 0x97, 5, "amqp:resource-limit-exceeded", false, true},
		{"no credit", iot.ErrNoCredit, status.Upload, 503, 503, 0xa3, 0x88, 3, "amqp:internal-error", true, true},
		{"timeout is 504 between parts, 503 to devices", iot.ErrTimeout, status.Any, 504, 503, 0xa3, 0x88, 3, "amqp:internal-error", true, true},
		{"deadline", context.DeadlineExceeded, status.Any, 504, 503, 0xa3, 0x88, 3, "amqp:internal-error", true, true},
		{"cancelled", context.Canceled, status.Any, 503, 503, 0xa3, 0x88, 3, "amqp:internal-error", true, true},
		{"unknown", errors.New("disk on fire"), status.Any, 500, 500, 0xa0, 0x80, 5, "amqp:internal-error", true, true},
		{"unknown while uploading", errors.New("disk on fire"), status.Upload, 500, 503, 0xa0, 0x80, 5, "amqp:internal-error", true, true},
		{"invalid while uploading", iot.ErrInvalid, status.Upload, 400, 400, 0x80, 0x87, 5, "hono:bad-request", false, false},
		{"unknown type", status.ErrUnknownType, status.Any, 422, 500, 0xa0, 0x80, 5, "amqp:internal-error", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := status.For(tt.op, fmt.Errorf("around: %w", tt.err))
			if r.Status != tt.status || r.HTTP != tt.http || r.CoAP != tt.coap || r.MQTT != tt.mqtt || r.MQTT311 != tt.mqtt311 || r.AMQP != tt.amqp || r.Release != tt.release || r.Retry != tt.retry {
				t.Errorf("got %+v\nwant %+v", r, tt)
			}
		})
	}
}

func TestTextShowsNoInternals(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{iot.Errorf(iot.ErrNotFound, "device is disabled or not registered"), "device is disabled or not registered"},
		{fmt.Errorf("sqlite /var/x: %w", iot.ErrUnavailable), "temporarily unavailable"},
		{errors.New("password hunter2"), "internal error"},
		{&iot.Error{Sentinel: errors.New("not of the table"), Text: "secret"}, "internal error"},
	} {
		if got := status.Text(tt.err); got != tt.want {
			t.Errorf("Text(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestFromStatus(t *testing.T) {
	for _, tt := range []struct {
		status int
		want   error
	}{
		{408, iot.ErrTimeout}, {418, iot.ErrInvalid}, {415, status.ErrNotCloudEvent}, {422, status.ErrUnknownType},
		{500, status.ErrInternal}, {502, iot.ErrUnavailable}, {503, iot.ErrUnavailable}, {504, iot.ErrTimeout},
	} {
		if got := status.FromStatus(tt.status); got != tt.want {
			t.Errorf("FromStatus(%d) = %v, want %v", tt.status, got, tt.want)
		}
	}
	if got, ok := status.FromCode("nonsense"); ok {
		t.Errorf("FromCode(nonsense) = %v", got)
	}
}
