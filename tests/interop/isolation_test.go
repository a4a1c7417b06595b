package interop_test

import "testing"

// TestTenantsAreApart has applications of tenant A try to reach tenant B in every way
// that an address can be named, while B's application receives at all of its own.
func TestTenantsAreApart(t *testing.T) {
	r := startAlone(t)
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			needPeer(t, kind)
			var ofB []*peer
			for _, address := range []string{"telemetry/B", "command/B", "command_response/B/reply"} {
				ofB = append(ofB, startReceiver(t, "go-amqp", r.as(appB, address)))
			}
			private := r.as(appB, "")
			private.dynamic = true
			answers := connectPeer(t, "go-amqp", "recv", private)
			made := answers.await(t, "ready").Address
			ofB = append(ofB, answers)

			// What does not exist is refused like what does.
			for _, address := range []string{"telemetry/B", "telemetry/NOBODY", "command/B/device", "notification/B", made, "telemetry/*", "telemetry", "*"} {
				for _, role := range []string{"recv", "send"} {
					if address == made && role == "send" {
						continue // whoever was told the address may answer at it
					}
					if got := connectRefusedAs(t, kind, role, r.as(appA, address)); got.Condition != "amqp:unauthorized-access" {
						t.Errorf("%s at %s: %q %q; want amqp:unauthorized-access", role, address, got.Condition, got.Description)
					}
				}
			}

			anonymous := startSender(t, kind, r.as(appA, ""))
			for id, to := range []string{"telemetry/B", "command/B/device", "command_response/B/reply", "telemetry/NOBODY"} {
				anonymous.mustSend(t, outgoing{ID: id, Body: []byte("from A"), To: to})
				if got := anonymous.await(t, "outcome"); got.State != "rejected" || got.Condition != "amqp:unauthorized-access" {
					t.Errorf("anonymous to %s: %s %s; want rejected with amqp:unauthorized-access", to, got.State, got.Condition)
				}
			}

			// The link's address decides, whatever the message says of itself.
			service := startReceiver(t, kind, r.as(appA, "command/A"))
			own := startSender(t, kind, r.as(appA, "command/A"))
			own.mustSend(t, outgoing{ID: 1, Body: []byte("from A"), To: "command/B/device", ReplyTo: "command_response/B/reply"})
			got := service.await(t, "message")
			checkOutcome(t, own.await(t, "outcome"), 1, "accepted")
			// Whoever serves A answers with what A may do.
			anonymous.mustSend(t, outgoing{ID: 100, Body: []byte("answer"), To: got.ReplyTo})
			if got := anonymous.await(t, "outcome"); got.State != "rejected" {
				t.Errorf("an answer to B's reply address was %s; want rejected", got.State)
			}

			for _, p := range ofB {
				p.silent(t, 0)
				p.close()
			}
			service.close()
			service.silentEnd(t)
		})
	}
}

// connectRefusedAs is connectRefused for either role.
func connectRefusedAs(t *testing.T, kind, role string, o linkOptions) event {
	t.Helper()
	p := connectPeer(t, kind, role, o)
	e := p.next(t, "closed")
	if e.Event == "ready" {
		e = p.await(t, "closed")
	}
	p.close()
	return e
}
