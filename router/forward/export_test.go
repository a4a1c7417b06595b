package forward

import "fmt"

// Check holds the bookkeeping of every address against what it is made of. It
// is called while nothing moves.
func (r *Router) Check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	charged := map[any]int{}
	for name, a := range r.addresses {
		if err := a.check(charged); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for c := range r.conns {
		if got, want := c.Held(), charged[c]; got != want {
			return fmt.Errorf("a connection is charged with %d bytes, its surplus has %d", got, want)
		}
	}
	return nil
}

func (a *address) check(charged map[any]int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := a.surplus.first; i < len(a.surplus.items); i++ {
		h := &a.surplus.items[i]
		charged[h.s.c] += len(h.message)
	}
	given, ready := 0, 0
	for r := range a.receivers {
		given += r.credit
		if (r.place > 0) != (r.credit > 0) {
			return fmt.Errorf("receiver with credit %d at place %d", r.credit, r.place)
		}
		if r.place > 0 {
			ready++
		}
		r.c.Lock()
		credit := int(r.l.Credit())
		r.c.Unlock()
		if r.gone || r.blocked && r.credit != 0 || !r.blocked && r.stream == nil && a.anycast() && r.credit != credit {
			return fmt.Errorf("receiver gone=%v blocked=%v is known with credit %d, has %d", r.gone, r.blocked, r.credit, credit)
		}
	}
	if given != a.given || ready != a.ready.Len() {
		return fmt.Errorf("given is %d, want %d; %d receivers are ready, want %d", a.given, given, a.ready.Len(), ready)
	}
	if a.anycast() && a.surplus.len() > 0 && ready > 0 {
		return fmt.Errorf("%d deliveries wait although a receiver is ready", a.surplus.len())
	}
	if err := a.checkSenders(); err != nil {
		return err
	}
	links := len(a.receivers)
	for s := range a.senders {
		if s.l != nil {
			links++
		}
	}
	if a.refs != links {
		return fmt.Errorf("%d references, want %d", a.refs, links)
	}
	return nil
}

func (a *address) checkSenders() error {
	granted, active, held := 0, 0, map[*sender]int{}
	for i := a.surplus.first; i < len(a.surplus.items); i++ {
		held[a.surplus.items[i].s]++
	}
	for s := range a.senders {
		if s.active {
			active++
			granted += s.out
		}
		s.c.Lock()
		credit := int(s.l.Credit())
		s.c.Unlock()
		switch {
		case s.gone || s.held != held[s]:
			return fmt.Errorf("sender gone=%v holds %d, want %d", s.gone, s.held, held[s])
		case !s.virtual && a.kind != Local && a.kind != Stored && s.out != credit && s.out != credit+1: // one may have come in part
			return fmt.Errorf("sender is known with credit %d, has %d", s.out, credit)
		case len(a.receivers) == 0 && s.out > 0 && a.kind != Local:
			return fmt.Errorf("sender has credit %d without a receiver", s.out)
		case s.held > 0 && s.out > 0:
			return fmt.Errorf("sender with surplus has credit %d", s.out)
		case !s.virtual && a.anycast() && len(a.receivers) > 0 && s.held == 0 && s.out == 0 && !a.router.draining.Load():
			return fmt.Errorf("sender without surplus has no credit although there is a receiver")
		}
	}
	if granted != a.granted || active != a.active || granted < 0 {
		return fmt.Errorf("granted is %d, want %d; %d senders are active, want %d", a.granted, granted, a.active, active)
	}
	return nil
}
