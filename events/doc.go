// Package events is the catalogue of CloudEvents that the parts of the
// platform exchange: one file per kind, each with its Go types, and the port
// [Invoker] by which adapters and the router reach the functions.
//
// It decides shapes and names (contract: events); behaviour is in functions/,
// transport in events/http and events/invoke.
package events
