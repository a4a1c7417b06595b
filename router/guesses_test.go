package router_test

import (
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/router"
)

// TestGuessesAreRefused guesses a secret on the wire until the router stops looking.
func TestGuessesAreRefused(t *testing.T) {
	s := serveFile(t, "identities:\n  - {name: app, secret: \""+hashed(t)+"\", authorities: []}\n", router.Listener{})
	login := func(name, password string) amqp.SASLCode {
		w := s.wire(t, amqp.HeaderSASL)
		w.mechanisms()
		w.send(&amqp.SASLInit{Mechanism: "PLAIN", InitialResponse: []byte("\x00" + name + "\x00" + password)})
		return w.outcome()
	}
	for i := range 10 {
		if got := login("app", "wrong"); got != amqp.SASLAuth {
			t.Fatalf("attempt %d: outcome %d", i, got)
		}
	}
	if got := login("app", secret); got != amqp.SASLSysTemp {
		t.Errorf("after ten that failed: outcome %d, want %d", got, amqp.SASLSysTemp)
	}
	if got := login("other", secret); got != amqp.SASLAuth {
		t.Errorf("another name: outcome %d", got)
	}
	if got := gather(t, s.Router)["sluice_router_logins_refused_total{}"]; got != 1 {
		t.Errorf("%v were counted", got)
	}
}
