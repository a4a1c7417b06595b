// Package edge puts the router and the protocol adapters together for the
// programs that run them: it opens what the configuration names, listens,
// connects them to each other and to the functions, and stops them in order.
//
// Functions that the same process runs are handed in; without them, they are
// asked where functions.identity says. The package reaches no store.
//
//	p := edge.New(edge.Options{Config: cfg, Log: log, Parts: edge.Parts{Router: true}})
//	err := p.Run(ctx)
package edge
