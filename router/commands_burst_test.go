package router_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router"
	"github.com/sluice-iot/sluice/router/command"
)

// TestBurstOfCommands shows that an adapter that gives little credit at a time gets all
// of a burst, in order.
func TestBurstOfCommands(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/1", 10)
		a.has(1, "d")
		taken := a.accept()
		app := r.sender("app", "command/T")
		var receipts []goamqp.SendReceipt
		for i := range 900 {
			m := commandTo("command/T/d")
			subject := fmt.Sprintf("%03d", i)
			m.Properties.Subject = &subject
			receipts = append(receipts, sending(t, app, m))
		}
		for i, receipt := range receipts {
			if got := settled(t, receipt); got != "accepted" {
				t.Fatalf("command %d was %s", i, got)
			}
		}
		if got := taken(); len(got) != 900 || !slices.IsSorted(got) {
			t.Errorf("%d commands, in order: %v", len(got), slices.IsSorted(got))
		}
	})
}

// TestCommandsWaitForCredit shows how long one waits for an adapter that gives none.
func TestCommandsWaitForCredit(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/1", -1)
		a.has(1, "d")
		app := r.sender("app", "command/T")
		began := time.Now()
		if got, took := outcome(t, app, commandTo("command/T/d")), time.Since(began); got != "released" || took < 100*time.Millisecond || took > 110*time.Millisecond {
			t.Errorf("%s after %v, want released after 100 ms", got, took)
		}
		receipt := sending(t, app, commandTo("command/T/d"))
		time.Sleep(50 * time.Millisecond)
		if err := a.commands.IssueCredit(1); err != nil {
			t.Fatal(err)
		}
		if err := a.commands.AcceptMessage(t.Context(), a.next()); err != nil {
			t.Fatal(err)
		}
		if got := settled(t, receipt); got != "accepted" {
			t.Error(got)
		}
	})
}

// TestConnectionBreaks shows that what was announced is void when the connection breaks
// without a word, and that the commands which the adapter had are given back.
func TestConnectionBreaks(t *testing.T) {
	withRouting(t, functions(registered), func(t *testing.T, r *routing) {
		a := r.adapter("ad", "ad/1", 10)
		broken := r.last
		a.has(1, "d", "e")
		app := r.sender("app", "command/T")
		receipt := sending(t, app, commandTo("command/T/d"))
		a.next()
		broken.Close()
		if got := settled(t, receipt); got != "modified true false" {
			t.Errorf("what it had: %s", got)
		}
		synctest.Wait()
		if n := r.CommandDirectory().Len(); n != 0 {
			t.Errorf("%d entries are left", n)
		}
		if got := outcome(t, app, commandTo("command/T/d")); got != "released" {
			t.Errorf("afterwards: %s", got)
		}
	})
}

// commandFlood is a client that sends commands as its credit allows, or accepts them.
type commandFlood struct {
	attachment peer.Attachment
	message    []byte
	link       *peer.Link
	target     int
	sent       int
	count      int
	accepted   int
	taken      int
	ready      chan struct{}
	done       chan struct{}
}

const commandFloodCredit = 2000

func (f *commandFlood) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	c.Lock()
	defer c.Unlock()
	for i := range events {
		switch ev := &events[i]; ev.Kind {
		case peer.EventOpen:
			f.link = c.Engine().Begin().Attach(f.attachment)
		case peer.EventAttached:
			close(f.ready)
		case peer.EventDelivery:
			ev.Link.Settle(ev.ID, amqp.StateAccepted, true)
			if f.taken++; f.taken >= commandFloodCredit/4 {
				f.taken = 0
				ev.Link.SetCredit(commandFloodCredit)
			}
		case peer.EventOutcome:
			if ev.State.StateKind() == amqp.DescAccepted {
				f.accepted++
			}
			if f.count++; f.count == f.target {
				f.done <- struct{}{}
			}
			f.send()
		case peer.EventCredit:
			f.send()
		}
	}
	b.Touch(c)
}

func (f *commandFlood) send() {
	for f.sent < f.target && f.link.Send(&peer.Outgoing{Tail: f.message}) == peer.Sent {
		f.sent++
	}
}

func (f *commandFlood) Writable(b *peer.Batch, c *peer.Conn) {
	c.Lock()
	f.send()
	b.Touch(c)
	c.Unlock()
}

func (f *commandFlood) Closed(*peer.Batch, *peer.Conn, error) {}

// BenchmarkCommand is a command's way through the router, and its outcome's way back, for
// a device that is known and reached through a gateway among 100,000.
func BenchmarkCommand(b *testing.B) {
	for _, gateway := range []string{"", "g2"} {
		b.Run(map[string]string{"": "device", "g2": "gateway"}[gateway], func(b *testing.B) { benchmarkCommand(b, gateway) })
	}
}

func benchmarkCommand(b *testing.B, gateway string) {
	invoker := functions(func(context.Context, events.Request) (events.Reply, error) {
		return &events.RegistrationAsserted{Registration: events.Registration{Via: []iot.DeviceID{"g1", "g2"}}, CacheFor: time.Hour}, nil
	})
	path := filepath.Join(b.TempDir(), "identities.yaml")
	if err := auth.AddIdentityWith(path, "app", secret, may(auth.Write, "*"), may(auth.Read, "command_internal/ad")); err != nil {
		b.Fatal(err)
	}
	dir, err := auth.Open(path, auth.Options{})
	if err != nil {
		b.Fatal(err)
	}
	r := router.New(router.Options{Name: "r", Directory: dir, Invoker: invoker})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	b.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	wheel := peer.NewWheel()
	start := func(f *commandFlood) *peer.Conn {
		f.ready, f.done = make(chan struct{}), make(chan struct{}, 1)
		ours, theirs := peer.NewPipe()
		wg.Go(func() { r.ServePipe(ctx, theirs, dir.Current("app")) })
		c := peer.ConnectPipe(ours, peer.Options{Config: peer.Config{ContainerID: "c", Hostname: "r"}, Handler: f, Wheel: wheel,
			Login: peer.Login{Mechanism: "EXTERNAL"}})
		wg.Go(func() { c.Serve(ctx) })
		<-f.ready
		return c
	}
	link := func(role amqp.Role, source, target string) peer.Attachment {
		return peer.Attachment{Name: "l", Role: role, Source: &amqp.Source{Address: source, HasAddress: source != ""}, Target: &amqp.Target{Address: target, HasAddress: target != ""}}
	}
	receiver := &commandFlood{attachment: link(amqp.RoleReceiver, "command_internal/ad/1", "")}
	receiver.attachment.Credit = commandFloodCredit
	start(receiver)
	rows := make([]command.Row, 0, command.MaxForeign)
	for i := range command.MaxForeign - 1 {
		rows = append(rows, command.Row{Tenant: "T", Device: iot.DeviceID(fmt.Sprint("other-", i))})
	}
	name := "d"
	if gateway != "" {
		name = gateway
	}
	if err := r.CommandDirectory().SetForeign("ad/1", append(rows, command.Row{Tenant: "T", Device: iot.DeviceID(name)})...); err != nil {
		b.Fatal(err)
	}
	m := amqp.Message{Properties: &amqp.Properties{To: "command/T/d", Subject: "setBrightness", MessageID: "17", ReplyTo: "command_response/T/4f1c", ContentType: "application/json"},
		ApplicationProperties: amqp.Map{{Key: "n", Value: int32(1)}}, Data: [][]byte{make([]byte, 100)}}
	encoded, err := m.Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	sender := &commandFlood{attachment: link(amqp.RoleSender, "", "command/T"), message: encoded}
	c := start(sender)
	b.ReportAllocs()
	b.ResetTimer()
	var batch peer.Batch
	c.Lock()
	sender.target = b.N
	sender.send()
	batch.Touch(c)
	c.Unlock()
	batch.Flush()
	<-sender.done
	b.StopTimer()
	if sender.accepted != b.N {
		b.Errorf("%d of %d accepted", sender.accepted, b.N)
	}
}
