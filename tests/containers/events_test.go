package containers_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEvents keeps events in the functions' containers: while nobody listens, and while
// functions and routers are killed.
func TestEvents(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		n := newSite(t)
		n.withSQLite(t).run(t)
		n.testEvents(t, "SQLite")
	})
	t.Run("Postgres", func(t *testing.T) {
		n := newSite(t)
		_, env := n.database(t)
		for range 2 {
			n.addFunction(t, "", "registry: {store: postgres}\n", env).run(t)
		}
		n.testEvents(t, "Postgres")
	})
}

// testEvents needs functions; it adds two routers and an adapter.
func (n *site) testEvents(t *testing.T, store string) {
	for range 2 {
		n.addRouter(t, direct).run(t)
	}
	n.addAdapter(t, direct).run(t)
	n.register(t, n.functions[0], loadIDs()...)
	t.Run("nobody listens", func(t *testing.T) { n.testNobodyListens(t, store) })
	t.Run("two routers share them", func(t *testing.T) { n.testShared(t, store) })
	t.Run("functions are killed", func(t *testing.T) {
		n.testEventsKilled(t, store+", functions killed", func(round int) []*box { return n.functions[round%len(n.functions):][:1] }, n.functions)
	})
	t.Run("routers are killed", func(t *testing.T) {
		n.testEventsKilled(t, store+", routers killed", func(round int) []*box {
			return [][]*box{n.routers[:1], n.routers[1:], n.routers}[round]
		}, nil)
	})
}

// killedRounds is how often something is killed under a load of events.
const killedRounds = 3

// testNobodyListens uploads while there is no application, kills the functions, and
// has an application come after that: every event comes once, and those of a device
// in their order.
func (n *site) testNobodyListens(t *testing.T, store string) {
	const each = 20
	var devices []*device
	for _, id := range loadIDs() {
		d := n.newDevice(t, id).sends(event)
		d.sends(telemetry).until(t, "x", http.StatusServiceUnavailable) // nobody wants it, but the adapter knows the device now
		devices = append(devices, d)
	}
	var took []time.Duration
	sent := map[string][]string{}
	upload := func(count int) {
		for range count {
			for _, d := range devices {
				body := fmt.Sprintf("%s kept %d", d.id, len(sent[d.id]))
				took = append(took, d.must(t, body, http.StatusAccepted).took)
				sent[d.id] = append(sent[d.id], body)
			}
		}
	}
	upload(each)
	for _, f := range n.functions {
		f.kill(t)
	}
	for _, f := range n.functions {
		f.run(t)
	}
	devices[0].until(t, devices[0].id+" again", http.StatusAccepted)
	upload(1)
	slices.Sort(took)
	measure(t, "events ("+store+"): 202 with no application, half of them within, all within", "%s, %s", ms(took[len(took)/2]), ms(took[len(took)-1]))

	began := time.Now()
	app := n.consumeOf(t, event, n.routers[0])
	attached := time.Since(began)
	for _, bodies := range sent {
		for _, body := range bodies {
			app.await(t, body)
		}
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	measure(t, "events ("+store+"): an application comes after the functions were killed: attached, first and last of them after", "%s, %s, %s of %d",
		ms(attached), ms(app.order[0].at.Sub(began)), ms(app.order[len(app.order)-1].at.Sub(began)), len(took))
	got := map[string][]string{}
	for _, x := range app.order {
		if id, _, found := strings.Cut(x.body, " kept "); found {
			got[id] = append(got[id], x.body)
		}
		if app.received[x.body] != 1 && !strings.HasSuffix(x.body, "again") {
			t.Errorf("%q came %d times; want once", x.body, app.received[x.body])
		}
	}
	for id, bodies := range sent {
		if !slices.Equal(got[id], bodies) {
			t.Errorf("events of %s came as\n%s\nwant\n%s", id, got[id], bodies)
		}
	}
}

// shareTime is when a router that waits for its share of a tenant's events has some of
// it, with much to spare. It would have it anyway after 10 s.
const shareTime = 8 * time.Second

// testShared has an application at each router. What one router stores of a partition
// that the other one holds is delivered as soon as that one was told of it.
func (n *site) testShared(t *testing.T, store string) {
	const probes = 60
	apps := []*application{n.consumeOf(t, event, n.routers[0]), n.consumeOf(t, event, n.routers[1])}
	var devices []*device
	for _, id := range loadIDs() {
		devices = append(devices, n.newDevice(t, id).sends(event))
	}
	next := 0
	began := time.Now()
	eventually(t, "both routers deliver", func() error {
		d := devices[next%len(devices)]
		next++
		d.until(t, fmt.Sprintf("%s shares %d", d.id, next), http.StatusAccepted)
		for _, a := range apps {
			if count, _ := a.count(); count == 0 {
				return fmt.Errorf("%s delivered nothing", a.router.name)
			}
		}
		return nil
	})
	share := time.Since(began)
	measure(t, "events ("+store+"): a second router's application gets some of them after", "%s", ms(share))
	if share > shareTime {
		t.Error("the first router gave nothing back: its claims ended")
	}
	var took []time.Duration
	for i := range probes {
		d := devices[i%len(devices)]
		body := fmt.Sprintf("%s probe %d", d.id, i)
		began := time.Now()
		d.must(t, body, http.StatusAccepted)
		eventually(t, body+" comes", func() error {
			if together(apps)[body] == 0 {
				return fmt.Errorf("it did not")
			}
			return nil
		})
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	measure(t, "events ("+store+"): upload to application with two routers, half of them within, all within", "%s, %s", ms(took[probes/2]), ms(took[probes-1]))
	// A router that is not told finds out when the other one's claim ends, after 10 s.
	if took[probes-1] > 5*time.Second {
		t.Error("a router was not told what the other one stored")
	}
}

// testEventsKilled kills some containers in each round while devices send events and
// applications take them at both routers. Others are killed once more after the load, before
// anybody may have taken all.
func (n *site) testEventsKilled(t *testing.T, what string, victims func(round int) []*box, again []*box) {
	apps := []*application{n.consumeOf(t, event, n.routers[0]), n.consumeOf(t, event, n.routers[1])}
	l := n.startLoad(t, event, loadIDs())
	l.next(t, 200)
	l.since()
	var downs []time.Duration
	all := 0
	for round := range killedRounds {
		killed := victims(round)
		for _, b := range killed {
			b.kill(t)
		}
		if len(killed) == 1 && len(again) != 1 { // the other one is there
			l.next(t, 50)
		} else {
			time.Sleep(2 * time.Second)
		}
		for _, b := range killed {
			b.run(t)
		}
		l.next(t, 200)
		down, refused := l.since()
		downs, all = append(downs, ms(down)), all+refused
	}
	measure(t, "events ("+what+"): longest time without a 202 in each round, uploads answered 503", "%v, %d", downs, all)
	l.end()
	for _, b := range again {
		b.kill(t)
		b.run(t)
	}
	began := time.Now()
	eventually(t, "all that was acknowledged comes", func() error {
		got, missing := together(apps), 0
		for _, body := range l.acked {
			if got[body] == 0 {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d are missing", missing, len(l.acked))
		}
		return nil
	})
	measure(t, "events ("+what+"): last upload to the last delivery", "%s", ms(time.Since(began)))
	l.check(t, "events ("+what+")", apps)
}

// testEvents has a device send an event while there are no functions, with nobody who
// starts them and with an activator that does.
func (z *zero) testEvents(t *testing.T, store string) {
	a, d := z.activator, z.known.sends(event)
	d.until(t, "before", http.StatusAccepted)
	a.scaleToZero(t, true)
	for range 3 {
		if got := d.must(t, "not kept", http.StatusServiceUnavailable); got.retryAfter == "" {
			t.Errorf("%s; want Retry-After", got)
		}
	}
	a.wake(t)
	var starts, waits []time.Duration
	var bodies []string
	refused := 0
	for i := range coldStarts {
		a.scaleToZero(t, false)
		bodies = append(bodies, fmt.Sprintf("event from zero %d", i))
		for {
			got, err := d.upload(t, bodies[i])
			if err != nil {
				t.Fatal(err)
			}
			waits = append(waits, ms(got.took))
			if got.status == http.StatusAccepted {
				break
			}
			// The start took longer than an adapter waits.
			if got.status != http.StatusServiceUnavailable || got.retryAfter == "" {
				t.Fatalf("%s; want 202, or 503 with Retry-After", got)
			}
			refused++
		}
		woken := a.woken()
		if len(woken) != 1 {
			t.Fatalf("the functions were started %d times; want once", len(woken))
		}
		starts = append(starts, ms(woken[0].ready))
	}
	measure(t, "functions at zero ("+store+"): start by an event, what its upload waits, of these answered 503 with Retry-After", "%v, %v, %d", starts, waits, refused)
	if refused == 0 {
		a.scaleToZero(t, false) // so that it is the application that starts them
	}
	app := z.consumeOf(t, event, z.routers[0])
	twice := 0
	for _, body := range bodies {
		app.await(t, body)
		app.mu.Lock()
		twice += app.received[body] - 1
		app.mu.Unlock()
	}
	if twice > refused {
		t.Errorf("%d events came more often than they were sent; %d uploads were refused and repeated", twice, refused)
	}
}
