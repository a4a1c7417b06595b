package command

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/forward"
)

const (
	// Credit is what a link for commands has: so many may be under way.
	Credit = 1000
	// Timeout is how long a command may be under way; then it is released (messaging 9.3), or
	// modified with delivery-failed where an adapter has it: the device may have it, too.
	Timeout = 8 * time.Second
	// maxFlying is how many commands of all links are under way at a time; more are released.
	maxFlying = 100_000
	// commandCost is what a command costs beside its bytes, which its connection is
	// charged with; see [peer.Conn.Hold].
	commandCost = 512
)

// Server takes the messages sent to command/T. Safe for concurrent use.
type Server struct {
	d      *Directory
	log    *slog.Logger
	prefix string // of message ids
	number atomic.Uint64
	counts [outcomes]atomic.Int64

	mu      sync.Mutex
	first   *flight // the one that has been under way for longest
	last    *flight
	flying  flying
	timer   *time.Timer
	closing bool
	queues  map[string]*queue // by adapter process: commands that wait for its credit
}

// flight is a command that is under way.
type flight struct {
	q          *forward.Request
	tenant     iot.TenantID
	cost       int
	deadline   time.Time
	sent       atomic.Bool // an adapter has it
	over       atomic.Bool // it has its outcome
	prev, next *flight
}

var _ forward.Service = (*Server)(nil)

// NewServer returns a server that finds its ways in d.
func NewServer(d *Directory) *Server {
	var b [6]byte
	rand.Read(b[:])
	return &Server{d: d, log: d.o.Logger, queues: map[string]*queue{}, prefix: hex.EncodeToString(b[:]) + "-"}
}

// Request implements [forward.Service]. The command is settled when the
// adapter has settled it, with the same outcome.
func (s *Server) Request(q *forward.Request) {
	m, refused := readCommand(q.Address, q.Message)
	if refused != nil {
		s.count(rejected)
		q.Finish(amqp.AppendRejected(nil, refused))
		return
	}
	f := s.enter(q, m.tenant)
	if f == nil {
		s.count(released)
		q.Finish(amqp.StateReleased)
		return
	}
	if !s.d.regs.with(key{m.tenant, m.device}, func(via []iot.DeviceID, err error) { s.route(f, m, via, err) }) {
		s.end(f, amqp.StateReleased)
	}
}

// route sends a command on, now that the device's registration is known.
func (s *Server) route(f *flight, m *message, via []iot.DeviceID, err error) {
	if f.over.Load() {
		return
	}
	switch {
	case errors.Is(err, iot.ErrNotFound), errors.Is(err, iot.ErrInvalid), errors.Is(err, iot.ErrForbidden): // the last of a disabled tenant
		s.end(f, amqp.AppendRejected(nil, errUnknown))
		return
	case err != nil:
		s.log.Debug("command released: the registration is not known", "tenant", m.tenant, "device", m.device, "err", err)
		s.end(f, amqp.StateReleased)
		return
	}
	r := s.d.choose(m.tenant, m.device, via)
	if r.Instance == "" {
		s.end(f, amqp.StateReleased)
		return
	}
	onward, err := m.onward(s.prefix+strconv.FormatUint(s.number.Add(1), 36), r.Gateway)
	if err != nil {
		s.end(f, amqp.AppendRejected(nil, malformed(err.Error())))
		return
	}
	s.send(r.Instance, &outgoing{flight: f, message: onward})
}

// enter counts a command among those under way; nil when there are too many, or
// no more are taken.
func (s *Server) enter(q *forward.Request, tenant iot.TenantID) *flight {
	f := &flight{q: q, tenant: tenant, cost: len(q.Message) + commandCost, deadline: time.Now().Add(Timeout)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || !s.flying.take(tenant) {
		return nil
	}
	if f.prev = s.last; f.prev != nil {
		f.prev.next = f
	} else {
		s.first = f
		s.arm()
	}
	s.last = f
	q.Conn.Hold(f.cost)
	return f
}

// end gives a command its outcome, unless it has one.
func (s *Server) end(f *flight, state amqp.Raw) {
	if f.over.Swap(true) {
		return
	}
	s.count(outcomeOf(state))
	s.mu.Lock()
	s.flying.give(f.tenant)
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		s.first = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	} else {
		s.last = f.prev
	}
	f.prev, f.next = nil, nil
	s.mu.Unlock()
	f.q.Conn.Hold(-f.cost)
	f.q.Finish(state)
	f.q.Message = nil
}

// arm sets the timer for the command that has been under way for longest. s is locked.
func (s *Server) arm() {
	if s.first == nil {
		return
	}
	wait := time.Until(s.first.deadline)
	if s.timer == nil {
		s.timer = time.AfterFunc(wait, s.overdue)
	} else {
		s.timer.Reset(wait)
	}
}

// overdue ends commands that took too long.
func (s *Server) overdue() {
	s.giveUp(time.Now())
	s.mu.Lock()
	s.arm()
	s.mu.Unlock()
}

// giveUp ends the commands whose time is over at a time.
func (s *Server) giveUp(at time.Time) {
	s.mu.Lock()
	var late []*flight
	for f := s.first; f != nil && !f.deadline.After(at); f = f.next {
		late = append(late, f)
	}
	s.mu.Unlock()
	for _, f := range late {
		if f.sent.Load() {
			s.end(f, amqp.StateDeliveryFailed)
		} else {
			s.end(f, amqp.StateReleased)
		}
	}
}

func (s *Server) count(o outcome) { s.counts[o].Add(1) }

// Counts returns how many commands had which outcome since the start.
func (s *Server) Counts() map[string]int64 {
	m := map[string]int64{}
	for i := range s.counts {
		m[outcomeNames[i]] = s.counts[i].Load()
	}
	return m
}

// Shutdown releases what comes from now on. What adapters have keeps its time.
func (s *Server) Shutdown() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
}

// Close ends what is still under way.
func (s *Server) Close() {
	s.Shutdown()
	s.giveUp(time.Now().Add(2 * Timeout))
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
}
