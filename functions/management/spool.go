package management

import (
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	// maxSpooled is how many bytes of results wait for a client that sends all
	// items before it reads: those of some 100,000 items.
	maxSpooled = 16 << 20
	// streamTimeout is how long a long request waits for the other side to send
	// or to take something.
	streamTimeout = 60 * time.Second
)

var errGone = errors.New("the client is gone or takes no results")

// spool writes results in a goroutine of its own, so that the items are done no
// slower than the client reads, up to a bound.
type spool struct {
	w  http.ResponseWriter
	rc *http.ResponseController

	mu      sync.Mutex
	changed *sync.Cond
	buffer  []byte
	closed  bool
	failed  bool
	done    sync.WaitGroup
}

func newSpool(w http.ResponseWriter) *spool {
	s := &spool{w: w, rc: http.NewResponseController(w)}
	s.changed = sync.NewCond(&s.mu)
	s.done.Go(s.run)
	return s
}

// Write implements io.Writer. It waits while the bound is reached.
func (s *spool) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.failed && len(s.buffer) > 0 && len(s.buffer)+len(b) > maxSpooled {
		s.changed.Wait()
	}
	if s.failed {
		return 0, errGone
	}
	s.buffer = append(s.buffer, b...)
	s.changed.Broadcast()
	return len(b), nil
}

// close waits until everything was written.
func (s *spool) close() error {
	s.mu.Lock()
	s.closed = true
	s.changed.Broadcast()
	s.mu.Unlock()
	s.done.Wait()
	s.rc.SetWriteDeadline(time.Time{}) // the connection may serve another request
	if s.failed {
		return errGone
	}
	return nil
}

func (s *spool) run() {
	var spare []byte
	for {
		s.mu.Lock()
		for len(s.buffer) == 0 && !s.closed {
			s.changed.Wait()
		}
		out := s.buffer
		s.buffer = spare[:0]
		s.changed.Broadcast()
		s.mu.Unlock()
		if len(out) == 0 {
			return
		}
		s.rc.SetWriteDeadline(time.Now().Add(streamTimeout)) // where there is a connection
		_, err := s.w.Write(out)
		if err == nil {
			err = s.rc.Flush()
		}
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			s.mu.Lock()
			s.failed, s.buffer = true, nil
			s.changed.Broadcast()
			s.mu.Unlock()
			return
		}
		if spare = out; cap(spare) > 1<<20 {
			spare = nil // a large one is not kept for ever
		}
	}
}
