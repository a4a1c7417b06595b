package dynamostore

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"io"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

const (
	// maxSlots bounds how many partitions' states are remembered.
	maxSlots = 2048
	// maxEnds bounds of how many partitions the end is remembered.
	maxEnds = 16384
	// packed is from how many bytes on a state is compressed: every KB written costs.
	packed = 1000
	// maxState bounds the state that is unpacked.
	maxState = 4 << 20
)

// stored is the item of a partition's state.
type stored struct {
	version int64  // one more with each write; 0 = there is none
	token   string // of the write
	total   uint64 // bytes of all batches that ever were
	expiry  int64  // hour under which it is noted that batches expire; 0 = none do
	state   eventstore.Partition
	fresh   bool // read or written in this call, not remembered from an earlier one
}

func (st *stored) item(k eventstore.Key) (item, error) {
	doc, err := json.Marshal(&st.state)
	if err != nil {
		return nil, err
	}
	i := stateKey(k).item()
	i["v"], i["tok"], i["tot"] = number(st.version), str(st.token), number(st.total)
	if st.expiry != 0 {
		i["exp"] = number(st.expiry)
	}
	if len(doc) < packed {
		i["s"] = blob(doc)
		return i, nil
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(doc); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	i["z"] = blob(b.Bytes())
	return i, nil
}

// decodeState reads an item; that of a partition without one when i is nil.
func decodeState(i item) (stored, error) {
	if len(i) == 0 {
		return stored{state: eventstore.NewPartition(), fresh: true}, nil
	}
	st := stored{version: i.num("v"), token: i.str("tok"), total: i.position("tot"), expiry: i.num("exp"), fresh: true}
	doc := i.bytes("s")
	if z := i.bytes("z"); z != nil {
		var err error
		if doc, err = io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(z)), maxState)); err != nil {
			return st, corrupt(i.key(), err)
		}
	}
	if err := json.Unmarshal(doc, &st.state); err != nil {
		return st, corrupt(i.key(), err)
	}
	return st, nil
}

// load reads a partition's state.
func (s *Store) load(ctx context.Context, k eventstore.Key) (stored, error) {
	i, err := s.get(ctx, stateKey(k))
	if err != nil {
		return stored{}, err
	}
	st, err := decodeState(i)
	if err == nil {
		s.saw(k, st.state.End)
	}
	return st, err
}

// saw remembers how far a partition is known to go.
func (s *Store) saw(k eventstore.Key, end uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ends) >= maxEnds {
		clear(s.ends) // they are read again
	}
	s.ends[k] = max(s.ends[k], end)
}

// end is at least the End of every state that this store has given to anybody.
func (s *Store) end(ctx context.Context, k eventstore.Key) (uint64, error) {
	s.mu.Lock()
	end, known := s.ends[k]
	s.mu.Unlock()
	if known {
		return end, nil
	}
	st, err := s.load(ctx, k)
	return st.state.End, err
}

// slot serialises this process's changes of one partition, which would only
// undo each other, and remembers the state that the last one left, so that the
// next need not read it.
type slot struct {
	turn  chan struct{} // holds one token while nobody changes the partition
	users int           // guarded by Store.mu
	known bool
	st    stored // guarded by turn
}

// lock waits for this process's turn to change a partition.
func (s *Store) lock(ctx context.Context, k eventstore.Key) (*slot, error) {
	s.mu.Lock()
	l := s.slots[k]
	if l == nil {
		s.forgetIdle()
		l = &slot{turn: make(chan struct{}, 1)}
		l.turn <- struct{}{}
		s.slots[k] = l
	}
	l.users++
	s.mu.Unlock()
	select {
	case <-l.turn:
		if ctx.Err() == nil {
			return l, nil
		}
		s.unlock(l)
		return nil, s.translate(ctx, ctx.Err())
	case <-ctx.Done():
		s.leave(l)
		return nil, s.translate(ctx, ctx.Err())
	case <-s.closing.Done():
		s.leave(l)
		return nil, s.translate(ctx, errClosed)
	}
}

func (s *Store) unlock(l *slot) {
	l.turn <- struct{}{}
	s.leave(l)
}

func (s *Store) leave(l *slot) {
	s.mu.Lock()
	l.users--
	s.mu.Unlock()
}

// forgetIdle makes room for another partition. Any idle one will do:
// forgetting costs a read.
func (s *Store) forgetIdle() {
	for k, l := range s.slots {
		if len(s.slots) < maxSlots {
			return
		}
		if l.users == 0 {
			delete(s.slots, k)
		}
	}
}
