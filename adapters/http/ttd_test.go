package http_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// outcomes are those of commands, in the order in which they ended.
type outcomes struct {
	mu   sync.Mutex
	errs []error
}

func (o *outcomes) done(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.errs = append(o.errs, err)
}

// check compares with sentinels; nil = accepted.
func (o *outcomes) check(t *testing.T, want ...error) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.errs) != len(want) {
		t.Errorf("got outcomes %v, want %v", o.errs, want)
		return
	}
	for i, err := range o.errs {
		if !errors.Is(err, want[i]) || want[i] == nil && err != nil {
			t.Errorf("outcome %d: got %v, want %v", i, err, want[i])
		}
	}
}

func to(device iot.DeviceID) *adapters.Command {
	return &adapters.Command{
		Tenant: adaptertest.Tenant, Device: device, Name: "setBrightness",
		CorrelationID: "req-1", ReplyID: "replies/1", ContentType: "application/json", Payload: []byte(`{"on":true}`),
	}
}

func behind(gateway iot.DeviceID, c *adapters.Command) *adapters.Command {
	c.Gateway = gateway
	return c
}

// atOnce is a world in which applications answer every upload with the commands.
func atOnce(t testing.TB, o *outcomes, commands ...*adapters.Command) world {
	w := newWorld(t, http.Options{}, adapters.Options{})
	w.down.Outcome(func(*iot.Message) error {
		for _, c := range commands {
			w.commands.Command(c, o.done)
		}
		return nil
	})
	return w
}

func TestCommandInResponse(t *testing.T) {
	oneWay := to(adaptertest.Device)
	oneWay.ReplyID, oneWay.CorrelationID = "", ""
	bare := to(adaptertest.Device)
	bare.ContentType, bare.Payload = "", nil
	typeOnly := to(adaptertest.Device)
	typeOnly.Payload = nil
	untyped := to(adaptertest.Device)
	untyped.ContentType = ""
	own := to(adaptertest.Device)
	own.ReplyID = "device-1/4711"
	odd := to(adaptertest.Device)
	odd.CorrelationID = "50% of?"
	post, put := "POST /telemetry?hono-ttd=5", "PUT /telemetry//device:2?hono-ttd=5"
	for _, tt := range []struct {
		name, request string
		as            iot.DeviceID
		header        string
		command       *adapters.Command
		want          string // status and headers
		ttd           int
	}{
		{"by query", post, adaptertest.Device, "", to(adaptertest.Device), "200 setBrightness 005req-1replies/1 - application/json", 5},
		{"by header", "POST /telemetry?hono-ttd=5", adaptertest.Device, "hono-ttd: 7", to(adaptertest.Device), "200 setBrightness 005req-1replies/1 - application/json", 7},
		{"at least once", post, adaptertest.Device, "QoS-Level: 1", to(adaptertest.Device), "200 setBrightness 005req-1replies/1 - application/json", 5},
		{"event", "POST /event?hono-ttd=5", adaptertest.Device, "", to(adaptertest.Device), "200 setBrightness 005req-1replies/1 - application/json", 5},
		{"one-way", post, adaptertest.Device, "", oneWay, "200 setBrightness - - application/json", 5},
		{"no body", post, adaptertest.Device, "", bare, "200 setBrightness 005req-1replies/1 - -", 5},
		{"no body but a type", post, adaptertest.Device, "", typeOnly, "200 setBrightness 005req-1replies/1 - -", 5},
		{"no type", post, adaptertest.Device, "", untyped, "200 setBrightness 005req-1replies/1 - application/octet-stream", 5},
		{"reply id of the device", post, adaptertest.Device, "", own, "200 setBrightness 105req-14711 - application/json", 5},
		{"id that no path can have", post, adaptertest.Device, "", odd, "200 setBrightness 8MDA3NTAlIG9mP3JlcGxpZXMvMQ - application/json", 5},
		{"device puts", "PUT /telemetry/tenant-1/device-1?hono-ttd=5", adaptertest.Device, "", to(adaptertest.Device), "200 setBrightness 005req-1replies/1 - application/json", 5},
		{"gateway", post, adaptertest.Gateway, "", to(adaptertest.Gateway), "200 setBrightness 005req-1replies/1 - application/json", 5},
		{"gateway for any", post, adaptertest.Gateway, "", behind(adaptertest.Gateway, to(adaptertest.Device2)), "200 setBrightness 005req-1replies/1 device:2 application/json", 5},
		{"gateway for one", put, adaptertest.Gateway, "", to(adaptertest.Device2), "200 setBrightness 005req-1replies/1 device:2 application/json", 5},
		{"gateway puts for itself", "PUT /telemetry//gateway-1?hono-ttd=5", adaptertest.Gateway, "", to(adaptertest.Gateway), "200 setBrightness 005req-1replies/1 - application/json", 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var o outcomes
			w := atOnce(t, &o, tt.command)
			method, target, _ := strings.Cut(tt.request, " ")
			rec := w.do(method, target, "x", as(tt.as), text, tt.header, "Origin: http://shop.example")
			h := rec.Header()
			got := fmt.Sprint(rec.Code)
			for _, name := range []string{"hono-command", "hono-cmd-req-id", "hono-cmd-target-device", "Content-Type"} {
				if v := h.Get(name); v != "" {
					got += " " + v
				} else {
					got += " -"
				}
			}
			if got != tt.want || rec.Body.String() != string(tt.command.Payload) || h.Get("Content-Length") != fmt.Sprint(len(tt.command.Payload)) {
				t.Errorf("got %s %q (%s), want %s %q", got, rec.Body, h.Get("Content-Length"), tt.want, tt.command.Payload)
			}
			if got := h.Get("Access-Control-Expose-Headers"); got != "hono-command, hono-cmd-req-id" {
				t.Errorf("got exposed headers %q", got)
			}
			if m := w.down.Sent()[0]; m.TTD == nil || *m.TTD != tt.ttd {
				t.Errorf("got ttd %v, want %d", m.TTD, tt.ttd)
			}
			o.check(t, nil)
			if n := w.commands.Len(); n != 0 {
				t.Errorf("%d subscriptions are left", n)
			}
		})
	}
}

func TestCommandWithoutAuthentication(t *testing.T) {
	var o outcomes
	w := newWorld(t, http.Options{NoAuthentication: true}, adapters.Options{})
	w.down.Outcome(func(*iot.Message) error { w.commands.Command(to(adaptertest.Device), o.done); return nil })
	rec := w.do("PUT", "/telemetry/tenant-1/device-1?hono-ttd=5", "x", text)
	if rec.Code != 200 || rec.Header().Get("hono-cmd-target-device") != "" {
		t.Errorf("got %d %v, want 200", rec.Code, rec.Header())
	}
	o.check(t, nil)
}

// A gateway that sends for one device, or for itself by PUT, takes nothing for others.
func TestCommandsForOthers(t *testing.T) {
	for _, tt := range []struct {
		name, method, target string
		as                   iot.DeviceID
		command              *adapters.Command
	}{
		{"gateway for one device", "PUT", "/telemetry//device:2", adaptertest.Gateway, to(adaptertest.Gateway)},
		{"gateway for itself", "PUT", "/telemetry//gateway-1", adaptertest.Gateway, behind(adaptertest.Gateway, to(adaptertest.Device2))},
		{"gateway's device itself", "POST", "/telemetry", adaptertest.Gateway, to(adaptertest.Device2)},
		{"other tenant", "POST", "/telemetry", adaptertest.Device, func() *adapters.Command {
			c := to(adaptertest.Device)
			c.Tenant = adaptertest.OtherTenant
			return c
		}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o outcomes
				w := atOnce(t, &o, tt.command)
				start := time.Now()
				rec := w.do(tt.method, tt.target, "x", as(tt.as), text, "hono-ttd: 9")
				if got := time.Since(start); rec.Code != 202 || got != 9*time.Second {
					t.Errorf("got %d after %v, want 202 after 9s", rec.Code, got)
				}
				o.check(t, iot.ErrUnavailable)
			})
		})
	}
}

// For how long a request waits: what it says, the tenant and the idle timeout bound it.
func TestEffectiveTTD(t *testing.T) {
	for _, tt := range []struct {
		target, header string
		max            string // of the tenant
		idle           time.Duration
		want           int // seconds; 0 = no ttd
	}{
		{"/telemetry", "", "", 0, 0},
		{"/telemetry?hono-ttd=5", "", "", 0, 5},
		{"/telemetry?hono-ttd=5", "hono-ttd: 8", "", 0, 8},
		{"/telemetry?hono-ttd=5", "hono-ttd: 0", "", 0, 0},
		{"/telemetry?hono-ttd=5", "hono-ttd: soon", "", 0, 0},
		{"/telemetry?hono-ttd=soon", "", "", 0, 0},
		{"/telemetry?hono-ttd=-1", "", "", 0, 0},
		{"/telemetry?hono-ttd=1.5", "", "", 0, 0},
		{"/telemetry?hono-ttd=99999999999999999999", "", "", 0, 0},
		{"/telemetry?hono-ttd=2147483647", "", "", 0, 60},
		{"/telemetry?hono-ttd=2147483648", "", "", 0, 0},
		{"/telemetry?hono-ttd=61", "", "", 0, 60},
		{"/telemetry?hono-ttd=61", "", `{"max-ttd":10}`, 0, 10},
		{"/telemetry?hono-ttd=61", "", `{"max-ttd":0}`, 0, 0},
		{"/telemetry?hono-ttd=61", "", `{"max-ttd":"10"}`, 0, 60},
		{"/telemetry?hono-ttd=61", "", `{"max-ttd":100}`, 0, 60},
		{"/telemetry?hono-ttd=1000", "", `{"max-ttd":100}`, time.Hour, 100},
		{"/telemetry?hono-ttd=10000", "", `{"max-ttd":10000}`, time.Hour, 2880},
		{"/telemetry?hono-ttd=60", "", "", 9 * time.Second, 7},
		{"/telemetry?hono-ttd=60", "", "", time.Second, 0},
		{"/telemetry?hono-ttd=60", "", "", -1, 0},
		{"/event?hono-ttd=3", "", "", 0, 3},
	} {
		t.Run(fmt.Sprint(tt.target, " ", tt.header, " ", tt.max, " ", tt.idle), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ext map[string]any
				w := newWorld(t, http.Options{IdleTimeout: tt.idle}, adapters.Options{})
				if tt.max != "" {
					if err := json.Unmarshal([]byte(tt.max), &ext); err != nil {
						t.Fatal(err)
					}
					w.inv.Adapters(events.TenantAdapter{Type: http.Type, Enabled: true, Ext: ext})
				}
				start := time.Now()
				rec := w.do("POST", tt.target, "x", as(adaptertest.Device), text, tt.header)
				if got := time.Since(start); rec.Code != 202 || got != time.Duration(tt.want)*time.Second || rec.Header().Get("hono-command") != "" {
					t.Errorf("got %d after %v, want 202 after %d s", rec.Code, got, tt.want)
				}
				m := w.down.Sent()[0]
				if (m.TTD != nil) != (tt.want > 0) || m.TTD != nil && *m.TTD != tt.want {
					t.Errorf("got ttd %v, want %d", m.TTD, tt.want)
				}
			})
		})
	}
}

func TestOneCommandPerRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o outcomes
		name, kind := to(adaptertest.Device), to(adaptertest.Device)
		name.Name, kind.ContentType = "a\r\nb", "a\x00"
		long := to(adaptertest.Device)
		long.CorrelationID = strings.Repeat("x", 256)
		w := atOnce(t, &o, name, kind, long, to(adaptertest.Device), to(adaptertest.Device))
		rec := w.do("POST", "/telemetry", "x", as(adaptertest.Device), text, "hono-ttd: 9")
		if rec.Code != 200 || rec.Header().Get("hono-command") != "setBrightness" {
			t.Errorf("got %d %v", rec.Code, rec.Header())
		}
		w.commands.Command(to(adaptertest.Device), o.done)
		o.check(t, iot.ErrInvalid, iot.ErrInvalid, iot.ErrInvalid, iot.ErrUnavailable, nil, iot.ErrUnavailable)
	})
}

func TestCommandWhileWaiting(t *testing.T) {
	for _, tt := range []struct {
		at   time.Duration
		want int
	}{{0, 200}, {8 * time.Second, 200}, {9*time.Second + 1, 202}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, http.Options{}, adapters.Options{})
			answer := make(chan *httptest.ResponseRecorder, 1)
			go func() {
				answer <- w.do("POST", "/telemetry", "x", as(adaptertest.Device), text, "hono-ttd: 9")
			}()
			synctest.Wait()
			time.Sleep(tt.at)
			var o outcomes
			w.commands.Command(to(adaptertest.Device), o.done)
			if rec := <-answer; rec.Code != tt.want {
				t.Errorf("after %v: got %d, want %d", tt.at, rec.Code, tt.want)
			}
			synctest.Wait()
			if tt.want == 200 {
				o.check(t, nil)
			} else {
				o.check(t, iot.ErrUnavailable)
			}
		})
	}
}

// What cannot be sent waits for nothing, and releases what came.
func TestFailedUploadWithTTD(t *testing.T) {
	var o outcomes
	w := newWorld(t, http.Options{}, adapters.Options{})
	w.down.Outcome(func(*iot.Message) error {
		w.commands.Command(to(adaptertest.Device), o.done)
		return iot.ErrNoCredit
	})
	rec := w.do("POST", "/telemetry", "x", as(adaptertest.Device), text, "hono-ttd: 9")
	if rec.Code != 503 || rec.Header().Get("hono-command") != "" || rec.Header().Get("Retry-After") != "2" {
		t.Errorf("got %d %v, want 503", rec.Code, rec.Header())
	}
	if rec := w.do("POST", "/telemetry", "", as(adaptertest.Device), "hono-ttd: 9"); rec.Code != 400 {
		t.Errorf("got %d, want 400", rec.Code)
	}
	if n := w.commands.Len(); n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
	o.check(t, iot.ErrUnavailable)
}

// The later of two requests gets the command, and once it has ended the earlier one
// gets the next.
func TestConcurrentTTD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, http.Options{}, adapters.Options{})
		ask := func() <-chan *httptest.ResponseRecorder {
			answer := make(chan *httptest.ResponseRecorder, 1)
			go func() {
				answer <- w.do("POST", "/telemetry", "x", as(adaptertest.Device), text, "hono-ttd: 9")
			}()
			synctest.Wait()
			time.Sleep(time.Millisecond)
			return answer
		}
		first, second := ask(), ask()
		var o outcomes
		w.commands.Command(to(adaptertest.Device), o.done)
		if rec := <-second; rec.Code != 200 {
			t.Errorf("the later one: got %d, want 200", rec.Code)
		}
		select {
		case rec := <-first:
			t.Errorf("the earlier one: got %d at once", rec.Code)
		default:
		}
		third := ask()
		if rec := <-first; rec.Code != 202 {
			t.Errorf("the earlier one: got %d, want 202", rec.Code)
		}
		w.commands.Command(to(adaptertest.Device), o.done)
		if rec := <-third; rec.Code != 200 {
			t.Errorf("the third: got %d, want 200", rec.Code)
		}
		synctest.Wait()
		o.check(t, nil, nil)
	})
}

// writer is a client's side of an answer, of the test's making.
type writer struct {
	header  nethttp.Header
	written func()
	err     error
	gate    chan struct{}
	flushed bool
	code    int
}

func (w *writer) Header() nethttp.Header { return w.header }
func (w *writer) WriteHeader(code int)   { w.code = code; w.written() }
func (w *writer) Write(b []byte) (int, error) {
	if w.gate != nil {
		<-w.gate
	}
	return len(b), w.err
}
func (w *writer) FlushError() error { w.flushed = true; return nil }

// A command is accepted once the whole answer is written, which happens when the next
// request may come already.
func TestCommandIsAcceptedWhenWritten(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, fail := range []error{nil, broken} {
		synctest.Test(t, func(t *testing.T) {
			var o outcomes
			w := atOnce(t, &o, to(adaptertest.Device))
			out := &writer{header: nethttp.Header{}, err: fail, gate: make(chan struct{})}
			out.written = func() {
				if n := w.commands.Len(); n != 0 {
					t.Errorf("the answer is written while %d subscriptions are open", n)
				}
			}
			r := httptest.NewRequest("POST", "/telemetry?hono-ttd=9", strings.NewReader("x"))
			r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
			done := make(chan struct{})
			go func() { defer close(done); w.ServeHTTP(out, r) }()
			synctest.Wait()
			o.check(t)
			close(out.gate)
			<-done
			if fail != nil {
				o.check(t, iot.ErrUnavailable)
			} else if o.check(t, nil); !out.flushed {
				t.Error("the answer was not flushed")
			}
		})
	}
}

// Who has gone gets no command.
func TestClientGoneWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, http.Options{}, adapters.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		r := httptest.NewRequestWithContext(ctx, "POST", "/telemetry?hono-ttd=9", strings.NewReader("x"))
		r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
		done := make(chan struct{})
		go func() { defer close(done); w.ServeHTTP(httptest.NewRecorder(), r) }()
		synctest.Wait()
		start := time.Now()
		cancel()
		<-done
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v", d)
		}
		var o outcomes
		w.commands.Command(to(adaptertest.Device), o.done)
		o.check(t, iot.ErrUnavailable)
	})
	synctest.Test(t, func(t *testing.T) { // while the command is there already
		var o outcomes
		ctx, cancel := context.WithCancel(t.Context())
		w := newWorld(t, http.Options{}, adapters.Options{})
		w.down.Outcome(func(*iot.Message) error {
			w.commands.Command(to(adaptertest.Device), o.done)
			cancel()
			return nil
		})
		r := httptest.NewRequestWithContext(ctx, "POST", "/telemetry?hono-ttd=9", strings.NewReader("x"))
		r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
		w.ServeHTTP(httptest.NewRecorder(), r)
		o.check(t, iot.ErrUnavailable)
	})
	synctest.Test(t, func(t *testing.T) { // while routers are being told of it, of whom one has sent a command
		var o outcomes
		ctx, cancel := context.WithCancel(t.Context())
		w := newWorld(t, http.Options{}, adapters.Options{})
		var routers adaptertest.Announcer
		defer routers.Hold()()
		w.commands.AnnounceTo(&routers)
		r := httptest.NewRequestWithContext(ctx, "POST", "/telemetry?hono-ttd=9", strings.NewReader("x"))
		r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
		done := make(chan struct{})
		go func() { defer close(done); w.ServeHTTP(httptest.NewRecorder(), r) }()
		synctest.Wait()
		w.commands.Command(to(adaptertest.Device), o.done)
		cancel()
		<-done
		o.check(t, iot.ErrUnavailable)
		if n := w.commands.InFlight(); n != 0 {
			t.Errorf("%d commands are left", n)
		}
	})
}

// What became of the wait is told with the figures of the upload.
func TestTTDFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := adapters.NewMeter(http.Type)
		w := newWorld(t, http.Options{}, adapters.Options{Meter: m})
		var o outcomes
		w.do("POST", "/telemetry", "x", as(adaptertest.Device), text)
		w.do("POST", "/telemetry?hono-ttd=1", "x", as(adaptertest.Device), text)
		w.down.Outcome(func(*iot.Message) error {
			w.commands.Command(to(adaptertest.Device), o.done)
			return nil
		})
		w.do("POST", "/telemetry?hono-ttd=1", "x", as(adaptertest.Device), text)
		w.do("POST", "/telemetry?hono-ttd=1", "x", as(adaptertest.Device), text)
		got := counted(t, m, "hono_telemetry_payload_bytes")
		for outcome, want := range map[string]uint64{"none": 1, "expired": 1, "command": 2} {
			if got[outcome] != want {
				t.Errorf("ttd %s: got %d, want %d (all: %v)", outcome, got[outcome], want, got)
			}
		}
	})
}

// counted is how often each value of the label ttd was counted in a summary.
func counted(t *testing.T, c prometheus.Collector, name string) map[string]uint64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if f.GetName() == name && l.GetName() == "ttd" {
					got[l.GetValue()] += m.GetSummary().GetSampleCount()
				}
			}
		}
	}
	return got
}
