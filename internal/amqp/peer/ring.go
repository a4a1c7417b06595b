package peer

import (
	"cmp"
	"slices"
)

const (
	// maxUnsettled bounds the old unsettled deliveries of one direction of a
	// session, and so the memory that a peer can bind by never settling one.
	maxUnsettled = 1 << 18
	// ringSpan is how far the oldest slot of a ring may lie behind the newest.
	// What is older and still unsettled moves to a map, so that one delivery that
	// nobody settles neither stops the others nor makes the ring grow.
	ringSpan = 1 << 14
	// maxJump is how many ids a delivery may skip before the ring starts anew.
	maxJump = 1 << 10
)

// ring holds the unsettled deliveries of one direction of a session, found by
// delivery-id. Ids are serial numbers that grow by one, so a ring from the
// oldest to the newest does without a map.
type ring struct {
	base  uint32 // id of the oldest slot
	n     uint32 // slots in use, settled holes included
	head  uint32 // index of base in slots
	slots []slot // length is zero or a power of two
	old   map[uint32]*slot
}

type slot struct {
	link  *Link // nil = settled
	token Token
	state uint8
}

// Bits of slot.state.
const (
	slotAnswered = 1 << iota // our outcome went out, settlement has not
	slotHeard                // the peer's outcome came in, settlement has not
)

func (r *ring) at(i uint32) *slot { return &r.slots[(r.head+i)&uint32(len(r.slots)-1)] }

// get returns the slot of an unsettled delivery, or nil.
func (r *ring) get(id uint32) *slot {
	if i := id - r.base; i < r.n {
		if s := r.at(i); s.link != nil {
			return s
		}
	}
	if len(r.old) > 0 {
		return r.old[id]
	}
	return nil
}

// empty reports whether nothing is unsettled.
func (r *ring) empty() bool { return r.n == 0 && len(r.old) == 0 }

// room reports whether a delivery with this id can be added.
func (r *ring) room(id uint32) bool {
	return len(r.old) < maxUnsettled && r.get(id) == nil
}

// add makes id an unsettled delivery of l; room must hold.
func (r *ring) add(id uint32, l *Link, t Token) {
	l.unsettled++
	i := id - r.base
	switch {
	case r.n == 0:
	case i < r.n:
		*r.at(i) = slot{link: l, token: t}
		return
	case int32(i) < 0:
		r.keep(id, slot{link: l, token: t})
		return
	case i-r.n >= maxJump:
		r.evict(r.n)
	case i >= ringSpan:
		r.evict(min(i-ringSpan+1, r.n))
	}
	if r.n == 0 {
		r.base, r.head = id, 0
	}
	need := id - r.base + 1
	if need > uint32(len(r.slots)) {
		r.grow(need)
	}
	r.n = need
	*r.at(need - 1) = slot{link: l, token: t}
}

func (r *ring) grow(need uint32) {
	size := max(uint32(len(r.slots)), 8)
	for size < need {
		size *= 2
	}
	slots := make([]slot, size)
	for i := range r.n {
		slots[i] = *r.at(i)
	}
	r.slots, r.head = slots, 0
}

func (r *ring) keep(id uint32, s slot) {
	if r.old == nil {
		r.old = map[uint32]*slot{}
	}
	r.old[id] = &s
}

// evict moves the k oldest slots to the map.
func (r *ring) evict(k uint32) {
	for i := range k {
		if s := r.at(i); s.link != nil {
			r.keep(r.base+i, *s)
			*s = slot{}
		}
	}
	r.trim()
}

// trim drops the settled slots at the oldest end.
func (r *ring) trim() {
	for r.n > 0 && r.at(0).link == nil {
		r.head = (r.head + 1) & uint32(len(r.slots)-1)
		r.base++
		r.n--
	}
	if r.n == 0 && len(r.slots) > 1024 {
		r.slots = nil // give a burst's memory back
	}
}

// remove settles a delivery; one that is settled already stays so.
func (r *ring) remove(id uint32) {
	s := r.get(id)
	if s == nil {
		return
	}
	s.link.unsettled--
	if i := id - r.base; i < r.n && s == r.at(i) {
		*s = slot{}
		r.trim()
		return
	}
	delete(r.old, id)
	if len(r.old) == 0 {
		r.old = nil
	}
}

// overlap returns where the range from first to last, which may name any ids,
// meets the ring, and in how many.
func (r *ring) overlap(first, last uint32) (start, n uint32) {
	switch {
	case r.n == 0:
		return 0, 0
	case r.base-first <= last-first:
		start = r.base
	case first-r.base < r.n:
		start = first
	default:
		return 0, 0
	}
	return start, min(last-start, r.base+r.n-1-start) + 1
}

// oldIn returns the ids of the map from first to last, in order.
func (r *ring) oldIn(first, last uint32) []uint32 {
	var ids []uint32
	if int(last-first) < len(r.old) {
		for id := first; int32(last-id) >= 0; id++ {
			if r.old[id] != nil {
				ids = append(ids, id)
			}
		}
		return ids
	}
	for id := range r.old {
		if id-first <= last-first {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b uint32) int { return cmp.Compare(a-first, b-first) })
	return ids
}

// removeLink settles all deliveries of a link and calls lost for each.
func (r *ring) removeLink(l *Link, lost func(id uint32, s slot)) {
	if l.unsettled == 0 {
		return
	}
	if len(r.old) > 0 {
		from := r.base + 1<<31 // the farthest behind
		for _, id := range r.oldIn(from, from-1) {
			if s := r.old[id]; s.link == l {
				if lost != nil {
					lost(id, *s)
				}
				r.remove(id)
			}
		}
	}
	for i := uint32(0); i < r.n && l.unsettled > 0; i++ {
		if s := r.at(i); s.link == l {
			if lost != nil {
				lost(r.base+i, *s)
			}
			l.unsettled--
			*s = slot{}
		}
	}
	r.trim()
}
