// Package notices tells the routers what changed in the registry, after the
// commit and before the caller of the change is answered (contract: events,
// section 4.2). What is not taken in time is not kept here: it stands in the
// change feed, where the routers' confirmation finds it.
//
//	o := notices.New(poster, log)
//	store.Observe(o.Observe)
package notices
