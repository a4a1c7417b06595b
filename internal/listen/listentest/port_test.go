package listentest_test

import (
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/internal/listen/listentest"
)

func TestFreePort(t *testing.T) {
	var seen sync.Map
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 50 {
				port, err := listentest.FreePort()
				if err != nil {
					t.Error(err)
					return
				}
				if port < listentest.First || port >= listentest.First+listentest.Count {
					t.Errorf("port %d", port)
				}
				if _, twice := seen.LoadOrStore(port, true); twice {
					t.Errorf("port %d came twice", port)
				}
			}
		})
	}
	group.Wait()
	port, err := listentest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
