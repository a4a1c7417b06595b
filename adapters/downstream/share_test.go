package downstream_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/amqp"
)

// A tenant whose devices answer nothing leaves room for the commands of others, whether
// it has many commands or large ones; what is too much is released at once.
func TestTenantsShareARoutersRoom(t *testing.T) {
	for name, c := range map[string]struct{ size, least, most int }{
		"many":  {1, 1500, 1500},
		"large": {1<<20 - 500, 20, 25},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, h := newScripted(t, "r"), &subscriber{}
				held := map[string][]func(error){}
				h.take = func(c *adapters.Command, done func(error)) {
					held[string(c.Tenant)] = append(held[string(c.Tenant)], done)
				}
				serve(t, h, r)
				synctest.Wait()
				of := func(tenant string) []byte {
					return encoded(t, aCommand(func(m *amqp.Message) {
						m.Properties.To, m.Properties.ReplyTo = fmt.Sprintf("command/%s/4711", tenant), ""
						m.Data[0] = make([]byte, c.size)
					}))
				}
				greedy := slices.Repeat([][]byte{of("GREEDY")}, 50)
				sent := 0
				for range 100 {
					sent += r.deliver(t, false, greedy...)
					synctest.Wait()
				}
				has := len(held["GREEDY"])
				if has < c.least || has > c.most || len(r.took()) != sent-has {
					t.Errorf("%d of %d handed over and %d settled, want %d to %d and the rest", has, sent, len(r.took()), c.least, c.most)
				}
				for _, state := range r.took() {
					if state.StateKind() != amqp.DescReleased {
						t.Fatalf("outcome %v, want released", state.StateKind())
					}
				}
				if r.deliver(t, false, of("MODEST")) != 1 {
					t.Fatal("no credit for the command of another tenant")
				}
				synctest.Wait()
				if len(held["MODEST"]) != 1 {
					t.Error("the command of another tenant is not handed over")
				}
				for _, done := range held["GREEDY"] {
					done(nil)
				}
				synctest.Wait()
				r.deliver(t, false, of("GREEDY"))
				synctest.Wait()
				if got := len(held["GREEDY"]); got != has+1 {
					t.Errorf("%d commands handed over after all had their outcome, want one more than %d", got, has)
				}
			})
		})
	}
}
