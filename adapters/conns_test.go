package adapters_test

import (
	"net"
	"testing"

	"github.com/sluice-iot/sluice/adapters"
)

func TestConnLimit(t *testing.T) {
	l := adapters.NewConnLimit(2)
	for i, want := range []bool{true, true, false} {
		if got := l.Acquire(network); got != want {
			t.Errorf("acquire %d: got %v, want %v", i, got, want)
		}
	}
	if l.Acquire(sameNet) {
		t.Error("another address of the same /64 got in")
	}
	if !l.Acquire(home) {
		t.Error("another network was refused")
	}
	l.Release(sameNet)
	if !l.Acquire(network) {
		t.Error("refused after one was released")
	}
	if unlimited := adapters.NewConnLimit(-1); !unlimited.Acquire(home) {
		t.Error("refused without a limit")
	}
}

func TestLimitedListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := adapters.NewConnLimit(1).Listener(inner)
	defer ln.Close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial()
	first := <-accepted
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Errorf("second connection: got %v, want it closed", err)
	}
	first.Close()
	first.Close() // counts once
	dial()
	(<-accepted).Close()
	ln.Close()
	if _, open := <-accepted; open {
		t.Error("a connection was accepted after Close")
	}
}
