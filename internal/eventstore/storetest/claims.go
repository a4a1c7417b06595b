package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

var claims = []test{
	{"Renew", claimRenew},
	{"Refused", claimRefused},
	{"Shares", claimShares},
	{"AskedTwice", claimAskedTwice},
	{"HandOver", claimHandOver},
	{"WantedByTheGone", claimWantedGone},
	{"Forgone", claimForgone},
	{"Taken", claimTaken},
	{"IdleIsKept", claimIdle},
	{"Some", claimSome},
	{"FreeAt", claimFreeAt},
	{"OfTheDead", claimOfTheDead},
}

func claimRenew(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", r.events("T", "d", 4)...)
	first := r.claimAll("T", "A")
	same(t, "claims, others, pending", []int{len(first.Claims), first.Others, first.Pending}, []int{8, 0, 0})
	for i, c := range first.Claims {
		want := eventstore.Claim{Partition: eventstore.PartitionID{Number: uint16(i)}, Fence: 1, Next: 1, End: 1, New: true}
		if c.Partition == eventstore.PartitionOf("d") {
			want.End = 5
		}
		same(t, "claim", c, want)
	}
	h := r.hold("T", "A", "d")
	h.read(2)
	r.now = r.now.Add(5 * time.Second)
	c := r.claim("T", "A", h.id)
	same(t, "renewed", c, eventstore.Claim{Partition: h.id, Fence: 1, Next: 3, End: 5})
	r.now = r.now.Add(8 * time.Second) // beyond the first claim
	same(t, "another gets", len(r.claimAll("T", "B").Claims), 0)
	h.settle(outcome(1, 1, 0, eventstore.Released))
	same(t, "it says when to read again", r.claim("T", "A", h.id).Retry, r.in(500*time.Millisecond))
}

func claimRefused(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	for _, x := range []eventstore.ClaimRequest{{Tenant: "T"}, {Holder: "A"}, {Tenant: "T", Holder: "A", ClaimMS: -1}, {Tenant: "T", Holder: "A", ClaimMS: 300_001}} {
		if _, err := r.Claim(t.Context(), x); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%+v: %v, want iot.ErrInvalid", x, err)
		}
	}
	h := &hand{r: r, tenant: "T", id: eventstore.PartitionOf("d"), fence: 0}
	h.lost() // nobody holds it, under whatever fence
	if list, err := r.Tenants(t.Context(), "", 10); err != nil || len(list) > 0 {
		t.Errorf("tenants are %v, %v, want none", list, err)
	}
}

// With several holders about, each gets the same share.
func claimShares(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", append(r.events("T", "d", 1), r.events("T", "e", 1)...)...)
	r.claimAll("T", "A")
	b := r.claimAll("T", "B")
	same(t, "the second gets, others have, of those pending", []int{len(b.Claims), b.Others, b.Pending}, []int{0, 8, 2})
	giveWanted := func(holder string) (n int) {
		t.Helper()
		for _, c := range r.claimAll("T", holder).Claims {
			if c.Wanted {
				(&hand{r: r, tenant: "T", id: c.Partition, fence: c.Fence}).release(0)
				n++
			}
		}
		return n
	}
	same(t, "the first gives", giveWanted("A"), 4)
	same(t, "the second has", len(r.claimAll("T", "B").Claims), 4)
	same(t, "the first has", len(r.claimAll("T", "A").Claims), 4)
	r.claimAll("T", "C")
	if a, b := giveWanted("A"), giveWanted("B"); a+b != 2 || a != 1 {
		t.Errorf("the first two give %d and %d, want one each", a, b)
	}
	same(t, "the third has", len(r.claimAll("T", "C").Claims), 2)

	// Whoever goes leaves its share to the others.
	for _, c := range r.claimAll("T", "A").Claims {
		(&hand{r: r, tenant: "T", id: c.Partition, fence: c.Fence}).release(0)
	}
	nb, nc := len(r.claimAll("T", "B").Claims), len(r.claimAll("T", "C").Claims)
	same(t, "the two that are left have", []int{nb, nc}, []int{4, 4})
}

// Whoever asks again before it got its share does not ask for more than that, and one that is
// gone keeps nothing marked.
func claimAskedTwice(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", append(r.events("T", "d", 1), r.events("T", "e", 1)...)...)
	wanted := func() (list []eventstore.Claim) {
		t.Helper()
		for _, c := range r.claimAll("T", "A").Claims {
			if c.Wanted {
				list = append(list, c)
			}
		}
		return list
	}
	r.claimAll("T", "A")
	for range 20 {
		r.now = r.now.Add(2 * time.Second)
		r.claimAll("T", "B")
		same(t, "the first is to give", len(wanted()), 4)
	}
	r.claimAll("T", "C") // leaves four to the second, who then wants less
	same(t, "for two", len(wanted()), 6)
	r.claimAll("T", "B")
	same(t, "for two", len(wanted()), 5)
	for _, c := range wanted() {
		(&hand{r: r, tenant: "T", id: c.Partition, fence: c.Fence}).release(0)
	}
	b, c, a := r.claimAll("T", "B"), r.claimAll("T", "C"), r.claimAll("T", "A")
	same(t, "they have", []int{len(a.Claims), len(b.Claims), len(c.Claims)}, []int{3, 3, 2})
	same(t, "that is all", len(wanted()), 0)

	r.append("", r.events("U", "d", 1)...)
	r.claimAll("U", "A")
	r.claimAll("U", "B")
	for range 50 {
		r.now = r.now.Add(8 * time.Second)
		r.claimAll("U", "A")
	}
	for _, c := range r.claimAll("U", "A").Claims {
		same(t, "wanted by one that is gone", c.Wanted, false)
	}
}

// What was released for another is not taken back before that one comes, however often the first asks.
func claimHandOver(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", r.events("T", "d", 4)...)
	for _, c := range r.claimAll("T", "A").Claims {
		if c.Partition != eventstore.PartitionOf("d") {
			(&hand{r: r, tenant: "T", id: c.Partition, fence: c.Fence}).release(0)
		}
	}
	a := &hand{r: r, tenant: "T", id: eventstore.PartitionOf("d"), fence: 1, next: 1}
	if got := len(r.claimAll("T", "B").Claims); got != 4 {
		t.Errorf("B got %d of those that are free, want 4", got)
	}
	r.claimAll("T", "A")
	for _, id := range eventstore.FirstGeneration() { // B wants that one only
		if id != a.id {
			continue
		}
		update(t, s, eventstore.Key{Tenant: "T", Partition: id}, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Wanted, p.WantedAt = "B", r.in(0) })
	}
	out := a.read(2)
	same(t, "wanted, says a read", out.Wanted, true)
	same(t, "wanted, says a settlement", a.settle(outcome(1, 1, 0, eventstore.Accepted)).Wanted, true)
	a.release(0)
	a.lost()
	for range 3 {
		r.now = r.now.Add(3 * time.Second)
		for _, c := range r.claimAll("T", "A").Claims {
			if c.Partition == a.id {
				t.Fatal("A took back at once what B waits for")
			}
		}
	}
	for _, id := range []uint16{0, 1, 2, 3, 4, 5, 6, 7} { // B has room for it
		k := key("T", id)
		update(t, s, k, func(p *eventstore.Partition, w *eventstore.Writes) {
			if w.Unchanged = p.Holder != "B"; !w.Unchanged {
				p.Holder, p.Until = "", 0
			}
		})
	}
	b := r.hold("T", "B", "d")
	same(t, "the fence", b.fence > a.fence, true)
	same(t, "what B reads", b.texts(0), "d:2#1 d:3 d:4")
	a.lost()
}

// One that waited and is gone keeps nobody from a partition for long.
func claimWantedGone(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", r.events("T", "d", 4)...)
	h := r.hold("T", "A", "d")
	update(t, s, eventstore.Key{Tenant: "T", Partition: h.id}, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Wanted, p.WantedAt = "B", r.in(0) })
	h.release(0)
	out := r.claimAll("T", "A")
	same(t, "kept for another, and pending", []int{out.Others, out.Pending}, []int{1, 1})
	for range 30 {
		r.now = r.now.Add(2 * time.Second)
		for _, c := range r.claimAll("T", "A").Claims {
			if c.Partition == h.id {
				same(t, "wanted", c.Wanted, false)
				return
			}
		}
	}
	t.Error("nobody gets the partition within a minute")
}

// One that says that it waits for nothing any more keeps nobody from anything: neither from what
// was asked of others for it, nor from what they have given back.
func claimForgone(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	forgo := func(holder string) {
		t.Helper()
		if err := r.Release(t.Context(), eventstore.ReleaseRequest{Tenant: "T", Holder: holder}); err != nil {
			t.Fatal(err)
		}
	}
	forgo("B") // there is nothing yet
	r.append("", r.events("T", "d", 4)...)
	h := r.hold("T", "A", "d")
	same(t, "B waits", r.claimAll("T", "B").Others, 8)
	wanted := func(holder string) (n int) {
		t.Helper()
		for _, c := range r.claimAll("T", holder).Claims {
			if c.Wanted {
				n++
			}
		}
		return n
	}
	same(t, "wanted", wanted("A"), 4)
	forgo("C") // is nobody
	same(t, "wanted", wanted("A"), 4)
	forgo("B")
	same(t, "wanted no longer", wanted("A"), 0)

	r.claimAll("T", "B")
	update(t, s, eventstore.Key{Tenant: "T", Partition: h.id}, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Wanted, p.WantedAt = "B", r.in(0) })
	h.release(0)
	same(t, "it is kept for B", r.claimAll("T", "C").Pending, 1)
	forgo("B")
	same(t, "it is for anybody", r.hold("T", "C", "d").texts(0), "d:1 d:2 d:3 d:4")
}

// A holder that is not heard of loses what it has; that comes again at once, and
// tells that it was delivered before.
func claimTaken(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.append("", r.events("T", "d", 6)...)
	a := r.hold("T", "A", "d")
	a.read(2)
	a.settle(outcome(1, 1, 0, eventstore.Accepted), outcome(2, 2, 0, eventstore.Released))
	a.read(2)
	r.now = r.now.Add(9 * time.Second)
	same(t, "before its end", len(r.claimAll("T", "B").Claims), 0)
	r.now = r.now.Add(1001 * time.Millisecond)
	b := r.hold("T", "B", "d")
	a.lost()
	a.release(0) // of no consequence
	same(t, "what comes", b.texts(0), "d:2#1 d:3#1 d:4#1 d:5 d:6")

	// One that is taken away again and again counts every time.
	last := b
	for attempt, want := range []string{"d:2#2 d:3#2 d:4#2 d:5#1 d:6#1", "d:2#3 d:3#3 d:4#3 d:5#2 d:6#2"} {
		r.now = r.now.Add(time.Minute)
		c := r.hold("T", string(rune('C'+attempt)), "d")
		last.lost()
		same(t, "what comes again", c.texts(0), want)
		last = c
	}
}

// A holder with nothing to do need not renew, for as long as it asks now and then.
func claimIdle(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	h := r.hold("T", "A", "d")
	r.now = r.now.Add(5 * time.Minute)
	b := r.claimAll("T", "B")
	same(t, "claims, others, pending", []int{len(b.Claims), b.Others, b.Pending}, []int{0, 8, 0})
	h.read(0) // it is not void
	r.now = r.now.Add(10 * time.Minute)
	same(t, "much later", len(r.claimAll("T", "B").Claims), 8)
	h.lost()
}

func claimSome(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	asked := []eventstore.PartitionID{{Number: 5}, {Number: 2}}
	out, err := r.Claim(t.Context(), eventstore.ClaimRequest{Tenant: "T", Holder: "A", Partitions: asked, ClaimMS: 20_000})
	if err != nil || len(out.Claims) != 2 || out.Claims[0].Partition != asked[1] || out.Claims[1].Partition != asked[0] {
		t.Fatalf("claims are %+v, %v", out, err)
	}
}

// Whoever gets nothing is told when to ask again: when the first claim ends of what has events, or when
// what is kept for another is kept no longer.
func claimFreeAt(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.claimAll("T", "A")
	same(t, "nothing is pending", r.claimAll("T", "B").FreeAt, 0)
	r.append("", r.events("T", "d", 1)...)
	r.now = r.now.Add(4 * time.Second)
	same(t, "the claim ends", r.claimAll("T", "B").FreeAt, r.in(6*time.Second)+1)
	same(t, "of the one who has it", r.claimAll("T", "A").FreeAt, 0)
	out := r.claimAll("T", "B")
	same(t, "it was renewed", out.FreeAt, r.in(10*time.Second)+1)
	r.now = time.UnixMilli(out.FreeAt)
	same(t, "then it may be had", len(r.claimAll("T", "B").Claims) > 0, true)
	update(t, s, key("U", 0), func(p *eventstore.Partition, _ *eventstore.Writes) {
		p.Wanted, p.Until, p.End = "A", r.in(7*time.Second), 2
	})
	same(t, "it is kept for another", r.claimAll("U", "B").FreeAt, r.in(7*time.Second)+1)
}

// What a holder that has died left without events still counts as its share for a while; what
// has events is nobody's to keep from who asks.
func claimOfTheDead(t *testing.T, s eventstore.Store) {
	r := start(t, s, eventstore.Options{})
	r.claimAll("T", "dead")
	r.now = r.now.Add(11 * time.Second)
	filled := map[eventstore.PartitionID]bool{}
	for n := 0; len(filled) < 6; n++ {
		device := iot.DeviceID(fmt.Sprint("d", n))
		// The last ones in order, so that they are not the first to be taken.
		if id := eventstore.PartitionOf(device); id.Number >= 2 && !filled[id] {
			filled[id] = true
			r.append("new", r.events("T", device, 1)...)
		}
	}
	out := r.claimAll("T", "new")
	for _, c := range out.Claims {
		delete(filled, c.Partition)
	}
	if len(filled) > 0 || out.Pending != 0 {
		t.Errorf("%d partitions with events are left to the dead, %d pending", len(filled), out.Pending)
	}
}
