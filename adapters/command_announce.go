package adapters

import "sync"

// announcements are changes on their way to the [Announcer]. They are noted under
// the locks of what changes, and told without them, in the order in which they were
// noted.
type announcements struct {
	to Announcer // nil = nobody

	mu      sync.Mutex
	waiting []Announcement
	known   []chan struct{} // of those who wait until routers know
	telling bool
}

// add notes a change. With wait, what it returns gets a value once routers know;
// nil where there is nobody to tell.
func (a *announcements) add(change Announcement, wait bool) <-chan struct{} {
	if a.to == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, change)
	if !wait {
		return nil
	}
	known := make(chan struct{}, 1)
	a.known = append(a.known, known)
	return known
}

// flush tells what was noted. Where somebody is at it already, he tells it, too.
func (a *announcements) flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.telling {
		return
	}
	a.telling = true
	for len(a.waiting) > 0 {
		changes, known := a.waiting, a.known
		a.waiting, a.known = nil, nil
		a.mu.Unlock()
		a.to.Announce(changes, told(known))
		a.mu.Lock()
	}
	a.telling = false
}

// told tells those who wait; nil for nobody.
func told(known []chan struct{}) func() {
	if len(known) == 0 {
		return nil
	}
	return func() {
		for _, c := range known {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}
