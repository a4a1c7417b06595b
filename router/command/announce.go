package command

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/router/forward"
)

// condBadRequest is the condition of what cannot be read.
const condBadRequest amqp.Symbol = "hono:bad-request"

func badRequest(format string, args ...any) *amqp.Error {
	return &amqp.Error{Condition: condBadRequest, Description: fmt.Sprintf(format, args...)}
}

// Announcements is the service at device_directory: what adapter processes
// announce there is in force when the message is accepted, until the link goes.
type Announcements struct {
	d *Directory
	// may reports whether the peer of a connection may receive from an address.
	may func(c *peer.Conn, address string) bool
	log *slog.Logger

	mu      sync.Mutex
	sources map[*peer.Link]*source
}

var _ forward.LinkService = (*Announcements)(nil)

// NewAnnouncements returns the service that keeps d up to date. A process is
// believed that may receives at command_internal/A, where A is its name.
func NewAnnouncements(d *Directory, may func(c *peer.Conn, address string) bool) *Announcements {
	return &Announcements{d: d, may: may, log: d.o.Logger, sources: map[*peer.Link]*source{}}
}

// Request implements [forward.Service].
func (a *Announcements) Request(q *forward.Request) {
	refused := a.take(q)
	if refused == nil {
		q.Finish(amqp.StateAccepted)
		return
	}
	a.log.Warn("announcement of an adapter refused", "remote", q.Conn.Info().RemoteAddr, "why", refused.Description)
	q.Finish(amqp.AppendRejected(nil, refused))
}

func (a *Announcements) take(q *forward.Request) *amqp.Error {
	link := q.Link()
	if link == nil {
		return badRequest("announcements need a link with the target %s", q.Address)
	}
	n, refused := readAnnouncement(q.Message)
	if refused != nil {
		return refused
	}
	if !a.may(q.Conn, internal+n.adapter) {
		return badRequest("adapter %.100q: expected a process at whose %sNAME the peer may receive", n.adapter, internal)
	}
	a.mu.Lock()
	s := a.sources[link]
	a.mu.Unlock()
	switch {
	case s == nil:
		s = a.d.attach(n.adapter)
		a.mu.Lock()
		a.sources[link] = s
		a.mu.Unlock()
	case s.instance != n.adapter:
		return badRequest("adapter %.100q: the link announced for %.100q before", n.adapter, s.instance)
	}
	a.d.apply(s, n)
	return nil
}

// Gone implements [forward.LinkService]: what the link announced goes with it.
func (a *Announcements) Gone(l *peer.Link) {
	a.mu.Lock()
	s := a.sources[l]
	delete(a.sources, l)
	a.mu.Unlock()
	if s != nil {
		a.d.leave(s)
	}
}

// attach makes a source for the announcements of one link.
func (d *Directory) attach(instance string) *source {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &source{instance: instance}
	set := d.sources[instance]
	if set == nil {
		set = map[*source]struct{}{}
		d.sources[instance] = set
	}
	set[s] = struct{}{}
	return s
}

// apply does what an announcement says, in the order of its members.
func (d *Directory) apply(s *source, n *announcement) {
	d.mu.Lock()
	defer d.unlock()
	if n.reset {
		d.clear(s)
	}
	for i := range n.set {
		d.put(s, &n.set[i])
	}
	for _, k := range n.drop {
		if e := d.of(s, k.tenant, k.device); e != nil {
			d.remove(e)
		}
	}
	for _, v := range n.via {
		d.noteGateway(v.tenant, v.device, v.gateway)
	}
}

// clearAtOnce is how many entries are taken out before others have their turn.
const clearAtOnce = 5000

// leave forgets a source and all that it announced.
func (d *Directory) leave(s *source) {
	for !d.leavePart(s) {
	}
}

// leavePart reports whether the source is forgotten.
func (d *Directory) leavePart(s *source) bool {
	d.mu.Lock()
	defer d.unlock()
	for n := 0; s.first != nil; n++ {
		if n == clearAtOnce {
			return false
		}
		d.remove(s.first)
	}
	set := d.sources[s.instance]
	delete(set, s)
	if len(set) == 0 {
		delete(d.sources, s.instance)
	}
	return true
}
