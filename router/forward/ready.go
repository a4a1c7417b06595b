package forward

import "container/heap"

// ready holds the receivers with credit, the one whose turn it is first: on a
// balanced address the one with the least backlog, and among equals, as on a
// closest address always, the one that was served longest ago.
type ready struct {
	list   []*receiver
	turns  bool // by turns only
	served uint64
}

func (r *ready) Len() int { return len(r.list) }

func (r *ready) Less(i, j int) bool {
	a, b := r.list[i], r.list[j]
	if !r.turns && a.backlog != b.backlog {
		return a.backlog < b.backlog
	}
	return a.turn < b.turn
}

func (r *ready) Swap(i, j int) {
	r.list[i], r.list[j] = r.list[j], r.list[i]
	r.list[i].place, r.list[j].place = i+1, j+1
}

// Push implements [heap.Interface].
func (r *ready) Push(x any) {
	v := x.(*receiver)
	r.list = append(r.list, v)
	v.place = len(r.list)
}

// Pop implements [heap.Interface].
func (r *ready) Pop() any {
	n := len(r.list) - 1
	v := r.list[n]
	r.list[n] = nil
	r.list = r.list[:n]
	v.place = 0
	return v
}

// head is the receiver that gets the next delivery, or nil.
func (r *ready) head() *receiver {
	if len(r.list) == 0 {
		return nil
	}
	return r.list[0]
}

func (r *ready) add(x *receiver) {
	if x.place == 0 {
		r.served++
		x.turn = r.served
		heap.Push(r, x)
	}
}

func (r *ready) remove(x *receiver) {
	if x.place > 0 {
		heap.Remove(r, x.place-1)
	}
}

// sent notes a delivery to x, which is then behind its equals.
func (r *ready) sent(x *receiver, settled bool) {
	if !settled {
		x.backlog++
	}
	r.served++
	x.turn = r.served
	if x.place > 0 && len(r.list) > 1 {
		heap.Fix(r, x.place-1)
	}
}

// done notes that n deliveries to x are settled.
func (r *ready) done(x *receiver, n int) {
	x.backlog = max(0, x.backlog-n)
	if x.place > 0 && len(r.list) > 1 {
		heap.Fix(r, x.place-1)
	}
}
