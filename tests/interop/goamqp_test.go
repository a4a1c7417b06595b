package interop_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/Azure/go-amqp"
)

// goPeer is the peer on go-amqp, in this process.
type goPeer struct {
	*peer
	ctx      context.Context
	net      net.Conn
	conn     *amqp.Conn
	sender   *amqp.Sender
	receiver *amqp.Receiver
	options  linkOptions
	running  sync.WaitGroup
	hold     bool // a receiver that settles nothing
}

// dialGoAMQP opens a connection whose socket the test may cut.
func dialGoAMQP(ctx context.Context, o linkOptions) (net.Conn, *amqp.Conn, error) {
	raw, err := net.Dial("tcp", o.addr)
	if err != nil {
		return nil, nil, err
	}
	wire := raw
	host, _, _ := net.SplitHostPort(o.addr)
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, nil, errors.New(o.ca + " holds no certificate")
		}
		wire = tls.Client(raw, &tls.Config{RootCAs: pool, ServerName: host})
	}
	conn, err := amqp.NewConn(ctx, wire, &amqp.ConnOptions{
		SASLType: amqp.SASLTypePlain(o.user, o.password), HostName: host, MaxFrameSize: uint32(o.maxFrame),
	})
	if err != nil {
		raw.Close()
		return nil, nil, err
	}
	return raw, conn, nil
}

func connectGoAMQP(t *testing.T, role string, o linkOptions) *peer {
	t.Helper()
	return newGoPeer(t, role, o).peer
}

func newGoPeer(t *testing.T, role string, o linkOptions) *goPeer {
	t.Helper()
	g := &goPeer{
		peer: &peer{name: "go-amqp " + role + " " + o.address, events: make(chan event, 4096)},
		ctx:  t.Context(), options: o, hold: role == "hold",
	}
	raw, conn, err := dialGoAMQP(g.ctx, o)
	if err != nil {
		g.fail(err)
		g.close = func() {}
		return g
	}
	g.net, g.conn = raw, conn
	g.close = sync.OnceFunc(func() { conn.Close() })
	t.Cleanup(func() {
		g.close()
		g.running.Wait()
	})
	if role == "send" {
		err = g.openSender()
	} else {
		err = g.openReceiver()
	}
	if err != nil {
		g.fail(err)
	}
	return g
}

// say does not outlive the test: one that stopped listening must still end.
func (g *goPeer) say(e event) {
	select {
	case g.events <- e:
	case <-g.ctx.Done():
	}
}

// fail says why the link or the connection is gone, with the condition the server gave.
func (g *goPeer) fail(err error) {
	e := event{Event: "closed", Description: err.Error()}
	var remote *amqp.Error
	var link *amqp.LinkError
	var conn *amqp.ConnError
	switch {
	case errors.As(err, &link) && link.RemoteErr != nil:
		remote = link.RemoteErr
	case errors.As(err, &conn) && conn.RemoteErr != nil:
		remote = conn.RemoteErr
	default:
		errors.As(err, &remote)
	}
	if remote != nil {
		e.Condition, e.Description = string(remote.Condition), remote.Description
	}
	g.say(e)
}

func senderMode(name string) *amqp.SenderSettleMode {
	switch name {
	case "unsettled":
		return amqp.SenderSettleModeUnsettled.Ptr()
	case "settled":
		return amqp.SenderSettleModeSettled.Ptr()
	case "mixed":
		return amqp.SenderSettleModeMixed.Ptr()
	}
	return nil
}

func receiverMode(name string) *amqp.ReceiverSettleMode {
	switch name {
	case "first":
		return amqp.ReceiverSettleModeFirst.Ptr()
	case "second":
		return amqp.ReceiverSettleModeSecond.Ptr()
	}
	return nil
}

func (g *goPeer) openSender() error {
	session, err := g.conn.NewSession(g.ctx, nil)
	if err != nil {
		return err
	}
	g.sender, err = session.NewSender(g.ctx, g.options.address, &amqp.SenderOptions{
		SettlementMode: senderMode(g.options.sndSettleMode), RequestedReceiverSettleMode: receiverMode(g.options.rcvSettleMode),
	})
	if err != nil {
		return err
	}
	for i := range g.options.links {
		if _, err := session.NewSender(g.ctx, g.options.address, &amqp.SenderOptions{Name: fmt.Sprint("idle-", i)}); err != nil {
			return err
		}
	}
	g.peer.send = g.transmit
	// go-amqp compares the modes itself and keeps what the server answered to itself.
	g.say(event{Event: "ready", Address: g.sender.Address(), SndSettleMode: g.options.sndSettleMode, RcvSettleMode: g.options.rcvSettleMode})
	return nil
}

func (g *goPeer) transmit(m outgoing) error {
	if m.Cmd == "flood" {
		g.running.Go(func() { g.flood(time.Duration(m.N) * time.Millisecond) })
		return nil
	}
	if m.Size > 0 {
		m.Body = pattern(m.Size, m.ID)
	}
	msg := &amqp.Message{
		Data:                  [][]byte{m.Body},
		Properties:            &amqp.MessageProperties{},
		ApplicationProperties: map[string]any{"number": int32(m.ID)},
		Annotations:           amqp.Annotations{"x-opt-note": "kept"},
		DeliveryAnnotations:   amqp.Annotations{"x-opt-hop": "of this hop"},
	}
	if m.Subject != "" {
		msg.Properties.Subject = &m.Subject
	}
	if m.ContentType != "" {
		msg.Properties.ContentType = &m.ContentType
	}
	if m.To != "" {
		msg.Properties.To = &m.To
	}
	if m.ReplyTo != "" {
		msg.Properties.ReplyTo = &m.ReplyTo
	}
	if m.CorrelationID != "" {
		msg.Properties.CorrelationID = m.CorrelationID
	}
	if m.MessageID != "" {
		msg.Properties.MessageID = m.MessageID
	}
	if m.Form == "text" {
		msg.Data, msg.Value = nil, string(m.Body)
	}
	if m.Settled || g.options.sndSettleMode == "settled" {
		if err := g.sender.Send(g.ctx, msg, &amqp.SendOptions{Settled: true}); err != nil {
			return err
		}
		g.say(event{Event: "sent", ID: m.ID})
		return nil
	}
	receipt, err := g.sender.SendWithReceipt(g.ctx, msg, nil)
	if err != nil {
		return err
	}
	g.running.Go(func() {
		state, err := receipt.Wait(g.ctx)
		if err != nil {
			g.fail(err)
			return
		}
		g.say(outcomeOf(m.ID, state))
	})
	return nil
}

// flood sends from several goroutines, each of which waits for its outcome.
func (g *goPeer) flood(d time.Duration) {
	var accepted atomic.Int64
	var senders sync.WaitGroup
	until, body := time.Now().Add(d), bytes.Repeat([]byte("x"), 256)
	for range 20 {
		senders.Go(func() {
			for time.Now().Before(until) {
				receipt, err := g.sender.SendWithReceipt(g.ctx, amqp.NewMessage(body), nil)
				if err != nil {
					g.fail(err)
					return
				}
				state, err := receipt.Wait(g.ctx)
				if err != nil {
					g.fail(err)
					return
				}
				if _, ok := state.(*amqp.StateAccepted); ok {
					accepted.Add(1)
				}
			}
		})
	}
	senders.Wait()
	g.say(event{Event: "flooded", N: int(accepted.Load())})
}

func outcomeOf(id int, state amqp.DeliveryState) event {
	e := event{Event: "outcome", ID: id}
	switch s := state.(type) {
	case *amqp.StateAccepted:
		e.State = "accepted"
	case *amqp.StateRejected:
		e.State = "rejected"
		if s.Error != nil {
			e.Condition, e.Description, e.Info = string(s.Error.Condition), s.Error.Description, s.Error.Info
		}
	case *amqp.StateReleased:
		e.State = "released"
	case *amqp.StateModified:
		e.State, e.DeliveryFailed, e.UndeliverableHere = "modified", s.DeliveryFailed, s.UndeliverableHere
		e.Info = map[string]any{}
		for k, v := range s.MessageAnnotations {
			e.Info[fmt.Sprint(k)] = v
		}
	default:
		e.State = fmt.Sprintf("%T", state)
	}
	return e
}

func (g *goPeer) openReceiver() error {
	session, err := g.conn.NewSession(g.ctx, nil)
	if err != nil {
		return err
	}
	credit := int32(10)
	if g.options.credit > 0 {
		credit = int32(g.options.credit)
	}
	if g.options.manual {
		credit = -1
	}
	g.receiver, err = session.NewReceiver(g.ctx, g.options.address, &amqp.ReceiverOptions{
		Credit: credit, DynamicAddress: g.options.dynamic, SettlementMode: receiverMode(g.options.rcvSettleMode), RequestedSenderSettleMode: senderMode(g.options.sndSettleMode),
	})
	if err != nil {
		return err
	}
	g.say(event{Event: "ready", Address: g.receiver.Address(), SndSettleMode: g.options.sndSettleMode, RcvSettleMode: g.options.rcvSettleMode})
	g.peer.send = g.command
	g.running.Go(g.receive)
	return nil
}

// command does what a receiver is told.
func (g *goPeer) command(m outgoing) error {
	switch m.Cmd {
	case "credit":
		return g.receiver.IssueCredit(uint32(m.N))
	case "drain":
		g.running.Go(func() {
			if err := g.receiver.DrainCredit(g.ctx, nil); err != nil {
				g.fail(err)
				return
			}
			g.say(event{Event: "drained"})
		})
		return nil
	}
	return errors.New("a receiver does not know the command " + m.Cmd)
}

func (g *goPeer) receive() {
	for {
		msg, err := g.receiver.Receive(g.ctx, nil)
		if err != nil {
			if g.ctx.Err() == nil {
				g.fail(err)
			}
			return
		}
		e := messageOf(msg)
		e.Size = len(e.Body)
		if g.options.digest {
			e.SHA256, e.Body = digest(e.Body), nil
		}
		g.say(e)
		if g.hold {
			continue
		}
		if err := g.answer(msg, e.Subject); err != nil {
			g.fail(err)
			return
		}
		if g.options.rcvSettleMode == "second" {
			g.say(event{Event: "settled"}) // its calls return when the sender has settled
		}
	}
}

func (g *goPeer) answer(msg *amqp.Message, subject string) error {
	if g.options.answer != "" {
		subject = g.options.answer
	}
	flags := strings.Split(subject, ":")
	if subject == "modified" {
		flags = []string{subject, "failed", "undeliverable"}
	}
	switch flags[0] {
	case "hold":
		return nil
	case "rejected":
		why := &amqp.Error{Condition: "test:refused", Description: "as the subject asked", Info: map[string]any{"x-opt-why": "told"}}
		err := g.receiver.RejectMessage(g.ctx, msg, why)
		// A sender that settles second repeats the outcome, and go-amqp returns its error to us.
		if echo := (*amqp.Error)(nil); errors.As(err, &echo) && echo.Condition == why.Condition {
			return nil
		}
		return err
	case "released":
		return g.receiver.ReleaseMessage(g.ctx, msg)
	case "modified":
		o := &amqp.ModifyMessageOptions{DeliveryFailed: slices.Contains(flags, "failed"), UndeliverableHere: slices.Contains(flags, "undeliverable")}
		if slices.Contains(flags, "annotated") {
			o.Annotations = amqp.Annotations{"x-opt-why": "told"}
		}
		return g.receiver.ModifyMessage(g.ctx, msg, o)
	default:
		return g.receiver.AcceptMessage(g.ctx, msg)
	}
}

func messageOf(msg *amqp.Message) event {
	e := event{Event: "message", Body: msg.GetData(), Annotations: map[string]any{}, DeliveryAnnotations: map[string]any{}, Properties: msg.ApplicationProperties}
	if h := msg.Header; h != nil {
		e.Durable, e.DeliveryCount, e.FirstAcquirer, e.TTL = h.Durable, int(h.DeliveryCount), h.FirstAcquirer, int(h.TTL.Milliseconds())
	}
	for k, v := range msg.Annotations {
		e.Annotations[fmt.Sprint(k)] = v
	}
	for k, v := range msg.DeliveryAnnotations {
		e.DeliveryAnnotations[fmt.Sprint(k)] = v
	}
	if p := msg.Properties; p != nil {
		for _, field := range []struct {
			from *string
			to   *string
		}{{p.Subject, &e.Subject}, {p.To, &e.To}, {p.ContentType, &e.ContentType}, {p.ReplyTo, &e.ReplyTo}} {
			if field.from != nil {
				*field.to = *field.from
			}
		}
		if p.MessageID != nil {
			e.MessageID = fmt.Sprint(p.MessageID)
		}
		if p.CorrelationID != nil {
			e.CorrelationID = fmt.Sprint(p.CorrelationID)
		}
	}
	return e
}

// cut breaks the connection as a machine does that loses its power: no close, no more bytes.
func (g *goPeer) cut() {
	if tcp, ok := g.net.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	g.net.Close()
}

// pattern is a body that every client can make: no two of its frames are alike.
func pattern(size, seed int) []byte {
	block := make([]byte, 65537)
	for i := range block {
		block[i] = byte(i*i*31 + seed*7 + i>>8)
	}
	return bytes.Repeat(block, size/len(block)+1)[:size]
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
