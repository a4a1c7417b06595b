package containers_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// coldStarts is how often the functions are started by a request.
const coldStarts = 5

// crowd is how many devices come at once.
const crowd = 9

// TestScaleToZero stops the functions and looks at what devices see: those that the
// adapter knows, and those that it has to ask about.
func TestScaleToZero(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		n := newSite(t)
		z := n.startZero(t, n.withSQLite(t))
		t.Run("nothing starts them", z.testNoFunctions)
		t.Run("a request starts them", func(t *testing.T) { z.testColdStarts(t, "SQLite") })
		t.Run("many requests start them once", z.testOneStart)
		t.Run("events", func(t *testing.T) { z.testEvents(t, "SQLite") })
	})
	t.Run("Postgres", func(t *testing.T) {
		n := newSite(t)
		_, env := n.database(t)
		z := n.startZero(t, n.addFunction(t, "", "registry: {store: postgres}\n", env))
		t.Run("a request starts them", func(t *testing.T) { z.testColdStarts(t, "Postgres") })
		t.Run("events", func(t *testing.T) { z.testEvents(t, "Postgres") })
	})
}

// zero is a site whose functions are reached by an activator.
type zero struct {
	*site
	activator *activator
	app       *application
	known     *device // by the adapter
	next      int     // of the devices that it does not know
}

// startZero starts the functions, and a router and an adapter that reach them by the
// activator.
func (n *site) startZero(t *testing.T, functions *box) *zero {
	t.Helper()
	z := &zero{site: n, activator: n.newActivator(t)}
	z.activator.function = functions
	functions.run(t)
	n.addRouter(t, z.activator.address()).run(t)
	n.addAdapter(t, z.activator.address()).run(t)
	devices := []string{"known"}
	for i := range 3 * coldStarts {
		devices = append(devices, fmt.Sprintf("new-%d", i))
	}
	n.register(t, functions, devices...)
	z.app = n.consume(t, n.routers[0])
	z.known = n.newDevice(t, "known")
	z.known.learn(t)
	return z
}

// unknown is a device of which the adapter has not heard.
func (z *zero) unknown(t *testing.T) *device {
	t.Helper()
	z.next++
	return z.newDevice(t, fmt.Sprintf("new-%d", z.next-1))
}

// testNoFunctions has the adapter live on what it knows.
func (z *zero) testNoFunctions(t *testing.T) {
	a, app, known := z.activator, z.app, z.known
	a.scaleToZero(t, true)
	for i := range 20 {
		body := fmt.Sprintf("without functions %d", i)
		known.must(t, body, http.StatusAccepted)
		app.await(t, body)
	}
	unknown := z.unknown(t)
	var waited []time.Duration
	for range 5 {
		got := unknown.must(t, "x", http.StatusServiceUnavailable)
		if seconds, err := strconv.Atoi(got.retryAfter); err != nil || seconds < 1 || seconds > 60 {
			t.Errorf("Retry-After is %q; want some seconds", got.retryAfter)
		}
		waited = append(waited, ms(got.took))
		known.must(t, "still", http.StatusAccepted)
	}
	measure(t, "no functions: 503 with Retry-After for an unknown device after", "%v", waited)
	a.wake(t)
	began := time.Now()
	refused := unknown.until(t, "they are back", http.StatusAccepted)
	measure(t, "no functions: back to the first 202 of that device", "%s, %d uploads were refused in between", ms(time.Since(began)), refused)
	app.await(t, "they are back")
}

// testColdStarts has the first upload of a device start the functions, and wait.
func (z *zero) testColdStarts(t *testing.T, store string) {
	a, app, known := z.activator, z.app, z.known
	address, err := z.adapters[0].inside(t.Context(), "0")
	if err != nil {
		t.Fatal(err)
	}
	adapter := strings.TrimSuffix(address, ":0")
	var starts, waits []time.Duration
	for i := range coldStarts {
		a.scaleToZero(t, false)
		known.must(t, fmt.Sprintf("asleep %d", i), http.StatusAccepted)
		if woken := a.woken(); len(woken) != 0 {
			t.Errorf("a device that is known woke the functions: %v", woken)
		}
		body := fmt.Sprintf("from zero %d", i)
		got := z.unknown(t).must(t, body, http.StatusAccepted)
		app.await(t, body)
		woken := a.woken()
		if len(woken) != 1 {
			t.Fatalf("the functions were started %d times; want once", len(woken))
		}
		if woken[0].from != adapter {
			t.Logf("start %d was not by the adapter but by %s, which confirms what it knows", i, woken[0].from)
		}
		starts, waits = append(starts, ms(woken[0].ready)), append(waits, ms(got.took))
	}
	slices.Sort(starts)
	slices.Sort(waits)
	measure(t, "functions at zero ("+store+"): container asked for to ready", "%v", starts)
	measure(t, "functions at zero ("+store+"): what the upload that starts them waits", "%v", waits)
}

// testOneStart has many devices come at once.
func (z *zero) testOneStart(t *testing.T) {
	a := z.activator
	a.scaleToZero(t, false)
	answers := make([]answer, crowd)
	var group sync.WaitGroup
	for i := range answers {
		d := z.unknown(t)
		group.Go(func() {
			got, err := d.upload(t, "at once from "+d.id)
			if err != nil {
				t.Error(err)
			}
			answers[i] = got
		})
	}
	group.Wait()
	var slowest time.Duration
	for i, got := range answers {
		if got.status != http.StatusAccepted {
			t.Errorf("device %d: %s; want 202", i, got)
		}
		slowest = max(slowest, got.took)
	}
	if woken := a.woken(); len(woken) != 1 {
		t.Errorf("the functions were started %d times; want once", len(woken))
	}
	measure(t, "functions at zero: what the slowest waits of devices that come at once", "%s of %d devices", ms(slowest), crowd)
}
