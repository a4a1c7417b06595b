package interop_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

// withEvents is an installation in which an event that failed three times is given up.
func withEvents(t *testing.T) *installation {
	t.Helper()
	return startInstallation(t, "events: {max-attempts: 3}\nsend-timeout: "+(patience/2).String()+"\n")
}

// mustSendEvent expects that an event is accepted, whether or not somebody listens.
func (in *installation) mustSendEvent(t *testing.T, body string) {
	t.Helper()
	if got := sendEvent(t, in.device, in.deviceUser, in.devicePassword, 0, body); got.status != http.StatusAccepted {
		t.Fatalf("event %q: %+v; want 202", body, got)
	}
}

// events is how the demo's application receives events, and how it answers them; "" = accepts.
func (in *installation) events(answer string) linkOptions {
	o := in.app("event/" + in.tenant)
	o.answer, o.credit = answer, 1
	return o
}

// command runs sluice on the installation as its operator does.
func (in *installation) command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(program(t), append(args, "--data", in.dir)...).CombinedOutput()
	if err != nil {
		t.Fatalf("sluice %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// manage makes a request of the management API, and decodes what it answers.
func (in *installation) manage(t *testing.T, method, path string, into any) {
	t.Helper()
	got, err := call(t, method, "http://"+in.management+"/v1/"+path, in.operatorUser, in.operatorSecret, "", nil)
	if err != nil || got.status != http.StatusOK {
		t.Fatalf("%s %s: %+v, %v; want 200", method, path, got, err)
	}
	if err := json.Unmarshal([]byte(got.body), into); err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, got.body)
	}
}

func (in *installation) eventStats(t *testing.T) (s eventstore.Stats) {
	t.Helper()
	in.manage(t, http.MethodGet, "events/"+in.tenant, &s)
	return s
}

// counted waits until so many events wait, and so many are dead letters.
func (in *installation) counted(t *testing.T, events, dead int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d events and %d dead letters", events, dead), func() error {
		if s := in.eventStats(t); s.Waiting != events || s.DeadLetters != dead {
			return fmt.Errorf("%d and %d", s.Waiting, s.DeadLetters)
		}
		return nil
	})
}

// browsed are the events of the tenant as the API shows them.
type browsed struct {
	Position    uint64
	DeviceID    string `json:"device-id"`
	Attempts    int
	Reason      string
	Payload     []byte
	ContentType string `json:"content-type"`
}

func (in *installation) browse(t *testing.T, dead bool) (all []browsed) {
	t.Helper()
	s := in.eventStats(t)
	for _, p := range s.Partitions {
		var page struct{ Events []browsed }
		in.manage(t, http.MethodGet, fmt.Sprintf("events/%s/%s?dead=%t", in.tenant, p.Partition, dead), &page)
		all = append(all, page.Events...)
	}
	return all
}

// expect awaits an event and checks what it says of itself.
func (p *peer) expect(t *testing.T, body string, count int) {
	t.Helper()
	m := p.await(t, "message")
	if string(m.Body) != body || m.DeliveryCount != count || m.FirstAcquirer != (count == 0) || !m.Durable || m.Settled {
		t.Errorf("%s received %q, count %d, first %t, durable %t, settled %t; want %q, count %d", p.name,
			m.Body, m.DeliveryCount, m.FirstAcquirer, m.Durable, m.Settled, body, count)
	}
	if m.Annotations["device_id"] == nil && m.Properties["device_id"] == nil {
		t.Errorf("%s received %q without its device: %v, %v", p.name, body, m.Annotations, m.Properties)
	}
}

// TestEventOutcomes has clients that nobody here wrote answer events in every way there is,
// and operators look at what was given up, and send it again.
func TestEventOutcomes(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			needPeer(t, kind)
			in := withEvents(t)
			in.mustSendEvent(t, "released")
			in.counted(t, 1, 0)

			// Released, it comes again, and that is no failure however often.
			p := startReceiver(t, kind, in.events("released"))
			for n := range 4 {
				p.expect(t, "released", n)
			}
			p.close()
			// What it had when it left may count, or not.
			p = startReceiver(t, kind, in.events(""))
			if m := p.await(t, "message"); string(m.Body) != "released" || m.DeliveryCount < 4 {
				t.Errorf("received %q, count %d", m.Body, m.DeliveryCount)
			}
			in.counted(t, 0, 0)
			p.close()

			p = startReceiver(t, kind, in.events("rejected"))
			in.mustSendEvent(t, "rejected")
			p.expect(t, "rejected", 0)
			in.counted(t, 0, 1)
			p.close()

			p = startReceiver(t, kind, in.events("modified:failed"))
			in.mustSendEvent(t, "failed")
			for n := range 3 {
				p.expect(t, "failed", n)
			}
			in.counted(t, 0, 2)
			p.close()

			letters := in.browse(t, true)
			slices.SortFunc(letters, func(a, b browsed) int { return strings.Compare(string(a.Payload), string(b.Payload)) })
			if len(letters) != 2 || string(letters[0].Payload) != "failed" || letters[0].Attempts != 3 || string(letters[1].Payload) != "rejected" ||
				letters[1].Attempts != 1 || !strings.Contains(letters[1].Reason, "as the subject asked") || letters[0].Reason == "" {
				t.Errorf("dead letters %+v", letters)
			}
			listed := in.command(t, "event", "list", in.tenant, "--dead")
			for _, want := range []string{`"failed"`, `"rejected"`, "attempts=3", "as the subject asked", in.deviceID} {
				if !strings.Contains(listed, want) {
					t.Errorf("sluice event list --dead prints no %s:\n%s", want, listed)
				}
			}
			if got := in.command(t, "event", "requeue", in.tenant); !strings.Contains(got, "requeued 2 events") {
				t.Errorf("sluice event requeue prints %q", got)
			}
			in.counted(t, 2, 0)
			p = startReceiver(t, kind, in.events(""))
			again := []string{string(p.await(t, "message").Body), string(p.await(t, "message").Body)}
			if slices.Sort(again); !slices.Equal(again, []string{"failed", "rejected"}) {
				t.Errorf("after they were requeued %q came", again)
			}
			in.counted(t, 0, 0)
		})
	}
}

// TestEventsBrowsedAndPurged looks at events that wait, which takes none of them away, and
// throws them away.
func TestEventsBrowsedAndPurged(t *testing.T) {
	in := withEvents(t)
	for n := range 5 {
		in.mustSendEvent(t, fmt.Sprint("event ", n))
	}
	for range 2 {
		all := in.browse(t, false)
		for n, e := range all {
			if string(e.Payload) != fmt.Sprint("event ", n) || e.DeviceID != in.deviceID || e.ContentType != "text/plain" || e.Attempts != 0 {
				t.Errorf("event %d is %+v", n, e)
			}
		}
		if len(all) != 5 {
			t.Fatalf("%d events wait; want 5", len(all))
		}
	}
	if got := in.command(t, "event", "stat", in.tenant); !strings.Contains(got, "all") || !strings.Contains(got, "5") {
		t.Errorf("sluice event stat prints\n%s", got)
	}
	figures, err := call(t, http.MethodGet, "http://"+in.health+"/metrics", "", "", "", nil)
	for _, want := range []string{fmt.Sprintf("sluice_events_waiting{tenant=%q} 5", in.tenant), `sluice_router_events_received_total{kind="accepted"} 5`,
		`sluice_router_events_calls_total{kind="read"} 0`} {
		if err != nil || !strings.Contains(figures.body, want+"\n") {
			t.Errorf("%v; no %s among the metrics:\n%s", err, want, linesWith(figures.body, "_events_"))
		}
	}
	if got := in.command(t, "event", "purge", in.tenant, "--yes"); !strings.Contains(got, "purged 5 events") {
		t.Errorf("sluice event purge prints %q", got)
	}
	in.counted(t, 0, 0)
	in.mustSendEvent(t, "after the purge")
	startReceiver(t, "go-amqp", in.events("")).expect(t, "after the purge", 0)
	in.counted(t, 0, 0)
}

// TestCompetingConsumersOfEvents has different clients share a backlog and what comes
// live: each event is taken once, and everybody gets some.
func TestCompetingConsumersOfEvents(t *testing.T) {
	in := withEvents(t)
	for _, kind := range kinds {
		needPeer(t, kind)
	}
	const many = 60
	for n := range many / 2 {
		in.mustSendEvent(t, fmt.Sprint("event ", n))
	}
	var all []*peer
	for _, kind := range kinds {
		all = append(all, startReceiver(t, kind, in.events("")))
	}
	for n := many / 2; n < many; n++ {
		in.mustSendEvent(t, fmt.Sprint("event ", n))
	}
	in.counted(t, 0, 0)
	got := map[string]int{}
	for _, p := range all {
		if len(p.events) == 0 {
			t.Errorf("%s got none of %d events", p.name, many)
		}
		for range len(p.events) {
			got[string(p.await(t, "message").Body)]++
		}
	}
	for n := range many {
		if body := fmt.Sprint("event ", n); got[body] != 1 {
			t.Errorf("%q was received %d times", body, got[body])
		}
	}
}

func linesWith(text, word string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// TestEventsOfAKilledConsumer breaks the connection of a consumer that has settled nothing:
// another gets at once, and in order, what it had, and hears that it is not the first.
func TestEventsOfAKilledConsumer(t *testing.T) {
	in := withEvents(t)
	o := in.events("")
	o.credit = 5
	doomed := newGoPeer(t, "hold", o)
	doomed.await(t, "ready")
	const many = 8
	for n := range many {
		in.mustSendEvent(t, fmt.Sprint("event ", n))
	}
	for n := range o.credit {
		doomed.expect(t, fmt.Sprint("event ", n), 0)
	}
	doomed.cut()
	p := startReceiver(t, "go-amqp", in.events(""))
	got := map[int][]string{}
	for range many {
		m := p.await(t, "message")
		got[m.DeliveryCount] = append(got[m.DeliveryCount], string(m.Body))
	}
	want := map[int][]string{0: {"event 5", "event 6", "event 7"}, 1: {"event 0", "event 1", "event 2", "event 3", "event 4"}}
	for count, list := range want {
		if !slices.Equal(got[count], list) {
			t.Errorf("with delivery-count %d came %q; want %q", count, got[count], list)
		}
	}
	in.counted(t, 0, 0)
}
