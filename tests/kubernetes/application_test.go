package kubernetes_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
)

// application consumes the telemetry of the tenant by the node's port, and comes
// back as soon as it loses its router.
type application struct {
	mu    sync.Mutex
	got   map[string]int
	lost  int // connections
	ready chan struct{}
}

func consume(t *testing.T, s *site) *application {
	t.Helper()
	a := &application{got: map[string]int{}, ready: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if a.once(ctx, s) {
				a.mu.Lock()
				a.lost++
				a.mu.Unlock()
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	select {
	case <-a.ready:
	case <-time.After(90 * time.Second):
		t.Fatal("the application finds no router")
	}
	return a
}

// once consumes by one connection until that ends, and tells whether it was up.
// A message is remembered before it is accepted, so before its device gets 202.
func (a *application) once(ctx context.Context, s *site) (up bool) {
	dial, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := amqp.Dial(dial, s.northbound, &amqp.ConnOptions{TLSConfig: s.trust, SASLType: amqp.SASLTypePlain("shop", s.shop)})
	if err != nil {
		return false
	}
	defer c.Close()
	session, err := c.NewSession(dial, nil)
	if err != nil {
		return false
	}
	r, err := session.NewReceiver(dial, "telemetry/"+tenant, &amqp.ReceiverOptions{Credit: 200})
	if err != nil {
		return false
	}
	select {
	case <-a.ready:
	default:
		close(a.ready)
	}
	for {
		m, err := r.Receive(ctx, nil)
		if err != nil {
			return true
		}
		a.mu.Lock()
		a.got[string(m.GetData())]++
		a.mu.Unlock()
		if r.AcceptMessage(ctx, m) != nil {
			return true
		}
	}
}

func (a *application) has(text string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.got[text] > 0
}

func (a *application) connectionsLost() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}
