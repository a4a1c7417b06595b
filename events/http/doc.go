// Package http is the HTTP binding of CloudEvents 1.0.2 as contract events,
// section 5, uses it: binary (headers, percent-encoded), structured and
// batched. It reads and writes messages; whom to ask and what to answer is
// decided elsewhere.
//
// Headers are coded here because the CloudEvents SDK, whose event type this
// package fills, writes no percent-encoding; the JSON format is that of package events.
//
//	in, err := http.Read(r.Header, body)
//	err = http.WriteResponse(w, http.Binary, 200, &out)
package http
