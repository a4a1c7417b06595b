// Package stored keeps the events of tenants until applications take them
// (contract: events, section 4.4; messaging, Event API). It is the router's side
// of the event store: a delivery to event/T is accepted as soon as the store has
// it, whether or not somebody listens, and is offered to T's receivers as their
// credit allows, from memory right after it was stored, from the store else.
//
//	s := stored.New(stored.Options{Log: log, Router: router})
//
// Appends of all tenants go together, one in flight for each shard, so that they
// share what makes them durable. A tenant costs nothing while nobody listens:
// claims are held, and the store is read, only while a receiver is there, and
// only when there is something to read.
//
// Locks: that of a tenant, or of an appender, is the last one taken. The
// forwarder is called while none of them is held, but for the turn to offer
// (tenant.turn), which the forwarder never waits for.
package stored
