package sqlitestore

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

const (
	maxWaiting = 1024 // updates that wait for the writer; more wait to be let in
	maxGroup   = 4096 // changes that are committed together, beyond the first update's
)

// request is an update that waits for the writer.
type request struct {
	changes []eventstore.Change
	errs    []error     // one for each change; the writer's until done
	taken   atomic.Bool // by the writer, which applies it, or by its caller, who has given up
	applied chan struct{}
	done    chan struct{}
	mine    bool // the writer has taken it
}

// take makes a request the writer's, unless its caller has given up.
func (r *request) take() bool {
	r.mine = r.mine || r.taken.CompareAndSwap(false, true)
	return r.mine
}

// Update implements eventstore.Store. A caller whose context ends before its changes are
// applied has changed nothing. One whose context ends between that and the end of the commit, which
// may take as long as the disk does, gets iot.ErrTimeout or context.Canceled too, though they
// may be committed: what the log does can be done again.
func (s *Store) Update(ctx context.Context, changes []eventstore.Change) []error {
	if len(changes) == 0 {
		return nil
	}
	r := &request{changes: changes, errs: make([]error, len(changes)), applied: make(chan struct{}), done: make(chan struct{})}
	if err := s.writer.do(ctx, r); err != nil {
		return slices.Repeat([]error{translate(err)}, len(changes))
	}
	for _, err := range r.errs {
		if err != nil {
			return r.errs
		}
	}
	return nil
}

// writer is the one goroutine that writes, and what it owns.
type writer struct {
	s        *Store
	requests chan *request
	stopped  chan struct{}

	c       *conn // nil = to be opened
	version int64 // PRAGMA data_version: changes when others write
	next    int64 // id of the next partition; 0 = to be looked up
	// untrimmed are the partitions that have more to be removed.
	untrimmed map[eventstore.Key]bool
}

func newWriter(s *Store) *writer {
	return &writer{s: s, requests: make(chan *request, maxWaiting), stopped: make(chan struct{}), untrimmed: map[eventstore.Key]bool{}}
}

// do waits until a request is done, or is not going to be.
func (w *writer) do(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-w.s.closing:
		return errClosed
	default:
	}
	select {
	case w.requests <- r:
	case <-w.s.closing:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-r.done:
		return nil
	case <-w.stopped:
	case <-ctx.Done():
	}
	if !r.taken.CompareAndSwap(false, true) { // the writer is at it, with what is the caller's
		select {
		case <-r.applied:
		case <-r.done: // it was not come to
		}
		select {
		case <-r.done:
			return nil // in time after all
		default:
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errClosed
}

// run commits what waits, until the store is closed.
func (w *writer) run() {
	defer close(w.stopped)
	defer func() {
		if w.c != nil {
			w.c.close()
		}
	}()
	for {
		select {
		case <-w.s.closing:
			return
		default:
		}
		if len(w.untrimmed) > 0 {
			select {
			case r := <-w.requests:
				w.commit(w.gather(r))
			default:
				w.commit(nil)
			}
			continue
		}
		select {
		case r := <-w.requests:
			w.commit(w.gather(r))
		case <-w.s.closing:
			return
		}
	}
}

// gather takes what waits behind the first request.
func (w *writer) gather(r *request) (group []*request) {
	n := 0
	for {
		group = append(group, r)
		if n += len(r.changes); n >= maxGroup {
			return group
		}
		select {
		case r = <-w.requests:
		default:
			return group
		}
	}
}

// commit applies a group in one transaction. Where that fails, nobody has anything: an outcome may rest on a
// change before it that was not kept.
func (w *writer) commit(group []*request) {
	err := w.transact(group)
	if err != nil {
		err = translate(err)
		for _, r := range group {
			if !r.take() {
				continue
			}
			for i := range r.errs {
				r.errs[i] = err
			}
		}
	}
	for _, r := range group {
		if r.take() { // or it was not come to
			close(r.done)
		}
	}
}

func (w *writer) transact(group []*request) (err error) {
	ctx := context.Background()
	if w.c == nil {
		if err := w.connect(ctx); err != nil {
			return err
		}
	}
	defer func() {
		if err == nil {
			return
		}
		w.next = 0
		clear(w.untrimmed)
		// Whether the end of the transaction was reached is not known.
		w.s.cache.clear()
		if !passing(err) {
			w.c.close()
			w.c = nil
		}
		if readOnly(err) {
			w.s.closeReaders()
		}
	}()
	t := transaction{w: w, c: w.c, parts: map[eventstore.Key]*loaded{}}
	if err := t.begin(ctx); err != nil {
		return err
	}
	if err := t.fill(ctx, group); err != nil {
		t.c.exec(ctx, "ROLLBACK") // fails only where SQLite has rolled back already
		return err
	}
	w.s.cache.put(t.parts)
	return nil
}

// connect opens the writing connection.
func (w *writer) connect(ctx context.Context) error {
	c, err := openConn(ctx, w.s.db)
	if err != nil {
		return err
	}
	_, err = c.sql.ExecContext(ctx, fmt.Sprintf("PRAGMA cache_size = -%d", writerKiB))
	if err == nil {
		err = c.migrate(ctx)
	}
	if err != nil {
		c.close()
		return err
	}
	w.c, w.version, w.next = c, -1, 0
	return nil
}
