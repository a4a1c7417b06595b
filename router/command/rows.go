package command

import (
	"container/heap"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// tenantRows are the entries of one tenant: of each device the one that counts,
// with the others behind it.
type tenantRows struct {
	id      iot.TenantID
	devices map[iot.DeviceID]*entry
	foreign int // entries of foreign processes, those behind others included
}

// source is where entries come from: a link over which a process announces, or
// a foreign process.
type source struct {
	instance string
	foreign  bool
	first    *entry // of its list
	count    int
}

// entry is one row of one source. There may be a million, so it is small.
type entry struct {
	source     *source
	tenant     *tenantRows
	device     iot.DeviceID
	adapter    string
	at, until  int64
	behind     *entry // for the same device, the next that counts
	prev, next *entry // of the same source
	place      int32  // in the directory's expiries, counted from 1; 0 = not there
	all        bool
	superseded bool // and its process hears, or has heard, of it
}

func (e *entry) entry() Entry {
	return Entry{Instance: e.source.instance, Foreign: e.source.foreign,
		Row: Row{Tenant: e.tenant.id, Device: e.device, At: e.at, Until: e.until, Adapter: e.adapter, All: e.all}}
}

// live is e, or the first behind it that has not expired.
func (e *entry) live(at int64) *entry {
	for e != nil && e.until != 0 && e.until <= at {
		e = e.behind
	}
	return e
}

// before reports whether e counts rather than o.
func (e *entry) before(o *entry) bool {
	if e.at != o.at {
		return e.at > o.at
	}
	return e.source.instance >= o.source.instance // of the same process' connections the last that told
}

// winner is the entry that counts for a device, or nil. d is locked, as it is for
// everything below.
func (d *Directory) winner(tenant iot.TenantID, device iot.DeviceID, at int64) *entry {
	t := d.tenants[tenant]
	if t == nil {
		return nil
	}
	return t.devices[device].live(at)
}

// of is the entry that a source has for a device, or nil.
func (d *Directory) of(s *source, tenant iot.TenantID, device iot.DeviceID) *entry {
	t := d.tenants[tenant]
	if t == nil {
		return nil
	}
	e := t.devices[device]
	for e != nil && e.source != s {
		e = e.behind
	}
	return e
}

// put enters a row of a source in the place of the one it had for the device. One
// that has expired is none.
func (d *Directory) put(s *source, row *Row) {
	heard := false
	if was := d.of(s, row.Tenant, row.Device); was != nil {
		heard = was.superseded && was.at == row.At
		if row.Until == 0 || row.Until > now() {
			d.detach(was) // what is behind it does not count meanwhile
		} else {
			d.remove(was)
		}
	}
	if row.Until != 0 && row.Until <= now() {
		return
	}
	t := d.tenants[row.Tenant]
	if t == nil {
		id := iot.TenantID(strings.Clone(string(row.Tenant)))
		t = &tenantRows{id: id, devices: map[iot.DeviceID]*entry{}}
		d.tenants[id] = t
	}
	e := &entry{source: s, tenant: t, device: row.Device, adapter: d.words.one(row.Adapter), at: row.At, until: row.Until,
		all: row.All, superseded: heard}
	head := t.devices[row.Device]
	if head == nil || e.before(head) {
		e.behind = head
		t.devices[row.Device] = e
	} else {
		p := head
		for p.behind != nil && !e.before(p.behind) {
			p = p.behind
		}
		e.behind, p.behind = p.behind, e
	}
	if e.next = s.first; e.next != nil {
		e.next.prev = e
	}
	s.first = e
	d.count(e, 1)
	if e.until != 0 {
		heap.Push(&d.expiry, e)
		d.arm()
	}
	d.compare(t.devices[row.Device])
}

// remove takes an entry out, and lets the one behind it count.
func (d *Directory) remove(e *entry) {
	t := e.tenant
	d.detach(e)
	if head := t.devices[e.device]; head != nil {
		d.compare(head)
	} else if len(t.devices) == 0 {
		delete(d.tenants, t.id)
	}
}

// detach takes an entry out and no more.
func (d *Directory) detach(e *entry) {
	if head := e.tenant.devices[e.device]; head != e {
		for head.behind != e {
			head = head.behind
		}
		head.behind = e.behind
	} else if e.behind != nil {
		e.tenant.devices[e.device] = e.behind
	} else {
		delete(e.tenant.devices, e.device)
	}
	switch {
	case e.prev != nil:
		e.prev.next = e.next
	default:
		e.source.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	if e.place > 0 {
		heap.Remove(&d.expiry, int(e.place-1))
	}
	d.count(e, -1)
}

// count counts an entry that comes or goes.
func (d *Directory) count(e *entry, n int) {
	e.source.count += n
	d.rows += n
	if e.source.foreign {
		e.tenant.foreign += n
		d.foreigns += n
	}
}

// clear takes all entries of a source out.
func (d *Directory) clear(s *source) {
	for s.first != nil {
		d.remove(s.first)
	}
}

// compare notes for whom a device's entries have come to be superseded, or no longer are.
func (d *Directory) compare(head *entry) {
	if head.behind == nil && !head.superseded {
		return
	}
	first := head.live(now())
	if first == nil {
		return // all go now
	}
	for e := head; e != nil; e = e.behind {
		if is := e.source.instance != first.source.instance; is != e.superseded {
			e.superseded = is
			if !e.source.foreign {
				d.tell(e)
			}
		}
	}
}

// expire takes out what has expired, and waits for what will.
func (d *Directory) expire() {
	d.mu.Lock()
	defer d.unlock()
	d.due = 0
	for at := now(); len(d.expiry) > 0 && d.expiry[0].until <= at; {
		e := d.expiry[0]
		d.remove(e)
		if e.source.foreign {
			d.forgetIdle(e.source)
		}
	}
	d.arm()
}

// maxWait bounds the time for which a timer is set: clocks are put right.
const maxWait = int64(time.Minute / time.Millisecond)

// arm sets the timer for the entry that expires first.
func (d *Directory) arm() {
	if len(d.expiry) == 0 || d.closed {
		return
	}
	at := now()
	due := min(d.expiry[0].until, at+maxWait)
	if d.due != 0 && d.due <= due {
		return // one that comes too early sets itself again
	}
	d.due = due
	// Many of short life end at about the same time: they share a tick.
	wait := time.Duration(max(due-at, 10)) * time.Millisecond
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.expire)
	} else {
		d.timer.Reset(wait)
	}
}

// expiries is a heap of the entries that expire.
type expiries []*entry

func (h expiries) Len() int           { return len(h) }
func (h expiries) Less(i, j int) bool { return h[i].until < h[j].until }

func (h expiries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i+1), int32(j+1)
}

// Push implements [heap.Interface].
func (h *expiries) Push(x any) {
	e := x.(*entry)
	*h = append(*h, e)
	e.place = int32(len(*h))
}

// Pop implements [heap.Interface].
func (h *expiries) Pop() any {
	n := len(*h) - 1
	e := (*h)[n]
	(*h)[n] = nil
	*h = (*h)[:n]
	e.place = 0
	return e
}

// maxWords bounds how many words are kept once for all.
const maxWords = 1000

// words keeps one copy of the few words that many entries share.
type words struct{ known map[string]string }

func (w *words) one(s string) string {
	if known, ok := w.known[s]; ok {
		return known
	}
	s = strings.Clone(s)
	if len(w.known) < maxWords {
		if w.known == nil {
			w.known = map[string]string{}
		}
		w.known[s] = s
	}
	return s
}
