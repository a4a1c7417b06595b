package router_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router"
)

// piped is one end of a connection in memory as a [net.Conn]: synctest can follow it.
type piped struct {
	*peer.Pipe
	left []byte
}

func (p *piped) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		got, err := p.Pipe.Read(nil)
		if err != nil {
			return 0, err
		}
		p.left = got
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

func (p *piped) Write(b []byte) (int, error)      { return p.Pipe.Write(b, time.Minute) }
func (p *piped) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "memory"} }
func (p *piped) RemoteAddr() net.Addr             { return &net.UnixAddr{Name: "memory"} }
func (p *piped) SetDeadline(t time.Time) error    { return p.SetReadDeadline(t) }
func (p *piped) SetWriteDeadline(time.Time) error { return nil }

// routing is a router that commands go through, in a bubble of synctest.
type routing struct {
	*router.Router
	t   *testing.T
	dir *auth.Directory
	ctx context.Context // ends with the test
	wg  sync.WaitGroup
	// last is the near end of the connection that was made last.
	last *peer.Pipe
	// component is who connects as "component", besides those of the identities file.
	component *auth.Identity
}

func (r *routing) identity(user string) *auth.Identity {
	if user == "component" {
		return r.component
	}
	return r.dir.Current(user)
}

// commanders are the identities: an application of every tenant and one of tenant T, and
// two adapters.
var commanders = map[string][]auth.Authority{
	"app":  {may(auth.Write, "command/*"), may(auth.Read, "command_response/*"), may(auth.Read, "command/*")},
	"appT": {may(auth.Write, "command/T"), may(auth.Read, "command_response/T")},
	"ad":   {may(auth.Write, auth.DeviceDirectory), may(auth.Read, "command_internal/ad"), may(auth.Write, "command_response/*")},
	"ae":   {may(auth.Write, auth.DeviceDirectory), may(auth.Read, "command_internal/ae")},
}

// withRouting runs f with a router whose devices invoker knows.
func withRouting(t *testing.T, invoker events.Invoker, f func(t *testing.T, r *routing)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identities.yaml")
	for name, list := range commanders {
		if err := auth.AddIdentityWith(path, name, secret, list...); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		dir, err := auth.Open(path, auth.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		r := &routing{Router: router.New(router.Options{Name: "r", Directory: dir, Invoker: invoker}), t: t, dir: dir, ctx: ctx}
		r.wg.Go(func() { r.Run(ctx) })
		defer r.wg.Wait()
		defer cancel()
		f(t, r)
	})
}

// dial connects as an identity.
func (r *routing) dial(user string) *goamqp.Conn {
	r.t.Helper()
	near, far := peer.NewPipe()
	r.last = near
	r.wg.Go(func() { r.ServePipe(r.ctx, far, r.identity(user)) })
	c, err := goamqp.NewConn(r.t.Context(), &piped{Pipe: near}, &goamqp.ConnOptions{SASLType: goamqp.SASLTypeExternal(""), ContainerID: "of-" + user, HostName: "r", IdleTimeout: -1})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func (r *routing) session(user string) *goamqp.Session {
	r.t.Helper()
	x, err := r.dial(user).NewSession(r.t.Context(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return x
}

// sender attaches a link of an identity on a connection of its own.
func (r *routing) sender(user, address string) *goamqp.Sender {
	r.t.Helper()
	s, err := r.session(user).NewSender(r.t.Context(), address, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// adapter is a process that announces devices and receives their commands.
type adapter struct {
	t        *testing.T
	name     string
	conn     *goamqp.Conn
	announce *goamqp.Sender
	commands *goamqp.Receiver
}

// adapter connects a process; credit as [goamqp.ReceiverOptions.Credit].
func (r *routing) adapter(user, name string, credit int32) *adapter {
	r.t.Helper()
	a := &adapter{t: r.t, name: name, conn: r.dial(user)}
	x, err := a.conn.NewSession(r.t.Context(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if a.announce, err = x.NewSender(r.t.Context(), auth.DeviceDirectory, nil); err != nil {
		r.t.Fatal(err)
	}
	if a.commands, err = x.NewReceiver(r.t.Context(), "command_internal/"+name, &goamqp.ReceiverOptions{Credit: credit}); err != nil {
		r.t.Fatal(err)
	}
	return a
}

// says announces and returns the outcome.
func (a *adapter) says(body map[string]any) string {
	a.t.Helper()
	if body["adapter"] == nil {
		body["adapter"] = a.name
	}
	data, err := json.Marshal(body)
	if err != nil {
		a.t.Fatal(err)
	}
	return outcome(a.t, a.announce, goamqp.NewMessage(data))
}

// has announces devices of tenant T, which it reaches itself; at is when their subscriptions began.
func (a *adapter) has(at int64, devices ...string) {
	a.t.Helper()
	var rows [][]any
	for _, d := range devices {
		rows = append(rows, []any{"T", d, at, 0, "hono-mqtt", 0})
	}
	if got := a.says(map[string]any{"set": rows}); got != "accepted" {
		a.t.Fatalf("announcement: %s", got)
	}
}

// next is the next command, or message of the router.
func (a *adapter) next() *goamqp.Message {
	a.t.Helper()
	m, err := a.commands.Receive(a.t.Context(), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return m
}

// accept takes every command until the connection ends, and returns the subjects in order.
func (a *adapter) accept() (subjects func() []string) {
	var mu sync.Mutex
	var got []string
	go func() {
		for {
			m, err := a.commands.Receive(context.Background(), nil)
			if err != nil {
				return
			}
			mu.Lock()
			got = append(got, *m.Properties.Subject)
			mu.Unlock()
			if a.commands.AcceptMessage(context.Background(), m) != nil {
				return
			}
		}
	}()
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

// commandTo is a one-way command.
func commandTo(to string) *goamqp.Message {
	subject := "on"
	return &goamqp.Message{Properties: &goamqp.MessageProperties{To: &to, Subject: &subject, MessageID: "m"}}
}

// outcome sends a message and says what becomes of it: "accepted", "rejected CONDITION:
// DESCRIPTION", "released", or "modified" with its flags.
func outcome(t testing.TB, s *goamqp.Sender, m *goamqp.Message) string {
	t.Helper()
	return settled(t, sending(t, s, m))
}

func sending(t testing.TB, s *goamqp.Sender, m *goamqp.Message) goamqp.SendReceipt {
	t.Helper()
	receipt, err := s.SendWithReceipt(t.Context(), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	return receipt
}

// settled waits for an outcome.
func settled(t testing.TB, receipt goamqp.SendReceipt) string {
	t.Helper()
	state, err := receipt.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	switch state := state.(type) {
	case *goamqp.StateAccepted:
		return "accepted"
	case *goamqp.StateRejected:
		if state.Error == nil {
			return "rejected"
		}
		return fmt.Sprintf("rejected %s: %s", state.Error.Condition, state.Error.Description)
	case *goamqp.StateReleased:
		return "released"
	case *goamqp.StateModified:
		return fmt.Sprint("modified ", state.DeliveryFailed, " ", state.UndeliverableHere)
	}
	return fmt.Sprintf("%T", state)
}

// registered knows tenant T with devices whose gateways are g1 and g2, except for those of
// some names.
func registered(_ context.Context, req events.Request) (events.Reply, error) {
	r, ok := req.(events.RegistrationAssert)
	switch {
	case !ok:
		return nil, iot.Errorf(iot.ErrNotFound, "no such")
	case r.TenantID != "T", r.DeviceID == "unknown":
		return nil, iot.Errorf(iot.ErrNotFound, "no such")
	case r.DeviceID == "bad":
		return nil, iot.Errorf(iot.ErrInvalid, "no such id")
	case r.DeviceID == "forbidden":
		return nil, iot.Errorf(iot.ErrForbidden, "tenant is disabled")
	case r.DeviceID == "broken":
		return nil, iot.Errorf(iot.ErrUnavailable, "no registry")
	}
	return &events.RegistrationAsserted{Registration: events.Registration{DeviceID: r.DeviceID, Via: []iot.DeviceID{"g1", "g2"}}, CacheFor: 300e9}, nil
}
