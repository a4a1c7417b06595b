package peer_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// owner is a willing owner of a server engine: it accepts what is attached,
// settles what comes in one way or another, and sends what credit allows.
type owner struct {
	e     *peer.Engine
	fx    peer.Effects
	links []*peer.Link
	now   time.Time
	steps int
	out   []byte
}

func newOwner() *owner {
	return &owner{now: epoch, e: peer.NewServer(peer.Config{ContainerID: "us", MaxMessageSize: 4096, IncomingWindow: 16,
		ChannelMax: 8, HandleMax: 16, IdleTimeout: time.Second}, []amqp.Symbol{"PLAIN"})}
}

// feed gives input to the engine as a connection would, and does not keep it.
func (o *owner) feed(t testing.TB, b []byte) (used int, err error) {
	in := bytes.Clone(b)
	for {
		var n int
		n, err = o.e.Input(in[used:], o.now, &o.fx)
		used += n
		for _, ev := range o.fx.Events {
			o.act(ev)
		}
		o.fx.Reset()
		if err != nil || !o.e.NeedsAuth() {
			break
		}
		o.e.Authenticated(nil)
	}
	for i := range in {
		in[i] = 0xee
	}
	o.now = o.now.Add(100 * time.Millisecond)
	o.e.Tick(o.now)
	o.take(t)
	return used, err
}

// take checks that the output is whole frames.
func (o *owner) take(t testing.TB) {
	out := o.e.TakeOutput()
	o.e.Wrote(len(out))
	o.out = append(o.out[:0], out...)
	if o.e.Unsent() != 0 {
		t.Fatalf("%d bytes unsent after all was written", o.e.Unsent())
	}
	for len(out) > 0 {
		n := 8
		if string(out[:4]) != "AMQP" {
			f, k, err := amqp.ParseFrame(out, 1<<16)
			if n = k; err != nil || k == 0 {
				t.Fatalf("output is no frame: %x, %v", out, err)
			}
			if len(f.Body) > 0 {
				if _, _, err := amqp.DecodePerformative(f.Body); err != nil {
					t.Fatalf("output cannot be decoded: %x, %v", f.Body, err)
				}
			}
		}
		out = out[n:]
	}
}

func (o *owner) act(ev peer.Event) {
	o.steps++
	switch ev.Kind {
	case peer.EventAttach:
		if o.links = append(o.links, ev.Link); o.steps%7 == 0 {
			ev.Link.Refuse(&amqp.Error{Condition: amqp.CondNotFound})
			return
		}
		ev.Link.Accept(peer.Attachment{Credit: 5, CutThrough: o.steps%2 == 0})
	case peer.EventDelivery:
		ev.Link.SetToken(ev.ID, peer.Token{ID: ev.ID})
		switch o.steps % 3 {
		case 0:
			ev.Link.Settle(ev.ID, amqp.StateAccepted, true)
		case 1:
			ev.Link.Settle(ev.ID, amqp.StateReleased, false)
		}
		ev.Link.SetCredit(uint32(o.steps % 9))
		for _, l := range o.links {
			l.Send(&peer.Outgoing{Tail: ev.Payload, Tag: ev.Tag, Settled: o.steps%2 == 0, More: ev.More || o.steps%4 == 0})
		}
	case peer.EventPart, peer.EventOpen:
		for _, l := range o.links {
			l.Continue(ev.Payload, ev.More)
		}
	case peer.EventAborted:
		for _, l := range o.links {
			l.Abort()
		}
	case peer.EventCredit, peer.EventWritable:
		for _, l := range o.links {
			l.Send(&peer.Outgoing{Tail: make([]byte, o.steps%2000), More: o.steps%4 == 0})
			l.Continue(make([]byte, o.steps%1000), o.steps%3 == 0)
			if o.steps%11 == 0 {
				l.Abort()
			}
			l.Drained()
		}
		if o.steps%13 == 0 {
			ev.Session.Withhold(true)
			ev.Session.Withhold(false)
		}
	case peer.EventOutcome:
		if !ev.Settled {
			ev.Link.SettleSent(ev.ID, ev.State)
		}
	case peer.EventDetach:
		if o.steps%5 == 0 && len(o.links) > 0 {
			o.links[o.steps%len(o.links)].Detach(nil)
		}
	}
	if o.steps%97 == 0 && ev.Session != nil {
		ev.Session.End(nil)
	}
}

// script is a session that uses most of the protocol.
var script = []string{
	"header SASL", "init mechanism=PLAIN initial-response=00750070", "header AMQP",
	"open container-id=them max-frame-size=512 idle-timeout=1000",
	"begin incoming-window=5 outgoing-window=5", "begin@1 incoming-window=1 outgoing-window=5",
	"attach name=in handle=0 role=sender target=q source=s sender-settle-mode=mixed",
	"attach name=out handle=1 role=receiver source=q receiver-settle-mode=second max-message-size=4000",
	"attach@1 name=in handle=0 role=sender target=q sender-settle-mode=unsettled",
	"flow next-incoming-id=0 incoming-window=5 next-outgoing-id=0 outgoing-window=5 handle=1 delivery-count=0 link-credit=10 echo",
	`transfer handle=0 delivery-id=0 delivery-tag="t" payload="message"`,
	`transfer handle=0 delivery-id=1 delivery-tag="t" more payload=100*x`, "transfer handle=0 payload=100*y",
	`transfer handle=0 delivery-id=2 delivery-tag="t" more payload=100*x`, `transfer handle=0 aborted payload=""`,
	`transfer@1 handle=0 delivery-id=7 settled payload=400*x`, "heartbeat",
	"disposition role=receiver first=0 last=9 settled state=accepted", "disposition role=sender first=0 last=9 settled state=released",
	"disposition role=receiver first=0 last=9 state=rejected/amqp:not-allowed",
	"flow next-incoming-id=3 incoming-window=500 next-outgoing-id=6 outgoing-window=5 handle=1 delivery-count=0 link-credit=10 drain",
	"detach handle=1 closed", "attach name=out handle=1 role=receiver source=q", "detach handle=1", "end@1 error=amqp:not-found",
	"begin@1 incoming-window=1 outgoing-window=5", "close error=amqp:internal-error",
}

// TestTruncated cuts and corrupts a valid session at every byte: nothing panics,
// and a cut alone is no error.
func TestTruncated(t *testing.T) {
	var all []byte
	for _, f := range script {
		b, err := parseFrame(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	for n := range len(all) {
		o := newOwner()
		used, err := o.feed(t, all[:n])
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		// The rest may come later, byte by byte where the cut was.
		if _, err := o.feed(t, all[used:min(n+1, len(all))]); err != nil {
			t.Fatalf("going on at %d: %v", n, err)
		}
		o.e.Abandon(&o.fx)
		for _, bit := range []byte{0x01, 0x80, 0xff} {
			bad := bytes.Clone(all)
			bad[n] ^= bit
			o = newOwner()
			o.feed(t, bad)
			o.e.Abandon(&o.fx)
		}
	}
	o := newOwner()
	if used, err := o.feed(t, all); err != nil || used != len(all) || !o.e.Done() {
		t.Errorf("used %d of %d, %v", used, len(all), err)
	}
}

// FuzzPeer gives a server engine with a willing owner whatever comes after a
// valid handshake, cut into batches at a place of the fuzzer's choice.
func FuzzPeer(f *testing.F) {
	var all []byte
	for i, s := range script {
		b, err := parseFrame(s)
		if err != nil {
			f.Fatal(err)
		}
		if i > 3 {
			all = append(all, b...)
			f.Add(b, uint16(0))
			f.Add(all, uint16(len(all)/2))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		o := newOwner()
		for _, s := range script[:4] {
			hello, _ := parseFrame(s)
			if _, err := o.feed(t, hello); err != nil {
				t.Fatal(err)
			}
		}
		at := min(int(cut), len(b))
		used, err := o.feed(t, b[:at])
		if err == nil {
			o.feed(t, b[used:])
		}
		o.e.Abandon(&o.fx)
	})
}

// FuzzFrames builds sequences of frames that are well formed each: two bytes
// choose the frame, the rest its numbers.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 2, 0, 2, 1, 3, 17, 3, 1, 4, 1, 4, 9, 4, 3, 5, 1, 5, 2, 6, 0, 7, 0})
	f.Add([]byte{2, 0, 4, 0, 4, 64, 4, 64, 4, 128, 5, 255, 3, 255, 2, 255, 6, 1, 2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		o := newOwner()
		for _, s := range script[:5] {
			hello, _ := parseFrame(s)
			if _, err := o.feed(t, hello); err != nil {
				t.Fatal(err)
			}
		}
		var batch []byte
		for i := 0; i+1 < len(b) && i < 400; i += 2 {
			channel, p, payload := buildFrame(b[i], b[i+1])
			frame := append(p.Append(amqp.OpenFrame(nil, amqp.FrameAMQP, channel)), payload...)
			batch = append(batch, amqp.CloseFrame(frame, 0)...)
			if b[i]&0x80 == 0 { // else more comes in the same batch
				used, err := o.feed(t, batch)
				if err != nil {
					break
				}
				batch = batch[used:]
			}
		}
		o.e.Abandon(&o.fx)
		for _, l := range o.links {
			if l.Send(&peer.Outgoing{Tail: []byte("m")}) == peer.Sent {
				t.Fatal("a link sends after the end")
			}
		}
		if o.e.TakeOutput(); o.e.HasOutput() {
			t.Fatal("output is never finished")
		}
	})
}

// ids are numbers that are small, near 2^32, or near 2^31.
func ids(v byte) uint32 {
	return [...]uint32{0, 0xfffffff0, 0x7ffffff8, 0}[v>>6] + uint32(v&0x0f)
}

func buildFrame(kind, v byte) (uint16, amqp.Performative, []byte) {
	channel := uint16(kind>>4) & 1
	handle := uint32(v & 3)
	switch kind & 0x07 {
	case 0:
		return channel, &amqp.Begin{IncomingWindow: uint32(v & 7), OutgoingWindow: 9, NextOutgoingID: ids(v), HandleMax: uint32(v)}, nil
	case 1:
		return channel, &amqp.End{}, nil
	case 2:
		a := &amqp.Attach{Name: string('a' + rune(v&7)), Handle: handle, Role: v&8 != 0, SenderSettleMode: amqp.SenderSettleMode(v >> 4 % 3),
			ReceiverSettleMode: amqp.ReceiverSettleMode(v >> 7), Source: &amqp.Source{Address: "s"}, Target: &amqp.Target{Address: "t"},
			InitialDeliveryCount: ids(v)}
		return channel, a, nil
	case 3:
		return channel, &amqp.Flow{HasNextIncomingID: v&1 != 0, NextIncomingID: ids(v), IncomingWindow: ids(v), NextOutgoingID: ids(v),
			HasHandle: v&2 != 0, Handle: handle, HasDeliveryCount: v&4 != 0, DeliveryCount: ids(v), HasLinkCredit: true, LinkCredit: uint32(v),
			Drain: v&16 != 0, Echo: v&32 != 0}, nil
	case 4:
		tr := &amqp.Transfer{Handle: handle, DeliveryID: ids(v), HasDeliveryID: v&0x30 != 0, Settled: v&4 != 0, More: v&8 != 0, Aborted: v&0x38 == 0x38}
		return channel, tr, make([]byte, int(v)*3)
	case 5:
		return channel, &amqp.Disposition{Role: v&1 != 0, First: ids(v), Last: ids(v) + uint32(v)<<(v&7), Settled: v&2 != 0, State: amqp.StateAccepted}, nil
	case 6:
		return channel, &amqp.Detach{Handle: handle, Closed: v&4 != 0}, nil
	}
	if v < 8 {
		return 0, &amqp.Close{}, nil
	}
	return channel, &amqp.Flow{IncomingWindow: 100, OutgoingWindow: 1, HasHandle: true, Handle: handle, HasLinkCredit: true, LinkCredit: 5}, nil
}
