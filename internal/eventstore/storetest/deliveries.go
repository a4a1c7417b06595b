package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

var deliveries = []test{
	{"Read", deliverRead},
	{"SettleOutOfOrder", deliverOutOfOrder},
	{"SettleAgain", deliverAgain},
	{"BackOff", deliverBackOff},
	{"Dead", deliverDead},
	{"ManyDead", deliverManyDead},
	{"Release", deliverRelease},
	{"OrderBehindLarge", deliverOrder},
	{"StateIsBounded", deliverBounded},
	{"Refused", deliverRefused},
}

func deliverRead(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	for range 4 {
		r.append("", r.events("T", "d", 3)...)
	}
	h := r.hold("T", "A", "d")
	same(t, "the first", h.texts(2), "d:1 d:2")
	h.next = 1
	same(t, "an answer that was lost comes again", h.texts(2), "d:1 d:2")
	out := h.read(4)
	same(t, "the next", texts(out.Records), "d:3 d:4 d:5 d:6")
	for i, rec := range out.Records {
		if rec.Position != uint64(i+3) || rec.Tenant != "T" || rec.Device != "d" || rec.ID.Writer != 7 || rec.ID.Counter != uint64(i+3) {
			t.Errorf("record %+v", rec)
		}
	}
	same(t, "next and end", []uint64{out.Next, out.End}, []uint64{7, 13})
	size := out.Records[0].Size()
	out, err := h.tryRead(10, 2*size+1)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "two by size", texts(out.Records), "d:7 d:8")
	h.next = out.Next
	if out, err = h.tryRead(10, 1); err != nil {
		t.Fatal(err)
	}
	same(t, "one whatever its size", texts(out.Records), "d:9")
	h.next = 99 // nothing is skipped by asking for what is later
	out = h.read(0)
	same(t, "the rest", texts(out.Records), "d:10 d:11 d:12")
	same(t, "next and end", []any{out.Next, out.End, out.NextAt.IsZero()}, []any{13, 13, true})
	same(t, "no more", h.texts(0), "")
}

func deliverOutOfOrder(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	for range 5 {
		r.append("", r.events("T", "d", 4)...)
	}
	h := r.hold("T", "A", "d")
	h.read(0)
	k := eventstore.Key{Tenant: "T", Partition: h.id}
	h.settle(outcome(5, 6, 0, eventstore.Accepted), outcome(9, 12, 0, eventstore.Accepted), outcome(20, 20, 0, eventstore.Accepted))
	same(t, "counts", r.counts("T"), "13 13 0")
	h.settle(outcome(2, 3, 0, eventstore.Accepted))
	same(t, "cursor", partition(t, s, k).Cursor, 1)
	h.settle(outcome(1, 4, 0, eventstore.Accepted))
	p := settled(t, s, k)
	same(t, "cursor, head", []uint64{p.Cursor, p.Head}, []uint64{7, 8})
	same(t, "batches", spans(t, s, k, 1, 10_000), "[5-8 9-12 13-16 17-20]")
	h.settle(outcome(7, 8, 0, eventstore.Accepted), outcome(13, 19, 0, eventstore.Accepted))
	p = settled(t, s, k)
	same(t, "the state at the end", []any{p.Cursor, p.Mark, p.End, p.Head, p.Bytes, len(p.Done), len(p.Runs)}, []any{21, 21, 21, 0, 0, 0, 0})
	same(t, "counts at the end", r.counts("T"), "0 0 0")
}

func deliverAgain(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", r.events("T", "d", 6)...)
	h := r.hold("T", "A", "d")
	h.read(4)
	words := []eventstore.Settlement{outcome(1, 1, 0, eventstore.Accepted), outcome(2, 2, 0, eventstore.Released), outcome(3, 3, 0, eventstore.Rejected)}
	same(t, "dead", h.settle(words...).Dead, []uint64{3})
	k := eventstore.Key{Tenant: "T", Partition: h.id}
	before := partition(t, s, k)
	same(t, "dead again", len(h.settle(words...).Dead), 0)
	// What was delivered under another attempt, or never, is not settled.
	h.settle(outcome(2, 2, 7, eventstore.Accepted), outcome(5, 9, 0, eventstore.Accepted), outcome(4, 4, 1, eventstore.Accepted))
	after := partition(t, s, k)
	before.Seen, after.Seen = 0, 0
	same(t, "the state", after, before)
	same(t, "counts", r.counts("T"), "4 2 1")
	r.now = r.now.Add(time.Second)
	same(t, "what comes", h.texts(0), "d:2#1 d:5 d:6")
	h.settle(outcome(2, 2, 0, eventstore.Accepted)) // late, of the first delivery
	same(t, "counts", r.counts("T"), "4 4 1")
	h.settle(outcome(2, 2, 1, eventstore.Accepted), outcome(4, 6, 0, eventstore.Accepted))
	same(t, "counts", r.counts("T"), "0 0 1")
}

// A released event rests for a time that grows, and holds up nobody.
func deliverBackOff(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", r.events("T", "d", 3)...)
	h := r.hold("T", "A", "d")
	same(t, "first", h.texts(1), "d:1")
	last := time.Duration(0)
	for attempt := range uint16(12) {
		out := h.settle(outcome(1, 1, attempt, eventstore.Released))
		wait := out.NextAt.Sub(r.now)
		if wait < last || wait <= 0 || wait > time.Minute || attempt == 0 && wait > time.Second {
			t.Fatalf("delivery %d is followed after %v, the one before after %v", attempt+1, wait, last)
		}
		last = wait
		r.now = r.now.Add(wait - time.Millisecond)
		read := h.read(0)
		same(t, "a ms before", texts(read.Records), map[bool]string{true: "d:2 d:3"}[attempt == 0])
		same(t, "when it comes", read.NextAt, out.NextAt)
		r.now = r.now.Add(time.Millisecond)
		same(t, "then", h.texts(0), fmt.Sprint("d:1#", attempt+1))
		same(t, "with the consumer, it is not read again", h.texts(0), "")
	}
	h.settle(eventstore.Settlement{From: 1, To: 1, Attempt: 12, Outcome: eventstore.Released, AtOnce: true})
	same(t, "whose consumer has gone", h.texts(0), "d:1#13")
	r.now = r.now.Add(10 * time.Minute)
	same(t, "whose holder lost the answer", h.texts(0), "d:1#13")
	same(t, "is accepted", h.settle(outcome(1, 1, 13, eventstore.Accepted)).NextAt.IsZero(), true)
}

func deliverDead(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{MaxAttempts: 3})
	r.append("", r.events("T", "d", 3)...)
	h := r.hold("T", "A", "d")
	h.read(0)
	long := strings.Repeat("ü", 400)
	out := h.settle(eventstore.Settlement{From: 2, To: 2, Outcome: eventstore.Rejected, Reason: long})
	same(t, "rejected", out.Dead, []uint64{2})
	failed := func(attempt uint16) eventstore.Settlement {
		return eventstore.Settlement{From: 1, To: 1, Attempt: attempt, Outcome: eventstore.Modified, DeliveryFailed: true, AtOnce: true}
	}
	same(t, "failed once", len(h.settle(failed(0)).Dead), 0)
	h.read(0)
	// A release does not count as a failure.
	h.settle(eventstore.Settlement{From: 1, To: 1, Attempt: 1, Outcome: eventstore.Released, AtOnce: true})
	h.read(0)
	same(t, "failed twice", len(h.settle(failed(2)).Dead), 0)
	same(t, "again", h.texts(0), "d:1#3")
	same(t, "failed three times", h.settle(failed(3)).Dead, []uint64{1})
	same(t, "counts", r.counts("T"), "1 1 2")
	list, next, err := r.Browse(t.Context(), eventstore.BrowseRequest{Tenant: "T", Partition: h.id, Dead: true})
	if err != nil || len(list) != 2 || next != 0 {
		t.Fatalf("dead letters: %+v, %d, %v", list, next, err)
	}
	same(t, "the first", []any{string(list[0].Record.Message), list[0].Attempts, list[0].At}, []any{"d:1", 4, r.now.UnixMilli()})
	same(t, "the second", []any{string(list[1].Record.Message), list[1].Attempts, list[1].Reason}, []any{"d:2", 1, long[:500]})
	if list[0].Reason == "" {
		t.Error("the first has no reason")
	}
}

// More dead letters than a transaction of any database takes.
func deliverManyDead(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", r.events("T", "d", 200)...)
	h := r.hold("T", "A", "d")
	h.read(0)
	out := h.settle(outcome(1, 50, 0, eventstore.Rejected), outcome(51, 60, 0, eventstore.Released), outcome(61, 200, 0, eventstore.Rejected))
	same(t, "dead, letters", []int{len(out.Dead), len(out.Letters)}, []int{190, 190})
	for i := range out.Dead {
		if want := uint64(i + 1 + i/50*10 - i/100*10); i < 100 && out.Dead[i] != want {
			t.Fatalf("dead letter %d is %d, want %d", i, out.Dead[i], want)
		}
	}
	same(t, "counts", r.counts("T"), "10 10 190")
	requeued, more, err := r.Requeue(t.Context(), eventstore.RequeueRequest{Tenant: "T", Partition: h.id, Positions: out.Dead[:80]})
	if err != nil || requeued != 80 {
		t.Errorf("requeued %d, %v, %v", requeued, more, err)
	}
	for more = true; more; {
		if _, more, err = r.Purge(t.Context(), eventstore.PurgeRequest{Tenant: "T", Partition: h.id, Dead: true}); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "counts at the end", r.counts("T"), "90 10 0")
}

// What a holder gives back comes at once, and what it had not delivered as if for the first time.
func deliverRelease(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", r.events("T", "d", 8)...)
	a := r.hold("T", "A", "d")
	a.read(6)
	a.settle(outcome(1, 1, 0, eventstore.Accepted), outcome(2, 2, 0, eventstore.Released))
	a.release(5)
	a.lost()
	b := r.hold("T", "B", "d")
	same(t, "another reads", b.texts(5), "d:2#1 d:3#1 d:4#1 d:5 d:6")
	b.next = 5
	same(t, "and once more, the answer was lost", b.texts(2), "d:5 d:6")
	b.release(0)
	a = r.hold("T", "A", "d")
	same(t, "the first again", a.texts(0), "d:2#2 d:3#2 d:4#2 d:5#1 d:6#1 d:7 d:8")
	a.settle(outcome(2, 4, 2, eventstore.Accepted), outcome(5, 6, 1, eventstore.Accepted), outcome(7, 8, 0, eventstore.Accepted))
	same(t, "counts", r.counts("T"), "0 0 0")
}

// First deliveries keep their order, however little room a read has.
func deliverOrder(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	records := r.events("T", "d", 4)
	for i, size := range []int{100, 5000, 100, 100} {
		records[i].Message = append(records[i].Message, make([]byte, size)...)
	}
	r.append("", records...)
	a := r.hold("T", "A", "d")
	a.read(3)
	a.release(1)
	b := r.hold("T", "B", "d")
	for want := uint64(1); want <= 4; {
		out, err := b.tryRead(10, 1000)
		if err != nil || len(out.Records) == 0 {
			t.Fatalf("position %d: %v, %v", want, out, err)
		}
		for _, rec := range out.Records {
			if rec.Position != want {
				t.Fatalf("position %d comes when it should be %d", rec.Position, want)
			}
			want++
		}
		b.next = out.Next
	}
}

// The state of a partition stays small, whatever a consumer does, and nothing is lost by it.
func deliverBounded(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	h := r.hold("T", "A", "d")
	left := 0
	for range 12 {
		r.append("", r.events("T", "d", 1000)...)
	}
	for range 20 {
		out := h.read(0)
		var words []eventstore.Settlement
		for _, rec := range out.Records {
			if rec.Position%2 == 0 {
				words = append(words, outcome(rec.Position, rec.Position, rec.Attempt, eventstore.Accepted))
			}
		}
		for len(words) > 0 {
			n := min(len(words), 500)
			h.settle(words[:n]...)
			words = words[n:]
		}
		r.append("A", r.events("T", "d", 1)...)
	}
	p := partition(t, s, eventstore.Key{Tenant: "T", Partition: h.id})
	if len(p.Done) > 5100 || len(p.Done) < 4096 {
		t.Errorf("the state has %d spans", len(p.Done))
	}
	// The first ones are settled at last, and all goes on.
	for range 30 {
		h.settle(outcome(1, p.End, 0, eventstore.Accepted))
		h.read(0)
	}
	left = int(r.stats("T").Waiting)
	same(t, "left", left, 0)
}

func deliverRefused(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", r.events("T", "d", 2)...)
	h := r.hold("T", "A", "d")
	h.read(0)
	for _, x := range []eventstore.Settlement{{From: 1, To: 1}, {From: 1, To: 1, Outcome: "taken"}, outcome(0, 1, 0, eventstore.Accepted), outcome(2, 1, 0, eventstore.Accepted)} {
		if _, err := h.trySettle(outcome(1, 1, 0, eventstore.Accepted), x); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%+v: %v, want iot.ErrInvalid", x, err)
		}
	}
	if _, err := h.trySettle(make([]eventstore.Settlement, 1001)...); !errors.Is(err, iot.ErrTooLarge) {
		t.Errorf("1,001 settlements: %v", err)
	}
	same(t, "counts", r.counts("T"), "2 2 0")
}
