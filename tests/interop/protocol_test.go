package interop_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// eachClients runs a test for each combination of a sending and a receiving
// client against one router, on an address of its own.
func eachClients(t *testing.T, r *alone, test func(t *testing.T, from, to, address string)) {
	t.Helper()
	for _, from := range kinds {
		for _, to := range kinds {
			t.Run(from+" to "+to, func(t *testing.T) {
				needPeer(t, from)
				needPeer(t, to)
				test(t, from, to, "telemetry/"+from+"."+to)
			})
		}
	}
}

// TestOutcomesKeepTheirDetails looks at what an outcome carries beside its name:
// the error's information map, each flag of modified, and its annotations.
func TestOutcomesKeepTheirDetails(t *testing.T) {
	r := startAlone(t)
	eachClients(t, r, func(t *testing.T, from, to, address string) {
		o := r.as(anybody, address)
		o.sndSettleMode = "unsettled"
		startReceiver(t, to, o).ignore(t)
		sender := startSender(t, from, o)
		for id, tc := range []struct {
			subject, state        string
			failed, undeliverable bool
			info                  string
		}{
			{"rejected", "rejected", false, false, "told"},
			{"modified:none", "modified", false, false, ""},
			{"modified:failed", "modified", true, false, ""},
			{"modified:undeliverable", "modified", false, true, ""},
			{"modified:failed:undeliverable:annotated", "modified", true, true, "told"},
			{"released", "released", false, false, ""},
			{"accepted", "accepted", false, false, ""},
		} {
			sender.mustSend(t, outgoing{ID: id, Subject: tc.subject, Body: []byte("x")})
			got := sender.await(t, "outcome")
			why, _ := got.Info["x-opt-why"].(string)
			if got.ID != id || got.State != tc.state || got.DeliveryFailed != tc.failed || got.UndeliverableHere != tc.undeliverable || why != tc.info {
				t.Errorf("%s came back as %s of message %d, delivery-failed %v, undeliverable-here %v, x-opt-why %q",
					tc.subject, got.State, got.ID, got.DeliveryFailed, got.UndeliverableHere, why)
			}
		}
	})
}

// TestEveryPairOfSettleModes sends in each mode of the sender to receivers in each
// of theirs, and expects the message and, unless it was settled, its outcome.
func TestEveryPairOfSettleModes(t *testing.T) {
	r := startAlone(t)
	for _, from := range kinds {
		for _, to := range kinds {
			needPeer(t, from)
			needPeer(t, to)
			for _, rcv := range []string{"first", "second"} {
				address := fmt.Sprintf("telemetry/%s.%s.%s", from, to, rcv)
				in := r.as(anybody, address)
				in.rcvSettleMode = rcv
				receiver := startReceiver(t, to, in)
				for _, snd := range []string{"unsettled", "settled", "mixed"} {
					t.Run(fmt.Sprintf("%s %s to %s %s", from, snd, to, rcv), func(t *testing.T) {
						out := r.as(anybody, address)
						out.sndSettleMode = snd
						sender := startSender(t, from, out)
						for id, settled := range []bool{false, true} {
							if settled && snd != "mixed" {
								continue
							}
							sender.mustSend(t, outgoing{ID: id, Body: []byte(snd), Settled: settled})
							if got := receiver.await(t, "message"); string(got.Body) != snd {
								t.Errorf("received %q", got.Body)
							}
							if settled || snd == "settled" {
								sender.await(t, "sent")
								if rcv == "second" && to == "go-amqp" {
									receiver.await(t, "settled") // it says so of every message
								}
								continue
							}
							checkOutcome(t, sender.await(t, "outcome"), id, "accepted")
							if rcv == "second" {
								receiver.await(t, "settled")
							}
						}
					})
				}
			}
		}
	}
}

// TestSmallFrames has both ends announce the smallest frame that AMQP knows.
func TestSmallFrames(t *testing.T) {
	r := startAlone(t)
	eachClients(t, r, func(t *testing.T, from, to, address string) {
		o := r.as(anybody, address)
		o.maxFrame = 512
		receiver := startReceiver(t, to, o)
		sender := startSender(t, from, o)
		for id, size := range []int{1, 400, 512, 3000, 200 << 10} {
			body := pattern(size, id)
			sender.mustSend(t, outgoing{ID: id, Body: body})
			if got := receiver.await(t, "message"); !bytes.Equal(got.Body, body) {
				t.Errorf("%d bytes arrived; want the %d that were sent", len(got.Body), size)
			}
			checkOutcome(t, sender.await(t, "outcome"), id, "accepted")
		}
	})
}

// TestCredit gives none, one, and many: a message that no credit was given for is
// released and not delivered, also not later.
func TestCredit(t *testing.T) {
	r := startAlone(t)
	eachClients(t, r, func(t *testing.T, from, to, address string) {
		o := r.as(anybody, address)
		o.manual = true
		receiver := startReceiver(t, to, o)
		sender := startSender(t, from, o)

		sender.mustSend(t, outgoing{ID: 1, Body: []byte("for no credit")})
		checkOutcome(t, sender.await(t, "outcome"), 1, "released")

		receiver.mustSend(t, outgoing{Cmd: "credit", N: 1})
		sender.mustSend(t, outgoing{ID: 2, Body: []byte("for the one credit")})
		if got := receiver.await(t, "message"); string(got.Body) != "for the one credit" {
			t.Errorf("received %q", got.Body)
		}
		checkOutcome(t, sender.await(t, "outcome"), 2, "accepted")
		sender.mustSend(t, outgoing{ID: 3, Body: []byte("for no credit again")})
		checkOutcome(t, sender.await(t, "outcome"), 3, "released")
		receiver.silent(t, 0)

		const many = 50
		receiver.mustSend(t, outgoing{Cmd: "credit", N: many})
		for id := range many {
			sender.mustSend(t, outgoing{ID: 100 + id, Body: []byte("one of many")})
		}
		for range many {
			if got := receiver.await(t, "message"); string(got.Body) != "one of many" {
				t.Errorf("received %q", got.Body)
			}
			if got := sender.await(t, "outcome"); got.State != "accepted" {
				t.Errorf("message %d was %s", got.ID, got.State)
			}
		}
		sender.mustSend(t, outgoing{ID: 4, Body: []byte("for no credit at last")})
		checkOutcome(t, sender.await(t, "outcome"), 4, "released")
		receiver.silent(t, 0)
	})
}

// TestDrain takes back the credit that was given.
func TestDrain(t *testing.T) {
	r := startAlone(t)
	eachClients(t, r, func(t *testing.T, from, to, address string) {
		o := r.as(anybody, address)
		o.manual = true
		receiver := startReceiver(t, to, o)
		sender := startSender(t, from, o)
		receiver.mustSend(t, outgoing{Cmd: "credit", N: 10})
		sender.mustSend(t, outgoing{ID: 1, Body: []byte("before")})
		receiver.await(t, "message")
		checkOutcome(t, sender.await(t, "outcome"), 1, "accepted")
		receiver.mustSend(t, outgoing{Cmd: "drain"})
		receiver.await(t, "drained")
		sender.mustSend(t, outgoing{ID: 2, Body: []byte("drained")})
		checkOutcome(t, sender.await(t, "outcome"), 2, "released")
		receiver.mustSend(t, outgoing{Cmd: "credit", N: 1})
		sender.mustSend(t, outgoing{ID: 3, Body: []byte("after")})
		if got := receiver.await(t, "message"); string(got.Body) != "after" {
			t.Errorf("received %q", got.Body)
		}
		checkOutcome(t, sender.await(t, "outcome"), 3, "accepted")
	})
}

// TestRequestAndResponse asks over an address and is answered at one that the
// router made up, by a server that sends without an address of its own.
func TestRequestAndResponse(t *testing.T) {
	r := startAlone(t)
	eachClients(t, r, func(t *testing.T, client, server, address string) {
		o := r.as(anybody, "")
		o.dynamic = true
		answers := connectPeer(t, client, "recv", o)
		replyTo := answers.await(t, "ready").Address
		if replyTo == "" {
			t.Fatal("no address was made")
		}
		served := startReceiver(t, server, r.as(anybody, address))
		questions := startSender(t, client, r.as(anybody, address))
		answer := startSender(t, server, r.as(anybody, "")) // the anonymous terminus
		for id := range 5 {
			correlation := fmt.Sprint("question ", id)
			questions.mustSend(t, outgoing{ID: id, Body: []byte("why?"), ReplyTo: replyTo, CorrelationID: correlation})
			got := served.await(t, "message")
			if got.ReplyTo != replyTo || got.CorrelationID != correlation {
				t.Errorf("asked with reply-to %q and correlation-id %q; want %q and %q", got.ReplyTo, got.CorrelationID, replyTo, correlation)
			}
			answer.mustSend(t, outgoing{ID: id, Body: []byte("because"), To: got.ReplyTo, CorrelationID: got.CorrelationID})
			if got := answers.await(t, "message"); got.CorrelationID != correlation || string(got.Body) != "because" {
				t.Errorf("answered %q to %q; want %q", got.Body, got.CorrelationID, correlation)
			}
			checkOutcome(t, answer.await(t, "outcome"), id, "accepted")
			checkOutcome(t, questions.await(t, "outcome"), id, "accepted")
		}
		answers.close()
		eventually(t, "the address ends with its receiver", func() error {
			answer.mustSend(t, outgoing{ID: 9, Body: []byte("too late"), To: replyTo})
			if got := answer.await(t, "outcome"); got.State == "accepted" {
				return fmt.Errorf("%s at %s", got.State, replyTo)
			}
			return nil
		})
	})
}

// TestAnonymousSender names the address in each message; a message that names none,
// or one that nobody receives from, comes back.
func TestAnonymousSender(t *testing.T) {
	r := startAlone(t)
	eachClients(t, r, func(t *testing.T, from, to, address string) {
		first := startReceiver(t, to, r.as(anybody, address+"/1"))
		second := startReceiver(t, to, r.as(anybody, address+"/2"))
		sender := startSender(t, from, r.as(anybody, ""))
		id := 0
		for range 3 {
			for i, receiver := range []*peer{first, second} {
				id++
				where := fmt.Sprintf("%s/%d", address, i+1)
				sender.mustSend(t, outgoing{ID: id, Body: []byte(where), To: where})
				if got := receiver.await(t, "message"); string(got.Body) != where || got.To != where {
					t.Errorf("received %q sent to %q; want %q", got.Body, got.To, where)
				}
				checkOutcome(t, sender.await(t, "outcome"), id, "accepted")
			}
		}
		for _, tc := range []struct{ to, state, condition string }{
			{"", "rejected", "amqp:invalid-field"},
			{"nowhere/X", "rejected", "amqp:unauthorized-access"},
			{address + "/3", "released", ""},
		} {
			id++
			sender.mustSend(t, outgoing{ID: id, Body: []byte("x"), To: tc.to})
			if got := sender.await(t, "outcome"); got.ID != id || got.State != tc.state || got.Condition != tc.condition {
				t.Errorf("to %q: %s %s of message %d; want %s %s", tc.to, got.State, got.Condition, got.ID, tc.state, tc.condition)
			}
		}
	})
}

// TestMulticast gives three receivers, one of each client, a copy each, and the
// sender the outcome that ranks first.
func TestMulticast(t *testing.T) {
	r := startAlone(t)
	for _, kind := range kinds {
		needPeer(t, kind)
	}
	for _, from := range kinds {
		for _, tc := range []struct {
			answers [3]string // of go-amqp, proton and rhea
			want    string
		}{
			{[3]string{"accepted", "accepted", "accepted"}, "accepted"},
			{[3]string{"accepted", "rejected", "accepted"}, "rejected"},
			{[3]string{"released", "modified", "accepted"}, "accepted"},
			{[3]string{"released", "modified", "released"}, "modified"},
			{[3]string{"released", "released", "released"}, "released"},
		} {
			t.Run(fmt.Sprintf("%s, %v", from, tc.answers), func(t *testing.T) {
				o := r.as(anybody, "notification/"+from)
				var receivers []*peer
				for i, kind := range kinds {
					o.answer = tc.answers[i]
					receivers = append(receivers, startReceiver(t, kind, o))
				}
				sender := startSender(t, from, o)
				for id, size := range sizes {
					body := pattern(size, id)
					sender.mustSend(t, outgoing{ID: id, Body: body})
					for _, receiver := range receivers {
						if got := receiver.await(t, "message"); !bytes.Equal(got.Body, body) {
							t.Errorf("%s got %d bytes; want the %d that were sent", receiver.name, len(got.Body), size)
						}
					}
					checkOutcome(t, sender.await(t, "outcome"), id, tc.want)
				}
				for _, receiver := range receivers {
					receiver.close()
					receiver.silentEnd(t)
				}
			})
		}
	}
}

// silentEnd takes what a closed peer still says, which must be no message.
func (p *peer) silentEnd(t *testing.T) {
	t.Helper()
	for {
		select {
		case e, ok := <-p.events:
			if !ok || e.Event == "closed" {
				return
			}
			if e.Event == "message" {
				t.Errorf("%s got a copy too many", p.name)
			}
		case <-time.After(patience):
			t.Fatalf("%s does not end", p.name)
		}
	}
}
