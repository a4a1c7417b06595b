// Package inproc is the Invoker of one process: the request's Go value goes to
// the handler of its type and the reply's comes back, in the caller's
// goroutine and without encoding.
//
//	inv, err := inproc.New(log, functions...)
//	admitted, err := events.Call(ctx, inv, events.Admit{...})
package inproc
