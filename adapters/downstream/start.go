package downstream

import "github.com/sluice-iot/sluice/internal/iot"

// Start is Send for callers who do not wait: done is called once with what
// Send would return. That may be before Start returns, and on any goroutine,
// among them those that read from routers: done must not block, but may call
// Start. No lock is held meanwhile. m may be changed when Start returns.
//
// Messages that one goroutine starts for one address are handed to routers in
// that order. How many may be under way is for the caller to bound; those that
// wait for credit count towards MaxWaiting.
func (s *Set) Start(m *iot.Message, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	if _, err := s.start(m, done); err != nil {
		s.tell(done, err)
	}
}

// start sends m or lets it wait. An error means that it did neither. Otherwise
// the message counts as under way; with done the delivery may be gone already.
func (s *Set) start(m *iot.Message, done func(error)) (*delivery, error) {
	if err := checkEndpoint(m); err != nil {
		return nil, err
	}
	if !s.enter() {
		return nil, errStopping
	}
	x := s.takeScratch()
	if err := x.encode(m); err != nil {
		s.putScratch(x)
		s.leave()
		return nil, err
	}
	t, err := s.targetOf(m, x)
	if err != nil {
		s.putScratch(x)
		s.leave()
		return nil, err
	}
	d := s.take(done)
	d.t, d.settled = t, m.QoS == iot.AtMostOnce
	var e ended
	t.enqueue(d, x, &e)
	t.mu.Unlock()
	x.batch.Flush()
	s.putScratch(x)
	s.conclude(&e)
	return d, nil
}

func checkEndpoint(m *iot.Message) error {
	switch m.Endpoint {
	case iot.Telemetry, iot.Event:
		return nil
	case iot.CommandResponse:
		return checkResponse(m)
	}
	return iot.Errorf(iot.ErrInvalid, "endpoint %.40q: want telemetry, event or command_response", m.Endpoint)
}

// targetOf returns the target that m is for, locked.
func (s *Set) targetOf(m *iot.Message, x *scratch) (*target, error) {
	if m.Endpoint == iot.CommandResponse {
		return s.responseTarget(m, x)
	}
	return s.target(key{m.Endpoint, m.Tenant}), nil
}
