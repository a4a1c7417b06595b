package adapters

import (
	"github.com/sluice-iot/sluice/internal/iot"
)

// commandCheck asks whether a gateway may still act for a device; commands wait for the
// answer in the order in which they came. The lock of the shard.
type commandCheck struct{ waiting []*handed }

// errGatewayRefused rejects a command (contract: adapters 6.4).
var errGatewayRefused = iot.Errorf(iot.ErrForbidden, "the gateway may no longer act for the device")

// hand gives a command to the device. Who subscribed on behalf of a device gets commands
// only as long as the registry lets him: routers take his word for it.
func (s *CommandSubscription) hand(h *handed) {
	if s.behalf && s.queued(h) {
		return
	}
	s.deliver(h.c, h.end)
}

// queued has h wait where it is not known whether the gateway may have it.
func (s *CommandSubscription) queued(h *handed) bool {
	sh := s.p.o.Commands.shard(s.key())
	sh.mu.Lock()
	if s.check != nil {
		s.check.waiting = append(s.check.waiting, h)
		sh.mu.Unlock()
		return true
	}
	who := s.admission()
	if a := s.p.o.Admissions; a.valid(who.e, h.start) && a.follow.index.holds(who.e) {
		sh.mu.Unlock()
		return false
	}
	s.check = &commandCheck{waiting: []*handed{h}}
	sh.mu.Unlock()
	s.p.o.Admissions.renewThen(who, s.checked)
	return true
}

// checked takes the answer to a check and hands over, or refuses, what waits for it.
func (s *CommandSubscription) checked(anew Admission, err error) {
	give := func(h *handed) { s.deliver(h.c, h.end) }
	switch {
	case err == nil:
		s.e.Store(anew.e)
	case refusal(err):
		s.Close(false)
		give = func(h *handed) { h.end(errGatewayRefused) }
	default:
		give = func(h *handed) { h.end(downstreamError(err)) }
	}
	sh := s.p.o.Commands.shard(s.key())
	for {
		sh.mu.Lock()
		waiting := s.check.waiting
		s.check.waiting = nil
		if len(waiting) == 0 {
			s.check = nil
		}
		sh.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		for _, h := range waiting {
			give(h)
		}
	}
}
