package interop_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

const (
	megabyte = 1 << 20
	// passesWithin is how much more memory the router may take while a message of
	// hundred times a megabyte goes through it.
	passesWithin = 60 * megabyte
)

// TestMegabytes sends messages of 1 MiB in every pair of clients.
func TestMegabytes(t *testing.T) {
	r := startAlone(t)
	eachClients(t, r, func(t *testing.T, from, to, address string) {
		sendLarge(t, r, from, to, address, megabyte)
	})
}

// TestHundredMegabytes sends 100 MiB from each client, to each client, and looks at
// what memory the router takes for it.
func TestHundredMegabytes(t *testing.T) {
	r := startAlone(t)
	for i, from := range kinds {
		to := kinds[(i+2)%len(kinds)]
		t.Run(from+" to "+to, func(t *testing.T) {
			needPeer(t, from)
			needPeer(t, to)
			before, _ := r.resident(t)
			r.resetPeak(t)
			began := time.Now()
			sendLarge(t, r, from, to, "telemetry/"+from+"."+to, 100*megabyte)
			_, peak := r.resident(t)
			t.Logf("%s, the router's memory rose from %d to %d MiB", time.Since(began).Round(time.Millisecond), before/megabyte, peak/megabyte)
			if peak-before > passesWithin {
				t.Errorf("the router's resident memory rose by %d MiB; at most %d are expected", (peak-before)/megabyte, passesWithin/megabyte)
			}
		})
	}
}

// sendLarge sends one message unsettled and one settled, and compares what arrives.
func sendLarge(t *testing.T, r *alone, from, to, address string, size int) {
	t.Helper()
	o := r.as(anybody, address)
	o.digest = true
	// rhea opens its session's window only when something else wakes it up, which the
	// frames of a message under way do not.
	o.buffer = 16 << 10
	receiver := startReceiver(t, to, o)
	sender := startSender(t, from, o)
	for id, settled := range []bool{false, true} {
		want := digest(pattern(size, id))
		sender.mustSend(t, outgoing{ID: id, Size: size, Settled: settled})
		if got := receiver.await(t, "message"); got.Size != size || got.SHA256 != want {
			t.Errorf("%d bytes arrived with digest %s; want %d with %s", got.Size, got.SHA256, size, want)
		}
		if settled {
			sender.await(t, "sent")
		} else {
			checkOutcome(t, sender.await(t, "outcome"), id, "accepted")
		}
	}
	sender.close()
	receiver.close()
}

// partOf is a delivery under way: 1 MiB of the 100 it will have.
type partOf struct {
	sender, receiver *wire.Client
	got              []byte // by the receiver
	want             []byte
}

// startPart sends the first megabyte of a message to a receiver of its own.
func startPart(t *testing.T, r *alone, address string, settled bool) *partOf {
	t.Helper()
	receiver := r.wire(t, wire.Options{})
	attached(t, receiver, wire.Receiver(0, "r", address))
	write(t, receiver, wire.Credit(0, 0, 10), nil)
	p := sendPart(t, r, address, settled)
	p.receiver = receiver
	return p
}

// sendPart sends the first megabyte of a message to whoever receives there.
func sendPart(t *testing.T, r *alone, address string, settled bool) *partOf {
	t.Helper()
	p := &partOf{sender: r.wire(t, wire.Options{}), want: pattern(megabyte, 1)}
	attached(t, p.sender, wire.Sender(0, "s", address))
	for {
		if f, _ := await[*amqp.Flow](t, p.sender); f.HasHandle && f.LinkCredit > 0 {
			break
		}
	}
	transfer := wire.Transfer(0, 0, settled, true)
	p.send(t, transfer, wire.Data(nil, 100*megabyte))
	p.send(t, &amqp.Transfer{Handle: 0, More: true}, p.want)
	return p
}

// send divides the payload into frames and the session's window.
func (p *partOf) send(t *testing.T, transfer *amqp.Transfer, payload []byte) {
	t.Helper()
	room := p.sender.MaxSend - 64
	for chunk := range chunks(payload, room) {
		for p.sender.Window() <= 0 {
			await[*amqp.Flow](t, p.sender)
		}
		write(t, p.sender, transfer, chunk)
		p.sender.Sent()
	}
}

func chunks(b []byte, n int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(b[:k]) {
				return
			}
			b = b[k:]
		}
	}
}

// receive reads until n bytes of the body have come.
func (p *partOf) receive(t *testing.T, n int) {
	t.Helper()
	for len(p.got) < n+8 { // and the section's head
		transfer, payload := await[*amqp.Transfer](t, p.receiver)
		if !transfer.More || transfer.Aborted {
			t.Fatalf("the delivery ended after %d bytes, aborted %v", len(p.got), transfer.Aborted)
		}
		p.got = append(p.got, payload...)
	}
	if !bytes.Equal(p.got[8:], p.want[:len(p.got)-8]) {
		t.Error("what came is not what was sent")
	}
}

// TestLeavesBeforeItHasArrived stalls a sender after 1 MiB and expects that the
// receiver gets the part there is, but for what the router may hold to fill a frame.
func TestLeavesBeforeItHasArrived(t *testing.T) {
	r := startAlone(t)
	p := startPart(t, r, "telemetry/stall", false)
	p.receive(t, megabyte-64<<10)
}

// TestStallingWindow has the receiver open its session's window, which is small, only when
// all of it was used, and waits in between until the router holds what it may hold.
func TestStallingWindow(t *testing.T) {
	r := startAlone(t)
	const window, size = 16, 8 * megabyte
	receiver := r.wire(t, wire.Options{Window: window, MaxFrame: 4096})
	attached(t, receiver, wire.Receiver(0, "r", "telemetry/window"))
	flow := wire.Credit(0, 0, 10)
	flow.IncomingWindow = window
	write(t, receiver, flow, nil)
	var received uint32
	for id, settled := range []bool{false, true} {
		sender := startSender(t, "go-amqp", r.as(anybody, "telemetry/window"))
		// The client writes until the router withholds its window, so it is not waited for.
		sent := make(chan error, 1)
		go func() { sent <- sender.send(outgoing{ID: id, Size: size, Settled: settled}) }()
		var got []byte
		for more := true; more; {
			transfer, payload := await[*amqp.Transfer](t, receiver)
			if transfer.Aborted {
				t.Fatalf("aborted after %d bytes", len(got))
			}
			got, more = append(got, payload...), transfer.More
			if received++; received%window == 0 {
				time.Sleep(time.Millisecond)
				write(t, receiver, &amqp.Flow{HasNextIncomingID: true, NextIncomingID: received, IncomingWindow: window, OutgoingWindow: 1<<31 - 1}, nil)
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if want := pattern(size, id); !bytes.HasSuffix(got, want) {
			t.Errorf("%d bytes came that do not end in the %d that were sent", len(got), size)
		}
		write(t, receiver, &amqp.Disposition{Role: amqp.RoleReceiver, First: uint32(id), Last: uint32(id), Settled: true, State: amqp.StateAccepted}, nil)
		if settled {
			sender.await(t, "sent")
		} else {
			checkOutcome(t, sender.await(t, "outcome"), id, "accepted")
		}
		sender.close()
	}
}

// TestAbortedWhenTheSenderDies breaks the sender's connection in the middle of a message:
// the receiver hears that the rest will not come, and its link lives on.
func TestAbortedWhenTheSenderDies(t *testing.T) {
	r := startAlone(t)
	for _, tc := range []struct {
		name    string
		settled bool
		die     func(p *partOf)
	}{
		{"connection lost, unsettled", false, func(p *partOf) { p.sender.Cut() }},
		{"connection lost, settled", true, func(p *partOf) { p.sender.Cut() }},
		{"link detached", false, func(p *partOf) { write(t, p.sender, &amqp.Detach{Handle: 0, Closed: true}, nil) }},
		{"aborted", false, func(p *partOf) { write(t, p.sender, &amqp.Transfer{Handle: 0, Aborted: true}, nil) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := startPart(t, r, "telemetry/abort", tc.settled)
			p.receive(t, megabyte/2)
			tc.die(p)
			for {
				transfer, payload := await[*amqp.Transfer](t, p.receiver)
				if transfer.Aborted {
					break
				}
				if !transfer.More {
					t.Fatalf("the delivery ended after %d bytes as if it were whole", len(p.got)+len(payload))
				}
			}
			again := startSender(t, "go-amqp", r.as(anybody, "telemetry/abort"))
			again.mustSend(t, outgoing{ID: 1, Body: []byte("whole")})
			transfer, payload := await[*amqp.Transfer](t, p.receiver)
			if transfer.More || !bytes.HasSuffix(payload, []byte("whole")) {
				t.Errorf("after it came more %v and %d bytes", transfer.More, len(payload))
			}
			write(t, p.receiver, &amqp.Disposition{Role: amqp.RoleReceiver, First: transfer.DeliveryID, Last: transfer.DeliveryID, Settled: true, State: amqp.StateAccepted}, nil)
			checkOutcome(t, again.await(t, "outcome"), 1, "accepted")
			p.receiver.Conn.Close()
		})
	}
	t.Run("Proton hears of it", func(t *testing.T) {
		needPeer(t, "proton")
		o := r.as(anybody, "telemetry/abort.proton")
		o.parts = true
		receiver := startReceiver(t, "proton", o)
		p := sendPart(t, r, o.address, false)
		receiver.await(t, "part")
		p.sender.Cut()
		receiver.await(t, "aborted")
		again := startSender(t, "go-amqp", o)
		again.mustSend(t, outgoing{ID: 1, Body: []byte("whole")})
		for {
			e := receiver.next(t, "message")
			if e.Event == "message" {
				if string(e.Body) != "whole" {
					t.Errorf("received %d bytes after the aborted message", len(e.Body))
				}
				break
			}
		}
		checkOutcome(t, again.await(t, "outcome"), 1, "accepted")
	})
}
