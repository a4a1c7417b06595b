package peer_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// forwarder is a sender's engine and a receiver's engine with one link each, and
// the bytes that their peers send, made once and renumbered in place.
type forwarder struct {
	t        testing.TB
	a, b     *driver
	in, out  *peer.Link
	batch    []byte
	ids      []int // where in batch the delivery-ids stand
	answer   []byte
	next     uint32
	answered int
}

const firstID = 1 << 20 // wide enough for the encoding with four bytes

func newForwarder(t testing.TB, n, size int, settled bool) *forwarder {
	f := &forwarder{t: t, a: &driver{}, b: &driver{}, next: firstID}
	start := func(d *driver, frames ...string) {
		d.start([]string{"server", "session"})
		for _, s := range frames {
			b, err := parseFrame(s)
			if err != nil {
				t.Fatal(err)
			}
			d.input = append(d.input, b...)
		}
		d.feed()
		d.takeOutput()
	}
	start(f.a, "attach name=in handle=0 role=sender target=q")
	f.in = f.a.links["in"]
	f.in.Accept(peer.Attachment{Credit: 1000})
	f.a.takeOutput()
	start(f.b, "attach name=out handle=0 role=receiver source=q",
		"flow next-incoming-id=0 incoming-window=4294967295 next-outgoing-id=0 outgoing-window=0 handle=0 delivery-count=0 link-credit=2147483647")
	f.out = f.b.links["out"]
	f.out.Accept(peer.Attachment{})
	f.b.takeOutput()
	for range n {
		tr := &amqp.Transfer{DeliveryID: firstID, HasDeliveryID: true, DeliveryTag: []byte{1, 2, 3, 4}, HasMessageFormat: true, HasSettled: true, Settled: settled}
		body := append(tr.Append(amqp.OpenFrame(nil, amqp.FrameAMQP, 0)), make([]byte, size)...)
		f.ids = append(f.ids, len(f.batch)+bytes.Index(body, []byte{0x70, 0, 0x10, 0, 0})+1)
		f.batch = append(f.batch, amqp.CloseFrame(body, 0)...)
	}
	f.answer = amqp.AppendFrame(nil, amqp.FrameAMQP, 0, &amqp.Disposition{Role: amqp.RoleReceiver,
		First: firstID, Last: firstID + 1, Settled: true, State: amqp.StateAccepted})
	return f
}

func (f *forwarder) take(d *driver) {
	b := d.e.TakeOutput()
	d.e.Wrote(len(b))
	peer.PutBuffer(b)
}

// run forwards one batch and brings the outcomes back.
func (f *forwarder) run() {
	for _, at := range f.ids {
		binary.BigEndian.PutUint32(f.batch[at:], f.next)
		f.next++
	}
	if _, err := f.a.e.Input(f.batch, epoch, &f.a.fx); err != nil {
		f.t.Fatal(err)
	}
	first := f.out.LastID() + 1
	for i := range f.a.fx.Events {
		ev := &f.a.fx.Events[i]
		o := peer.Outgoing{Format: ev.Format, Settled: ev.Settled, Token: peer.Token{Ref: ev.Link, ID: ev.ID},
			Head: ev.Payload[:10], Mid: ev.Payload[10:20], Tail: ev.Payload[20:]}
		if r := f.out.Send(&o); r != peer.Sent {
			f.t.Fatal(r)
		}
	}
	f.a.fx.Reset()
	f.take(f.b)
	at := bytes.IndexByte(f.answer, 0x70) + 1
	binary.BigEndian.PutUint32(f.answer[at:], first)
	binary.BigEndian.PutUint32(f.answer[at+5:], f.out.LastID())
	if _, err := f.b.e.Input(f.answer, epoch, &f.b.fx); err != nil {
		f.t.Fatal(err)
	}
	for i := range f.b.fx.Events {
		ev := &f.b.fx.Events[i]
		if !ev.Token.Ref.(*peer.Link).Settle(ev.Token.ID, ev.State, true) {
			f.t.Fatalf("%d was settled", ev.Token.ID)
		}
		f.answered++
	}
	f.b.fx.Reset()
	f.in.SetCredit(1000)
	f.take(f.a)
}

func TestForwardAllocatesNothing(t *testing.T) {
	for _, settled := range []bool{false, true} {
		f := newForwarder(t, 64, 256, settled)
		f.run()
		if n := testing.AllocsPerRun(200, f.run); n > 0.5 && !raceEnabled {
			t.Errorf("settled %v: %v allocations for 64 messages", settled, n)
		}
		if !settled && f.answered < 64*200 {
			t.Errorf("%d outcomes", f.answered)
		}
	}
}

// BenchmarkForward is what a router's engines do for one message: decode it,
// encode it for another connection, and bring the outcome back.
func BenchmarkForward(b *testing.B) {
	for name, settled := range map[string]bool{"unsettled/256": false, "settled/256": true} {
		b.Run(name, func(b *testing.B) {
			const batch = 64
			f := newForwarder(b, batch, 256, settled)
			b.ReportAllocs()
			for b.Loop() {
				f.run()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/message")
		})
	}
}
