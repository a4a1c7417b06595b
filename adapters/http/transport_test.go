package http_test

import (
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
)

func TestKeptConnectionTakesFurtherUploads(t *testing.T) {
	w := newWorld(t, http.Options{BodyTimeout: time.Minute}, adapters.Options{})
	base, client := serve(t, w.Adapter)
	for i := range 3 {
		r, _ := nethttp.NewRequestWithContext(t.Context(), "POST", base+"/telemetry", strings.NewReader("x"))
		r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 202 || resp.Close {
			t.Errorf("upload %d: got %d, close %v; want 202 on a kept connection", i, resp.StatusCode, resp.Close)
		}
	}
}
