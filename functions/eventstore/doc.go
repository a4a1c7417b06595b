// Package eventstore answers the calls about stored events (contract: events,
// section 4.4): append, claim, read, settle and release for routers, expire for a
// schedule, and stats, browse, requeue and purge for operators. The rules are those
// of internal/eventstore; this package makes an append that stored nothing a
// failure, and tells of dead letters.
//
//	f := eventstore.New(log, eventstore.Options{Facts: poster, Log: logger})
//	inv, err := inproc.New(logger, f.Functions()...)
package eventstore
