package adapters_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestMeterCommands: what a device got counts, with who is at fault where it failed; what
// reached no device does not.
func TestMeterCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCommandWorld(t, adapters.CommandsOptions{PerSubscription: 1})
		w.released(command(adaptertest.Device, ""))
		d := w.subscribe(t, adaptertest.Device, nil)
		hand := func(c *adapters.Command, took time.Duration, err error) {
			w.commands.Command(c, func(error) {})
			w.released(c)
			time.Sleep(took)
			d.got[len(d.got)-1].done(err)
		}
		oneWay := command(adaptertest.Device, "")
		oneWay.ReplyID, oneWay.Payload = "", nil
		hand(command(adaptertest.Device, ""), 250*time.Millisecond, nil)
		hand(command(adaptertest.Device, ""), 750*time.Millisecond, nil)
		hand(command(adaptertest.Device, ""), 0, iot.Errorf(iot.ErrInvalid, "the device does not want it"))
		hand(command(adaptertest.Device, ""), time.Second, iot.ErrTimeout)
		hand(oneWay, 0, &adapters.ModifiedError{})
		hand(oneWay, 0, nil)

		const took, bytes = "hono_command_processing_duration_seconds", "hono_command_payload_bytes"
		want := map[string]float64{}
		for _, row := range []struct {
			tags                             string
			count, sum, longest, size, large float64
		}{
			{"{direction=request,status=forwarded,tenant=tenant-1}", 2, 1, 0.75, 10, 5},
			{"{direction=request,status=unprocessable,tenant=tenant-1}", 1, 0, 0, 5, 5},
			{"{direction=request,status=undeliverable,tenant=tenant-1}", 1, 1, 1, 5, 5},
			{"{direction=one-way,status=undeliverable,tenant=tenant-1}", 1, 0, 0, 0, 0},
			{"{direction=one-way,status=forwarded,tenant=tenant-1}", 1, 0, 0, 0, 0},
		} {
			want[took+"_count"+row.tags], want[took+"_sum"+row.tags], want[took+"_max"+row.tags] = row.count, row.sum, row.longest
			want[bytes+"_count"+row.tags], want[bytes+"_sum"+row.tags], want[bytes+"_max"+row.tags] = row.count, row.size, row.large
		}
		exactly(t, figures(t, w.meter), want)
	})
}

// TestMeterTTD: an upload whose device waits for a command counts once it is known whether
// one came; one that failed counts at once.
func TestMeterTTD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCommandWorld(t, adapters.CommandsOptions{})
		who := w.admit(t, adaptertest.Device)
		const count = "hono_telemetry_processing_duration_seconds_count"
		const sum = "hono_telemetry_processing_duration_seconds_sum"
		upload := func() (*adapters.Upload, time.Time) {
			up, ttd := telemetry("x"), 60
			up.TTD, up.TTDOutcome = &ttd, adapters.TTDPending
			start := time.Now()
			w.p.Publish(t.Context(), who, &up)
			return &up, start
		}
		tags := func(status, ttd string) string {
			return "{qos=0,status=" + status + ",tenant=tenant-1,ttd=" + ttd + ",type=telemetry}"
		}
		for _, outcome := range []string{adapters.TTDCommand, adapters.TTDExpired} {
			up, start := upload()
			if _, ok := figures(t, w.meter)[count+tags("forwarded", outcome)]; ok {
				t.Error("counted before it is known whether a command comes")
			}
			time.Sleep(2 * time.Second)
			up.TTDOutcome = outcome
			w.p.Answered(who, up, start, nil)
		}
		w.down.Outcome(func(*iot.Message) error { return iot.ErrNoCredit })
		upload()
		holds(t, figures(t, w.meter), map[string]float64{
			count + tags("forwarded", "command"): 1, sum + tags("forwarded", "command"): 2,
			count + tags("forwarded", "expired"): 1, sum + tags("forwarded", "expired"): 2,
			count + tags("undeliverable", "none"): 1,
		})
		if _, ok := figures(t, w.meter)[count+tags("forwarded", "none")]; ok {
			t.Error("counted twice")
		}
	})
}

// TestCommandResponse: what applications get to see of a response, and how it counts.
func TestCommandResponse(t *testing.T) {
	w := newCommandWorld(t, adapters.CommandsOptions{})
	w.inv.Defaults(map[string]any{"content-type": "text/tenant", "ttl-command-response": 9.0, "site": "B"}, map[string]any{"site": "A"}, `{"max-ttl-command-response":6}`)
	up := adapters.Upload{
		Endpoint: iot.CommandResponse, QoS: iot.AtLeastOnce, Status: 404, Payload: []byte("12345"),
		To: adapters.ResponseTo{CorrelationID: "correlation", ReplyID: "reply/1"},
	}
	m, err := w.publish(t, up)
	if err != nil {
		t.Fatal(err)
	}
	got := []any{m.Endpoint, m.Tenant, m.Device, m.ReplyID, m.CorrelationID, m.Status, m.ContentType, m.TTL, m.Properties["site"], string(m.Payload)}
	want := []any{iot.CommandResponse, adaptertest.Tenant, adaptertest.Device, "reply/1", "correlation", 404, "text/tenant", 6 * time.Second, any("A"), "12345"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("response (-want +got):\n%s", diff)
	}
	w.down.Outcome(func(*iot.Message) error { return iot.ErrNoCredit })
	if _, err := w.publish(t, up); err == nil {
		t.Error("no error where nobody takes responses")
	}
	holds(t, figures(t, w.meter), map[string]float64{
		"hono_command_payload_bytes_sum{direction=response,status=forwarded,tenant=tenant-1}":       5,
		"hono_command_payload_bytes_count{direction=response,status=undeliverable,tenant=tenant-1}": 1,
	})
}

func TestCommandResponseChecks(t *testing.T) {
	to := adapters.ResponseTo{CorrelationID: "c", ReplyID: "r"}
	for name, tt := range map[string]struct {
		status int
		to     adapters.ResponseTo
		ok     bool
	}{
		"200":               {200, to, true},
		"299":               {299, to, true},
		"400":               {400, to, true},
		"599":               {599, to, true},
		"missing status":    {0, to, false},
		"199":               {199, to, false},
		"300":               {300, to, false},
		"399":               {399, to, false},
		"600":               {600, to, false},
		"negative":          {-200, to, false},
		"no correlation id": {200, adapters.ResponseTo{ReplyID: "r"}, false},
		"no reply id":       {200, adapters.ResponseTo{CorrelationID: "c"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, adapters.Options{})
			m, err := w.publish(t, adapters.Upload{Endpoint: iot.CommandResponse, Status: tt.status, To: tt.to})
			if (err == nil) != tt.ok || (m != nil) != tt.ok {
				t.Errorf("got error %v, message left: %v; want it to leave: %v", err, m != nil, tt.ok)
			}
		})
	}
}
