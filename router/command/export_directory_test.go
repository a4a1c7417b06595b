package command

import (
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Linked is a link over which a process announces.
type Linked struct {
	d *Directory
	s *source
}

// Attach makes a link of a process.
func (d *Directory) Attach(instance string) Linked { return Linked{d, d.attach(instance)} }

// Announce takes what the link announces, as JSON.
func (l Linked) Announce(data []byte) error {
	n, refused := parseAnnouncement(data)
	if refused != nil {
		return refused
	}
	l.d.apply(l.s, n)
	return nil
}

// Take takes an announcement as it comes.
func (l Linked) Take(message []byte) error {
	n, refused := readAnnouncement(message)
	if refused != nil {
		return refused
	}
	l.d.apply(l.s, n)
	return nil
}

// Leave ends the link.
func (l Linked) Leave() { l.d.leave(l.s) }

// Check fails where the parts of the directory contradict each other.
func (d *Directory) Check() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	entries, expiring := 0, 0
	bySource := map[*source]int{}
	for id, t := range d.tenants {
		if t.id != id || len(t.devices) == 0 {
			return "a tenant that is none"
		}
		for device, e := range t.devices {
			for ; e != nil; e = e.behind {
				entries++
				bySource[e.source]++
				if e.tenant != t || e.device != device || e.behind != nil && !e.before(e.behind) {
					return "an entry in the wrong place"
				}
				if e.until != 0 {
					expiring++
				}
				if (e.until != 0) != (e.place > 0) || e.place > 0 && d.expiry[e.place-1] != e {
					return "an entry that does not expire"
				}
			}
		}
	}
	for s, n := range bySource {
		listed := 0
		for e := s.first; e != nil; e = e.next {
			if listed++; e.source != s || e.next != nil && e.next.prev != e {
				return "a list that is broken"
			}
		}
		if listed != n || s.count != n {
			return "a list of the wrong length"
		}
	}
	foreigns := 0
	for _, t := range d.tenants {
		of := 0
		for _, e := range t.devices {
			for ; e != nil; e = e.behind {
				if e.source.foreign {
					of++
				}
			}
		}
		if foreigns += of; of != t.foreign {
			return "a tenant with a wrong count"
		}
	}
	if entries != d.rows || foreigns != d.foreigns || expiring != len(d.expiry) {
		return "wrong counts"
	}
	return ""
}

// Via is what is known of a registration, once it is.
func (d *Directory) Via(tenant iot.TenantID, device iot.DeviceID, f func(via []iot.DeviceID, err error)) bool {
	return d.regs.with(key{tenant, device}, f)
}

// Kept returns how many registrations are kept.
func (d *Directory) Kept() int {
	d.regs.mu.Lock()
	defer d.regs.mu.Unlock()
	return d.regs.known.len()
}

// Gateways returns how many last known gateways are remembered.
func (d *Directory) Gateways() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.gateways.len()
}

// ParseAnnouncement returns how often rows occur in an announcement, or its error.
func ParseAnnouncement(data []byte) (set, drop, via int, err *amqp.Error) {
	n, err := parseAnnouncement(data)
	if err != nil {
		return 0, 0, 0, err
	}
	return len(n.set), len(n.drop), len(n.via), nil
}

// ReadAnnouncement returns the process that a message is of, or its error.
func ReadAnnouncement(message []byte) (string, *amqp.Error) {
	n, err := readAnnouncement(message)
	if err != nil {
		return "", err
	}
	return n.adapter, nil
}

// Onward is the message that a command becomes, or the error that it is rejected with.
func Onward(address string, encoded []byte, id string, gateway iot.DeviceID) (tenant iot.TenantID, device iot.DeviceID, onward []byte, refused *amqp.Error) {
	m, refused := readCommand(address, encoded)
	if refused != nil {
		return "", "", nil, refused
	}
	onward, err := m.onward(id, gateway)
	if err != nil {
		return "", "", nil, malformed(err.Error())
	}
	return m.tenant, m.device, onward, nil
}

// Flying counts commands that are under way.
type Flying struct{ f flying }

// Take counts one of a tenant, where there is room.
func (f *Flying) Take(tenant iot.TenantID) bool { return f.f.take(tenant) }

// Give is the end of one, and Idle says that there is none.
func (f *Flying) Give(tenant iot.TenantID) { f.f.give(tenant) }
func (f *Flying) Idle() bool               { return f.f.all == 0 && len(f.f.tenants) == 0 }

// Limits that tests reach.
const (
	MaxFlying        = maxFlying
	MaxGateways      = maxGateways
	MaxRegistrations = maxRegistrations
	MaxLookups       = maxLookups
	MaxWaiting       = maxWaiting
	LookupTimeout    = lookupTimeout
	ToldAgain        = toldAgain
	MaxAge           = maxRegistrationAge
)
