package containers_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	amqp "github.com/Azure/go-amqp"
)

// application consumes the tenant's telemetry or events from one router, and connects
// anew whenever it lost it.
type application struct {
	router   *box
	endpoint string
	tls      *tls.Config

	mu       sync.Mutex
	received map[string]int // how often, by body
	order    []arrival      // of what came for the first time
	links    int            // attached so far
	attached bool
	last     error
}

// arrival is when a message came for the first time.
type arrival struct {
	body string
	at   time.Time
}

// consume runs an application for telemetry until the test ends, and waits for its first link.
func (n *site) consume(t *testing.T, router *box) *application {
	t.Helper()
	return n.consumeOf(t, telemetry, router)
}

// consumeOf is consume for any kind of message.
func (n *site) consumeOf(t *testing.T, endpoint string, router *box) *application {
	t.Helper()
	a := &application{router: router, endpoint: endpoint, tls: n.clientTLS(), received: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { a.run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	a.awaitLink(t, 1)
	return a
}

func (a *application) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := a.follow(ctx)
		a.mu.Lock()
		a.attached, a.last = false, err
		a.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// follow connects and takes messages until the connection is lost.
func (a *application) follow(ctx context.Context) error {
	address, err := a.router.published(ctx, "5671")
	if err != nil {
		return err
	}
	patient, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := amqp.Dial(patient, "amqps://"+address, &amqp.ConnOptions{SASLType: amqp.SASLTypePlain(shop, shopSecret), TLSConfig: a.tls})
	if err != nil {
		return err
	}
	defer conn.Close()
	session, err := conn.NewSession(patient, nil)
	if err != nil {
		return err
	}
	receiver, err := session.NewReceiver(patient, a.endpoint+"/"+tenant, &amqp.ReceiverOptions{Credit: 200})
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.links++
	a.attached = true
	a.mu.Unlock()
	for {
		message, err := receiver.Receive(ctx, nil)
		if err != nil {
			return err
		}
		a.note(string(message.GetData()))
		// What is accepted was kept before: the device may be told so from now on.
		if err := receiver.AcceptMessage(ctx, message); err != nil {
			return err
		}
	}
}

func (a *application) note(body string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.received[body]++; a.received[body] == 1 {
		a.order = append(a.order, arrival{body, time.Now()})
	}
}

// awaitLink waits until the application has attached n times, and is attached.
func (a *application) awaitLink(t *testing.T, n int) {
	t.Helper()
	eventually(t, "an application at "+a.router.name, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.links >= n && a.attached {
			return nil
		}
		return fmt.Errorf("%d links, last error %w", a.links, errors.Join(a.last))
	})
}

// count is how many different messages came, and how many links there were.
func (a *application) count() (messages, links int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.received), a.links
}

// await waits for a message.
func (a *application) await(t *testing.T, body string) {
	t.Helper()
	eventually(t, "the message "+body, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.received[body] == 0 {
			return errors.New("it did not come")
		}
		return nil
	})
}
