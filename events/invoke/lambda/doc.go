// Package lambda is the Invoker over the Invoke API of AWS Lambda: each call is
// one request-response invocation whose payload and result are structured
// CloudEvents (contract: events, sections 3 and 5). Lambda carries no HTTP
// status, so what it tells by other means becomes one: FunctionError is 500,
// throttling 429, a function that ran out of time 504. Tries, their number and
// the circuit breaker are those of package invoke.
//
//	inv, err := lambda.New(lambda.Config{Function: "sluice-identity", Source: "//sluice.local/adapters/http-0.7f3a"})
//	defer inv.Close()
//	admitted, err := events.Call(ctx, inv, events.Admit{...})
package lambda
