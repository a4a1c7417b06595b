package peer_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// pair connects a client engine and a server engine without sockets.
type pair struct {
	t    testing.TB
	side [2]*peer.Engine // 0 = client
	fx   [2]peer.Effects
	in   [2][]byte
}

func newPair(t testing.TB, cfg peer.Config) *pair {
	cfg.ContainerID = "x"
	p := &pair{t: t}
	p.side[0] = peer.NewClient(cfg, peer.PlainLogin("u", "p"))
	p.side[1] = peer.NewServer(cfg, []amqp.Symbol{"PLAIN"})
	for p.turn(0) || p.turn(1) {
	}
	if !p.side[0].Ready() || !p.side[1].Ready() {
		t.Fatal("no handshake")
	}
	p.fx[0].Reset()
	p.fx[1].Reset()
	return p
}

// turn carries the output of side i to the other and reports whether there was any.
func (p *pair) turn(i int) bool {
	out := p.side[i].TakeOutput()
	p.side[i].Wrote(len(out))
	return p.give(1-i, out)
}

func (p *pair) give(i int, b []byte) bool {
	p.in[i] = append(p.in[i], b...)
	n, err := p.side[i].Input(p.in[i], time.Time{}, &p.fx[i])
	if err != nil {
		p.t.Fatal(err)
	}
	p.in[i] = p.in[i][:copy(p.in[i], p.in[i][n:])]
	if p.side[i].NeedsAuth() {
		p.side[i].Authenticated(nil)
		return p.give(i, nil)
	}
	return len(b) > 0
}

func (p *pair) events(i int) []peer.Event {
	ev := slices.Clone(p.fx[i].Events)
	p.fx[i].Reset()
	return ev
}

// links makes n links from the client to the server and gives them credit.
func (p *pair) links(n int, credit uint32) (out, in []*peer.Link) {
	return p.linksOn(p.side[0].Begin(), n, credit)
}

func (p *pair) linksOn(s *peer.Session, n int, credit uint32) (out, in []*peer.Link) {
	for i := range n {
		out = append(out, s.Attach(peer.Attachment{Name: fmt.Sprint(i), SenderSettleMode: amqp.SenderMixed,
			Source: &amqp.Source{}, Target: &amqp.Target{Address: "q", HasAddress: true}}))
	}
	p.turn(0)
	for _, ev := range p.events(1) {
		if ev.Kind == peer.EventAttach {
			ev.Link.Accept(peer.Attachment{Credit: credit})
			in = append(in, ev.Link)
		}
	}
	p.turn(1)
	p.fx[0].Reset()
	return out, in
}

// TestNumbersWrap: delivery-ids and transfer counts pass 2^32 under load.
func TestNumbersWrap(t *testing.T) {
	p := newPair(t, peer.Config{IncomingWindow: 8})
	out, in := p.linksOn(p.side[0].BeginAt(1<<32-50), 1, 10)
	settled := 0
	for i := range 200 {
		if r := out[0].Send(&peer.Outgoing{Tail: fmt.Append(nil, i), Token: peer.Token{ID: uint32(i)}}); r != peer.Sent {
			t.Fatalf("send %d: %v", i, r)
		}
		p.turn(0)
		for _, ev := range p.events(1) {
			if ev.Kind == peer.EventDelivery {
				if string(ev.Payload) != fmt.Sprint(i) {
					t.Fatalf("got %s at %d", ev.Payload, i)
				}
				if !ev.Link.Settle(ev.ID, amqp.StateAccepted, true) {
					t.Fatalf("%d was settled", ev.ID)
				}
				in[0].SetCredit(10)
			}
		}
		p.turn(1)
		for _, ev := range p.events(0) {
			if ev.Kind == peer.EventOutcome {
				if ev.Token.ID != uint32(settled) {
					t.Fatalf("outcome of %d, want %d", ev.Token.ID, settled)
				}
				settled++
			}
		}
	}
	if settled != 200 {
		t.Errorf("%d settled", settled)
	}
}

// TestPartialDeliveries: deliveries that never come whole are bounded per connection.
func TestPartialDeliveries(t *testing.T) {
	p := newPair(t, peer.Config{MaxMessageSize: 10_000})
	_, in := p.links(20, 1)
	for i := range in {
		b, err := parseFrame(fmt.Sprintf("transfer handle=%d delivery-id=%d delivery-tag=%q more payload=9900*x", i, i, "t"))
		if err != nil {
			t.Fatal(err)
		}
		p.give(1, b)
		ev := p.events(1)
		if i < 16 && len(ev) != 0 {
			t.Fatalf("link %d: %v", i, ev[0].Error)
		}
		if i == 17 {
			if len(ev) != 1 || ev[0].Kind != peer.EventDetach || ev[0].Error.Condition != amqp.CondResourceLimitExceeded {
				t.Fatalf("link %d: %v", i, ev)
			}
			return
		}
		if i == 16 && len(ev) != 0 && ev[0].Kind == peer.EventDetach {
			return
		}
	}
}

// TestRepeatedRange: a few bytes that name many deliveries make events once.
func TestRepeatedRange(t *testing.T) {
	p := newPair(t, peer.Config{IncomingWindow: 1 << 20})
	out, _ := p.links(1, 1000)
	for range 1000 {
		if r := out[0].Send(&peer.Outgoing{Tail: []byte("m")}); r != peer.Sent {
			t.Fatal(r)
		}
	}
	b, _ := parseFrame("disposition role=receiver first=0 last=2000000000 state=accepted")
	p.give(0, []byte(strings.Repeat(string(b), 1000)))
	if n := len(p.events(0)); n != 1000 {
		t.Errorf("%d events for 1000 deliveries", n)
	}
}

// TestNothingOfTheInputIsKept: what an owner answers late is not made of bytes
// that have been read over.
func TestNothingOfTheInputIsKept(t *testing.T) {
	d := &driver{t: t, now: epoch}
	d.start([]string{"server", "session"})
	b, err := parseFrame("attach name=a handle=0 role=receiver source=q")
	if err != nil {
		t.Fatal(err)
	}
	f, _, _ := amqp.ParseFrame(b, 1000)
	p, _, _ := amqp.DecodePerformative(f.Body)
	a := p.(*amqp.Attach)
	a.Source.Filter, _ = amqp.AppendMap(nil, amqp.Map{{Key: amqp.Symbol("filter"), Value: "x"}})
	d.input = amqp.AppendFrame(nil, amqp.FrameAMQP, 0, a)
	d.feed() // overwrites the input
	d.links["a"].Accept(peer.Attachment{})
	out := d.e.TakeOutput()
	f, _, _ = amqp.ParseFrame(out, 1000)
	p, _, err = amqp.DecodePerformative(f.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.(*amqp.Attach).Source.Filter; string(got) != string(a.Source.Filter) {
		t.Errorf("filter %x, want %x", got, a.Source.Filter)
	}
}
