// Package changes answers io.sluice.registry.changes: a part of the registry's
// change feed, for a router that starts, that missed something, or that
// confirms that it did not (contract: events, sections 4.1 and 4.2).
package changes
