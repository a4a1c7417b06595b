package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// reachableAPI answers as the management API does: two pages, and two devices.
func reachableAPI(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path + "?" + r.URL.RawQuery {
		case "/v1/reachable/T?max=1000", "/v1/reachable/T?max=3":
			fmt.Fprint(w, `{"result":[{"device-id":"a","adapter":"http-0/1","since":"2026-01-31T12:00:00Z","until":"2026-01-31T12:01:00Z"},`+
				`{"device-id":"b","adapter":"mqtt-0/2","since":"2026-01-31T11:00:00Z","gateway":true}],"next":"b"}`)
		case "/v1/reachable/T?after=b&max=1000", "/v1/reachable/T?after=b&max=1":
			fmt.Fprint(w, `{"result":[{"device-id":"c","adapter":"mqtt-0/2","since":"2026-01-31T11:00:00Z"}]}`)
		case "/v1/reachable/NONE?max=1000":
			fmt.Fprint(w, `{"result":[]}`)
		case "/v1/reachable/GONE?max=1000":
			fmt.Fprint(w, `{"result":[]}`)
		case "/v1/tenants/GONE?":
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":"tenant does not exist"}`)
		case "/v1/reachable/T/no-device?":
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":"device is disabled or not registered"}`)
		case "/v1/reachable/T/a?":
			fmt.Fprint(w, `{"device-id":"a","reachable":true,"via":"gw","adapter":"http-0/1","since":"2026-01-31T12:00:00Z"}`)
		case "/v1/reachable/T/d?":
			fmt.Fprint(w, `{"device-id":"d","reachable":false}`)
		case "/v1/reachable/T/odd?":
			fmt.Fprint(w, `{}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"error":"no such resource"}`)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestDeviceReachable(t *testing.T) {
	url := reachableAPI(t)
	heading := "DEVICE  ADAPTER   SINCE                 UNTIL                 GATEWAY\n"
	for name, c := range map[string]struct {
		args         []string
		out, failure string
	}{
		"all": {args: []string{"T"}, out: heading +
			"a       http-0/1  2026-01-31T12:00:00Z  2026-01-31T12:01:00Z  no\n" +
			"b       mqtt-0/2  2026-01-31T11:00:00Z  -                     yes\n" +
			"c       mqtt-0/2  2026-01-31T11:00:00Z  -                     no\n"},
		"none":       {args: []string{"NONE"}, out: "DEVICE  ADAPTER  SINCE  UNTIL  GATEWAY\n"},
		"as JSON":    {args: []string{"T", "-o", "json", "--limit", "3"}, out: "{3 lines}"},
		"one":        {args: []string{"T", "a"}, out: "a can be reached via gw through http-0/1 since 2026-01-31T12:00:00Z until further notice\n"},
		"not":        {args: []string{"T", "d"}, failure: "d cannot be reached"},
		"not (JSON)": {args: []string{"T", "d", "-o", "json"}, out: "{\"device-id\":\"d\",\"reachable\":false}\n", failure: "d cannot be reached"},
		"no tenant":  {args: []string{"GONE"}, failure: "GONE: tenant does not exist (404)"},
		"no device":  {args: []string{"T", "no-device"}, failure: "T/no-device: device is disabled or not registered (404)"},
		"no router":  {args: []string{"X"}, failure: "does not know which devices can be reached (404): where routers are"},
		"older API":  {args: []string{"T", "odd"}, failure: "answers what is not expected"},
		"limit":      {args: []string{"T", "--limit", "-1"}, failure: "--limit -1"},
	} {
		t.Run(name, func(t *testing.T) {
			got := runWith(t, newDeviceCommand(), nil, append([]string{"reachable", "--url", url, "--user", "op", "--password", "pw"}, c.args...)...)
			if c.failure == "" && got.failure != nil || c.failure != "" && (got.failure == nil || !strings.Contains(got.failure.Error(), c.failure)) {
				t.Errorf("got %v, want %q", got.failure, c.failure)
			}
			if c.out == "{3 lines}" {
				if strings.Count(got.out, "\n") != 3 || !strings.HasPrefix(got.out, `{"device-id":"a",`) {
					t.Errorf("printed %q", got.out)
				}
				return
			}
			if got.out != c.out {
				t.Errorf("printed\n%swant\n%s", got.out, c.out)
			}
		})
	}
}
