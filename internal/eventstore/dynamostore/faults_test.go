package dynamostore_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/dynamostore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestLostAnswer loses the answers to writes that were made.
func TestLostAnswer(t *testing.T) {
	for _, c := range []struct {
		name string
		lost int32 // in a row: three tries of the write, then a look at the state, in three tries
		want error
	}{
		{"once", 1, nil},
		{"twice", 2, nil},
		{"to the write", 3, nil},
		{"for good", 6, iot.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, w, o := wired(t)
			must(t, appendOne(s))
			for _, step := range []func(eventstore.Store) error{appendOne, func(s eventstore.Store) error {
				return update(s, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Fence++ })
			}} {
				var lost atomic.Int32
				w.set(nil, func(string, *http.Response) error {
					if lost.Add(1) <= c.lost {
						return errCut
					}
					return nil
				})
				if err := step(s); !errors.Is(err, c.want) {
					t.Fatalf("got %v, want %v", err, c.want)
				}
				w.set(nil, nil)
				must(t, update(s, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Seen++ })) // the state is known again
			}
			must(t, appendOne(s))
			for _, s := range []*dynamostore.Store{s, open(t, o)} {
				wantState(t, s, "end 4 head 1 bytes 30 [1 2 3]")
				p, err := s.Partition(t.Context(), key)
				if must(t, err); p.Fence != 1 {
					t.Fatalf("the change of the state alone was made %d times, want once", p.Fence)
				}
			}
		})
	}
}

// TestDoubt has another store write between a write whose answer is lost and its second try. DynamoDB
// remembers a transaction; of a single write nothing tells what became of it, so it is not made again.
func TestDoubt(t *testing.T) {
	for _, c := range []struct {
		name, operation string
		step            func(eventstore.Store) error
		want            error
	}{
		{"transaction", "TransactWriteItems", appendOne, nil},
		{"state alone", "PutItem", func(s eventstore.Store) error {
			return update(s, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Fence++ })
		}, iot.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, w, o := wired(t)
			other := open(t, o)
			must(t, appendOne(s), appendOne(other), appendOne(s))
			lost := false
			w.set(nil, func(operation string, _ *http.Response) error {
				if lost || operation != c.operation {
					return nil
				}
				lost = true
				return errors.Join(errCut, update(other, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Seen++ }))
			})
			if err := c.step(s); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			w.set(nil, nil)
			p, err := other.Partition(t.Context(), key)
			must(t, err)
			if p.End+p.Fence != 5 || p.Seen != 1 {
				t.Fatalf("end %d, fence %d, seen %d: want either change once", p.End, p.Fence, p.Seen)
			}
			must(t, c.step(s), c.step(other))
			if p, err = s.Partition(t.Context(), key); err != nil || p.End+p.Fence != 7 {
				t.Fatalf("end %d, fence %d, %v: want two more", p.End, p.Fence, err)
			}
		})
	}
}

func TestUnavailable(t *testing.T) {
	_, w, o := wired(t)
	o.HTTPClient, o.Patience = w, 200*time.Millisecond
	s := open(t, o)
	must(t, appendOne(s))
	fail := func(r func() *http.Response) func(string) (*http.Response, error) {
		return func(string) (*http.Response, error) { return r(), nil }
	}
	for _, c := range []struct {
		name  string
		fault func(string) (*http.Response, error)
	}{
		{"refused", func(string) (*http.Response, error) { return nil, errCut }},
		{"500", fail(func() *http.Response { return answer(500, "InternalServerError") })},
		{"503", fail(func() *http.Response { return answer(503, "ServiceUnavailable") })},
		{"throttled", fail(func() *http.Response { return answer(400, "ProvisionedThroughputExceededException") })},
		{"transaction throttled", fail(func() *http.Response { return canceled("ThrottlingError") })},
		{"in conflict", fail(func() *http.Response { return canceled("TransactionConflict") })},
		{"no right", fail(func() *http.Response { return answer(400, "AccessDeniedException") })},
		{"table gone", fail(func() *http.Response { return answer(400, "ResourceNotFoundException") })},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.set(c.fault, nil)
			defer w.set(nil, nil)
			_, read := s.Partition(t.Context(), key)
			_, batches := s.Batches(t.Context(), key, 1, 1)
			errs := map[string]error{"read": read, "batches": batches, "append": appendOne(s),
				"state": update(s, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Fence++ })}
			for name, err := range errs {
				var own *iot.Error
				if !errors.Is(err, iot.ErrUnavailable) || !errors.As(err, &own) || own.RetryAfter < time.Second || strings.Contains(own.Text, "internals") {
					t.Errorf("%s: got %v, want iot.ErrUnavailable with RetryAfter and no internals", name, err)
				}
			}
		})
	}
	must(t, appendOne(s)) // and it recovers
	wantState(t, s, "end 3 head 1 bytes 20 [1 2]")
}

// TestThrottledForAMoment has DynamoDB refuse what it takes a moment later.
func TestThrottledForAMoment(t *testing.T) {
	for _, refusal := range []func() *http.Response{
		func() *http.Response { return canceled("ThrottlingError") },
		func() *http.Response { return canceled("TransactionConflict") },
		func() *http.Response { return answer(400, "ThrottlingException") },
		func() *http.Response { return answer(400, "TransactionInProgressException") },
	} {
		s, w, _ := wired(t)
		n := 0
		w.set(func(operation string) (*http.Response, error) {
			if n++; operation != "TransactWriteItems" || n > 3 {
				return nil, nil
			}
			return refusal(), nil
		}, nil)
		must(t, appendOne(s))
		w.set(nil, nil)
		wantState(t, s, "end 2 head 1 bytes 10 [1]")
	}
}

// TestCuts has the network fail at random while writers append through several stores, and try again:
// the log stores each record once, in the order of its writer.
func TestCuts(t *testing.T) {
	const writers, records = 6, 40
	_, w, o := wired(t)
	cut := func() error {
		if rand.IntN(15) == 0 {
			return errCut
		}
		return nil
	}
	var all sync.WaitGroup
	for i := range writers {
		o := o
		o.HTTPClient = w
		log := eventstore.New(open(t, o), eventstore.Options{})
		all.Go(func() {
			for n := range records {
				for try := 0; ; try++ {
					out, err := log.Append(t.Context(), eventstore.AppendRequest{Records: []eventstore.Record{record(uint64(i+1), uint64(n+1), "D", 0)}})
					if err != nil {
						t.Error(err)
						return
					}
					if out.Results[0].Status == 200 {
						break
					}
					if out.Results[0].Status != 503 || try > 50 {
						t.Errorf("writer %d record %d: %+v", i, n, out.Results[0])
						return
					}
				}
			}
		})
	}
	w.set(func(string) (*http.Response, error) { return nil, cut() }, func(string, *http.Response) error { return cut() })
	all.Wait()
	w.set(nil, nil)
	s := open(t, o)
	found, err := s.Batches(t.Context(), key, 1, 1<<30)
	must(t, err)
	last := map[uint64]uint64{}
	count := 0
	for _, b := range found {
		list, err := eventstore.DecodeAll(b.Body, 10)
		must(t, err)
		for _, r := range list {
			if count++; r.Position != uint64(count) || r.ID.Counter != last[r.ID.Writer]+1 {
				t.Fatalf("position %d: writer %d has %d after %d", r.Position, r.ID.Writer, r.ID.Counter, last[r.ID.Writer])
			}
			last[r.ID.Writer] = r.ID.Counter
		}
	}
	if count != writers*records {
		t.Fatalf("%d records are stored, want %d", count, writers*records)
	}
}

// TestBatchNotVisibleYet has a query see the new state but not the batch that came with it,
// as DynamoDB allows while it applies a transaction: the batch is not taken for one
// that has expired.
func TestBatchNotVisibleYet(t *testing.T) {
	for _, hide := range [][]int{{3}, {2}, {2, 3}, {1}, {1, 2, 3}} {
		t.Run(fmt.Sprint(hide), func(t *testing.T) {
			_, w, o := wired(t)
			other := eventstore.New(open(t, o), eventstore.Options{})
			o.HTTPClient = w
			s := open(t, o)
			o.Patience = 100 * time.Millisecond
			impatient := open(t, o)
			log := eventstore.New(s, eventstore.Options{})
			for n := range uint64(3) {
				_, err := other.Append(t.Context(), eventstore.AppendRequest{Records: []eventstore.Record{record(1, n+1, "D", 0)}})
				must(t, err)
			}
			claims, err := log.Claim(t.Context(), eventstore.ClaimRequest{Tenant: "T", Holder: "h"})
			must(t, err)
			h := &hidden{w: w, positions: hide}
			h.until(2)
			read, err := log.Read(t.Context(), eventstore.ReadRequest{Tenant: "T", Partition: key.Partition, Fence: fence(claims), From: 1})
			must(t, err)
			if len(read.Records) != 3 || h.queries != 2 || log.Expired() != 0 {
				t.Fatalf("read %d records, want 3; %d queries saw less, %d events have expired", len(read.Records), h.queries, log.Expired())
			}
			h.until(math.MaxInt)
			if _, err := impatient.Batches(t.Context(), key, 1, 1<<20); !errors.Is(err, iot.ErrUnavailable) {
				t.Fatalf("got %v of batches that never show, want iot.ErrUnavailable", err)
			}
			h.until(2) // what stays, after what is done was removed
			must(t, update(s, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Cursor = 2 }))
			p, err := s.Partition(t.Context(), key)
			if must(t, err); p.Head != 2 || p.Bytes != 2*recordSize {
				t.Fatalf("head is %d with %d bytes, want 2 with %d", p.Head, p.Bytes, 2*recordSize)
			}
		})
	}
}

// hidden keeps batches that end at some positions out of the first queries.
type hidden struct {
	w         *wire
	positions []int
	queries   int
}

func (h *hidden) until(queries int) {
	h.queries = 0
	pending := false
	h.w.set(func(operation string) (*http.Response, error) {
		if operation == "TransactGetItems" && (!pending || queries == math.MaxInt) { // the transaction holds the item
			pending = true
			return canceled("TransactionConflict"), nil
		}
		return nil, nil
	}, func(operation string, resp *http.Response) error {
		if operation != "Query" || h.queries == queries {
			return nil
		}
		h.queries++
		return edit(resp, func(items []any) []any {
			return slices.DeleteFunc(items, func(i any) bool {
				return slices.ContainsFunc(h.positions, func(at int) bool { return strings.Contains(fmt.Sprint(i), fmt.Sprintf("S:%020d", at)) })
			})
		})
	})
}

func fence(r *eventstore.ClaimResult) uint64 {
	for _, c := range r.Claims {
		if c.Partition == key.Partition {
			return c.Fence
		}
	}
	return 0
}

// TestRequests holds what operations cost, so that nobody makes them dearer unnoticed.
func TestRequests(t *testing.T) {
	s, w, o := wired(t)
	o.HTTPClient = w
	log := eventstore.New(s, eventstore.Options{})
	cold := eventstore.New(open(t, o), eventstore.Options{})
	w.taken()
	ctx := t.Context()
	n := uint64(0)
	appends := func(l *eventstore.Log, devices int) func() error {
		return func() error {
			var list []eventstore.Record
			for d := range devices {
				n++
				list = append(list, record(1, n, iot.DeviceID(fmt.Sprint("D", d)), 0))
			}
			out, err := l.Append(ctx, eventstore.AppendRequest{Records: list})
			if err == nil && out.Results[0].Status != 200 {
				err = errors.New(out.Results[0].Error)
			}
			return err
		}
	}
	at := eventstore.PartitionOf("D0")
	var held uint64
	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"append, the first", appends(log, 1), "[GetItem:1 TransactWriteItems:1]"},
		{"append", appends(log, 1), "[TransactWriteItems:1]"},
		{"append, another process", appends(cold, 1), "[GetItem:1 TransactWriteItems:1]"},
		{"append, after another process", appends(log, 1), "[TransactWriteItems:2]"},
		{"claim of one that exists and seven that do not", func() error {
			got, err := log.Claim(ctx, eventstore.ClaimRequest{Tenant: "T", Holder: "h"})
			for _, x := range got.Claims {
				if x.Partition == at {
					held = x.Fence
				}
			}
			return err
		}, "[GetItem:7 PutItem:1 Query:1 TransactWriteItems:7]"},
		{"renewal", func() error {
			_, err := log.Claim(ctx, eventstore.ClaimRequest{Tenant: "T", Holder: "h"})
			return err
		}, "[PutItem:8 Query:1]"},
		{"read", func() error {
			out, err := log.Read(ctx, eventstore.ReadRequest{Tenant: "T", Partition: at, Fence: held, From: 1})
			if err == nil && len(out.Records) != 4 {
				err = fmt.Errorf("%d records", len(out.Records))
			}
			return err
		}, "[GetItem:1 PutItem:1 Query:1]"},
		{"settle a part", func() error {
			_, err := log.Settle(ctx, eventstore.SettleRequest{Tenant: "T", Partition: at, Fence: held,
				Settlements: []eventstore.Settlement{{From: 2, To: 2, Outcome: eventstore.Accepted}}})
			return err
		}, "[PutItem:1]"},
		{"settle whole batches", func() error {
			_, err := log.Settle(ctx, eventstore.SettleRequest{Tenant: "T", Partition: at, Fence: held,
				Settlements: []eventstore.Settlement{{From: 1, To: 3, Outcome: eventstore.Accepted}}})
			return err
		}, "[BatchWriteItem:1 PutItem:1 Query:2]"},
		{"read where nothing is new", func() error {
			_, err := log.Read(ctx, eventstore.ReadRequest{Tenant: "T", Partition: at, Fence: held, From: 5})
			return err
		}, "[GetItem:2]"},
		{"append to eight partitions", appends(log, 60), "[TransactWriteItems:8]"},
		{"a sweep without anything", func() error { _, _, err := log.Expire(ctx, 0); return err }, "[Query:10]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, c.do())
			if got := w.taken(); got != c.want {
				t.Fatalf("got requests %s, want %s", got, c.want)
			}
		})
	}
}
