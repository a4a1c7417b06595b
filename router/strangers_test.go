package router_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/router"
)

// Silent connections of one address are bounded, and those refused are told so
// by the end of their socket; who logs in makes room.
func TestStrangersAreBounded(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := router.New(router.Options{Name: "r"})
	done := make(chan error, 1)
	go func() { done <- r.Serve(t.Context(), router.Listener{Listener: ln}) }()
	var silent []net.Conn
	defer func() {
		for _, c := range silent {
			c.Close()
		}
		ln.Close()
		<-done
	}()
	for range router.MaxStrangersPerAddress {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	over, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	if _, err := over.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("got %v, want the end of the connection beyond the limit", err)
	}
	silent[0].Close()
	// The place is free once the router has seen that.
	for {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, err = c.Read(make([]byte, 1))
		c.Close()
		if err != io.EOF {
			return
		}
	}
}
