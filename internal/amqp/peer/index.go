package peer

import "iter"

// Numbers below lowKeys lie in a slice that grows with them: peers number from
// zero, so few connections ever have more. The others lie in pages, which are found without
// hashing however many links there are.
const (
	lowKeys  = 64
	pageSize = 256
)

// index finds a channel's session or a handle's link. Keys are bounded by
// channel-max and handle-max, which the engine has checked.
type index[T any] struct {
	low   []*T
	pages []*[pageSize]*T // of keys from 0; the first lowKeys of the first page are unused
	n     int
}

func (x *index[T]) get(k uint32) *T {
	if k < uint32(len(x.low)) {
		return x.low[k]
	}
	if p := k / pageSize; p < uint32(len(x.pages)) && x.pages[p] != nil {
		return x.pages[p][k%pageSize]
	}
	return nil
}

// set puts v where nothing is.
func (x *index[T]) set(k uint32, v *T) {
	x.n++
	if k < lowKeys {
		for uint32(len(x.low)) <= k {
			x.low = append(x.low, nil)
		}
		x.low[k] = v
		return
	}
	p := k / pageSize
	for uint32(len(x.pages)) <= p {
		x.pages = append(x.pages, nil)
	}
	if x.pages[p] == nil {
		x.pages[p] = new([pageSize]*T)
	}
	x.pages[p][k%pageSize] = v
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
	x.pages[k/pageSize][k%pageSize] = nil
	if x.n == 0 {
		x.pages = nil // give a crowd's memory back
	}
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
		for _, page := range x.pages {
			if page == nil {
				continue
			}
			for i := range page {
				if v := page[i]; v != nil && !yield(v) {
					return
				}
			}
		}
	}
}
