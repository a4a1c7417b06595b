package http

import "sync/atomic"

// results count facts by what became of them.
type results struct {
	by      [len(verdicts)]atomic.Int64
	skipped atomic.Int64 // not even tried
}

type counters struct {
	ingress, sink, queue results
	unresolved           atomic.Int64
}

// Count is how many facts were posted to one kind of receiver with one result.
type Count struct {
	To     string // router, sink or queue
	Result string
	Facts  int64
}

// Counts returns what became of facts since the start, once for each router, and
// how often the name of routers did not resolve. Package metrics shows them.
func (p *Poster) Counts() (facts []Count, unresolved int64) {
	for _, r := range []struct {
		to string
		*results
	}{{"router", &p.m.ingress}, {"sink", &p.m.sink}, {"queue", &p.m.queue}} {
		for i, verdict := range verdicts {
			facts = append(facts, Count{r.to, verdict, r.by[i].Load()})
		}
		facts = append(facts, Count{r.to, "skipped", r.skipped.Load()})
	}
	return facts, p.m.unresolved.Load()
}
