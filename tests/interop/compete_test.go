package interop_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestCompetingConsumersShare expects that two applications of one tenant get
// each message once, and both get some.
func TestCompetingConsumersShare(t *testing.T) {
	in := startInstallation(t, "")
	first := startReceiver(t, "go-amqp", in.app("telemetry/"+in.tenant))
	second := startReceiver(t, "go-amqp", in.app("telemetry/"+in.tenant))
	const many = 60
	for i := range many {
		in.mustUpload(t, fmt.Sprintf("upload %d", i))
	}
	got := map[string]int{}
	for _, p := range []*peer{first, second} {
		if len(p.events) == 0 {
			t.Errorf("%s got nothing of %d uploads", p.name, many)
		}
		for range len(p.events) {
			got[string(p.await(t, "message").Body)]++
		}
	}
	for i := range many {
		if body := fmt.Sprintf("upload %d", i); got[body] != 1 {
			t.Errorf("%q was received %d times", body, got[body])
		}
	}
}

// TestKilledConsumerLosesNothing breaks the connection of one of two consumers
// while devices upload at least once: each upload that was answered with 202 was
// received, and what the dead one held unsettled was answered with 503 at once,
// not after the send timeout.
func TestKilledConsumerLosesNothing(t *testing.T) {
	const sendTimeout = patience / 2 // what waits for it is still answered, and seen to be late
	in := startInstallation(t, "send-timeout: "+sendTimeout.String()+"\n")
	o := in.app("telemetry/" + in.tenant)
	received := &seen{bodies: map[string]bool{}}
	healthy := newGoPeer(t, "recv", o)
	healthy.await(t, "ready")
	var collecting sync.WaitGroup
	collecting.Go(func() { received.collect(healthy.events) })

	// It gets messages and answers none.
	o.credit = 5
	doomed := newHoldingReceiver(t, o)

	stop := make(chan struct{})
	answers := make(chan uploaded, 1<<16)
	var devices sync.WaitGroup
	for d := range 8 {
		devices.Go(func() { in.keepUploading(t, fmt.Sprintf("device %d", d), stop, answers) })
	}
	// One is certain: the router gives the others to whoever settles.
	held := map[string]bool{string(doomed.await(t, "message").Body): true}
	began := time.Now()
	doomed.cut()
	// The devices that waited for the dead consumer come back and upload again.
	received.await(t, 50)
	close(stop)
	devices.Wait()
	if took := time.Since(began); took > sendTimeout/2 {
		t.Errorf("answers took %s after the consumer was killed: they waited for the send timeout", took)
	}
	close(answers)
	doomed.running.Wait()
	for len(doomed.events) > 0 { // what came until the connection broke
		if e := <-doomed.events; e.Event == "message" {
			held[string(e.Body)] = true
		}
	}
	healthy.close()
	healthy.running.Wait()
	close(healthy.events)
	collecting.Wait()

	accepted, refused := 0, map[string]bool{}
	for a := range answers {
		switch {
		case a.err != nil:
			t.Errorf("%s: %v", a.body, a.err)
		case a.status == http.StatusAccepted:
			accepted++
			if !received.has(a.body) {
				t.Errorf("%q was answered with 202 and received by nobody", a.body)
			}
		case a.status == http.StatusServiceUnavailable:
			refused[a.body] = true
		default:
			t.Errorf("%q was answered with %d", a.body, a.status)
		}
	}
	for body := range held {
		if !refused[body] {
			t.Errorf("%q was in flight to the killed consumer; want 503", body)
		}
		delete(refused, body)
	}
	if accepted == 0 {
		t.Error("no upload was accepted")
	}
	t.Logf("%d accepted; %d held by the killed consumer; %d others refused", accepted, len(held), len(refused))
}

// newHoldingReceiver is a go-amqp receiver that settles nothing.
func newHoldingReceiver(t *testing.T, o linkOptions) *goPeer {
	t.Helper()
	g := newGoPeer(t, "hold", o)
	g.await(t, "ready")
	return g
}

// uploaded is the answer to one upload.
type uploaded struct {
	body   string
	status int
	err    error
}

func (in *installation) keepUploading(t *testing.T, device string, stop <-chan struct{}, answers chan<- uploaded) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		body := fmt.Sprintf("%s, upload %d", device, n)
		got, err := in.upload(t, body)
		answers <- uploaded{body, got.status, err}
	}
}

// seen is the set of bodies that an application accepted.
type seen struct {
	mu     sync.Mutex
	bodies map[string]bool
}

func (s *seen) collect(events <-chan event) {
	for e := range events {
		if e.Event == "message" {
			s.mu.Lock()
			s.bodies[string(e.Body)] = true
			s.mu.Unlock()
		}
	}
}

func (s *seen) has(body string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bodies[body]
}

// await waits until n more bodies were received.
func (s *seen) await(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	from := len(s.bodies)
	s.mu.Unlock()
	eventually(t, "uploads go on", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.bodies) < from+n {
			return fmt.Errorf("%d of %d more received", len(s.bodies)-from, n)
		}
		return nil
	})
}
