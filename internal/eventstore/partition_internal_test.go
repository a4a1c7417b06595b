package eventstore

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// table is a partition, one entry for each position: the plain meaning of spans and runs.
type table struct {
	cursor, mark, end uint64
	at                map[uint64]string // "done", or a run as text; plain ones are missing
}

func (x *table) of(p uint64) string { return x.at[p] }

// read makes the table that a state stands for, and checks its form.
func read(t *testing.T, p *Partition) *table {
	t.Helper()
	x := &table{p.Cursor, p.Mark, p.End, map[uint64]string{}}
	if p.Cursor == 0 || p.Cursor > p.Mark || p.Mark > p.End {
		t.Fatalf("cursor, mark, end are %d, %d, %d", p.Cursor, p.Mark, p.End)
	}
	last := p.Cursor // a span that touches the cursor would be below it
	for _, d := range p.Done {
		if d.From <= last || d.To < d.From || d.To >= p.End {
			t.Fatalf("done is %v with cursor %d, end %d", p.Done, p.Cursor, p.End)
		}
		last = d.To + 1
		for at := d.From; at <= d.To; at++ {
			x.at[at] = "done"
		}
	}
	last = p.Cursor - 1
	for i, r := range p.Runs {
		if r.From <= last || r.To < r.From || r.To >= p.End {
			t.Fatalf("runs are %v with cursor %d, end %d", p.Runs, p.Cursor, p.End)
		}
		if i > 0 && last+1 == r.From && describe(p.Runs[i-1]) == describe(r) {
			t.Fatalf("runs %v could be one", p.Runs[i-1:i+1])
		}
		last = r.To
		for at := r.From; at <= r.To; at++ {
			if x.at[at] != "" {
				t.Fatalf("position %d is done and in a run", at)
			}
			x.at[at] = describe(r)
		}
	}
	return x
}

func describe(r Run) string { return fmt.Sprint(r.Attempt, " ", r.Failed, " ", r.Next, " ", r.Out) }

// Whatever is done to spans and runs, each position becomes what a table of
// positions says.
func TestSpans(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		p := NewPartition()
		p.End = 2 + rnd.Uint64N(60)
		for range 60 {
			x := read(t, &p)
			a, b := 1+rnd.Uint64N(p.End), 1+rnd.Uint64N(p.End)
			s := Span{min(a, b), max(a, b)}
			switch rnd.IntN(6) {
			case 0, 1:
				p.finish(s)
				checkFinish(t, x, &p, s)
			case 2:
				p.Mark = max(p.Mark, min(s.To, p.End))
			case 3:
				release(t, rnd, x, &p, s)
			case 4:
				now := rnd.Int64N(4)
				p.lease(s, now)
				checkLease(t, x, &p, s, now)
			case 5:
				undelivered, failed := s.To, rnd.IntN(2) == 0
				p.giveBack(undelivered, failed, 1)
				checkGiveBack(t, x, &p, undelivered, failed)
			}
			checkCounts(t, &p)
			if t.Failed() {
				t.Fatalf("seed %d: %+v", seed, p)
			}
		}
	}
}

func checkFinish(t *testing.T, x *table, p *Partition, s Span) {
	t.Helper()
	y := read(t, p)
	for at := uint64(1); at < p.End; at++ {
		want := x.of(at)
		if at < x.cursor || at >= s.From && at <= s.To {
			want = "done"
		}
		got := y.of(at)
		if at < p.Cursor {
			got = "done"
		}
		if got != want {
			t.Errorf("after %v is done, %d is %q, want %q", s, at, got, want)
		}
	}
}

// release settles what was delivered, one attempt at a time.
func release(t *testing.T, rnd *rand.Rand, x *table, p *Partition, s Span) {
	t.Helper()
	attempt := uint16(rnd.IntN(3))
	set := &settling{now: int64(rnd.IntN(3)), fence: p.Fence, settlements: []Settlement{{From: s.From, To: s.To, Attempt: attempt, Outcome: Released, AtOnce: true}}}
	p.Holder = "h"
	if err := set.apply(p, &Writes{}); err != nil {
		t.Fatal(err)
	}
	y := read(t, p)
	for at := p.Cursor; at < p.End; at++ {
		was, is := x.of(at), y.of(at)
		var a, f uint16
		var n int64
		var out bool
		if was != "" && was != "done" {
			fmt.Sscan(was, &a, &f, &n, &out)
		}
		settled := at >= s.From && at <= s.To && was != "done" && a == attempt && (was != "" || at < x.mark)
		want := was
		if settled {
			want = describe(Run{Attempt: a + 1, Failed: f, Next: set.now})
		}
		if is != want {
			t.Errorf("after %v of attempt %d was released, %d is %q, want %q", s, attempt, at, is, want)
		}
	}
}

func checkLease(t *testing.T, x *table, p *Partition, s Span, now int64) {
	t.Helper()
	y := read(t, p)
	for at := p.Cursor; at < p.End; at++ {
		want := x.of(at)
		if want != "" && want != "done" && at >= s.From && at <= s.To {
			var r Run
			fmt.Sscan(want, &r.Attempt, &r.Failed, &r.Next, &r.Out)
			if r.Next <= now {
				r.Next, r.Out = now+lease, true
				want = describe(r)
			}
		}
		if got := y.of(at); got != want {
			t.Errorf("after %v was handed out, %d is %q, want %q", s, at, got, want)
		}
	}
}

func checkGiveBack(t *testing.T, x *table, p *Partition, undelivered uint64, failed bool) {
	t.Helper()
	y := read(t, p)
	if want := max(x.cursor, min(x.mark, undelivered)); p.Mark != want {
		t.Errorf("mark is %d, want %d", p.Mark, want)
	}
	for at := p.Cursor; at < p.End; at++ {
		want := x.of(at)
		var r Run
		switch {
		case want == "done" || want == "" && at >= p.Mark:
		default:
			r.Out = want == ""
			if want != "" {
				fmt.Sscan(want, &r.Attempt, &r.Failed, &r.Next, &r.Out)
			}
			if r.Next = 1; r.Out {
				r.Out = false
				if r.Attempt++; failed {
					r.Failed++
				}
			}
			want = describe(r)
		}
		if got := y.of(at); got != want {
			t.Errorf("after it was given back from %d on, %d is %q, want %q", undelivered, at, got, want)
		}
	}
}

func checkCounts(t *testing.T, p *Partition) {
	t.Helper()
	x := read(t, p)
	waiting, flight := int64(0), int64(0)
	var plain []uint64
	for at := p.Cursor; at < p.End; at++ {
		if x.of(at) != "done" {
			if waiting++; at < p.Mark {
				flight++
			}
		}
		if x.of(at) == "" {
			plain = append(plain, at)
		}
		if p.fresh(at) != (x.of(at) == "") || p.waits(at) != (x.of(at) != "done") {
			t.Errorf("%d is %q: fresh %v, waits %v", at, x.of(at), p.fresh(at), p.waits(at))
		}
	}
	if p.Waiting() != waiting || p.InFlight() != flight {
		t.Errorf("waiting %d, in flight %d, want %d, %d", p.Waiting(), p.InFlight(), waiting, flight)
	}
	var got []uint64
	p.plain(Span{0, p.End + 5}, func(s Span) {
		for at := s.From; at <= s.To; at++ {
			got = append(got, at)
		}
	})
	if !slices.Equal(got, plain) {
		t.Errorf("plain are %v, want %v", got, plain)
	}
	var back Partition
	b, err := json.Marshal(p)
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	if err != nil || fmt.Sprint(back) != fmt.Sprint(*p) {
		t.Errorf("%s becomes %+v, %v", b, back, err)
	}
}

func TestCut(t *testing.T) {
	long := ""
	for len(long) < 600 {
		long += "日"
	}
	for _, n := range []int{0, 499, 500, 501, 600} {
		got := cut(long[:n/3*3] + "xyz"[:n%3])
		if len(got) > 500 || n <= 500 && len(got) != n || []rune(got)[max(0, len([]rune(got))-1):] == nil {
			t.Errorf("%d bytes become %d", n, len(got))
		}
		for _, r := range got {
			if r == '\uFFFD' {
				t.Errorf("%d bytes are cut in the middle of a character", n)
			}
		}
	}
}

func TestBackoff(t *testing.T) {
	last := int64(0)
	for n := range uint16(65535) {
		wait := backoff(n)
		if wait < last || wait > lastRetry || n == 1 && wait > 1000 {
			t.Fatalf("after %d deliveries %d ms, before that %d", n, wait, last)
		}
		last = wait
	}
	if last != lastRetry {
		t.Errorf("the longest wait is %d ms", last)
	}
}
