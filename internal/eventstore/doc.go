// Package eventstore keeps the events of devices until applications have taken
// them (contract: events, section 4.4): the rules, and the port behind which
// their state lies.
//
// The events of a tenant lie in partitions, chosen by the device, so that those
// of one device keep their order. A partition is a log of batches: what one
// append brought to it is one batch, stored and read as a whole, so that neither
// an append nor an expiry costs an index entry for each event. What is known of
// a partition beside its batches (what was settled, what is to be retried, who
// holds it) is one small [Partition], and every rule is a method of it. A backend
// implements [Store]: it loads that state, applies a change and keeps the outcome,
// atomically for each partition.
//
//	log := eventstore.New(store, eventstore.Options{})
//	results, err := log.Append(ctx, eventstore.AppendRequest{Records: records})
//
// A partition is consumed by one holder at a time under a fence that grows with
// every claim by another: whoever comes with an older one gets iot.ErrExists
// (409) and stops.
package eventstore
