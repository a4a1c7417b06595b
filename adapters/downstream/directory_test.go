package downstream_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/downstream"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
)

const deviceDirectory = "device_directory"

// announced is an announcement as it came.
type announced struct {
	Adapter string
	Reset   bool
	Set     [][]any
	Drop    [][]any
	Via     [][]any
}

// announcements decodes what came to the directory from the n-th on.
func (r *scripted) announcements(t testing.TB, from int) (all []announced) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.got {
		if d.link.Data != deviceDirectory {
			continue
		}
		m, err := amqp.DecodeMessage(d.payload)
		if err != nil || len(m.Data) != 1 || len(d.payload) > 60<<10 || d.settled {
			t.Fatalf("announcement of %d bytes, settled %v: %v", len(d.payload), d.settled, err)
		}
		var a announced
		if err := json.Unmarshal(m.Data[0], &a); err != nil {
			t.Fatalf("%v in %s", err, m.Data[0])
		}
		if n := len(a.Set) + len(a.Drop) + len(a.Via); n > 1000 {
			t.Errorf("%d rows", n)
		}
		all = append(all, a)
	}
	return all[min(from, len(all)):]
}

// settle answers what the router was to leave open.
func (r *scripted) settle(state amqp.Raw) {
	r.each(deviceDirectory, func(l *peer.Link) {
		for _, d := range r.got {
			if d.link == l {
				l.Settle(d.id, state, true)
			}
		}
	})
	synctest.Wait()
}

// silent leaves announcements open from now on.
func (r *scripted) silent(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = nil
	if yes {
		r.answer = func(*received) amqp.Raw { return nil }
	}
}

func (h *subscriber) subscribe(all ...adapters.Announcement) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subscribed = all
}

func device(id string, at int64) adapters.Announcement {
	return adapters.Announcement{Tenant: "T", Device: iot.DeviceID(id), At: at, Adapter: "hono-mqtt"}
}

func gone(id string) adapters.Announcement {
	return adapters.Announcement{Tenant: "T", Device: iot.DeviceID(id), Gone: true}
}

// row is that device as a router is told of it.
func row(id string, at int64) []any { return []any{"T", id, float64(at), 0., "hono-mqtt", 0.} }

// ends counts how often done was called, and when.
type ends struct {
	mu sync.Mutex
	at []time.Time
}

func (e *ends) done() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.at = append(e.at, time.Now())
}

func (e *ends) want(t *testing.T, n int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.at) != n {
		t.Errorf("done was called %d times, want %d", len(e.at), n)
	}
}

func TestAnnouncing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		h.subscribe(device("D1", 1), adapters.Announcement{Tenant: "T", Device: "G", At: 1700000000001, Until: 1700000060001, Adapter: "hono-http", All: true})
		s, _ := serve(t, h, r)
		var e ends
		s.Announce([]adapters.Announcement{device("D0", 1)}, e.done)
		e.want(t, 1) // nobody to be told
		synctest.Wait()
		s.Announce([]adapters.Announcement{device("D2", 2), gone("D1"), device("D3", 3), gone("D3"), device(`"<é`+"\x00", 4)}, e.done)
		synctest.Wait()
		s.Announce(nil, e.done)
		e.want(t, 3)
		want := []announced{
			{Adapter: "http-0/0123456789ab", Reset: true, Set: [][]any{row("D1", 1), {"T", "G", 1700000000001., 1700000060001., "hono-http", 1.}}},
			{Adapter: "http-0/0123456789ab", Set: [][]any{row("D2", 2), row(`"<é`+"\x00", 4)}, Drop: [][]any{{"T", "D1"}, {"T", "D3"}}},
		}
		if diff := cmp.Diff(want, r.announcements(t, 0)); diff != "" {
			t.Errorf("announcements (-want +got):\n%s", diff)
		}
	})
}

// A process without subscriptions says so, too: the router is to tell it of those
// of others.
func TestAnnouncingNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		serve(t, &subscriber{}, r)
		synctest.Wait()
		if diff := cmp.Diff([]announced{{Adapter: "http-0/0123456789ab", Reset: true}}, r.announcements(t, 0)); diff != "" {
			t.Errorf("announcements (-want +got):\n%s", diff)
		}
	})
}

// One announcement is under way at a time; what gathers meanwhile goes in the next
// one, the last word on each device.
func TestAnnouncementsGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		s, _ := serve(t, h, r)
		synctest.Wait()
		r.silent(true)
		var first, second, empty ends
		s.Announce([]adapters.Announcement{device("D1", 1)}, first.done)
		for i := range 50 {
			s.Announce([]adapters.Announcement{device("D1", 10), gone("D2"), device("D3", int64(i))}, second.done)
			s.Announce([]adapters.Announcement{gone("D1"), device("D2", int64(i))}, nil)
		}
		s.Announce(nil, empty.done)
		synctest.Wait()
		if got := r.announcements(t, 1); len(got) != 1 {
			t.Errorf("%d announcements under way, want 1", len(got))
		}
		first.want(t, 0)
		r.settle(amqp.StateAccepted)
		first.want(t, 1)
		second.want(t, 0)
		empty.want(t, 0)
		want := []announced{{Adapter: "http-0/0123456789ab", Set: [][]any{row("D2", 49), row("D3", 49)}, Drop: [][]any{{"T", "D1"}}}}
		if diff := cmp.Diff(want, r.announcements(t, 2)); diff != "" {
			t.Errorf("announcements (-want +got):\n%s", diff)
		}
		r.settle(amqp.StateAccepted)
		second.want(t, 50)
		empty.want(t, 1)
	})
}

// Who waits is told when every router has it, is gone, or after the send timeout;
// a router that never settles keeps no other from being told.
func TestAnnouncingToTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r1, r2, h := newScripted(t, "r1"), newScripted(t, "r2"), &subscriber{}
		s, _ := serve(t, h, r1, r2)
		synctest.Wait()
		r2.silent(true)
		var e ends
		began := time.Now()
		s.Announce([]adapters.Announcement{device("D1", 1)}, e.done)
		synctest.Wait()
		e.want(t, 0)
		time.Sleep(time.Second)
		synctest.Wait()
		e.want(t, 1)
		if took := e.at[0].Sub(began); took != time.Second {
			t.Errorf("told after %v, want 1 s", took)
		}
		s.Announce([]adapters.Announcement{device("D2", 1)}, e.done)
		synctest.Wait()
		if n1, n2 := len(r1.announcements(t, 0)), len(r2.announcements(t, 0)); n1 != 3 || n2 != 2 {
			t.Errorf("%d and %d announcements, want 3 and 2", n1, n2)
		}
		r2.settle(amqp.StateAccepted)
		synctest.Wait()
		if got := r2.announcements(t, 2); len(got) != 1 || len(got[0].Set) != 1 {
			t.Errorf("got %+v, want D2", got)
		}
		e.want(t, 1)
		r2.setDown(true)
		r2.kill()
		synctest.Wait()
		e.want(t, 2)
		s.Announce([]adapters.Announcement{device("D3", 1)}, e.done)
		synctest.Wait()
		e.want(t, 3)
		time.Sleep(time.Minute)
		e.want(t, 3)
	})
}

// A router that comes back knows nothing, and neither does one that drops the link.
func TestAnnouncingAnew(t *testing.T) {
	detach := func(err *amqp.Error) func(r *scripted) {
		return func(r *scripted) { r.each(deviceDirectory, func(l *peer.Link) { l.Detach(err) }) }
	}
	for name, lose := range map[string]func(r *scripted){
		"restart":       (*scripted).kill,
		"detached":      detach(nil),
		"with an error": detach(&amqp.Error{Condition: amqp.CondResourceLimitExceeded}),
		"released":      func(r *scripted) { r.settle(amqp.StateReleased); r.silent(false) },
		"overdue":       func(r *scripted) { time.Sleep(downstream.SettleTimeout); r.silent(false) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, h := newScripted(t, "r"), &subscriber{}
				s, _ := serve(t, h, r)
				synctest.Wait()
				r.silent(true)
				var e ends
				h.subscribe(device("D1", 1))
				s.Announce([]adapters.Announcement{device("D1", 1)}, e.done)
				synctest.Wait()
				h.subscribe(device("D2", 2))
				s.Announce([]adapters.Announcement{gone("D1"), device("D2", 2)}, e.done)
				lose(r)
				synctest.Wait()
				if name != "released" && name != "overdue" {
					e.want(t, 2)
				}
				r.silent(false)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				e.want(t, 2)
				want := []announced{{Adapter: "http-0/0123456789ab", Reset: true, Set: [][]any{row("D2", 2)}}}
				if diff := cmp.Diff(want, r.announcements(t, 2)); diff != "" {
					t.Errorf("announcements (-want +got):\n%s", diff)
				}
				if h.listed != 2 {
					t.Errorf("listed %d times, want 2", h.listed)
				}
				s.Announce([]adapters.Announcement{device("D3", 3)}, e.done)
				synctest.Wait()
				e.want(t, 3)
				if got := r.announcements(t, 3); len(got) != 1 || got[0].Reset {
					t.Errorf("got %+v, want D3 only", got)
				}
			})
		})
	}
}

// A router that refuses the link is asked again, and nobody waits for it.
func TestAnnouncingRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		r.refuse = &amqp.Error{Condition: amqp.CondUnauthorizedAccess}
		s, _ := serve(t, h, r)
		synctest.Wait()
		var e ends
		s.Announce([]adapters.Announcement{device("D1", 1)}, e.done)
		e.want(t, 1)
		time.Sleep(5 * time.Second)
		r.mu.Lock()
		r.refuse = nil
		r.mu.Unlock()
		h.subscribe(device("D1", 1))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := r.announcements(t, 0); len(got) != 1 || len(got[0].Set) != 1 {
			t.Errorf("got %+v, want D1", got)
		}
		if got := r.deliver(t, false, encoded(t, aCommand(nil))); got != 1 {
			t.Errorf("%d commands taken, want 1", got)
		}
	})
}

// A rejected announcement is over: there is nothing better to say.
func TestAnnouncementRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		r.answer = func(*received) amqp.Raw { return rejected("hono:bad-request", "no") }
		r.second = true
		s, _ := serve(t, h, r)
		synctest.Wait()
		var e ends
		s.Announce([]adapters.Announcement{device("D1", 1)}, e.done)
		synctest.Wait()
		e.want(t, 1)
		if got := r.senderStates(); len(got) != 2 || !got[0].settled {
			t.Errorf("the router heard %v, want two settlements", got)
		}
	})
}

// Whatever is subscribed to is told in parts, and changes meanwhile come after.
func TestAnnouncingMany(t *testing.T) {
	for _, tt := range []struct {
		name string
		id   func(i int) string
	}{
		{"short", func(i int) string { return fmt.Sprint("D", i) }},
		{"long", func(i int) string { return fmt.Sprint(strings.Repeat("D", 240), i) }},
		{"costly", func(i int) string { return fmt.Sprint(strings.Repeat("\x01", 240), i) }},
		{"too long", func(i int) string { return fmt.Sprint(strings.Repeat("D", 257*(i%2)), i) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, h := newScripted(t, "r"), &subscriber{}
				r.credit, r.refill = 1, true
				const n = 3500
				want := map[string]float64{}
				var all []adapters.Announcement
				for i := range n {
					all = append(all, device(tt.id(i), int64(i)))
					if len(tt.id(i)) <= 256 {
						want[tt.id(i)] = float64(i)
					}
				}
				h.subscribe(all...)
				r.silent(true)
				s, _ := serve(t, h, r)
				synctest.Wait()
				var e ends
				s.Announce([]adapters.Announcement{gone(tt.id(0)), gone(tt.id(n - 2)), device(tt.id(4), 4711)}, e.done)
				delete(want, tt.id(0))
				delete(want, tt.id(n-2))
				want[tt.id(4)] = 4711
				for range 500 {
					r.give(deviceDirectory, 1)
					r.settle(amqp.StateAccepted)
				}
				e.want(t, 1)
				have := map[string]float64{}
				for i, a := range r.announcements(t, 0) {
					if a.Reset != (i == 0) {
						t.Errorf("announcement %d: reset %v", i, a.Reset)
					}
					for _, row := range a.Set {
						have[row[1].(string)] = row[2].(float64)
					}
					for _, row := range a.Drop {
						delete(have, row[1].(string))
					}
				}
				if diff := cmp.Diff(want, have); diff != "" {
					t.Errorf("what the router knows (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// What waits for a router that does not settle is bounded: it is told everything
// instead.
func TestAnnouncementsOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r"), &subscriber{}
		s, _ := serve(t, h, r)
		synctest.Wait()
		r.silent(true)
		s.Announce([]adapters.Announcement{device("D", 1)}, nil)
		var all []adapters.Announcement
		for i := range downstream.MaxChanges + 10 {
			all = append(all, device(fmt.Sprint(i), 1))
		}
		s.Announce(all, nil)
		var e ends
		s.Announce([]adapters.Announcement{device("X", 1)}, e.done)
		h.subscribe(device("X", 1))
		synctest.Wait()
		r.settle(amqp.StateAccepted)
		e.want(t, 0)
		r.settle(amqp.StateAccepted)
		e.want(t, 1)
		want := []announced{{Adapter: "http-0/0123456789ab", Reset: true, Set: [][]any{row("X", 1)}}}
		if diff := cmp.Diff(want, r.announcements(t, 2)); diff != "" {
			t.Errorf("announcements (-want +got):\n%s", diff)
		}
		r.silent(false)
		s.Announce(all, e.done) // at once, with nothing under way
		h.subscribe(device("Y", 1))
		synctest.Wait()
		e.want(t, 2)
		if got := r.announcements(t, 3); len(got) != 1 || !got[0].Reset {
			t.Errorf("%d announcements, want one of everything", len(got))
		}
	})
}

// What is announced from within the handler, and a listing that panics, block nothing.
func TestAnnouncingPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		panics := 0
		s, err := downstream.New(downstream.Options{Routers: []downstream.Router{{Dial: r.dial}}, Instance: "i", Commands: panicky{},
			Address: "A/1", OnPanic: func(any, []byte) { panics++ }})
		if err != nil {
			t.Fatal(err)
		}
		run(t, s)
		synctest.Wait()
		s.Announce([]adapters.Announcement{device("D", 1)}, func() { panic("done") })
		synctest.Wait()
		if got := r.announcements(t, 0); len(got) != 2 || panics != 2 || r.connections() != 1 {
			t.Errorf("%d announcements, %d panics, %d connections, want 2, 2 and 1", len(got), panics, r.connections())
		}
	})
}

type panicky struct{ *subscriber }

func (panicky) Subscribed() []adapters.Announcement { panic("listing") }

func TestLastGateways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r1, r2, h := newScripted(t, "r1"), newScripted(t, "r2"), &subscriber{}
		s, _ := serve(t, h, r1, r2)
		s.LastGateway("T", "D", "G") // nobody to be told
		synctest.Wait()
		for i := range 250 {
			s.LastGateway("T", iot.DeviceID(fmt.Sprint(i)), "F")
			s.LastGateway("T", iot.DeviceID(fmt.Sprint(i)), "G")
		}
		time.Sleep(399 * time.Millisecond)
		synctest.Wait()
		if got := r1.announcements(t, 1); len(got) != 0 {
			t.Errorf("%d announcements before their time", len(got))
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		s.LastGateway("T", "D", iot.DeviceID(strings.Repeat("g", 300))) // nobody's id
		s.LastGateway("T", "D2", "G2")
		time.Sleep(time.Second)
		synctest.Wait()
		for _, r := range []*scripted{r1, r2} {
			var sizes []int
			seen := map[any]any{}
			for _, a := range r.announcements(t, 1) {
				sizes = append(sizes, len(a.Via))
				for _, v := range a.Via {
					seen[v[1]] = v[2]
				}
			}
			if want := []int{100, 100, 50, 1}; !slices.Equal(sizes, want) || len(seen) != 251 || seen["7"] != "G" || seen["D2"] != "G2" {
				t.Errorf("%s: announcements of %v gateways, %d devices, want %v and 251", r.name, sizes, len(seen), want)
			}
		}
	})
}

// Subscriptions come and go while routers do: in the end each router knows the truth.
func TestAnnouncingBesideRestarts(t *testing.T) {
	r1, r2, h := newScripted(t, "r1"), newScripted(t, "r2"), &subscriber{}
	s, stop := serve(t, h, r1, r2)
	eventually(t, s.Ready)
	var mu sync.Mutex // of the subscriptions, as their owner has one
	have := map[string]int64{}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 500 {
				id, at := fmt.Sprint(w, "-", i%50), int64(i)
				mu.Lock()
				a := device(id, at)
				if have[id] = at; i%3 == 0 {
					delete(have, id)
					a = gone(id)
				}
				var all []adapters.Announcement
				for id, at := range have {
					all = append(all, device(id, at))
				}
				h.subscribe(all...)
				mu.Unlock()
				known := make(chan struct{})
				s.Announce([]adapters.Announcement{a}, func() { close(known) })
				<-known
				if i%100 == 50 && w == 0 {
					r1.kill()
				}
			}
		})
	}
	wg.Wait()
	want := map[string]float64{}
	for id, at := range have {
		want[id] = float64(at)
	}
	for _, r := range []*scripted{r1, r2} {
		eventually(t, func() bool {
			knows := map[string]float64{}
			for _, a := range r.announcements(t, 0) {
				if a.Reset {
					clear(knows)
				}
				for _, row := range a.Set {
					knows[row[1].(string)] = row[2].(float64)
				}
				for _, row := range a.Drop {
					delete(knows, row[1].(string))
				}
			}
			return cmp.Equal(want, knows)
		})
	}
	stop()
}
