package downstream_test

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/downstream"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
)

// subscriber is a CommandHandler that remembers.
type subscriber struct {
	take       func(c *adapters.Command, done func(error)) // nil = accepted
	mu         sync.Mutex
	commands   []*adapters.Command
	subscribed []adapters.Announcement
	listed     int
	news       []string
}

func (h *subscriber) Command(c *adapters.Command, done func(error)) {
	h.mu.Lock()
	h.commands = append(h.commands, c)
	h.mu.Unlock()
	if h.take == nil {
		done(nil)
		return
	}
	h.take(c, done)
}

func (h *subscriber) Subscribed() []adapters.Announcement {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listed++
	return slices.Clone(h.subscribed)
}

func (h *subscriber) Superseded(tenant iot.TenantID, device iot.DeviceID, at int64, is bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.news = append(h.news, fmt.Sprint(tenant, "/", device, " ", at, " ", is))
}

func (h *subscriber) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.commands)
}

const inbox = "command_internal/http-0/0123456789ab"

// serve starts a set whose commands go to h.
func serve(t testing.TB, h adapters.CommandHandler, routers ...*scripted) (s *downstream.Set, stop func()) {
	t.Helper()
	return start(t, downstream.Options{Commands: h, Address: strings.TrimPrefix(inbox, "command_internal/")}, routers...)
}

// deliver sends messages to the receivers of commands, and reports how many were taken.
func (r *scripted) deliver(t testing.TB, settled bool, messages ...[]byte) (sent int) {
	t.Helper()
	r.each(inbox, func(l *peer.Link) {
		for _, m := range messages {
			if l.Send(&peer.Outgoing{Settled: settled, Tail: m}) == peer.Sent {
				sent++
			}
		}
	})
	return sent
}

func (r *scripted) took() []amqp.Raw {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.answers)
}

func encoded(t testing.TB, m *amqp.Message) []byte {
	t.Helper()
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// aCommand is a request that is complete, as change changes it.
func aCommand(change func(m *amqp.Message)) *amqp.Message {
	m := &amqp.Message{
		Properties: &amqp.Properties{MessageID: "m", To: "command/T/D", Subject: "dim",
			ReplyTo: "command_response/T/D/r/1", CorrelationID: "c", ContentType: "text/plain"},
		Data: [][]byte{[]byte("50%")},
	}
	if change != nil {
		change(m)
	}
	return m
}

func TestReadCommand(t *testing.T) {
	plain := adapters.Command{Tenant: "T", Device: "D", Name: "dim", CorrelationID: "c", ReplyID: "D/r/1", ContentType: "text/plain", Payload: []byte("50%")}
	properties := func(m amqp.Map) func(*amqp.Message) {
		return func(to *amqp.Message) { to.ApplicationProperties = m }
	}
	var many amqp.Map
	for i := range 300 {
		many = append(many, amqp.Pair{Key: fmt.Sprint(i), Value: true})
	}
	trace := amqp.Map{{Key: amqp.Symbol("traceparent"), Value: "00-1"}, {Key: amqp.Symbol("tracestate"), Value: "k=v"}}
	for _, tt := range []struct {
		name   string
		change func(m *amqp.Message)
		want   func(c *adapters.Command)
		err    string // part of the text
	}{
		{name: "request", want: func(*adapters.Command) {}},
		{name: "one way", change: func(m *amqp.Message) {
			m.Properties = &amqp.Properties{To: "command/T/D", Subject: "dim"}
			m.Data = nil
		}, want: func(c *adapters.Command) { *c = adapters.Command{Tenant: "T", Device: "D", Name: "dim"} }},
		{name: "empty payload", change: func(m *amqp.Message) { m.Data = [][]byte{{}} }, want: func(c *adapters.Command) { c.Payload = []byte{} }},
		{name: "payload in parts", change: func(m *amqp.Message) { m.Data = [][]byte{[]byte("5"), []byte("0%")} }, want: func(*adapters.Command) {}},
		{name: "text", change: func(m *amqp.Message) { m.Data, m.Value, m.HasValue = nil, "50%", true }, want: func(*adapters.Command) {}},
		{name: "binary value", change: func(m *amqp.Message) { m.Data, m.Value, m.HasValue = nil, []byte("50%"), true }, want: func(*adapters.Command) {}},
		{name: "footer", change: func(m *amqp.Message) { m.Footer = amqp.Map{{Key: amqp.Symbol("f"), Value: "x"}} }, want: func(*adapters.Command) {}},
		{name: "gateway", change: properties(amqp.Map{{Key: "via", Value: "G"}, {Key: "a", Value: "b"}}),
			want: func(c *adapters.Command) { c.Gateway, c.Properties = "G", map[string]any{"a": "b"} }},
		{name: "properties", change: properties(amqp.Map{{Key: "s", Value: "x"}, {Key: "b", Value: true}, {Key: "i8", Value: int8(-1)}, {Key: "u8", Value: uint8(1)},
			{Key: "i16", Value: int16(-1)}, {Key: "u16", Value: uint16(1)}, {Key: "i", Value: int32(-1)}, {Key: "u", Value: uint32(math.MaxUint32)}, {Key: "l", Value: int64(math.MinInt64)},
			{Key: "ul", Value: uint64(1)}, {Key: "huge", Value: uint64(math.MaxUint64)}, {Key: "f", Value: float32(0.5)}, {Key: "d", Value: 0.1}, {Key: "sym", Value: amqp.Symbol("y")},
			{Key: "list", Value: amqp.List{}}, {Key: "null", Value: nil}, {Key: "bin", Value: []byte("b")}, {Key: amqp.Symbol("key"), Value: "x"}}),
			want: func(c *adapters.Command) {
				c.Properties = map[string]any{"s": "x", "b": true, "i8": int32(-1), "u8": int32(1), "i16": int32(-1), "u16": int32(1), "i": int32(-1), "u": int64(math.MaxUint32),
					"l": int64(math.MinInt64), "ul": int64(1), "f": 0.5, "d": 0.1, "sym": "y"}
			}},
		{name: "trace", change: func(m *amqp.Message) {
			m.MessageAnnotations = amqp.Map{{Key: amqp.Symbol("x-opt-trace-context"), Value: trace}}
			m.ApplicationProperties = amqp.Map{{Key: "traceparent", Value: "00-2"}}
		}, want: func(c *adapters.Command) { c.TraceParent, c.TraceState = "00-1", "k=v" }},
		{name: "trace in properties", change: func(m *amqp.Message) {
			m.MessageAnnotations = amqp.Map{{Key: amqp.Symbol("x-opt-trace-context"), Value: amqp.Map{}}}
			m.ApplicationProperties = amqp.Map{{Key: "traceparent", Value: "00-2"}, {Key: "tracestate", Value: "s"}}
		}, want: func(c *adapters.Command) { c.TraceParent, c.TraceState = "00-2", "s" }},
		{name: "too many properties", change: properties(many), want: func(c *adapters.Command) {
			c.Properties = map[string]any{}
			for i := range 256 {
				c.Properties[fmt.Sprint(i)] = true
			}
		}},

		{name: "no properties", change: func(m *amqp.Message) { m.Properties = nil }, err: `missing or invalid command target address: "", want command/<tenant>/<device>`},
		{name: "no device", change: func(m *amqp.Message) { m.Properties.To = "command/T" }, err: "missing or invalid command target address"},
		{name: "empty device", change: func(m *amqp.Message) { m.Properties.To = "command/T/" }, err: "missing or invalid command target address"},
		{name: "no tenant", change: func(m *amqp.Message) { m.Properties.To = "command//D" }, err: "missing or invalid command target address"},
		{name: "more than a device", change: func(m *amqp.Message) { m.Properties.To = "command/T/D/x" }, err: "missing or invalid command target address"},
		{name: "other endpoint", change: func(m *amqp.Message) { m.Properties.To = "control/T/D" }, err: "missing or invalid command target address"},
		{name: "no subject", change: func(m *amqp.Message) { m.Properties.Subject = "" }, err: "malformed command message: subject is missing"},
		{name: "no id", change: func(m *amqp.Message) { m.Properties.CorrelationID = nil }, err: "reply-to is set, but correlation-id is not"},
		{name: "number as id", change: func(m *amqp.Message) { m.Properties.CorrelationID = uint64(7) }, err: "correlation-id is of type uint64"},
		{name: "other reply-to", change: func(m *amqp.Message) { m.Properties.ReplyTo = "reply/to/address" }, err: `reply-to is "reply/to/address", want command_response/T/<reply-id>`},
		{name: "reply to other tenant", change: func(m *amqp.Message) { m.Properties.ReplyTo = "command_response/U/r" }, err: "reply-to is"},
		{name: "empty reply id", change: func(m *amqp.Message) { m.Properties.ReplyTo = "command_response/T/" }, err: "reply-to is"},
		{name: "two gateways", change: properties(amqp.Map{{Key: "via", Value: "G"}, {Key: "via", Value: "H"}}), err: "via: want one gateway's id"},
		{name: "number as gateway", change: properties(amqp.Map{{Key: "via", Value: int32(7)}}), err: "via: want one gateway's id"},
		{name: "nothing as gateway", change: properties(amqp.Map{{Key: "via", Value: nil}}), err: "via: want one gateway's id"},
		{name: "null", change: func(m *amqp.Message) { m.Data, m.HasValue = nil, true }, err: "unsupported body of type <nil>"},
		{name: "number", change: func(m *amqp.Message) { m.Data, m.Value, m.HasValue = nil, int32(1), true }, err: "unsupported body of type int32"},
		{name: "list", change: func(m *amqp.Message) { m.Data, m.Value, m.HasValue = nil, amqp.List{"x"}, true }, err: "unsupported body"},
		{name: "sequence", change: func(m *amqp.Message) { m.Data, m.Sequence = nil, []amqp.List{{"x"}} }, err: "unsupported body section"},
		{name: "large properties", change: properties(amqp.Map{{Key: "k", Value: strings.Repeat("x", 70_000)}}), err: "at most 65536 are taken"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			message := encoded(t, aCommand(tt.change))
			kept := slices.Clone(message)
			got, _, err := downstream.ReadInbound(message)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			clear(message) // the bytes are the connection's
			want := plain
			tt.want(&want)
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("command (-want +got):\n%s", diff)
			}
			for n := range kept {
				_, _, _ = downstream.ReadInbound(kept[:n]) // must not panic
			}
		})
	}
}

func FuzzReadInbound(f *testing.F) {
	f.Add(encoded(f, aCommand(nil)))
	f.Add(encoded(f, aCommand(func(m *amqp.Message) {
		m.Data, m.Value, m.HasValue = nil, "text", true
		m.ApplicationProperties = amqp.Map{{Key: "via", Value: "G"}, {Key: "n", Value: 1.5}}
		m.MessageAnnotations = amqp.Map{{Key: amqp.Symbol("x-opt-trace-context"), Value: amqp.Map{{Key: amqp.Symbol("traceparent"), Value: "00-1"}}}}
	})))
	f.Add(encoded(f, newsMessage(`{"superseded":[["T","D",1]],"restored":[["T","E",2]]}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, n, err := downstream.ReadInbound(b)
		if err == nil && c == nil && n == 0 {
			if m, err := amqp.DecodeMessage(b); err != nil || m.Properties == nil || m.Properties.Subject != "superseded" {
				t.Errorf("%x is neither command nor news", b)
			}
		}
		if c != nil && (c.Tenant == "" || c.Device == "" || c.Name == "" || c.ReplyID != "" && c.CorrelationID == "" || len(c.Properties) > 256) {
			t.Errorf("incomplete command %+v", c)
		}
	})
}

func newsMessage(body string) *amqp.Message {
	return &amqp.Message{Properties: &amqp.Properties{To: "device_directory", Subject: "superseded"}, Data: [][]byte{[]byte(body)}}
}

func TestCommandOutcomes(t *testing.T) {
	modified := &amqp.Modified{DeliveryFailed: true, UndeliverableHere: true}
	for _, tt := range []struct {
		name string
		err  error
		want amqp.Raw
	}{
		{"accepted", nil, amqp.StateAccepted},
		{"invalid", fmt.Errorf("x: %w", iot.Errorf(iot.ErrInvalid, "no such lamp")), rejected("hono:bad-request", "no such lamp")},
		{"without text", iot.ErrInvalid, rejected("hono:bad-request", "invalid")},
		{"too large", iot.Errorf(iot.ErrTooLarge, "for the device"), rejected("hono:bad-request", "for the device")},
		{"quota", iot.Errorf(iot.ErrQuota, "too much"), rejected("hono:bad-request", "too much")},
		{"forbidden", iot.Errorf(iot.ErrForbidden, "not through this gateway"), rejected(amqp.CondUnauthorizedAccess, "not through this gateway")},
		{"modified", &adapters.ModifiedError{DeliveryFailed: true, UndeliverableHere: true}, modified.Append(nil)},
		{"not modified", &adapters.ModifiedError{}, (&amqp.Modified{}).Append(nil)},
		{"released", iot.Errorf(iot.ErrNoCredit, "nobody there"), amqp.StateReleased},
		{"unknown", errors.New("x"), amqp.StateReleased},
	} {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, later=%v", tt.name, later), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r, h := newScripted(t, "r"), &subscriber{}
					h.take = func(_ *adapters.Command, done func(error)) {
						if !later {
							done(tt.err)
							done(errors.New("once more"))
							return
						}
						time.AfterFunc(time.Hour, func() { done(tt.err) })
					}
					serve(t, h, r)
					synctest.Wait()
					if got := r.deliver(t, false, encoded(t, aCommand(nil))); got != 1 {
						t.Fatalf("%d sent", got)
					}
					if later {
						synctest.Wait()
						if got := r.took(); len(got) != 0 {
							t.Errorf("settled before the outcome: %x", got)
						}
						time.Sleep(time.Hour)
					}
					synctest.Wait()
					if got := r.took(); len(got) != 1 || string(got[0]) != string(tt.want) {
						t.Errorf("got %x, want %x", got, tt.want)
					}
				})
			})
		}
	}
}

func rejected(condition amqp.Symbol, text string) amqp.Raw {
	return amqp.AppendRejected(nil, &amqp.Error{Condition: condition, Description: text})
}

// What cannot be read is rejected with the reason, and what follows is taken.
func TestMalformedCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		serve(t, h, r)
		synctest.Wait()
		for range 300 { // more than the first credit
			r.deliver(t, false, []byte("nonsense"), encoded(t, aCommand(func(m *amqp.Message) { m.Properties.Subject = "" })), encoded(t, newsMessage(`[]`)))
			synctest.Wait()
		}
		r.deliver(t, false, encoded(t, aCommand(nil)))
		synctest.Wait()
		got := r.took()
		if len(got) != 901 || h.count() != 1 {
			t.Fatalf("%d outcomes and %d commands, want 901 and 1", len(got), h.count())
		}
		if want := rejected("hono:bad-request", "malformed command message: subject is missing"); string(got[1]) != string(want) {
			t.Errorf("got %x, want %x", got[1], want)
		}
		if got[0].StateKind() != amqp.DescRejected || got[2].StateKind() != amqp.DescRejected || got[900].StateKind() != amqp.DescAccepted {
			t.Errorf("outcomes %v, %v, %v", got[0].StateKind(), got[2].StateKind(), got[900].StateKind())
		}
	})
}

// A router may send 200 ahead; the handler never has more than 2,000.
func TestCommandCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		var dones []func(error)
		h.take = func(_ *adapters.Command, done func(error)) { dones = append(dones, done) }
		serve(t, h, r)
		synctest.Wait()
		made := 0
		burst := func() [][]byte { // each for another tenant: none has too much
			messages := make([][]byte, 300)
			for i := range messages {
				made++
				messages[i] = encoded(t, aCommand(func(m *amqp.Message) {
					m.Properties.To, m.Properties.ReplyTo = fmt.Sprintf("command/T%d/4711", made), ""
				}))
			}
			return messages
		}
		if got := r.deliver(t, false, burst()...); got != 200 {
			t.Errorf("%d sent at first, want 200", got)
		}
		total := 200
		for range 50 {
			synctest.Wait()
			total += r.deliver(t, false, burst()...)
		}
		if total != 2000 || len(dones) != 2000 {
			t.Fatalf("%d sent and %d handed over, want 2,000", total, len(dones))
		}
		for i, done := range dones[:1000] {
			done([]error{nil, iot.ErrUnavailable}[i%2])
		}
		synctest.Wait()
		if got := len(r.took()); got != 1000 {
			t.Errorf("%d outcomes, want 1,000", got)
		}
		for range 50 { // settled ones count, but for those that come at once
			synctest.Wait()
			total += r.deliver(t, true, burst()...)
		}
		if total < 3000 || total > 3200 || len(dones) != total {
			t.Errorf("%d sent and %d handed over, want 3,000 to 3,200", total, len(dones))
		}
		for _, done := range dones[1000:] {
			done(nil)
		}
		synctest.Wait()
		if got := len(r.took()); got != 2000 {
			t.Errorf("%d outcomes, want 2,000", got)
		}
		if got := r.deliver(t, false, burst()...); got != 200 {
			t.Errorf("%d sent at last, want 200", got)
		}
	})
}

// Large commands use the credit up earlier.
func TestCommandBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		var dones []func(error)
		h.take = func(_ *adapters.Command, done func(error)) { dones = append(dones, done) }
		serve(t, h, r)
		synctest.Wait()
		large := make([][]byte, 20)
		for i := range large {
			large[i] = encoded(t, aCommand(func(m *amqp.Message) {
				m.Properties.To, m.Properties.ReplyTo = fmt.Sprintf("command/T%d/4711", i), ""
				m.Data[0] = make([]byte, 1<<20-500)
			}))
		}
		total := 0
		for range 300 {
			total += r.deliver(t, false, large...)
			synctest.Wait()
		}
		if total < 32 || total > 300 || len(dones) < 20 || len(dones) > 33 {
			t.Errorf("%d sent and %d handed over, want 32 to 300 and 20 to 33", total, len(dones))
		}
		for _, done := range dones {
			done(nil)
		}
		synctest.Wait()
		if got := r.deliver(t, false, large...); got == 0 {
			t.Error("nothing is taken after all")
		}
	})
}

// An outcome that comes after link or connection are gone harms nobody.
func TestLateOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		var dones []func(error)
		h.take = func(_ *adapters.Command, done func(error)) { dones = append(dones, done) }
		s, stop := serve(t, h, r)
		synctest.Wait()
		deliver := func() {
			t.Helper()
			if got := r.deliver(t, false, slices.Repeat([][]byte{encoded(t, aCommand(nil))}, 10)...); got != 10 {
				t.Fatalf("%d sent", got)
			}
			synctest.Wait()
		}
		deliver()
		r.each(inbox, func(l *peer.Link) { l.Detach(nil) })
		r.mu.Lock()
		r.links[inbox] = nil
		r.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		deliver() // on a new link
		dones[3](nil)
		dones[13](nil)
		r.kill()
		r.mu.Lock()
		r.links[inbox] = nil
		r.mu.Unlock()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		deliver() // on a new connection
		for i, done := range dones {
			if i != 25 {
				done(nil)
				done(nil)
			}
		}
		synctest.Wait()
		if got := len(r.took()); got != 1+9 || !s.Ready() {
			t.Errorf("%d outcomes, want 10", got)
		}
		began := time.Now()
		stop()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("stopping took %v for one command", took)
		}
		dones[25](nil)
	})
}

// While the set stops, commands under way are told of, and others released.
func TestStopWithCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		h.take = func(_ *adapters.Command, done func(error)) {
			time.AfterFunc(500*time.Millisecond, func() { done(nil) })
		}
		_, stop := serve(t, h, r)
		synctest.Wait()
		r.deliver(t, false, encoded(t, aCommand(nil)))
		synctest.Wait()
		time.AfterFunc(100*time.Millisecond, func() { r.deliver(t, false, encoded(t, aCommand(nil))) })
		stop()
		want := []amqp.Descriptor{amqp.DescReleased, amqp.DescAccepted}
		if !slices.Equal(r.outcomes, want) || h.count() != 1 {
			t.Errorf("outcomes %v and %d commands, want %v and 1", r.outcomes, h.count(), want)
		}
	})
}

// A handler that panics costs its command only.
func TestCommandPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		h.take = func(c *adapters.Command, done func(error)) {
			if c.Name == "accepted first" {
				done(nil)
			}
			panic(c.Name)
		}
		var panics atomic.Int64
		s, err := downstream.New(downstream.Options{Routers: []downstream.Router{{Dial: r.dial}}, Instance: "i", Commands: h,
			Address: strings.TrimPrefix(inbox, "command_internal/"), OnPanic: func(any, []byte) { panics.Add(1) }})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, s)
		synctest.Wait()
		for range 300 {
			r.deliver(t, false, encoded(t, aCommand(nil)), encoded(t, aCommand(func(m *amqp.Message) { m.Properties.Subject = "accepted first" })))
			synctest.Wait()
		}
		if got := r.outcomes; len(got) != 600 || got[0] != amqp.DescReleased || got[1] != amqp.DescAccepted || panics.Load() != 600 {
			t.Errorf("%d outcomes, %d panics, want 600 of each", len(got), panics.Load())
		}
		if n := r.connections(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
		stop()
	})
}

func TestSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		serve(t, h, r)
		synctest.Wait()
		r.deliver(t, false, encoded(t, newsMessage(`{"superseded":[["T","D",1700000000001],["T","E",2,"more"]],"restored":[["T","D",1700000000001]],"other":1}`)),
			encoded(t, newsMessage(`{}`)), encoded(t, newsMessage(`{"superseded":[["T","D"]]}`)), encoded(t, newsMessage(`{"restored":[["T",1,2]]}`)))
		synctest.Wait()
		if diff := cmp.Diff([]string{"T/D 1700000000001 true", "T/E 2 true", "T/D 1700000000001 false"}, h.news); diff != "" {
			t.Errorf("news (-want +got):\n%s", diff)
		}
		if want := []amqp.Descriptor{amqp.DescAccepted, amqp.DescAccepted, amqp.DescRejected, amqp.DescRejected}; !slices.Equal(r.outcomes, want) {
			t.Errorf("outcomes %v, want %v", r.outcomes, want)
		}
	})
}

// Many goroutines settle while commands come and connections go.
func TestCommandsBesideEachOther(t *testing.T) {
	before := runtime.NumGoroutine()
	r, h := newScripted(t, "r"), &subscriber{}
	var wg sync.WaitGroup
	h.take = func(_ *adapters.Command, done func(error)) { wg.Go(func() { done(nil) }) }
	s, stop := serve(t, h, r)
	message := slices.Repeat([][]byte{encoded(t, aCommand(nil))}, 50)
	for round := range 3 {
		eventually(t, func() bool { return s.Ready() && r.deliver(t, false, message[0]) == 1 })
		goal := len(r.took()) + 5000
		for len(r.took()) < goal {
			if r.deliver(t, false, message...) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		if round < 2 {
			r.mu.Lock()
			r.links[inbox] = nil
			r.mu.Unlock()
			r.kill()
		}
	}
	stop()
	wg.Wait()
	r.setDown(true)
	r.kill()
	eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }) // the router's wheel
}
