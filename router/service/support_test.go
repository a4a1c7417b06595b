package service_test

import (
	"context"
	"testing"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/router/service"
)

// invoker answers calls in place of the functions.
type invoker func(context.Context, events.Request) (events.Reply, error)

func (f invoker) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	return f(ctx, req)
}

// never fails the test when a function is asked.
func never(t testing.TB) invoker {
	return func(_ context.Context, req events.Request) (events.Reply, error) {
		t.Errorf("%s was called", req.EventType())
		return nil, nil
	}
}

// serve returns a server whose clients may do what granted lists, or everything.
func serve(t testing.TB, i events.Invoker, granted ...string) *service.Server {
	s := service.New(service.Options{Invoker: i, May: func(_ *peer.Conn, address, operation string) bool {
		if len(granted) == 0 {
			return true
		}
		for _, g := range granted {
			if g == address+":"+operation {
				return true
			}
		}
		return false
	}})
	t.Cleanup(s.Close)
	return s
}

// request is a message with the properties that every request has.
func request(t testing.TB, subject string, properties amqp.Map, body any, change ...func(*amqp.Message)) []byte {
	t.Helper()
	m := amqp.Message{Properties: &amqp.Properties{MessageID: "m-1", Subject: subject, ReplyTo: "tenant/r"}, ApplicationProperties: properties}
	switch body := body.(type) {
	case nil:
	case section:
		m.Data = [][]byte{[]byte(body)}
	default:
		m.Value, m.HasValue = body, true
	}
	for _, c := range change {
		c(&m)
	}
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// section is a body in a data section; any other type is an amqp-value.
type section string

func with(pairs ...any) amqp.Map {
	m := amqp.Map{}
	for i := 0; i < len(pairs); i += 2 {
		m = append(m, amqp.Pair{Key: pairs[i], Value: pairs[i+1]})
	}
	return m
}

// ask sends one request and decodes the reply.
func ask(t testing.TB, s *service.Server, address string, message []byte) *amqp.Message {
	t.Helper()
	reply, refused := s.Answer(address, message)
	if refused != nil {
		t.Fatalf("rejected: %v", refused)
	}
	m, err := amqp.DecodeMessage(reply)
	if err != nil || m.Properties == nil {
		t.Fatalf("%v: %+v", err, m)
	}
	return m
}
