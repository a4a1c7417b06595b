package http_test

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
)

// Clients that begin a request and do not end it hold little memory, whatever it is
// that they announce or send.
func TestMemoryOfUnfinishedRequests(t *testing.T) {
	const conns, limit = 100, 1 << 20
	var lines strings.Builder
	for i := 0; lines.Len() < 11<<10; i++ {
		fmt.Fprintf(&lines, "%x:\r\n", i) // as many headers as fit
	}
	head := "POST /telemetry HTTP/1.1\r\nHost: x\r\n"
	known := head + as(adaptertest.Device) + "\r\n"
	for _, tt := range []struct {
		name, request string
		most          int // KiB of a connection
	}{
		{"nothing", "", 24},
		{"one long header", head + "X: " + strings.Repeat("x", 11<<10), 64},
		{"many headers", head + lines.String(), 512},
		{"body announced by nobody", head + "Content-Length: 1000000000\r\n\r\n", 64},
		{"body announced", known + "Content-Length: 1000000\r\n\r\nx", 64},
		{"chunk announced", known + "Transfer-Encoding: chunked\r\n\r\nf0000\r\nx", 64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, http.Options{HeaderTimeout: time.Hour, BodyTimeout: time.Hour}, adapters.Options{MaxPayload: limit})
			base, _ := serve(t, w.Adapter)
			before := memory()
			for range conns {
				c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				io.WriteString(c, tt.request)
			}
			most := 0
			for range 3 { // while the requests arrive
				time.Sleep(20 * time.Millisecond)
				most = max(most, (memory()-before)/conns>>10)
			}
			t.Logf("%d KiB each", most)
			if most > tt.most {
				t.Errorf("a connection holds %d KiB, want at most %d", most, tt.most)
			}
		})
	}
}

func memory() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
