// Package invoke is what the invokers that leave the process share: how often a
// call is tried inside its deadline, how many calls are under way at a time, and
// the circuit breaker that ends calls at once while their host does not answer
// (contract: events, section 3). The folders below it bring the transports.
//
//	g := invoke.NewGuard(invoke.Options{Source: "//sluice.local/adapters/http-0.7f3a", Log: log})
//	rep, err := g.Do(ctx, req, func(ctx context.Context, env events.Envelope) (events.Reply, invoke.Outcome, error) {
//		return post(ctx, req, env)
//	})
package invoke
