package router_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/router"
)

// served is a router with one northbound listener on loopback.
type served struct {
	*router.Router
	addr string
	path string // of the identities file
	dir  *auth.Directory
}

// secret is everybody's.
const secret = "secret"

// serve starts a router with the identities until the test ends. An identity's
// authorities are words such as "read telemetry/A" and "execute $management:DELETE".
func serve(t testing.TB, addresses []config.Address, identities map[string][]auth.Authority) *served {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identities.yaml")
	for name, list := range identities {
		if err := auth.AddIdentityWith(path, name, secret, list...); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := router.New(router.Options{Name: "r", Directory: dir, Addresses: addresses})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	wg.Go(func() { r.Serve(ctx, router.Listener{Listener: ln}) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return &served{r, ln.Addr().String(), path, dir}
}

func may(what auth.Activity, address string) auth.Authority {
	return auth.Authority{Address: address, May: what}
}

func execute(operation string) auth.Authority {
	return auth.Authority{Operation: operation, May: auth.Execute}
}

// dial connects as an identity.
func (s *served) dial(t testing.TB, user string) *goamqp.Conn {
	t.Helper()
	c, err := goamqp.Dial(t.Context(), "amqp://"+s.addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain(user, secret), ContainerID: "of-" + user})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *served) session(t testing.TB, user string) *goamqp.Session {
	t.Helper()
	x, err := s.dial(t, user).NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// condition is that of an AMQP error, "" for none or another error.
func condition(err error) string {
	var e *goamqp.Error
	if errors.As(err, &e) {
		return string(e.Condition)
	}
	var le *goamqp.LinkError
	if errors.As(err, &le) && le.RemoteErr != nil {
		return string(le.RemoteErr.Condition)
	}
	var ce *goamqp.ConnError
	if errors.As(err, &ce) && ce.RemoteErr != nil {
		return string(ce.RemoteErr.Condition)
	}
	return ""
}

// manager asks the management node.
type manager struct {
	t        testing.TB
	sender   *goamqp.Sender
	receiver *goamqp.Receiver
	replyTo  string
}

// manager opens links to the node, with a reply address of the given name, or a
// dynamic one.
func (s *served) manager(t testing.TB, user, replyTo string) *manager {
	t.Helper()
	x := s.session(t, user)
	o := &goamqp.ReceiverOptions{Credit: 100, DynamicAddress: replyTo == ""}
	r, err := x.NewReceiver(t.Context(), replyTo, o)
	if err != nil {
		t.Fatal(err)
	}
	w, err := x.NewSender(t.Context(), "$management", nil)
	if err != nil {
		t.Fatal(err)
	}
	return &manager{t, w, r, r.Address()}
}

// ask sends a request and returns the reply.
func (m *manager) ask(properties, body map[string]any) *goamqp.Message {
	m.t.Helper()
	msg := &goamqp.Message{Properties: &goamqp.MessageProperties{MessageID: "q", ReplyTo: &m.replyTo}, ApplicationProperties: properties}
	if body != nil {
		msg.Value = body
	}
	if err := m.sender.Send(m.t.Context(), msg, nil); err != nil {
		m.t.Fatal(err)
	}
	reply, err := m.receiver.Receive(m.t.Context(), nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if reply.Properties == nil || reply.Properties.CorrelationID != "q" {
		m.t.Fatalf("correlation-id: %+v", reply.Properties)
	}
	return reply
}

// status is the code of the reply to an operation.
func (m *manager) status(properties map[string]any) int32 {
	m.t.Helper()
	code, ok := m.ask(properties, nil).ApplicationProperties["statusCode"].(int32)
	if !ok {
		m.t.Fatal("statusCode is no int")
	}
	return code
}

// query returns all entities of a type on one page, as maps.
func (m *manager) query(kind string) []map[string]any {
	m.t.Helper()
	reply := m.ask(map[string]any{"operation": "QUERY", "entityType": kind}, nil)
	body, ok := reply.Value.(map[string]any)
	if !ok || reply.ApplicationProperties["statusCode"] != int32(200) {
		m.t.Fatalf("QUERY %s: %v, %T", kind, reply.ApplicationProperties, reply.Value)
	}
	names := body["attributeNames"].([]any)
	var out []map[string]any
	rows, _ := body["results"].([]any)
	for _, row := range rows {
		e := map[string]any{}
		for i, v := range row.([]any) {
			e[names[i].(string)] = v
		}
		out = append(out, e)
	}
	return out
}

// without takes everything from an identity and has the file read again.
func (s *served) without(t testing.TB, name string) {
	t.Helper()
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	if err := auth.AddIdentityWith(s.path, name, secret, may(auth.Read, "telemetry/none")); err != nil {
		t.Fatal(err)
	}
	if changed, err := s.dir.Reload(); err != nil || !changed {
		t.Fatal(changed, err)
	}
}
