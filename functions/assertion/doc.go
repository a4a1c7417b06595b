// Package assertion answers the calls about registration assertions: sign,
// keys and rotate (contract: events, section 4.1). It is an envelope around
// internal/assertion; admission and registration use that directly.
package assertion
