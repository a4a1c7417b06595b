package listentest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports are chosen from [First, First+Count): systems give no outgoing connection
// one of them by default, so that a port stays free until its server takes it, and
// while the server is started again.
const (
	First = 20_000
	Count = 12_000
)

const attempts = 100

var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// FreePort returns a TCP port on which nobody listens, and none that was given to a
// process that still runs: the tests of other packages, which run at the same time,
// look for ports long before their servers take them. Safe for concurrent use.
func FreePort() (port int, err error) {
	given.Lock()
	defer given.Unlock()
	for range attempts {
		port = First + rand.IntN(Count)
		if given.ports[port] {
			err = errors.New("they were given already")
			continue
		}
		if !reserve(port) {
			err = errors.New("they were given to other tests")
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			given.ports[port] = true
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no port from %d to %d is free: %w", First, First+Count-1, err)
}
