package containers_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// activator stands for Knative's: it listens where adapters and routers look for
// the functions, and passes on what comes to their container, byte by byte, so that
// TLS is between the two ends. A container that was stopped is started by the first
// connection, which waits meanwhile.
type activator struct {
	ctx      context.Context
	listener net.Listener
	function *box
	group    sync.WaitGroup

	mu     sync.Mutex // held while the container starts: who comes then waits
	asleep bool
	fails  bool // starts nothing and cuts connections
	wakes  []wake
	conns  map[net.Conn]bool
}

// wake is one start by a connection.
type wake struct {
	from  string // address of the component that connected
	ready time.Duration
}

// newActivator listens on the gateway of the site's network until the test ends.
func (n *site) newActivator(t *testing.T) *activator {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(n.gateway.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	a := &activator{ctx: t.Context(), listener: l, conns: map[net.Conn]bool{}}
	a.group.Go(a.serve)
	t.Cleanup(func() {
		l.Close()
		a.mu.Lock()
		for c := range a.conns {
			c.Close()
		}
		a.mu.Unlock()
		a.group.Wait()
	})
	return a
}

// address is where components reach the activator.
func (a *activator) address() string {
	_, port, _ := net.SplitHostPort(a.listener.Addr().String())
	return net.JoinHostPort(activatorName, port)
}

func (a *activator) serve() {
	for {
		c, err := a.listener.Accept()
		if err != nil {
			return
		}
		a.group.Go(func() { a.pass(c) })
	}
}

// pass connects c with the container, which it starts if need be.
func (a *activator) pass(c net.Conn) {
	defer c.Close()
	far, err := a.open(c)
	if err != nil {
		return // the component sees its connection end, and asks again
	}
	defer far.Close()
	if !a.keep(c, far) {
		return
	}
	defer a.drop(c, far)
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, far}, {far, c}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // however it ends, it ends for both
			way[0].Close()
			way[1].Close()
		})
	}
	both.Wait()
}

func (a *activator) open(c net.Conn) (net.Conn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fails {
		return nil, fmt.Errorf("there is nobody")
	}
	if a.asleep {
		took, err := a.function.begin(a.ctx)
		if err != nil {
			return nil, err
		}
		a.asleep = false
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		a.wakes = append(a.wakes, wake{host, took})
	}
	address, err := a.function.inside(a.ctx, "8444")
	if err != nil {
		return nil, err
	}
	return net.Dial("tcp", address)
}

// keep has the connections closed when the activator ends.
func (a *activator) keep(conns ...net.Conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range conns {
		a.conns[c] = true
	}
	return a.ctx.Err() == nil
}

func (a *activator) drop(conns ...net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range conns {
		delete(a.conns, c)
	}
}

// scaleToZero stops the container in order. With fails nothing starts it again, as
// where a platform cannot.
func (a *activator) scaleToZero(t *testing.T, fails bool) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.function.stop(t)
	a.asleep, a.fails, a.wakes = true, fails, nil
}

// wake starts what was stopped without a connection.
func (a *activator) wake(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asleep {
		a.function.run(t)
	}
	a.asleep, a.fails = false, false
}

// woken returns the starts by connections since the container was stopped.
func (a *activator) woken() []wake {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]wake(nil), a.wakes...)
}
