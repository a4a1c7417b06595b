package forward

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// Counts says what became of deliveries. Those of an address are counted under
// its lock, so that counting shares nothing between processors.
type Counts struct {
	Forwarded int64 // sent on to a receiver, each copy of a multicast by itself
	Rejected  int64 // refused by a gate, or larger than the receiver takes
	Released  int64 // nobody took them in time
	Dropped   int64 // pre-settled, and the last receiver left
	Overrun   int64 // multicast receivers detached because they fell behind
	Stored    int64 // taken to be kept, or refused by whoever keeps them
}

// Add adds o to c.
func (c *Counts) Add(o Counts) {
	c.Forwarded += o.Forwarded
	c.Rejected += o.Rejected
	c.Released += o.Released
	c.Dropped += o.Dropped
	c.Overrun += o.Overrun
	c.Stored += o.Stored
}

// AddressInfo is an address at one moment.
type AddressInfo struct {
	Name         string
	Distribution Distribution
	Dynamic      bool // made for one receiver; its name is a secret
	Senders      int
	Receivers    int
	Surplus      int // deliveries that await a receiver's credit
	Given        int // credit of the receivers
	Granted      int // credit of the active senders
	Counts       Counts
}

// ConnInfo is a connection and when it was opened. IDs count from 1 and are not
// used again.
type ConnInfo struct {
	ID     uint64
	Conn   *peer.Conn
	Opened time.Time
}

// OnGone has f called with the last state of every address that goes away. f
// must not call the router. It is set before the router serves.
func (r *Router) OnGone(f func(AddressInfo)) { r.gone = f }

// account keeps the counters of an address without links. The router is locked.
func (r *Router) account(a *address) {
	info := a.info()
	r.past.Add(info.Counts)
	if r.gone != nil {
		r.gone(info)
	}
}

func (a *address) info() AddressInfo {
	a.mu.Lock()
	defer a.mu.Unlock()
	return AddressInfo{Name: a.name, Distribution: a.kind, Dynamic: a.dynamic, Senders: len(a.senders),
		Receivers: len(a.receivers), Surplus: a.surplus.len(), Given: a.given, Granted: a.granted, Counts: a.counts}
}

// Draining reports whether the router is stopping.
func (r *Router) Draining() bool { return r.draining.Load() }

// Stats sums up what became of deliveries since the start.
func (r *Router) Stats() Counts {
	var sum Counts
	r.Addresses(func() { sum = r.past }, func(a AddressInfo) { sum.Add(a.Counts) })
	sum.Rejected += r.refused.Load()
	return sum
}

// Addresses calls visit for every address, in no order and without the router
// being locked. begin, which may be nil, is called while the list is made: what
// was told to OnGone before it is not visited, and all else is.
func (r *Router) Addresses(begin func(), visit func(AddressInfo)) {
	r.mu.Lock()
	if begin != nil {
		begin()
	}
	list := make([]*address, 0, len(r.addresses))
	for _, a := range r.addresses {
		list = append(list, a)
	}
	r.mu.Unlock()
	for _, a := range list {
		visit(a.info())
	}
}

// AddressNames lists the addresses that there are, sorted.
func (r *Router) AddressNames() []string {
	r.mu.Lock()
	names := make([]string, 0, len(r.addresses))
	for name := range r.addresses {
		names = append(names, name)
	}
	r.mu.Unlock()
	slices.Sort(names)
	return names
}

// Address returns the state of one address, if there is such.
func (r *Router) Address(name string) (AddressInfo, bool) {
	r.mu.Lock()
	a := r.addresses[name]
	r.mu.Unlock()
	if a == nil {
		return AddressInfo{}, false
	}
	return a.info(), true
}

// Connections lists the open connections in the order in which they were opened.
func (r *Router) Connections() []ConnInfo {
	r.mu.Lock()
	list := make([]ConnInfo, 0, len(r.conns))
	for c, k := range r.conns {
		list = append(list, ConnInfo{k.id, c, k.opened})
	}
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b ConnInfo) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// LinkAddress returns the address of a link of this router, "" for one to the
// anonymous terminus. Its connection is locked.
func LinkAddress(l *peer.Link) string {
	switch x := l.Data.(type) {
	case *sender:
		return x.a.name
	case *receiver:
		return x.a.name
	case *handout:
		return x.name
	}
	return ""
}

// IsDynamic reports whether an address is one that was made for a receiver.
func IsDynamic(name string) bool { return strings.HasPrefix(name, dynamicPrefix) }
