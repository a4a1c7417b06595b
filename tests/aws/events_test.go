package aws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/localstack/stack"
)

// eventAddress is where the application takes stored events.
const eventAddress = "event/" + stack.Tenant

// quiet is for how long nobody may ask the event store who has no reason to: longer than
// a claim is renewed by those who renew it.
const quiet = 12 * time.Second

// storedEvents is the event store on Lambda through what it is for, in order. It leaves nothing stored.
func storedEvents(t *testing.T, s *stack.Stack) {
	t.Run("from zero and back", func(t *testing.T) { eventsFromZero(t, s) })
	t.Run("operators", func(t *testing.T) { operated(t, s) })
	t.Run("killed while appending", func(t *testing.T) { killedAppending(t, s) })
	t.Run("the schedule", func(t *testing.T) { swept(t, s) })
	t.Run("nobody asks for nothing", func(t *testing.T) { idle(t, s) })
}

// event sends an event that must be taken.
func event(t *testing.T, s *stack.Stack, user, body string) (took time.Duration) {
	t.Helper()
	code, took, err := send(t.Context(), s, "event", user, body)
	if err != nil || code != http.StatusAccepted {
		t.Fatalf("the event %s is answered with %d, %v", body, code, err)
	}
	return took
}

// taken receives events until done is, and accepts all.
func taken(t *testing.T, r *amqp.Receiver, done func(body string) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		m, err := r.Receive(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.AcceptMessage(ctx, m); err != nil {
			t.Fatal(err)
		}
		if done(string(m.GetData())) {
			return
		}
	}
}

// counts is what the management API says of the tenant's events.
type counts struct {
	Waiting     int `json:"waiting"`
	DeadLetters int `json:"dead-letters"`
}

func waiting(t *testing.T, s *stack.Stack) (c counts, err error) {
	t.Helper()
	code, text, err := s.Manage(t.Context(), http.MethodGet, "/v1/events/"+stack.Tenant, nil)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("answered %d %s", code, text)
	}
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal([]byte(text), &c)
}

// stands waits until as many events are kept.
func stands(t *testing.T, s *stack.Stack, want int) {
	t.Helper()
	eventually(t, "what is kept", func() error {
		if c, err := waiting(t, s); err != nil || c.Waiting != want {
			return fmt.Errorf("%+v, %w, want %d", c, err, want)
		}
		return nil
	})
}

// eventsFromZero sends events while nobody listens and the functions are at zero, kills
// the functions, and has an application come later.
func eventsFromZero(t *testing.T, s *stack.Stack) {
	user := device(t, s, "keeper")
	toZero(t, s.Host, s.EventStore)
	t.Logf("all functions at zero, the device is unknown: 202 after %s", event(t, s, user, "keeper 0").Round(time.Millisecond))
	const n = 6
	for i := 1; i < n; i++ {
		toZero(t, s.EventStore)
		before := len(s.EventStore.Starts())
		took := event(t, s, user, fmt.Sprint("keeper ", i))
		starts := s.EventStore.Starts()
		if len(starts) != before+1 {
			t.Fatalf("%d instances were started", len(starts)-before)
		}
		t.Logf("the event store at zero: 202 after %s; it asked for work %s after its start and answered after %s", took.Round(time.Millisecond),
			starts[before].Init.Round(time.Millisecond), starts[before].First.Round(time.Millisecond))
	}
	t.Logf("and with an instance: %s", event(t, s, user, fmt.Sprint("keeper ", n)).Round(100*time.Microsecond))
	stands(t, s, n+1)
	s.Host.Kill()
	s.EventStore.Kill()
	r := receiver(t, s, eventAddress)
	next, began := 0, time.Now()
	taken(t, r, func(body string) bool {
		if next == 0 {
			t.Logf("the application has the first event %s after it came, from zero", time.Since(began).Round(time.Millisecond))
		}
		if body != fmt.Sprint("keeper ", next) {
			t.Errorf("got %s, want number %d", body, next)
		}
		next++
		return next == n+1
	})
	stands(t, s, 0)
}

// operated looks into events and throws them away by the management API, which
// is a function of its own.
func operated(t *testing.T, s *stack.Stack) {
	event(t, s, stack.DeviceUser, "looked at")
	code, text, err := s.Manage(t.Context(), http.MethodGet, "/v1/events/"+stack.Tenant, nil)
	var stats struct {
		Partitions []struct {
			Partition string
			Waiting   int
		}
	}
	if err != nil || code != http.StatusOK || json.Unmarshal([]byte(text), &stats) != nil {
		t.Fatalf("%d %s, %v", code, text, err)
	}
	at := slices.IndexFunc(stats.Partitions, func(p struct {
		Partition string
		Waiting   int
	}) bool {
		return p.Waiting == 1
	})
	if at < 0 {
		t.Fatalf("no partition has an event: %s", text)
	}
	code, text, err = s.Manage(t.Context(), http.MethodGet, "/v1/events/"+stack.Tenant+"/"+stats.Partitions[at].Partition, nil)
	if err != nil || code != http.StatusOK || !strings.Contains(text, `"`+stack.DeviceID+`"`) {
		t.Errorf("browsing: %d %s, %v", code, text, err)
	}
	manage(t, s, http.MethodDelete, "/v1/events/"+stack.Tenant+"?dead=false", "")
	stands(t, s, 0)
}

// swept has the schedule do what it does once a day.
func swept(t *testing.T, s *stack.Stack) {
	for alias, want := range map[string]bool{"cron": true, "live": false} {
		res, err := s.EventStore.Invoke(t.Context(), alias, []byte(`{"source":"aws.events","detail-type":"Scheduled Event","time":"2026-11-23T00:00:00Z","detail":{}}`))
		if err != nil || (res.FunctionError == "") != want {
			t.Errorf("by %s: %+v, %v", alias, res, err)
		}
	}
}

// settled waits until nobody asks the event store any more, and returns how often it was asked.
func settled(t *testing.T, s *stack.Stack) (count int) {
	t.Helper()
	count = -1
	eventually(t, "the end of what was under way", func() error {
		last := count
		if count = s.EventStore.Invocations(); count != last {
			time.Sleep(2 * time.Second)
			return fmt.Errorf("%d invocations", count)
		}
		return nil
	})
	return count
}

// invocations fails unless the event store is asked nothing for a while. What was under way
// may end first.
func invocations(t *testing.T, s *stack.Stack, when string) {
	t.Helper()
	before := settled(t, s)
	time.Sleep(quiet)
	n := s.EventStore.Invocations() - before
	t.Logf("%s: %d invocations within %s", when, n, quiet)
	if n != 0 {
		t.Errorf("%s: %d invocations, want none", when, n)
	}
}

// idle counts what a tenant costs that has a backlog and no consumer, and one that
// has a consumer and no traffic.
func idle(t *testing.T, s *stack.Stack) {
	for i := range 3 {
		event(t, s, stack.DeviceUser, fmt.Sprint("backlog ", i))
	}
	invocations(t, s, "a backlog and no consumer")
	r, n := receiver(t, s, eventAddress), 0
	taken(t, r, func(string) bool {
		n++
		return n == 3
	})
	stands(t, s, 0)
	toZero(t, s.EventStore)
	invocations(t, s, "a consumer and no traffic")
	event(t, s, stack.DeviceUser, "at last")
	taken(t, r, func(body string) bool { return body == "at last" })
	stands(t, s, 0)
}

// killedAppending kills the event store's instances again and again while devices send,
// which repeat what is refused. Nothing that was acknowledged is lost, and what each device
// sent comes in order the first time.
func killedAppending(t *testing.T, s *stack.Stack) {
	const (
		devices = 6
		least   = 25 // events of each device
		kills   = 40 // of instances at work
	)
	users := make([]string, devices)
	for i := range users {
		users[i] = device(t, s, fmt.Sprint("stubborn-", i))
	}
	settled(t, s) // so that what is killed appends
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	killed, enough := 0, make(chan struct{})
	go func() {
		defer close(enough)
		for killed < kills && ctx.Err() == nil {
			time.Sleep(time.Duration(20+rand.IntN(150)) * time.Millisecond)
			killed += s.EventStore.Kill()
		}
	}()
	sent, refused := make([]int, devices), make([]int, devices)
	var group sync.WaitGroup
	for i, user := range users {
		group.Go(func() { sent[i], refused[i] = insist(t, ctx, s, i, user, least, enough) })
	}
	group.Wait()
	stop()
	<-enough
	total, no := 0, 0
	for i := range devices {
		total, no = total+sent[i], no+refused[i]
	}
	if killed < kills {
		t.Fatalf("only %d invocations were killed", killed)
	}
	left, twice := map[string]bool{}, 0
	for i, n := range sent {
		for k := range n {
			left[fmt.Sprintf("%d %d", i, k)] = true
		}
	}
	next := make([]int, devices)
	r := receiver(t, s, eventAddress)
	taken(t, r, func(body string) bool {
		var i, k int
		if _, err := fmt.Sscanf(body, "%d %d", &i, &k); err != nil {
			t.Errorf("got %s", body)
			return false
		}
		switch {
		case k < next[i]:
			twice++
		case k > next[i]:
			t.Errorf("device %d: %d came before %d", i, k, next[i])
		default:
			next[i]++
		}
		delete(left, body)
		return len(left) == 0
	})
	t.Logf("%d invocations killed, %d instances; %d events acknowledged, %d uploads refused and repeated; all came, %d of them again", killed, len(s.EventStore.Starts()), total, no, twice)
	if len(left) > 0 {
		t.Errorf("lost: %v", slices.Sorted(maps.Keys(left)))
	}
	accept(t, r) // what is stored twice
	stands(t, s, 0)
}

// insist sends a device's events one after the other until there are enough, each until it is
// acknowledged.
func insist(t *testing.T, ctx context.Context, s *stack.Stack, n int, user string, least int, enough <-chan struct{}) (sent, refused int) {
	for {
		select {
		case <-enough:
			if sent >= least {
				return sent, refused
			}
		case <-ctx.Done():
			return sent, refused
		default:
		}
		code, _, err := send(ctx, s, "event", user, fmt.Sprintf("%d %d", n, sent))
		switch {
		case ctx.Err() != nil:
		case err != nil:
			t.Errorf("device %d: %v", n, err)
			return sent, refused
		case code == http.StatusAccepted:
			sent++
		case code == http.StatusServiceUnavailable:
			refused++
			time.Sleep(50 * time.Millisecond)
		default:
			t.Errorf("device %d is answered with %d", n, code)
			return sent, refused
		}
	}
}
