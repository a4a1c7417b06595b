package router_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestCommandOutcomes shows that the application hears the adapter's outcome, unchanged.
func TestCommandOutcomes(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/0123456789ab", 10)
		a.has(1, "d")
		app := r.sender("app", "command/T")
		for _, tt := range []struct {
			want   string
			settle func(m *goamqp.Message) error
		}{
			{"accepted", func(m *goamqp.Message) error { return a.commands.AcceptMessage(t.Context(), m) }},
			{"released", func(m *goamqp.Message) error { return a.commands.ReleaseMessage(t.Context(), m) }},
			{"rejected hono:bad-request: the device says no", func(m *goamqp.Message) error {
				return a.commands.RejectMessage(t.Context(), m, &goamqp.Error{Condition: "hono:bad-request", Description: "the device says no"})
			}},
			{"rejected", func(m *goamqp.Message) error { return a.commands.RejectMessage(t.Context(), m, nil) }},
			{"modified true true", func(m *goamqp.Message) error {
				return a.commands.ModifyMessage(t.Context(), m, &goamqp.ModifyMessageOptions{DeliveryFailed: true, UndeliverableHere: true})
			}},
			{"modified false true", func(m *goamqp.Message) error {
				return a.commands.ModifyMessage(t.Context(), m, &goamqp.ModifyMessageOptions{UndeliverableHere: true})
			}},
			{"modified true false", func(m *goamqp.Message) error {
				return a.commands.ModifyMessage(t.Context(), m, &goamqp.ModifyMessageOptions{DeliveryFailed: true})
			}},
			{"modified false false", func(m *goamqp.Message) error { return a.commands.ModifyMessage(t.Context(), m, nil) }},
		} {
			receipt := sending(t, app, commandTo("command/T/d"))
			if err := tt.settle(a.next()); err != nil {
				t.Fatal(err)
			}
			if got := settled(t, receipt); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		}
		metrics := gather(t, r.Router)
		for series, want := range map[string]float64{"sluice_router_commands_total{accepted}": 1, "sluice_router_commands_total{modified}": 4,
			"sluice_router_commands_total{rejected}": 2, "sluice_router_commands_total{released}": 1, "sluice_router_device_directory_entries{}": 1} {
			if metrics[series] != want {
				t.Errorf("%s is %v, want %v", series, metrics[series], want)
			}
		}
	})
}

// TestCommandsThatNobodyGets shows the rows of messaging 9.3 that the router decides.
func TestCommandsThatNobodyGets(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		full := r.adapter("ad", "ad/full", -1) // gives no credit
		full.has(1, "busy")
		gone := r.adapter("ad", "ad/gone", 1)
		gone.has(1, "left")
		if err := gone.commands.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		a := r.adapter("ad", "ad/1", 10)
		a.says(map[string]any{"set": [][]any{{"T", "brief", 1, time.Now().Add(time.Second).UnixMilli(), "hono-http", 0}, {"T", "g1", 1, 0, "hono-mqtt", 0}}})
		time.Sleep(time.Second)
		app, own := r.sender("app", "command/T"), r.sender("appT", "command/T")
		for _, tt := range []struct{ name, to, want string }{
			{"device unknown or disabled", "command/T/unknown", "rejected hono:bad-request: the device or its tenant does not exist or is disabled"},
			{"no device can have the id", "command/T/bad", "rejected hono:bad-request: the device or its tenant does not exist or is disabled"},
			{"tenant disabled", "command/T/forbidden", "rejected hono:bad-request: the device or its tenant does not exist or is disabled"},
			{"registry is not there", "command/T/broken", "released"},
			{"device not connected, gateway for itself only", "command/T/nobody", "released"},
			{"mapping expired", "command/T/brief", "released"},
			{"adapter gives no credit", "command/T/busy", "released"},
			{"adapter does not receive", "command/T/left", "released"},
			{"another tenant", "command/U/d", "rejected amqp:unauthorized-access: command target address is of another tenant or device than the link"},
			{"no target", "", "rejected hono:bad-request: missing or invalid command target address"},
			{"no device", "command/T", "rejected hono:bad-request: command target address names no device: expected command/TENANT/DEVICE"},
		} {
			for _, s := range []*goamqp.Sender{app, own} {
				if got := outcome(t, s, commandTo(tt.to)); got != tt.want {
					t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
				}
			}
		}
		if got := outcome(t, r.sender("app", "command/U"), commandTo("command/U/d")); !strings.HasPrefix(got, "rejected hono:bad-request: the device or its tenant") {
			t.Errorf("tenant unknown: %s", got)
		}
		m := commandTo("command/T/d")
		to := "reply/to/address"
		m.Properties.ReplyTo = &to
		if got := outcome(t, app, m); !strings.HasPrefix(got, "rejected hono:bad-request: malformed command message") {
			t.Errorf("reply-to: %s", got)
		}
	})
}

// TestWhatAdaptersGet shows a command with its gateway, and by every kind of link.
func TestWhatAdaptersGet(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/1", 10)
		a.says(map[string]any{"set": [][]any{{"T", "g2", 1, 0, "hono-amqp", 1}, {"T", "d", 1, 0, "hono-mqtt", 0}}})
		replyTo, text := "command_response/T/R/1", "text/plain"
		for _, tt := range []struct{ name, user, link, to, via string }{
			{"device", "app", "command/T", "command/T/d", ""},
			{"gateway", "app", "command/T", "command/T/e", "g2"},
			{"link without address", "app", "", "command/T/e", "g2"},
			{"link of the device's own", "app", "command/T/d", "command/T/d", ""},
			{"link without address, one tenant", "appT", "", "command/T/d", ""},
		} {
			s := r.sender(tt.user, tt.link)
			m := commandTo(tt.to)
			m.Header = &goamqp.MessageHeader{Durable: true}
			m.Properties.ReplyTo, m.Properties.ContentType, m.Properties.CorrelationID = &replyTo, &text, "c"
			m.ApplicationProperties = map[string]any{"x": int32(5), "via": "forged"}
			m.Data = [][]byte{[]byte("body")}
			receipt := sending(t, s, m)
			got := a.next()
			if err := a.commands.AcceptMessage(t.Context(), got); err != nil {
				t.Fatal(err)
			}
			if now := settled(t, receipt); now != "accepted" {
				t.Errorf("%s: %s", tt.name, now)
			}
			want := map[string]any{"x": int32(5)}
			if tt.via != "" {
				want["via"] = tt.via
			}
			p := got.Properties
			if diff := cmp.Diff(want, got.ApplicationProperties); diff != "" || *p.To != tt.to || *p.Subject != "on" || *p.ReplyTo != replyTo || *p.ContentType != text ||
				p.CorrelationID != "c" || p.MessageID == "m" || p.MessageID == nil || string(got.GetData()) != "body" || got.Header != nil && got.Header.Durable {
				t.Errorf("%s: got %+v, header %+v, application properties %s", tt.name, p, got.Header, diff)
			}
		}
	})
}

// TestCommandLinks shows which links are refused.
func TestCommandLinks(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		pre, mixed := goamqp.SenderSettleModeSettled, goamqp.SenderSettleModeMixed
		for _, tt := range []struct {
			user, address string
			o             *goamqp.SenderOptions
			want          string
		}{
			{"app", "command/T", nil, ""},
			{"app", "command/T", &goamqp.SenderOptions{SettlementMode: &mixed}, ""},
			{"app", "command/T", &goamqp.SenderOptions{SettlementMode: &pre}, "amqp:precondition-failed"},
			{"app", "command", nil, "amqp:unauthorized-access"},
			{"appT", "command/U", nil, "amqp:unauthorized-access"},
			{"ad", "command/T", nil, "amqp:unauthorized-access"},
			{"app", "device_directory", nil, "amqp:unauthorized-access"},
			{"ad", "device_directory", nil, ""},
			{"ad", "device_directory", &goamqp.SenderOptions{SettlementMode: &pre}, "amqp:precondition-failed"},
		} {
			if _, err := r.session(tt.user).NewSender(t.Context(), tt.address, tt.o); condition(err) != tt.want || (err != nil) != (tt.want != "") {
				t.Errorf("%s to %s: %v, want %q", tt.user, tt.address, err, tt.want)
			}
		}
		if _, err := r.session("app").NewReceiver(t.Context(), "command/T", nil); condition(err) != "amqp:not-allowed" {
			t.Errorf("receiver of commands: %v", err)
		}
		if _, err := r.session("appT").NewReceiver(t.Context(), "command_response/T/R", nil); err != nil {
			t.Errorf("receiver of responses: %v", err)
		}
		if _, err := r.session("appT").NewReceiver(t.Context(), "command_response/U/R", nil); condition(err) != "amqp:unauthorized-access" {
			t.Errorf("receiver of another's responses: %v", err)
		}
	})
}

// TestAnnouncementsAreRefused shows who is not believed.
func TestAnnouncementsAreRefused(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/1", 10)
		a.has(1, "d")
		taken := a.accept()
		evil := r.adapter("ae", "ae/1", 10)
		set := [][]any{{"T", "d", 100, 0, "x", 1}}
		for _, name := range []string{"ad/1", "ad", "aeb", "app"} {
			if got := evil.says(map[string]any{"adapter": name, "reset": true, "set": set}); !strings.HasPrefix(got, "rejected hono:bad-request: adapter") {
				t.Errorf("announced for %s: %s", name, got)
			}
		}
		if got := evil.says(map[string]any{"set": [][]any{{"T", "d", 100}}}); !strings.HasPrefix(got, "rejected hono:bad-request: set[0]") {
			t.Errorf("a row that is none: %s", got)
		}
		anonymous, err := r.session("ae").NewSender(t.Context(), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		to := "device_directory"
		m := goamqp.NewMessage([]byte(`{"adapter":"ae/1","set":[["T","d",100,0,"x",1]]}`))
		m.Properties = &goamqp.MessageProperties{To: &to}
		if got := outcome(t, anonymous, m); !strings.HasPrefix(got, "rejected hono:bad-request: announcements need a link") {
			t.Errorf("without a link of its own: %s", got)
		}
		evil.says(map[string]any{"set": [][]any{{"T", "e", 1, 0, "x", 0}}})
		if got := evil.says(map[string]any{"adapter": "ae/2", "set": set}); !strings.HasPrefix(got, "rejected hono:bad-request: adapter") {
			t.Errorf("two names on a link: %s", got)
		}
		if got := outcome(t, r.sender("app", "command/T"), commandTo("command/T/d")); got != "accepted" || len(taken()) != 1 {
			t.Errorf("the command went elsewhere: %s", got)
		}
	})
}

// TestSeveralAdapters shows that the later announcement counts, that the process it came
// before is told, and what follows when a connection or its link is gone.
func TestSeveralAdapters(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		app := r.sender("app", "command/T")
		where := func(want *adapter) {
			t.Helper()
			receipt := sending(t, app, commandTo("command/T/d"))
			if want != nil {
				if err := want.commands.AcceptMessage(t.Context(), want.next()); err != nil {
					t.Fatal(err)
				}
			}
			if got := settled(t, receipt); got == "accepted" != (want != nil) {
				t.Errorf("the command was %s", got)
			}
		}
		told := func(a *adapter, want string) {
			t.Helper()
			m := a.next()
			if *m.Properties.Subject != "superseded" || *m.Properties.To != "device_directory" || string(m.GetData()) != want {
				t.Errorf("%s is told %+v, %s, want %s", a.name, m.Properties, m.GetData(), want)
			}
			if err := a.commands.AcceptMessage(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		where(nil)
		a, b := r.adapter("ad", "ad/1", 10), r.adapter("ae", "ae/1", 10)
		a.has(10, "d")
		where(a)
		b.has(20, "d")
		told(a, `{"superseded":[["T","d",10]]}`)
		where(b)
		b.conn.Close()
		told(a, `{"restored":[["T","d",10]]}`)
		where(a)

		b = r.adapter("ae", "ae/1", 10)
		b.has(30, "d")
		told(a, `{"superseded":[["T","d",10]]}`)
		if err := b.announce.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		told(a, `{"restored":[["T","d",10]]}`)
		where(a)

		a.says(map[string]any{"reset": true, "set": [][]any{{"T", "e", 1, 0, "", 0}}})
		where(nil)
		a.has(1, "d")
		where(a)
		a.says(map[string]any{"drop": [][]any{{"T", "d"}}})
		where(nil)
		a.says(map[string]any{"set": [][]any{{"T", "g1", 1, 0, "", 1}, {"T", "g2", 1, time.Now().Add(time.Minute).UnixMilli(), "", 1}}, "via": [][]any{{"T", "d", "g2"}}})
		receipt := sending(t, app, commandTo("command/T/d"))
		if m := a.next(); m.ApplicationProperties["via"] != "g2" || a.commands.ReleaseMessage(t.Context(), m) != nil {
			t.Errorf("by %v, want the last known gateway", m.ApplicationProperties)
		}
		settled(t, receipt)
		time.Sleep(time.Minute)
		receipt = sending(t, app, commandTo("command/T/d"))
		if m := a.next(); m.ApplicationProperties["via"] != "g1" || a.commands.ReleaseMessage(t.Context(), m) != nil {
			t.Errorf("by %v, want the other gateway", m.ApplicationProperties)
		}
		settled(t, receipt)
	})
}

// TestLostAdapter shows that commands which an adapter had when it went have an outcome.
func TestLostAdapter(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/1", 10)
		a.has(1, "d")
		app := r.sender("app", "command/T")
		var receipts []goamqp.SendReceipt
		for range 15 {
			receipts = append(receipts, sending(t, app, commandTo("command/T/d")))
		}
		a.next()
		synctest.Wait()
		a.conn.Close()
		for i, receipt := range receipts {
			want := "modified true false" // it went out
			if i >= 10 {
				want = "released" // there was no credit
			}
			if got := settled(t, receipt); got != want {
				t.Errorf("command %d: got %s, want %s", i, got, want)
			}
		}
		if got := outcome(t, app, commandTo("command/T/d")); got != "released" {
			t.Errorf("afterwards: %s", got)
		}
	})
}

// TestLostApplication shows that the outcome for an application that is gone hurts nobody.
func TestLostApplication(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/1", 100)
		a.has(1, "d")
		connection := r.dial("app")
		x, err := connection.NewSession(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		link, err := x.NewSender(t.Context(), "command/T", nil)
		if err != nil {
			t.Fatal(err)
		}
		other, err := x.NewSender(t.Context(), "command/T", nil)
		if err != nil {
			t.Fatal(err)
		}
		sending(t, link, commandTo("command/T/d"))
		ofLink := a.next()
		if err := link.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := a.commands.AcceptMessage(t.Context(), ofLink); err != nil {
			t.Fatal(err)
		}
		receipt := sending(t, other, commandTo("command/T/d"))
		if err := a.commands.AcceptMessage(t.Context(), a.next()); err != nil {
			t.Fatal(err)
		}
		if got := settled(t, receipt); got != "accepted" {
			t.Errorf("the connection's other link: %s", got)
		}
		sending(t, other, commandTo("command/T/d"))
		ofConnection := a.next()
		connection.Close()
		synctest.Wait()
		if err := a.commands.AcceptMessage(t.Context(), ofConnection); err != nil {
			t.Fatal(err)
		}
		go func() {
			if m, err := a.commands.Receive(t.Context(), nil); err == nil {
				a.commands.AcceptMessage(t.Context(), m)
			}
		}()
		if got := outcome(t, r.sender("app", "command/T"), commandTo("command/T/d")); got != "accepted" {
			t.Errorf("another application: %s", got)
		}
	})
}

// TestCommandsTakeEightSeconds shows when a command ends that nobody settles, and that
// a later word on it does no harm.
func TestCommandsTakeEightSeconds(t *testing.T) {
	withRouting(t, functions(func(ctx context.Context, req events.Request) (events.Reply, error) {
		r, ok := req.(events.RegistrationAssert)
		if ok && r.DeviceID == "slow" {
			time.Sleep(4 * time.Second)
		}
		if ok && r.DeviceID == "unread" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return registered(ctx, req)
	}), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/1", 10)
		a.has(1, "d", "slow", "unread")
		app := r.sender("app", "command/T")
		if got := outcome(t, app, commandTo("command/T/unread")); got != "released" {
			t.Errorf("a command that no adapter has: %s", got)
		}
		for _, device := range []string{"d", "slow"} {
			began := time.Now()
			receipt := sending(t, app, commandTo("command/T/"+device))
			m := a.next()
			time.Sleep(time.Second)
			second := sending(t, app, commandTo("command/T/"+device))
			late := a.next()
			if got, took := settled(t, receipt), time.Since(began); got != "modified true false" || took != 8*time.Second {
				t.Errorf("%s: %s after %v, want modified after 8 s: the adapter has it", device, got, took)
			}
			if err := a.commands.AcceptMessage(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if err := a.commands.AcceptMessage(t.Context(), late); err != nil {
				t.Fatal(err)
			}
			if got := settled(t, second); got != "accepted" {
				t.Errorf("%s: the next: %s", device, got)
			}
		}
	})
}

// TestOrderOfCommands shows that a device's commands stay in order while their
// registrations are read at different speeds.
func TestOrderOfCommands(t *testing.T) {
	withRouting(t, functions(func(ctx context.Context, req events.Request) (events.Reply, error) {
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		reply, err := registered(ctx, req)
		if r, ok := reply.(*events.RegistrationAsserted); ok && rand.IntN(3) > 0 {
			r.CacheFor = 0 // now and then it is kept
		} else if ok {
			r.CacheFor = 5 * time.Millisecond
		}
		return reply, err
	}), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/1", 1000)
		a.has(1, "d0", "d1", "d2", "d3")
		taken := a.accept()
		app := r.sender("app", "command/T")
		var receipts []goamqp.SendReceipt
		for i := range 800 {
			m := commandTo(fmt.Sprint("command/T/d", i%4))
			subject := fmt.Sprintf("d%d %03d", i%4, i)
			m.Properties.Subject = &subject
			receipts = append(receipts, sending(t, app, m))
			if i%40 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		for _, receipt := range receipts {
			if got := settled(t, receipt); got != "accepted" {
				t.Fatal(got)
			}
		}
		last := map[string]string{}
		for _, s := range taken() {
			if s <= last[s[:2]] {
				t.Fatalf("%s after %s", s, last[s[:2]])
			}
			last[s[:2]] = s
		}
		if len(taken()) != 800 {
			t.Errorf("%d commands, want 800", len(taken()))
		}
	})
}

// TestCommandCredit shows how many commands of a link may be under way.
func TestCommandCredit(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/1", 2000)
		a.has(1, "d")
		app := r.sender("app", "command/T")
		for range 1000 {
			sending(t, app, commandTo("command/T/d"))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := app.SendWithReceipt(ctx, commandTo("command/T/d"), nil); err == nil {
			t.Fatal("one more was taken")
		}
		if err := a.commands.AcceptMessage(t.Context(), a.next()); err != nil {
			t.Fatal(err)
		}
		sending(t, app, commandTo("command/T/d"))
	})
}

// TestRegistryChangesReachCommands shows that what the registry says is known until it changes.
func TestRegistryChangesReachCommands(t *testing.T) {
	var calls atomic.Int32
	var disabled atomic.Bool
	withRouting(t, functions(func(ctx context.Context, req events.Request) (events.Reply, error) {
		calls.Add(1)
		if disabled.Load() {
			return nil, iot.Errorf(iot.ErrNotFound, "disabled")
		}
		return registered(ctx, req)
	}), func(t *testing.T, r *routing) {
		app := r.sender("app", "command/T")
		expect := func(want string, n int32) {
			t.Helper()
			if got := outcome(t, app, commandTo("command/T/d")); !strings.HasPrefix(got, want) || calls.Load() != n {
				t.Errorf("%s after %d calls, want %s after %d", got, calls.Load(), want, n)
			}
		}
		expect("released", 1)
		disabled.Store(true)
		expect("released", 1)
		r.RegistryChanged(&events.RegistryChanged{Type: events.TypeCredentialsChanged, TenantID: "T", DeviceID: "d"})
		r.RegistryChanged(&events.RegistryChanged{Type: events.TypeDeviceChanged, TenantID: "T", DeviceID: "e"})
		expect("released", 1)
		r.RegistryChanged(&events.RegistryChanged{Type: events.TypeDeviceChanged, TenantID: "T", DeviceID: "d"})
		expect("rejected", 2)
		disabled.Store(false)
		expect("released", 3)
		r.RegistryChanged(&events.RegistryChanged{Type: events.TypeTenantChanged, TenantID: "T"})
		expect("released", 4)
		r.RegistryChanged(&events.RegistryChanged{Type: events.TypeDevicesDeleted, TenantID: "T"})
		expect("released", 5)
		expect("released", 5)
	})
}

// TestShutdownWithCommands shows that commands have an outcome when the router stops.
func TestShutdownWithCommands(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/1", 10)
		a.has(1, "d")
		app := r.sender("app", "command/T")
		first, second := sending(t, app, commandTo("command/T/d")), sending(t, app, commandTo("command/T/d"))
		m, _ := a.next(), a.next()
		done := make(chan struct{})
		go func() {
			defer close(done)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			r.Shutdown(ctx)
		}()
		time.Sleep(100 * time.Millisecond)
		if err := a.commands.AcceptMessage(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if got := settled(t, first); got != "accepted" {
			t.Errorf("settled in time: %s", got)
		}
		<-done
		if state, err := second.Wait(t.Context()); err == nil {
			t.Errorf("what the adapter never settled has an outcome: %v", state)
		}
	})
}

// TestWithoutFunctions shows that commands are balanced where nobody knows the devices.
func TestWithoutFunctions(t *testing.T) {
	withRouting(t, nil, func(t *testing.T, r *routing) {
		in, err := r.session("app").NewReceiver(t.Context(), "command/T", &goamqp.ReceiverOptions{Credit: 1})
		if err != nil {
			t.Fatal(err)
		}
		receipt := sending(t, r.sender("app", "command/T"), commandTo("command/T/d"))
		m, err := in.Receive(t.Context(), nil)
		if err != nil || in.AcceptMessage(t.Context(), m) != nil || settled(t, receipt) != "accepted" {
			t.Error("not balanced")
		}
		if _, err := r.session("ad").NewSender(t.Context(), "device_directory", nil); condition(err) != "amqp:not-found" {
			t.Errorf("announcements: %v", err)
		}
		if r.CommandDirectory() != nil {
			t.Error("there is a directory")
		}
	})
}
