package peer

import (
	"iter"
	"maps"
	"slices"
)

// lowKeys is how many of the lowest numbers lie in a slice. Peers number from
// zero, so few connections ever have a map, which would be a good part of what
// an idle one costs.
const lowKeys = 64

// index finds a channel's session or a handle's link.
type index[T any] struct {
	low  []*T
	high map[uint32]*T
	n    int
}

func (x *index[T]) get(k uint32) *T {
	if k < uint32(len(x.low)) {
		return x.low[k]
	}
	return x.high[k]
}

// set puts v where nothing is.
func (x *index[T]) set(k uint32, v *T) {
	x.n++
	if k >= lowKeys {
		if x.high == nil {
			x.high = map[uint32]*T{}
		}
		x.high[k] = v
		return
	}
	for uint32(len(x.low)) <= k {
		x.low = append(x.low, nil)
	}
	x.low[k] = v
}

func (x *index[T]) del(k uint32) {
	if x.get(k) == nil {
		return
	}
	x.n--
	if k < uint32(len(x.low)) {
		x.low[k] = nil
		return
	}
	delete(x.high, k)
}

func (x *index[T]) clear() { *x = index[T]{} }

// all goes through what is there in the order of the keys; what is deleted
// meanwhile is left out.
func (x *index[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, v := range x.low {
			if v != nil && !yield(v) {
				return
			}
		}
		for _, k := range slices.Sorted(maps.Keys(x.high)) {
			if v := x.high[k]; v != nil && !yield(v) {
				return
			}
		}
	}
}
