package peer

// maxUnsettled bounds how far the oldest unsettled delivery of a session may
// lie behind the newest, and so the memory that a peer can bind by never
// settling one.
const maxUnsettled = 1 << 18

// ring holds the unsettled deliveries of one direction of a session, found by
// delivery-id. Ids are serial numbers that grow by one, so a ring from the
// oldest to the newest does without a map.
type ring struct {
	base  uint32 // id of the oldest slot
	n     uint32 // slots in use, settled holes included
	head  uint32 // index of base in slots
	slots []slot // length is zero or a power of two
}

type slot struct {
	link  *Link // nil = settled
	token Token
	state uint8
}

// Bits of slot.state.
const (
	slotAnswered = 1 << iota // an outcome went out or came in, settlement has not
)

func (r *ring) at(i uint32) *slot { return &r.slots[(r.head+i)&uint32(len(r.slots)-1)] }

// get returns the slot of an unsettled delivery, or nil.
func (r *ring) get(id uint32) *slot {
	if i := id - r.base; i < r.n {
		if s := r.at(i); s.link != nil {
			return s
		}
	}
	return nil
}

// room reports whether a delivery with this id can be added.
func (r *ring) room(id uint32) bool {
	return r.n == 0 || id-r.base >= r.n && id-r.base < maxUnsettled
}

// add makes a slot for id, which is newer than any before; room must hold.
func (r *ring) add(id uint32) *slot {
	if r.n == 0 {
		r.base, r.head = id, 0
	}
	need := id - r.base + 1
	if need > uint32(len(r.slots)) {
		r.grow(need)
	}
	r.n = need
	return r.at(need - 1)
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

// remove settles a slot that get found.
func (r *ring) remove(id uint32) {
	*r.at(id - r.base) = slot{}
	for r.n > 0 && r.at(0).link == nil {
		r.head = (r.head + 1) & uint32(len(r.slots)-1)
		r.base++
		r.n--
	}
	if r.n == 0 && len(r.slots) > 1024 {
		r.slots = nil // give a burst's memory back
	}
}

// removeLink settles all deliveries of a link and calls lost for each.
func (r *ring) removeLink(l *Link, lost func(id uint32, s slot)) {
	for i := range r.n {
		if s := r.at(i); s.link == l {
			if lost != nil {
				lost(r.base+i, *s)
			}
			*s = slot{}
		}
	}
	for r.n > 0 && r.at(0).link == nil {
		r.head = (r.head + 1) & uint32(len(r.slots)-1)
		r.base++
		r.n--
	}
}
