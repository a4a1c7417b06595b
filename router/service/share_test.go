package service_test

import (
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/router/service"
)

// TestRequestsOfOneCallerLeaveRoom: one with many connections keeps the requests of nobody else out.
func TestRequestsOfOneCallerLeaveRoom(t *testing.T) {
	greedy := []*peer.Conn{{}, {}, {}}
	other := &peer.Conn{}
	s := service.New(service.Options{Invoker: never(t), Caller: func(c *peer.Conn) string {
		if c == other {
			return "other"
		}
		return "greedy"
	}})
	n := 0
	for s.Enter(greedy[n%len(greedy)]) {
		n++
	}
	if n != service.MaxWaiting*3/4 {
		t.Errorf("alone one has %d, want three quarters of %d", n, service.MaxWaiting)
	}
	for range 1000 {
		if !s.Enter(other) {
			t.Fatal("there is no room for another")
		}
	}
	for range 1000 {
		s.Leave(other)
	}
	for i := range n {
		s.Leave(greedy[i%len(greedy)])
	}
	if s.Close(); s.Enter(other) {
		t.Error("one that is closed takes requests")
	}
}
