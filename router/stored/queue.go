package stored

// queue is what is ready for receivers, in order.
type queue struct {
	items []*entry
	first int
	bytes int
}

func (q *queue) len() int { return len(q.items) - q.first }

func (q *queue) push(e *entry) {
	q.items = append(q.items, e)
	q.bytes += len(e.message)
}

func (q *queue) pop() *entry {
	if q.len() == 0 {
		q.items, q.first = nil, 0
		return nil
	}
	e := q.items[q.first]
	q.items[q.first] = nil
	q.bytes -= len(e.message)
	if q.first++; q.first > 256 && q.first*2 > len(q.items) {
		q.items = append([]*entry(nil), q.items[q.first:]...)
		q.first = 0
	}
	return e
}

// unpop puts back what was popped last.
func (q *queue) unpop(e *entry) {
	q.bytes += len(e.message)
	if q.first > 0 {
		q.first--
		q.items[q.first] = e
		return
	}
	q.items = append([]*entry{e}, q.items...)
}

// remove takes entries out.
func (q *queue) remove(f func(*entry) bool) {
	kept := q.items[:q.first]
	for _, e := range q.items[q.first:] {
		if f(e) {
			q.bytes -= len(e.message)
			continue
		}
		kept = append(kept, e)
	}
	clear(q.items[len(kept):])
	q.items = kept
}
