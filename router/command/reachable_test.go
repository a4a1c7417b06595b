package command_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/command"
)

// asking is a handler with what it is asked about.
type asking struct {
	*others
	http.Handler
}

// newAsking lets those ask who say that they may.
func newAsking(t testing.TB) *asking {
	o := newOthers(t)
	return &asking{o, command.NewReachable(command.ReachableOptions{Directory: o.Directory, Permit: func(r *http.Request, tenant iot.TenantID) error {
		switch r.Header.Get("Authorization") {
		case "":
			return iot.Errorf(iot.ErrUnauthenticated, "who are you")
		case "may " + string(tenant):
			return nil
		}
		return iot.Errorf(iot.ErrForbidden, "not for you")
	}})}
}

// get asks as somebody who may for the tenant T.
func (a *asking) get(path string, may ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if may == nil {
		may = []string{"may T"}
	}
	r.Header.Set("Authorization", may[0])
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

func TestReachableDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(t)
		c := consumer("d", "hono-mqtt-1")
		a.register(t, c)
		c = consumer("gw2", "hono-http-1")
		c.Lifespan = 30 * time.Second
		a.register(t, c)
		a.register(t, consumer("away", "gone"))
		a.absent["command_internal/gone"] = true
		since := time.Now().UTC()
		text := func(t time.Time) string { return t.Format(time.RFC3339Nano) }
		for path, want := range map[string]string{
			"d":     `{"device-id":"d","reachable":true,"adapter":"hono-mqtt-1","since":"` + text(since) + `"}`,
			"other": `{"device-id":"other","reachable":true,"via":"gw2","adapter":"hono-http-1","since":"` + text(since.Add(time.Millisecond)) + `","until":"` + text(since.Add(30*time.Second)) + `"}`,
			"a%2Fb": `{"device-id":"a/b","reachable":true,"via":"gw2","adapter":"hono-http-1","since":"` + text(since.Add(time.Millisecond)) + `","until":"` + text(since.Add(30*time.Second)) + `"}`,
			"away":  `{"device-id":"away","reachable":true,"via":"gw2","adapter":"hono-http-1","since":"` + text(since.Add(time.Millisecond)) + `","until":"` + text(since.Add(30*time.Second)) + `"}`,
		} {
			if w := a.get("/v1/reachable/T/" + path); w.Code != 200 || strings.TrimSpace(w.Body.String()) != want || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%s: %d %s\nwant %s", path, w.Code, w.Body, want)
			}
		}
		time.Sleep(30 * time.Second)
		if w := a.get("/v1/reachable/T/away"); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"device-id":"away","reachable":false}` {
			t.Errorf("nobody is there: %d %s", w.Code, w.Body)
		}
		if w := a.get("/v1/reachable/T/other"); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"device-id":"other","reachable":false}` {
			t.Errorf("later: %d %s", w.Code, w.Body)
		}
		a.Directory.Close()
	})
}

func TestReachableThatIsRefused(t *testing.T) {
	a := newAsking(t)
	for _, tt := range []struct {
		name, path, may string
		code            int
		text            string
	}{
		{"nobody", "/v1/reachable/T", "", 401, "who are you"},
		{"nobody, one device", "/v1/reachable/T/d", "", 401, "who are you"},
		{"another tenant", "/v1/reachable/T", "may OTHER", 403, "not for you"},
		{"another tenant's device", "/v1/reachable/T/d", "may OTHER", 403, "not for you"},
		{"not registered", "/v1/reachable/T/none", "may T", 404, "no such"},
		{"unknown tenant", "/v1/reachable/OTHER/d", "may OTHER", 404, "no such"},
		{"max is no number", "/v1/reachable/T?max=many", "may T", 400, `query parameter max is "many": expected 1 to 1000`},
		{"max too large", "/v1/reachable/T?max=1001", "may T", 400, `query parameter max is "1001": expected 1 to 1000`},
		{"max twice", "/v1/reachable/T?max=1&max=2", "may T", 400, "query parameter max is given 2 times"},
		{"unknown parameter", "/v1/reachable/T?page=1", "may T", 400, `unknown query parameter "page": expected after and max`},
		{"torn query", "/v1/reachable/T?max=%zz", "may T", 400, "the query of the URL is malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := a.get(tt.path, tt.may)
			var body struct{ Error string }
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != tt.code || body.Error != tt.text {
				t.Errorf("got %d %s, want %d %q", w.Code, w.Body, tt.code, tt.text)
			}
			if got := w.Header().Get("WWW-Authenticate"); (tt.code == 401) != (got == `Basic realm="Sluice"`) {
				t.Errorf("WWW-Authenticate: %q", got)
			}
		})
	}
	for path, want := range map[string]int{"/v1/reachable/": 404, "/v1/reachable/T/d/x": 404, "/v1/devices/T": 404} {
		if w := a.get(path); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	w := httptest.NewRecorder()
	if a.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/reachable/T", nil)); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestReachablePages(t *testing.T) {
	a := newAsking(t)
	var want []string
	for i := range 250 {
		device := fmt.Sprintf("d %03d&", i)
		instance := "here"
		if i%10 == 9 {
			instance = "gone"
		} else {
			want = append(want, device)
		}
		a.register(t, consumer(iot.DeviceID(device), instance))
	}
	a.absent["command_internal/gone"] = true
	for _, size := range []int{0, 1, 7, 10, 249, 250, 1000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			var got []string
			for after, more := "", true; more; {
				query := []string{}
				if size > 0 {
					query = append(query, fmt.Sprint("max=", size))
				}
				if after != "" {
					query = append(query, "after="+strings.NewReplacer(" ", "%20", "&", "%26").Replace(after))
				}
				w := a.get("/v1/reachable/T?" + strings.Join(query, "&"))
				var page struct {
					Result []struct {
						Device string `json:"device-id"`
					}
					Next string
				}
				if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
				if most := max(size, 1); size > 0 && len(page.Result) > most || size == 0 && len(page.Result) > 100 {
					t.Errorf("%d on one page", len(page.Result))
				}
				for _, r := range page.Result {
					got = append(got, r.Device)
				}
				after, more = page.Next, page.Next != ""
			}
			if !slices.Equal(got, want) {
				t.Error(cmp.Diff(want, got))
			}
		})
	}
	if w := a.get("/v1/reachable/EMPTY", "may EMPTY"); w.Code != 200 || w.Body.String() != "{\"result\":[]}\n" {
		t.Errorf("a tenant without: %d %s", w.Code, w.Body)
	}
}

// BenchmarkReachable is one page of a hundred of a tenant's devices.
func BenchmarkReachable(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := newAsking(b)
			rows := make([]command.Row, n)
			for i := range rows {
				rows[i] = command.Row{Tenant: "T", Device: iot.DeviceID(fmt.Sprint("device-", i)), At: 1}
			}
			if err := a.SetForeign("a", rows...); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if w := a.get("/v1/reachable/T?after=device-5"); w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
