package command

// recent is a map of at most about max entries, in which those that were not used
// for longest make room. It keeps two generations: what is used moves to the new
// one, and when that is half of the room the old one is let go.
type recent[K comparable, V any] struct {
	max      int
	new, old map[K]V
}

func (r *recent[K, V]) get(k K) (V, bool) {
	if v, ok := r.new[k]; ok {
		return v, true
	}
	v, ok := r.old[k]
	if ok {
		r.put(k, v)
	}
	return v, ok
}

func (r *recent[K, V]) put(k K, v V) {
	delete(r.old, k)
	if _, there := r.new[k]; !there && len(r.new) >= max(1, r.max/2) {
		r.old, r.new = r.new, nil
	}
	if r.new == nil {
		r.new = map[K]V{}
	}
	r.new[k] = v
}

func (r *recent[K, V]) drop(k K) {
	delete(r.new, k)
	delete(r.old, k)
}

// dropIf drops what gone holds of.
func (r *recent[K, V]) dropIf(gone func(K) bool) {
	for _, m := range [...]map[K]V{r.new, r.old} {
		for k := range m {
			if gone(k) {
				delete(m, k)
			}
		}
	}
}

func (r *recent[K, V]) len() int { return len(r.new) + len(r.old) }
