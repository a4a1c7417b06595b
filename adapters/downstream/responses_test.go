package downstream_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/downstream"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

// response is a command response to an application's address R.
func response(replyID string) *iot.Message {
	return &iot.Message{Endpoint: iot.CommandResponse, Tenant: "T", Device: "D", QoS: iot.AtLeastOnce, ID: "id",
		ReplyID: replyID, CorrelationID: "c-1", Status: 200, Payload: []byte("done")}
}

func TestResponseEncoding(t *testing.T) {
	created := time.Date(2026, 7, 1, 12, 0, 0, 123_000_000, time.UTC)
	m := response("D/r-1/x")
	m.Gateway, m.Created, m.Adapter, m.Address, m.Assertion, m.ContentType = "G", created, "hono-http", "/command/res", "a.b.c", "text/plain"
	m.TTL, m.TraceParent, m.Status = 5*time.Second, "00-1", 503
	m.Properties = map[string]any{"k": "v", "status": "forged", "tenant_id": "forged", "device_id": "forged", "qos": "forged", "reg_assertion": "forged"}
	want := &goamqp.Message{
		Header:              &goamqp.MessageHeader{Priority: 4, TTL: 5 * time.Second},
		DeliveryAnnotations: goamqp.Annotations{"x-opt-reg-assertion": "a.b.c"},
		Annotations: goamqp.Annotations{"device_id": "D", "tenant_id": "T", "resource": "command_response/T/D",
			"x-opt-trace-context": map[string]any{"traceparent": "00-1"}},
		Properties: &goamqp.MessageProperties{MessageID: "id", To: ptr("command_response/T/D/r-1/x"), CorrelationID: "c-1",
			ContentType: ptr("text/plain"), CreationTime: &created},
		ApplicationProperties: map[string]any{"device_id": "D", "tenant_id": "T", "status": int32(503), "k": "v"},
		Data:                  [][]byte{[]byte("done")},
	}
	raw := sent(t, m)
	if diff := cmp.Diff(want, decode(t, raw), ignoreUnexported); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	// status is an int, ids are strings (contract: messaging 1.6).
	status := amqp.AppendInt(amqp.AppendString(nil, "status"), 503)
	ids := amqp.AppendString(amqp.AppendString(amqp.AppendString(nil, "tenant_id"), "T"), "status")
	if !bytes.Contains(raw, status) || !bytes.Contains(raw, ids) {
		t.Errorf("types in %x", raw)
	}
	least := response("r")
	least.Payload = nil
	want = &goamqp.Message{
		Annotations:           goamqp.Annotations{"device_id": "D", "tenant_id": "T", "resource": "command_response/T/D"},
		Properties:            &goamqp.MessageProperties{MessageID: "id", To: ptr("command_response/T/r"), CorrelationID: "c-1"},
		ApplicationProperties: map[string]any{"device_id": "D", "tenant_id": "T", "status": int32(200)},
	}
	if diff := cmp.Diff(want, decode(t, sent(t, least)), ignoreUnexported); diff != "" {
		t.Errorf("least message (-want +got):\n%s", diff)
	}
}

func TestResponsesRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(m *iot.Message)
		text   string
	}{
		{"no reply id", func(m *iot.Message) { m.ReplyID = "" }, "reply id: want 1 to 1024 bytes of UTF-8"},
		{"long reply id", func(m *iot.Message) { m.ReplyID = strings.Repeat("r", 1025) }, "reply id: want 1 to 1024 bytes of UTF-8"},
		{"reply id of no text", func(m *iot.Message) { m.ReplyID = "\xff" }, "reply id: want 1 to 1024 bytes of UTF-8"},
		{"no correlation id", func(m *iot.Message) { m.CorrelationID = "" }, "correlation id of the command is missing"},
		{"no status", func(m *iot.Message) { m.Status = 0 }, "status 0: want 200 to 299 or 400 to 599"},
		{"redirected", func(m *iot.Message) { m.Status = 302 }, "status 302: want 200 to 299 or 400 to 599"},
		{"beyond", func(m *iot.Message) { m.Status = 600 }, "status 600: want 200 to 299 or 400 to 599"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newScripted(t, "r")
				s, _ := start(t, downstream.Options{}, r)
				synctest.Wait()
				m := response("r")
				tt.change(m)
				wantErr(t, s.Send(t.Context(), m), iot.ErrInvalid, tt.text)
				if n, _ := r.attaches(); n != 0 {
					t.Errorf("%d links attached", n)
				}
			})
		})
	}
}

// Links of responses are there for as long as they are used, and end as others do.
func TestResponseLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		for i := range 20 {
			if err := s.Send(t.Context(), response(fmt.Sprint("r", i%2))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if attached, detached := r.attaches(); attached != 2 || detached != 0 {
			t.Errorf("%d attached and %d detached, want 2 and 0", attached, detached)
		}
		time.Sleep(13 * time.Second)
		synctest.Wait()
		if _, detached := r.attaches(); detached != 2 {
			t.Errorf("%d detached, want 2", detached)
		}
		if err := s.Send(t.Context(), response("r1")); err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		r.credit = 0
		r.mu.Unlock()
		wantErr(t, s.Send(t.Context(), response("nobody")), iot.ErrNoCredit, adapters.TextNoConsumer)
	})
}

// Addresses of responses are bounded: the longest unused one gives way, but none to
// which something is under way.
func TestManyResponseAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		s, _ := start(t, downstream.Options{MaxResponses: 13}, r) // of which one tenant has 10 at most
		synctest.Wait()
		send := func(id string) {
			t.Helper()
			if err := s.Send(t.Context(), response(id)); err != nil {
				t.Errorf("%s: %v", id, err)
			}
			synctest.Wait()
		}
		want := func(attached, detached int) {
			t.Helper()
			if a, d := r.attaches(); a != attached || d != detached {
				t.Errorf("%d attached and %d detached, want %d and %d", a, d, attached, detached)
			}
		}
		for i := range 10 {
			send(fmt.Sprint(i))
		}
		send("0")
		want(10, 0)
		send("a") // in the place of 1
		send("0")
		want(11, 1)
		send("1")
		want(12, 2)
		r.silent(true)
		c := newTold(t)
		for i := range 12 {
			s.Start(response(fmt.Sprint("open", i)), c.done(i))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for i, err := range c.once(12) {
			if i < 10 {
				wantErr(t, err, iot.ErrTimeout, adapters.TextNoOutcome)
			} else {
				wantErr(t, err, iot.ErrUnavailable, adapters.TextUnavailable)
			}
		}
		r.silent(false)
		send("b")
	})
}

// A tenant whose devices name many addresses at which nobody listens leaves some to others.
func TestResponseAddressesOfTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		s, _ := start(t, downstream.Options{MaxResponses: 13}, r)
		synctest.Wait()
		r.silent(true)
		c := newTold(t)
		for i := range 50 {
			s.Start(response(fmt.Sprint("nobody", i)), c.done(i))
		}
		if got := 50 - c.count(); got != 10 {
			t.Errorf("%d are under way, want 10", got)
		}
		r.silent(false)
		m := response("r")
		m.Tenant = "U"
		if err := s.Send(t.Context(), m); err != nil {
			t.Errorf("a response of another tenant: %v", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		c.once(50)
		if err := s.Send(t.Context(), response("r")); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// Devices name the addresses of responses: a flood of them leaves other messages
// their places to wait in, and takes few itself.
func TestFloodOfResponses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		r.credit, r.refill = 0, false
		s, _ := start(t, downstream.Options{MaxWaiting: 500, MaxResponses: 100}, r)
		synctest.Wait()
		c := newTold(t)
		const n = 3000
		for i := range n {
			s.Start(response(fmt.Sprint("r", i%100)), c.done(i))
		}
		if got := n - c.count(); got < 500 || got > 700 {
			t.Errorf("%d wait, want 500 to 700", got)
		}
		s.Start(numbered(n, iot.AtLeastOnce), c.done(n))
		synctest.Wait()
		r.give("telemetry/T", 1)
		time.Sleep(time.Second)
		synctest.Wait()
		wantErr(t, c.once(n + 1)[n], nil, "")
	})
}

// Stopping and a router that goes end responses as they end uploads.
func TestResponsesEnd(t *testing.T) {
	for name, act := range map[string]func(r *scripted, stop func()){
		"lost":    func(r *scripted, _ func()) { r.setDown(true); r.kill(); time.Sleep(time.Second) },
		"stopped": func(_ *scripted, stop func()) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newScripted(t, "r")
				r.silent(true)
				r.credit, r.refill = 5, false
				s, stop := start(t, downstream.Options{CreditWait: time.Hour}, r)
				synctest.Wait()
				c := newTold(t)
				for i := range 10 {
					s.Start(response("r"), c.done(i))
				}
				synctest.Wait()
				act(r, stop)
				stop()
				for _, err := range c.once(10) {
					if err == nil {
						t.Error("a response was accepted that nobody settled")
					}
				}
			})
		})
	}
}
