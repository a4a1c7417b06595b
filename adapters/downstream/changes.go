package downstream

import (
	"slices"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

type deviceKey struct {
	tenant iot.TenantID
	device iot.DeviceID
}

// changes are announcements that wait, at most one per device, in the order in
// which devices came to be in it. They are numbered from 1 without an end.
type changes struct {
	list  []adapters.Announcement
	head  int                  // of list; what is before it was taken
	taken uint64               // number of the last one that was taken
	at    map[deviceKey]uint64 // numbers of those that wait
}

// len is how many wait.
func (c *changes) len() int { return len(c.list) - c.head }

// last is the number of the latest one.
func (c *changes) last() uint64 { return c.taken + uint64(c.len()) }

// waiting are those that wait, in order.
func (c *changes) waiting() []adapters.Announcement { return c.list[c.head:] }

// add lets a wait, in the place of an earlier one for the same device.
func (c *changes) add(a *adapters.Announcement) {
	k := deviceKey{a.Tenant, a.Device}
	if n, ok := c.at[k]; ok {
		c.list[c.head+int(n-c.taken)-1] = *a
		return
	}
	if c.at == nil {
		c.at = make(map[deviceKey]uint64)
	}
	c.list = append(c.list, *a)
	c.at[k] = c.last()
}

// take takes the first n out.
func (c *changes) take(n int) {
	for i := range c.list[c.head : c.head+n] {
		a := &c.list[c.head+i]
		delete(c.at, deviceKey{a.Tenant, a.Device})
		*a = adapters.Announcement{}
	}
	c.head += n
	c.taken += uint64(n)
	switch {
	case c.head == len(c.list):
		c.list, c.head = c.list[:0], 0
		if cap(c.list) > maxRows {
			c.list, c.at = nil, nil
		}
	case c.head > len(c.list)/2:
		c.list = slices.Delete(c.list, 0, c.head)
		c.head = 0
	}
}

// clear drops those that wait; their numbers count as taken.
func (c *changes) clear() { *c = changes{taken: c.last()} }
