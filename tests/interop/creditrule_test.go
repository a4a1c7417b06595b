package interop_test

import (
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

const (
	idleLinks = 1000
	// fullRate is the part of what a sender does alone that it must do beside idle ones.
	fullRate = 0.8
	// floodTime is how long a rate is measured.
	floodTime = 500 * time.Millisecond
	// attempts bound how often a rate is measured again: the machine has other work,
	// and a sender that is kept from sending is so each time.
	attempts = 6
)

// acceptAll keeps ten credits given and accepts what comes, until the connection ends.
func acceptAll(c *wire.Client, done *sync.WaitGroup) {
	done.Go(func() {
		count := uint32(0)
		for {
			p, _, err := c.Read()
			if err != nil {
				return
			}
			transfer, ok := p.(*amqp.Transfer)
			if !ok {
				continue
			}
			count++
			out := wire.Append(nil, &amqp.Disposition{Role: amqp.RoleReceiver, First: transfer.DeliveryID, Last: transfer.DeliveryID, Settled: true, State: amqp.StateAccepted}, nil)
			out = wire.Append(out, wire.Credit(0, count, 10), nil)
			if _, err := c.Conn.Write(out); err != nil {
				return
			}
		}
	})
}

// TestIdleSendersCostNothing compares what one sender gets through to a receiver with
// ten credits when it is alone and when a thousand idle links send to the same address.
func TestIdleSendersCostNothing(t *testing.T) {
	r := startAlone(t)
	for _, active := range kinds {
		for _, idle := range kinds {
			t.Run(active+" beside "+idle, func(t *testing.T) {
				needPeer(t, active)
				needPeer(t, idle)
				var receiving sync.WaitGroup
				lone, crowded := "telemetry/alone."+active+"."+idle, "telemetry/crowd."+active+"."+idle
				for _, address := range []string{lone, crowded} {
					c := r.wire(t, wire.Options{})
					defer c.Conn.Close()
					attached(t, c, wire.Receiver(0, "r", address))
					write(t, c, wire.Credit(0, 0, 10), nil)
					acceptAll(c, &receiving)
				}
				o := r.as(anybody, crowded)
				o.links = idleLinks
				crowd := startSender(t, idle, o)
				defer crowd.close()
				o.links = 0
				beside := startSender(t, active, o)
				alone := startSender(t, active, r.as(anybody, lone))
				best := 0.0
				for range attempts {
					a, b := flood(t, alone), flood(t, beside)
					best = max(best, float64(b)/float64(max(a, 1)))
					t.Logf("alone %d messages, beside %d idle links %d", a, idleLinks, b)
					if best >= fullRate {
						break
					}
				}
				if best < fullRate {
					t.Errorf("beside %d idle links at most %.2f of the messages go through; want %.2f", idleLinks, best, fullRate)
				}
				alone.close()
				beside.close()
			})
		}
	}
}

// flood returns how many messages were accepted.
func flood(t *testing.T, p *peer) int {
	t.Helper()
	p.mustSend(t, outgoing{Cmd: "flood", N: int(floodTime / time.Millisecond)})
	return p.await(t, "flooded").N
}

// TestOneCreditOneDelivery has several senders send at once to a receiver that gave one
// credit: it gets exactly one message, and the others come back.
func TestOneCreditOneDelivery(t *testing.T) {
	r := startAlone(t)
	for _, kind := range kinds {
		needPeer(t, kind)
	}
	for _, to := range kinds {
		t.Run(to, func(t *testing.T) {
			o := r.as(anybody, "telemetry/one."+to)
			o.manual = true
			receiver := startReceiver(t, to, o)
			receiver.mustSend(t, outgoing{Cmd: "credit", N: 1})
			var senders []*peer
			for range 3 {
				for _, from := range kinds {
					senders = append(senders, startSender(t, from, o))
				}
			}
			for id, sender := range senders {
				sender.mustSend(t, outgoing{ID: id, Body: []byte("x")})
			}
			states := map[string]int{}
			for _, sender := range senders {
				states[sender.await(t, "outcome").State]++
			}
			if states["accepted"] != 1 || states["released"] != len(senders)-1 {
				t.Errorf("outcomes %v of %d messages; want one accepted and the others released", states, len(senders))
			}
			receiver.await(t, "message")
			receiver.silent(t, 0)
			for _, sender := range senders {
				sender.close()
			}
		})
	}
}
