package containers_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	loadDevices = 8
	// loadPause is what each device rests between two uploads.
	loadPause = 5 * time.Millisecond
)

// load is devices that upload numbered messages, each once, until they are stopped.
type load struct {
	stop  chan struct{}
	group sync.WaitGroup

	accepted atomic.Int64

	mu       sync.Mutex
	acked    []string
	answers  map[int]int // by status
	refused  map[string]int
	last     time.Time     // of a 202
	longest  time.Duration // without any
	slowest  time.Duration // of an upload
	failures []string
}

// loadIDs are the devices of a load.
func loadIDs() (ids []string) {
	for i := range loadDevices {
		ids = append(ids, fmt.Sprintf("meter-%d", i))
	}
	return ids
}

// startLoad registers nothing: the devices are there.
func (n *site) startLoad(t *testing.T, endpoint string, ids []string) *load {
	t.Helper()
	l := &load{stop: make(chan struct{}), answers: map[int]int{}, refused: map[string]int{}, last: time.Now()}
	for _, id := range ids {
		d := n.newDevice(t, id).sends(endpoint)
		l.group.Go(func() { l.device(t, d) })
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) device(t *testing.T, d *device) {
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return
		case <-time.After(loadPause):
		}
		body := fmt.Sprintf("%s %d", d.id, i)
		got, err := d.upload(t, body)
		l.note(body, got, err)
	}
}

func (l *load) note(body string, got answer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.slowest = max(l.slowest, got.took)
	switch {
	case err != nil:
		l.failures = append(l.failures, err.Error())
	case got.status == http.StatusAccepted:
		l.acked = append(l.acked, body)
		l.accepted.Add(1)
		l.longest = max(l.longest, now.Sub(l.last))
		l.last = now
	case got.status == http.StatusServiceUnavailable && got.retryAfter != "":
		l.refused[got.body]++
	default:
		l.failures = append(l.failures, got.String())
	}
	l.answers[got.status]++
}

// end stops the devices; what is under way is answered.
func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.group.Wait()
}

// next waits until so many more uploads were accepted.
func (l *load) next(t *testing.T, uploads int64) {
	t.Helper()
	goal := l.accepted.Load() + uploads
	eventually(t, fmt.Sprintf("%d more uploads are accepted", uploads), func() error {
		if now := l.accepted.Load(); now < goal {
			return fmt.Errorf("%d are missing", goal-now)
		}
		return nil
	})
}

// since returns what happened since the last call.
func (l *load) since() (longest time.Duration, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	longest = max(l.longest, time.Since(l.last))
	refused = l.answers[http.StatusServiceUnavailable]
	l.longest, l.answers[http.StatusServiceUnavailable] = 0, 0
	return longest, refused
}

// TestRoutersRestart ends one of two routers under load, in order and by SIGKILL,
// and starts it again. Every upload that was answered 202 reached an application.
func TestRoutersRestart(t *testing.T) {
	n := newSite(t)
	n.start(t, 2)
	ids := loadIDs()
	n.register(t, n.functions[0], ids...)
	apps := []*application{n.consume(t, n.routers[0]), n.consume(t, n.routers[1])}
	l := n.startLoad(t, telemetry, ids)
	l.next(t, 200)
	l.since()
	for _, step := range []struct {
		name   string
		router int
		end    func(t *testing.T, b *box)
	}{
		{"SIGTERM", 0, func(t *testing.T, b *box) { b.stop(t) }},
		{"SIGKILL", 1, func(t *testing.T, b *box) { b.kill(t) }},
		{"SIGKILL at once after its start", 1, func(t *testing.T, b *box) { b.kill(t) }},
		{"SIGTERM of the other", 0, func(t *testing.T, b *box) { b.stop(t) }},
	} {
		router, app := n.routers[step.router], apps[step.router]
		_, links := app.count()
		step.end(t, router)
		l.next(t, 100) // by the other one
		down, refused := l.since()
		measure(t, "router ends by "+step.name+": longest time without a 202 of "+fmt.Sprint(loadDevices)+" devices", "%s; %d uploads were answered 503", ms(down), refused)
		if _, err := router.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		app.awaitLink(t, links+1)
		before, _ := app.count()
		eventually(t, "the router is used again", func() error {
			if now, _ := app.count(); now == before {
				return fmt.Errorf("nothing came")
			}
			return nil
		})
		used := time.Since(began)
		l.next(t, 100)
		_, refused = l.since()
		measure(t, "router is back after "+step.name+": ready to messages by it", "%s; %d uploads were answered 503", ms(used), refused)
	}
	l.end()
	l.check(t, "routers restarted", apps)
}

// check compares what devices were told with what applications got.
func (l *load) check(t *testing.T, what string, apps []*application) {
	t.Helper()
	got := together(apps)
	var lost []string
	twice := 0
	for _, body := range l.acked {
		if got[body] == 0 {
			lost = append(lost, body)
		}
		if got[body] > 1 {
			twice++
		}
	}
	if len(lost) > 0 {
		t.Errorf("%d of %d acknowledged messages were lost, such as %s", len(lost), len(l.acked), strings.Join(lost[:min(5, len(lost))], ", "))
	}
	if len(l.failures) > 0 {
		slices.Sort(l.failures)
		t.Errorf("%d uploads got neither 202 nor 503 with Retry-After: %s", len(l.failures), strings.Join(slices.Compact(l.failures), "; "))
	}
	t.Logf("refused with: %v", l.refused)
	measure(t, what+": acknowledged messages, lost, received twice, received without a 202", "%d, %d, %d, %d",
		len(l.acked), len(lost), twice, len(got)+len(lost)-len(l.acked))
	measure(t, what+": slowest upload", "%s", ms(l.slowest))
}

// together is how often applications have received each message.
func together(apps []*application) map[string]int {
	got := map[string]int{}
	for _, a := range apps {
		a.mu.Lock()
		for body, count := range a.received {
			got[body] += count
		}
		a.mu.Unlock()
	}
	return got
}
