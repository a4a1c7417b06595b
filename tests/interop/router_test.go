package interop_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
)

// startRouter runs `sluice router` alone and returns how its one user reaches it.
func startRouter(t *testing.T) linkOptions {
	t.Helper()
	dir, addr := t.TempDir(), freeAddr(t)
	config := writeFile(t, filepath.Join(dir, "router.yaml"),
		fmt.Sprintf("insecure: true\nlisteners:\n  - {role: northbound, address: %q}\n", addr))
	identities := writeFile(t, filepath.Join(dir, "identities.yaml"), `identities:
  - name: user@TEST
    secret: "{plain}secret of the test"
    assertions: optional
    authorities:
      - {address: "telemetry/*", may: [read, write]}
`)
	c := startChild(t, "sluice router", exec.Command(program(t), "router", "--data", filepath.Join(dir, "data"),
		"--config", config, "--identities", identities), nil)
	c.awaitListener(t, addr)
	return linkOptions{addr: addr, user: "user@TEST", password: "secret of the test"}
}

func (o linkOptions) at(address string) linkOptions {
	o.address = address
	return o
}

// eachPair runs a test for each combination of a sending and a receiving client
// against one router, on an address of its own.
func eachPair(t *testing.T, test func(t *testing.T, from, to string, o linkOptions)) {
	t.Helper()
	router := startRouter(t)
	for _, from := range kinds {
		for _, to := range kinds {
			t.Run(from+" to "+to, func(t *testing.T) {
				needPeer(t, from)
				needPeer(t, to)
				test(t, from, to, router.at("telemetry/"+from+"."+to))
			})
		}
	}
}

func randomBytes(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// sizes are one frame and many: 200 KiB is beyond what is assembled and beyond every default frame size.
var sizes = []int{1 << 10, 200 << 10}

var outcomes = []string{"accepted", "rejected", "released", "modified"}

// TestOutcomesTravelEndToEnd sends unsettled messages and checks that the sender
// hears the receiver's outcome with its details, and that the message arrived unchanged.
func TestOutcomesTravelEndToEnd(t *testing.T) {
	for _, mode := range []string{"first", "second"} {
		t.Run("receiver settles "+mode, func(t *testing.T) {
			eachPair(t, func(t *testing.T, from, to string, o linkOptions) {
				o.sndSettleMode, o.rcvSettleMode = "unsettled", mode
				receiver := startPeer(t, to, "recv", o)
				sender := connectPeer(t, from, "send", o)
				if got := sender.await(t, "ready"); got.SndSettleMode != "unsettled" || got.RcvSettleMode != mode {
					t.Errorf("asked for unsettled and %s, the router answers %s and %s", mode, got.SndSettleMode, got.RcvSettleMode)
				}
				id := 0
				for _, size := range sizes {
					for _, outcome := range outcomes {
						id++
						body := randomBytes(t, size)
						sender.mustSend(t, outgoing{ID: id, Subject: outcome, Body: body, ContentType: "application/x-test", To: o.address})
						checkMessage(t, receiver.await(t, "message"), id, outcome, o.address, body)
						checkOutcome(t, sender.await(t, "outcome"), id, outcome)
						if mode == "second" {
							receiver.await(t, "settled")
						}
					}
				}
			})
		})
	}
}

func checkMessage(t *testing.T, got event, id int, subject, to string, body []byte) {
	t.Helper()
	if !bytes.Equal(got.Body, body) {
		t.Errorf("message %d: %d bytes that are not the %d bytes sent", id, len(got.Body), len(body))
	}
	if got.Subject != subject || got.To != to || got.ContentType != "application/x-test" {
		t.Errorf("message %d: subject %q, to %q, content type %q; want %q, %q, application/x-test", id, got.Subject, got.To, got.ContentType, subject, to)
	}
	if fmt.Sprint(got.Properties["number"]) != fmt.Sprint(id) {
		t.Errorf("message %d: application property number is %v", id, got.Properties["number"])
	}
	if got.Annotations["x-opt-note"] != "kept" {
		t.Errorf("message %d: message annotations %v; want x-opt-note: kept", id, got.Annotations)
	}
}

func checkOutcome(t *testing.T, got event, id int, want string) {
	t.Helper()
	if got.ID != id || got.State != want {
		t.Errorf("outcome of message %d is %q; want that of %d, %q", got.ID, got.State, id, want)
	}
	if want == "rejected" && (got.Condition != "test:refused" || got.Description != "as the subject asked") {
		t.Errorf("message %d rejected with %q, %q; want what the receiver gave", id, got.Condition, got.Description)
	}
	if want == "modified" && (!got.DeliveryFailed || !got.UndeliverableHere) {
		t.Errorf("message %d modified with delivery-failed %v, undeliverable-here %v; want both", id, got.DeliveryFailed, got.UndeliverableHere)
	}
}

// TestPreSettled sends without waiting for anything and expects every message in order.
func TestPreSettled(t *testing.T) {
	eachPair(t, func(t *testing.T, from, to string, o linkOptions) {
		receiver := startReceiver(t, to, o)
		o.sndSettleMode = "settled"
		sender := startSender(t, from, o)
		const many = 20
		for id := range many {
			body := bytes.Repeat([]byte{byte(id)}, sizes[id%len(sizes)])
			sender.mustSend(t, outgoing{ID: id, Subject: "accepted", Body: body, ContentType: "application/x-test", To: o.address})
		}
		for id := range many {
			got := receiver.await(t, "message")
			checkMessage(t, got, id, "accepted", o.address, bytes.Repeat([]byte{byte(id)}, sizes[id%len(sizes)]))
			if to != "go-amqp" && !got.Settled { // go-amqp does not tell
				t.Errorf("message %d arrived unsettled", id)
			}
		}
	})
}

// TestSettleModesAreAnswered checks that the router answers with the modes that
// were asked for: clients give up on a link that got others.
func TestSettleModesAreAnswered(t *testing.T) {
	router := startRouter(t)
	for _, kind := range kinds {
		for _, role := range []string{"send", "recv"} {
			for _, snd := range []string{"unsettled", "settled", "mixed"} {
				for _, rcv := range []string{"first", "second"} {
					t.Run(fmt.Sprintf("%s %s %s %s", kind, role, snd, rcv), func(t *testing.T) {
						o := router.at("telemetry/modes")
						o.sndSettleMode, o.rcvSettleMode = snd, rcv
						got := connectPeer(t, kind, role, o).await(t, "ready")
						if got.SndSettleMode != snd || got.RcvSettleMode != rcv || got.Address != o.address {
							t.Errorf("answered %s, %s, %q; want %s, %s, %q", got.SndSettleMode, got.RcvSettleMode, got.Address, snd, rcv, o.address)
						}
					})
				}
			}
		}
	}
}

// TestWrongPasswordAndAddress checks that clients are refused with the right condition.
func TestWrongPasswordAndAddress(t *testing.T) {
	router := startRouter(t)
	for _, kind := range kinds {
		t.Run(kind+" wrong password", func(t *testing.T) {
			o := router.at("telemetry/TEST")
			o.password = "not it"
			if got := connectPeer(t, kind, "recv", o).await(t, "closed"); got.Description == "" && got.Condition == "" {
				t.Error("refused without a word")
			}
		})
		t.Run(kind+" no authority", func(t *testing.T) {
			got := connectRefused(t, kind, router.at("command/TEST"))
			if got.Condition != "amqp:unauthorized-access" {
				t.Errorf("refused with %q %q; want amqp:unauthorized-access", got.Condition, got.Description)
			}
		})
	}
}

// connectRefused returns how a link was refused; the attach that comes first
// with AMQP may be reported by the client or not.
func connectRefused(t *testing.T, kind string, o linkOptions) event {
	t.Helper()
	p := connectPeer(t, kind, "recv", o)
	e := p.next(t, "closed")
	if e.Event == "ready" {
		e = p.await(t, "closed")
	}
	return e
}
