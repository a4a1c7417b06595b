package command

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// pageStep is how many devices are looked at before others get their turn.
const pageStep = 4096

// List returns the entries that count of a tenant, by device, those after the
// device named, at most limit; and whether there are more. It lets others have the
// directory in between, because a tenant may have a million devices: what changes meanwhile
// may be there or not.
func (d *Directory) List(tenant iot.TenantID, after iot.DeviceID, limit int) (list []Entry, more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tenants[tenant]
	if t == nil || limit <= 0 {
		return nil, false
	}
	at, seen := now(), 0
	first := firstEntries{}
	for device, e := range t.devices {
		if seen++; seen%pageStep == 0 {
			d.mu.Unlock() // a map may be changed while it is gone through, between two of its steps
			d.mu.Lock()
			e = t.devices[device]
		}
		if e = e.live(at); e == nil || device <= after {
			continue
		}
		switch {
		case len(first) < limit:
			heap.Push(&first, e.entry())
		case device < first[0].Device:
			first[0], more = e.entry(), true
			heap.Fix(&first, 0)
		default:
			more = true
		}
	}
	slices.SortFunc(first, func(a, b Entry) int { return cmp.Compare(a.Device, b.Device) })
	return first, more
}

// firstEntries are the first by device of those that were seen, as a heap with the
// last of them on top.
type firstEntries []Entry

func (h firstEntries) Len() int           { return len(h) }
func (h firstEntries) Less(i, j int) bool { return h[i].Device > h[j].Device }
func (h firstEntries) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements [heap.Interface].
func (h *firstEntries) Push(x any) { *h = append(*h, x.(Entry)) }

// Pop implements [heap.Interface].
func (h *firstEntries) Pop() any {
	n := len(*h) - 1
	e := (*h)[n]
	*h = (*h)[:n]
	return e
}
