package stack

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports from which systems give no outgoing connection one by default, below those of
// tests that run beside.
const (
	firstPort = 10_000
	ports     = 10_000
)

// freePort returns a port of loopback on which nobody listens.
func freePort() (port int, err error) {
	for range 100 {
		port = firstPort + rand.IntN(ports)
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no port of loopback is free: %w", err)
}
