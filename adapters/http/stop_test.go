package http_test

import (
	"context"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
)

// A connection that never sent anything must not hold up a stop.
func TestShutdownDoesNotWaitForSilentConnections(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	base, client := serve(t, w.Adapter)
	c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if resp, err := client.Get(base + "/telemetry"); err == nil { // accepted after c
		resp.Body.Close()
	}
	start := time.Now()
	if err := w.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 3*time.Second { // the server itself would wait 5 s
		t.Errorf("took %v", d)
	}
}

// Clients that upload all the time see no connection break when the adapter stops:
// an answer tells them.
func TestShutdownBreaksNoKeptConnection(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	base, _ := serve(t, w.Adapter)
	uploaded := make(chan struct{}, 1000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			transport := &nethttp.Transport{}
			defer transport.CloseIdleConnections()
			for {
				r, _ := nethttp.NewRequest("POST", base+"/telemetry", strings.NewReader("x"))
				r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
				resp, err := transport.RoundTrip(r)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				select {
				case uploaded <- struct{}{}:
				default:
				}
				if resp.Close {
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	for range 100 {
		<-uploaded
	}
	if err := w.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestShutdownCutsOffWhatDoesNotEnd(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	base, client := serve(t, w.Adapter)
	entered, release := w.down.Block()
	defer release()
	failed := make(chan error, 1)
	go func() {
		r, _ := nethttp.NewRequest("POST", base+"/telemetry", strings.NewReader("x"))
		r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
		_, err := client.Do(r)
		failed <- err
	}()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := <-failed; err == nil {
		t.Error("the upload was answered, want it cut off")
	}
}
