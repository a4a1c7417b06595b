package kubernetes_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
)

// Kinds of messages, as devices and applications name them.
const (
	telemetry = "telemetry"
	event     = "event"
)

// application consumes messages of the tenant, and comes back as soon as it loses a
// router.
type application struct {
	endpoint string

	mu    sync.Mutex
	got   map[string]int
	by    map[string]int // how many, by where the router is
	lost  int            // connections
	ready chan struct{}
}

// newApplication runs f until the test ends, and waits for the first link.
func newApplication(t *testing.T, endpoint string, f func(context.Context, *application)) *application {
	t.Helper()
	a := &application{endpoint: endpoint, got: map[string]int{}, by: map[string]int{}, ready: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f(ctx, a) })
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

// consume takes telemetry by the node's port, from whichever router that leads to.
func consume(t *testing.T, s *site) *application {
	t.Helper()
	return newApplication(t, telemetry, func(ctx context.Context, a *application) {
		for ctx.Err() == nil {
			a.once(ctx, s, s.northbound, "")
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// routersName stands for all routers, and is in their certificate.
const routersName = "sluice-routers"

// consumeEvents takes events from every router that the cluster's DNS knows.
func consumeEvents(t *testing.T, s *site) *application {
	t.Helper()
	names := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(address, "53"))
	}}
	return newApplication(t, event, func(ctx context.Context, a *application) {
		var wg sync.WaitGroup
		defer wg.Wait()
		var mu sync.Mutex
		at := map[string]bool{}
		for ctx.Err() == nil {
			found, _ := names.LookupHost(ctx, routersName+"."+s.namespace+".svc.cluster.local.")
			for _, ip := range found {
				mu.Lock()
				is := at[ip]
				at[ip] = true
				mu.Unlock()
				if is {
					continue
				}
				wg.Go(func() {
					a.once(ctx, s, "amqps://"+net.JoinHostPort(ip, "5671"), routersName)
					mu.Lock()
					defer mu.Unlock()
					delete(at, ip)
				})
			}
			time.Sleep(250 * time.Millisecond)
		}
	})
}

// once consumes by one connection until that ends. name is what the router's
// certificate has to be for, "" = the host of url. A message is remembered before it
// is accepted, so telemetry is before its device gets 202.
func (a *application) once(ctx context.Context, s *site, url, name string) {
	dial, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conf := s.trust.Clone()
	conf.ServerName = name
	c, err := amqp.Dial(dial, url, &amqp.ConnOptions{TLSConfig: conf, SASLType: amqp.SASLTypePlain("shop", s.shop)})
	if err != nil {
		return
	}
	defer c.Close()
	session, err := c.NewSession(dial, nil)
	if err != nil {
		return
	}
	r, err := session.NewReceiver(dial, a.endpoint+"/"+tenant, &amqp.ReceiverOptions{Credit: 200})
	if err != nil {
		return
	}
	a.attached()
	for {
		m, err := r.Receive(ctx, nil)
		if err == nil {
			a.note(string(m.GetData()), url)
			err = r.AcceptMessage(ctx, m)
		}
		if err != nil {
			a.mu.Lock()
			a.lost++
			a.mu.Unlock()
			return
		}
	}
}

func (a *application) attached() {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.ready:
	default:
		close(a.ready)
	}
}

func (a *application) note(text, url string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got[text]++
	a.by[url]++
}

func (a *application) has(text string) bool { return a.times(text) > 0 }

// times is how often a message came.
func (a *application) times(text string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.got[text]
}

// routers is how many routers anything came from.
func (a *application) routers() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.by)
}

func (a *application) connectionsLost() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}
