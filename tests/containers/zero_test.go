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

// TestScaleToZero stops the functions and looks at what devices see: those that the
// adapter knows, and those that it has to ask about.
func TestScaleToZero(t *testing.T) {
	n := newSite(t)
	a := n.newActivator(t)
	a.function = n.withSQLite(t)
	a.function.run(t)
	n.addRouter(t, a.address()).run(t)
	n.addAdapter(t, a.address()).run(t)
	devices := []string{"known"}
	for i := range 3 * coldStarts {
		devices = append(devices, fmt.Sprintf("new-%d", i))
	}
	n.register(t, a.function, devices...)
	app := n.consume(t, n.routers[0])
	known := n.newDevice(t, "known")
	known.until(t, "awake", http.StatusAccepted)

	t.Run("nothing starts them", func(t *testing.T) { n.testNoFunctions(t, a, app, known) })
	t.Run("a request starts them", func(t *testing.T) { n.testColdStarts(t, a, app, known) })
	t.Run("many requests start them once", func(t *testing.T) { n.testOneStart(t, a, devices[2+coldStarts:]) })
}

// testNoFunctions has the adapter live on what it knows.
func (n *site) testNoFunctions(t *testing.T, a *activator, app *application, known *device) {
	a.scaleToZero(t, true)
	for i := range 20 {
		body := fmt.Sprintf("without functions %d", i)
		known.must(t, body, http.StatusAccepted)
		app.await(t, body)
	}
	unknown := n.newDevice(t, "new-0")
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
func (n *site) testColdStarts(t *testing.T, a *activator, app *application, known *device) {
	adapter := strings.Split(n.insideOf(t, n.adapters[0], "0"), ":")[0]
	var starts, waits []time.Duration
	for i := range coldStarts {
		a.scaleToZero(t, false)
		known.must(t, fmt.Sprintf("asleep %d", i), http.StatusAccepted)
		if woken := a.woken(); len(woken) != 0 {
			t.Errorf("a device that is known woke the functions: %v", woken)
		}
		body := fmt.Sprintf("from zero %d", i)
		got := n.newDevice(t, fmt.Sprintf("new-%d", 1+i)).must(t, body, http.StatusAccepted)
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
	measure(t, "functions at zero: container asked for to ready", "%v", starts)
	measure(t, "functions at zero: what the upload that starts them waits", "%v", waits)
}

func (n *site) insideOf(t *testing.T, b *box, port string) string {
	t.Helper()
	address, err := b.inside(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// testOneStart has many devices come at once.
func (n *site) testOneStart(t *testing.T, a *activator, ids []string) {
	a.scaleToZero(t, false)
	answers := make([]answer, len(ids))
	var group sync.WaitGroup
	for i, id := range ids {
		d := n.newDevice(t, id)
		group.Go(func() {
			got, err := d.upload(t, "at once from "+id)
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
			t.Errorf("%s: %s; want 202", ids[i], got)
		}
		slowest = max(slowest, got.took)
	}
	if woken := a.woken(); len(woken) != 1 {
		t.Errorf("the functions were started %d times; want once", len(woken))
	}
	measure(t, "functions at zero: what the slowest waits of devices that come at once", "%s of %d devices", ms(slowest), len(ids))
}
