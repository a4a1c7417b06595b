package management_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/functions/management"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
)

const ndjson = "application/x-ndjson"

// line is one line of the answer: a result, or the last one.
type line struct {
	Line     int
	ID       string
	Tenant   string `json:"tenant-id"`
	Status   int
	ETag     string
	AuthID   string `json:"auth-id"`
	Password string
	Error    string

	Done        *bool
	Items       int
	Succeeded   int
	Failed      int
	NotDoneFrom int `json:"not-done-from"`
}

// bulk sends a bulk request or an import and returns the results and the last line.
func (a *api) bulk(path, mediaType, body string) ([]line, line) {
	a.t.Helper()
	res, reply := a.request("POST", path, body, "Content-Type", mediaType)
	if res.StatusCode != 200 {
		a.t.Fatalf("got %d %s", res.StatusCode, reply)
	}
	return a.lines(reply)
}

func (a *api) lines(reply string) (results []line, last line) {
	a.t.Helper()
	for text := range strings.Lines(reply) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			a.t.Fatalf("%s: %v", text, err)
		}
		results = append(results, l)
	}
	if len(results) == 0 || results[len(results)-1].Done == nil {
		a.t.Fatalf("no last line: %s", reply)
	}
	last = results[len(results)-1]
	return results[:len(results)-1], last
}

type item struct {
	text   string
	status int
	error  string
}

var bulkItems = []item{
	{`{"op":"create","id":"d1","device":{"ext":{"a":1}}}`, 201, ""},
	{`{"op":"create","id":"d1"}`, 409, ""},
	{`{"op":"create"}`, 201, ""},
	{`{"op":"create","id":"d2","generate":true}`, 201, ""},
	{`{"op":"create","id":"d3","generate":true,"auth-id":"three","credentials":[{"type":"psk","auth-id":"p","secrets":[{"key":"AAAA"}]}]}`, 201, ""},
	{`{"op":"create","id":"d4","credentials":[{"type":"hashed-password","auth-id":"four","secrets":[{"pwd-plain":"x"}]}]}`, 201, ""},
	{`{"op":"create","id":"d5","credentials":[{"type":"hashed-password","auth-id":"four","secrets":[{"pwd-plain":"x"}]}]}`, 409, ""},
	{`{"op":"update","id":"d1","device":{"ext":{"a":2}}}`, 204, ""},
	{`{"op":"update","id":"none","device":{}}`, 404, ""},
	{`{"op":"update","id":"d1"}`, 400, "member device is missing"},
	{`{"op":"put","id":"d6","device":{"enabled":false}}`, 204, ""},
	{`{"op":"put","id":"d1","device":{"ext":{"a":3}},"if-match":"x"}`, 412, ""},
	{`{"op":"enable","id":"d6"}`, 204, ""},
	{`{"op":"disable","id":"d1"}`, 204, ""},
	{`{"op":"disable","id":"none"}`, 404, ""},
	{`{"op":"disable","id":"d1","device":{}}`, 400, "takes no device"},
	{`{"op":"delete","id":"d2"}`, 204, ""},
	{`{"op":"delete","id":"d2"}`, 404, ""},
	{`{"op":"delete"}`, 400, "member id is missing"},
	{`{"op":"drop","id":"d1"}`, 400, "op"},
	{`{"id":"d1"}`, 400, "op"},
	{`{"op":"create","id":"a b"}`, 400, "pattern"},
	{`{"op":"create","id":"a:b","generate":true}`, 400, "auth-id"},
	{`{"op":"create","id":"x","if-match":"y"}`, 400, "if-match"},
	{`{"op":"create","id":"x","auth-id":"y"}`, 400, "generate"},
	{`{"op":"create","id":"x","device":{"x":1}}`, 400, "unknown member"},
	{`{"op":"create","id":"x","x":1}`, 400, "unknown member"},
	{`{"op":"create","id":"x","credentials":[{"type":"hashed-password","auth-id":"y","secrets":[{"id":"1"}]}]}`, 400, "content"},
	{`{"op":"create","id":"x","credentials":{}}`, 400, "array"},
	{`[]`, 400, "object"},
	{`nonsense`, 400, "JSON"},
	{`{"op":"create","id":"d7"}`, 201, ""},
}

func TestBulk(t *testing.T) {
	for mediaType, body := range map[string]func([]string) string{
		ndjson:             func(items []string) string { return strings.Join(items, "\n") },
		"application/json": func(items []string) string { return " [" + strings.Join(items, " , ") + "]\n" },
	} {
		t.Run(mediaType, func(t *testing.T) {
			a := start(t, management.Options{})
			a.want(201, "POST", "/v1/tenants/T", "")
			var texts []string
			for _, i := range bulkItems {
				texts = append(texts, i.text)
			}
			results, last := a.bulk("/v1/bulk/devices/T", mediaType, body(texts))
			if len(results) != len(bulkItems) || !*last.Done || last.Items != len(bulkItems) || last.Succeeded+last.Failed != last.Items || last.NotDoneFrom != 0 {
				t.Fatalf("%d results for %d items, %+v", len(results), len(bulkItems), last)
			}
			for i, r := range results {
				want := bulkItems[i]
				if r.Line != i+1 || r.Status != want.status || (r.Error == "") != (want.status < 300) || !strings.Contains(r.Error, want.error) {
					t.Errorf("%s: got %+v, want %d %s", want.text, r, want.status, want.error)
				}
			}
			checkBulk(t, a, results)
		})
	}
}

func checkBulk(t *testing.T, a *api, results []line) {
	if results[2].ID == "" || results[16].ID != "d2" || results[30].ID != "" {
		t.Errorf("ids: %+v", results)
	}
	etag, _ := a.want(200, "GET", "/v1/devices/T/d7", "")
	if etag != results[31].ETag {
		t.Errorf("ETag %s, the result said %s", etag, results[31].ETag)
	}
	_, device := a.want(200, "GET", "/v1/devices/T/d1", "")
	if !strings.Contains(device, `"enabled":false`) || !strings.Contains(device, `"a":2`) {
		t.Errorf("got %s", device)
	}
	if r := results[4]; r.AuthID != "three" || len(r.Password) != 43 {
		t.Errorf("got %+v", r)
	}
	_, credentials := a.want(200, "GET", "/v1/credentials/T/d3", "")
	if !strings.Contains(credentials, `"type":"psk"`) || !strings.Contains(credentials, `"auth-id":"three"`) || strings.Contains(credentials, "pwd-hash") {
		t.Errorf("got %s", credentials)
	}
	total, _ := a.found("/v1/devices/T")
	if total != 6 {
		t.Errorf("%d devices", total)
	}
}

// TestBulkPassword expects a generated password and a hashed one to be verified.
func TestBulkPassword(t *testing.T) {
	service := newService(t, registry.Options{MaxBcryptCost: 4})
	a := startWith(t, service, management.Options{})
	a.want(201, "POST", "/v1/tenants/T", "")
	results, _ := a.bulk("/v1/bulk/devices/T", ndjson, `{"op":"create","id":"d1","generate":true}
{"op":"create","id":"d2","credentials":[{"type":"hashed-password","auth-id":"two","secrets":[{"pwd-plain":"geheim"}]}]}`)
	for authID, password := range map[string]string{"d1": results[0].Password, "two": "geheim"} {
		s, err := service.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}, Type: iot.HashedPassword, AuthID: authID})
		if err != nil || s.Credential == nil {
			t.Fatalf("%s: %v, %v", authID, s.Credential, err)
		}
		if _, err := service.Passwords().Verify(t.Context(), s.Credential, password, time.Now()); err != nil {
			t.Errorf("%s: %v", authID, err)
		}
		if s.Credential.Secrets[0].PwdPlain != "" || s.Credential.Secrets[0].ID == "" {
			t.Errorf("%s: stored as it was sent", authID)
		}
	}
}

func TestBulkRefused(t *testing.T) {
	a := start(t, management.Options{MaxBulk: 300, MaxBody: 1})
	a.want(201, "POST", "/v1/tenants/T", "", "Content-Type", "")
	const path = "/v1/bulk/devices/T"
	create := func(i int) string { return fmt.Sprintf("{\"op\":\"create\",\"id\":\"d%d\"}\n", i) }
	long := strings.Repeat(create(1), 20)
	_, reply := a.want(413, "POST", path, long, "Content-Type", "text/plain")
	if !strings.Contains(reply, "300 bytes") || !strings.Contains(reply, "split") {
		t.Errorf("got %s", reply)
	}
	a.want(400, "POST", path, create(1), "Content-Type", "text/plain")
	a.want(400, "POST", path, create(1), "Content-Type", "")
	a.want(400, "POST", path, "", "Content-Type", ndjson)
	a.want(404, "POST", "/v1/bulk/devices/U", create(1), "Content-Type", ndjson)
	a.want(400, "POST", "/v1/bulk/devices/a%20b", create(1), "Content-Type", ndjson)
	a.want(403, "POST", path, create(1), "Content-Type", ndjson, "Authorization", "Bearer reader")
	a.want(405, "GET", path, "")

	// Without a length, the limit is found on the way.
	r, _ := http.NewRequestWithContext(t.Context(), "POST", a.URL+path, io.MultiReader(strings.NewReader(long)))
	r.SetBasicAuth("admin", "pw")
	r.Header.Set("Content-Type", ndjson)
	res, err := a.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if _, last := a.lines(string(b)); *last.Done || last.Status != 413 || !strings.Contains(last.Error, "300 bytes") {
		t.Errorf("got %s", b)
	}

	for body, want := range map[string]struct {
		status, items int
		error         string
	}{
		`{"op":"create"}`:               {400, 0, "does not begin with ["},
		``:                              {0, 0, ""},
		`[`:                             {400, 0, "ends within"},
		`[{"op":"create"}`:              {400, 0, "ends within"},
		`[{"op":"create","id":"e1"},`:   {400, 1, "ends within"},
		`[{"op":"create","id":"e2"}] x`: {400, 1, "something after"},
		`[]`:                            {0, 0, ""},
		` [ ] `:                         {0, 0, ""},
		`[{"op":"create","id":"e3"},]`:  {0, 2, ""},
		`["]",{"a":"\"]"}]`:             {0, 2, ""},
	} {
		if body == "" {
			continue
		}
		_, last := a.bulk(path, "application/json", body)
		if last.Status != want.status || last.Items != want.items || !strings.Contains(last.Error, want.error) || *last.Done != (want.status == 0) {
			t.Errorf("%s: got %+v", body, last)
		}
	}
}

// TestBulkLongLines expects a line that is too long to be a result like others.
func TestBulkLongLines(t *testing.T) {
	a := start(t, management.Options{})
	a.want(201, "POST", "/v1/tenants/T", "")
	long := `{"op":"create","id":"long","device":{"ext":{"a":"` + strings.Repeat("x", 200_000) + `"}}}`
	body := `{"op":"create","id":"d1"}` + "\r\n\n  \n" + long + "\n" + `{"op":"create","id":"d2"}`
	results, last := a.bulk("/v1/bulk/devices/T", ndjson, body)
	if len(results) != 3 || !*last.Done || results[0].Status != 201 || results[1].Status != 413 || results[1].Line != 4 || results[2].Line != 5 || results[2].Status != 201 {
		t.Fatalf("got %+v, %+v", results, last)
	}
	results, _ = a.bulk("/v1/bulk/devices/T", "application/json", "["+long+`,{"op":"create","id":"d3"}]`)
	if len(results) != 2 || results[0].Status != 413 || results[1].Status != 201 {
		t.Fatalf("got %+v", results)
	}
}

// TestBulkLimits expects the limits of the tenant to hold.
func TestBulkLimits(t *testing.T) {
	a := start(t, management.Options{})
	a.want(201, "POST", "/v1/tenants/T", `{"registration-limits":{"max-devices":2,"max-credentials-per-device":1}}`)
	psk := func(n int) string {
		var set []string
		for i := range n {
			set = append(set, fmt.Sprintf(`{"type":"psk","auth-id":"%d","secrets":[{"key":"AA=="}]}`, i))
		}
		return "[" + strings.Join(set, ",") + "]"
	}
	results, _ := a.bulk("/v1/bulk/devices/T", ndjson, `{"op":"create","id":"d1","credentials":`+psk(1)+`}
{"op":"create","id":"d2","credentials":`+psk(2)+`}
{"op":"create","id":"d2"}
{"op":"create","id":"d3"}`)
	for i, want := range []int{201, 403, 201, 403} {
		if results[i].Status != want {
			t.Errorf("line %d: got %+v, want %d", i+1, results[i], want)
		}
	}
}

// TestBulkInterleaved expects results while more is still to be sent.
func TestBulkInterleaved(t *testing.T) {
	a := start(t, management.Options{})
	a.want(201, "POST", "/v1/tenants/T", "")
	in, out := io.Pipe()
	r, _ := http.NewRequestWithContext(t.Context(), "POST", a.URL+"/v1/bulk/devices/T", in)
	r.SetBasicAuth("admin", "pw")
	r.Header.Set("Content-Type", ndjson)
	go fmt.Fprintln(out, `{"op":"create","id":"d0"}`)
	res, err := a.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	replies := bufio.NewScanner(res.Body)
	for i := range 3 {
		if !replies.Scan() {
			t.Fatal(replies.Err())
		}
		if want := fmt.Sprintf(`{"line":%d,"id":"d%d","status":201`, i+1, i); !strings.HasPrefix(replies.Text(), want) {
			t.Fatalf("got %s, want %s", replies.Text(), want)
		}
		fmt.Fprintf(out, "{\"op\":\"create\",\"id\":\"d%d\"}\n", i+1)
	}
	out.Close()
	replies.Scan()
	if replies.Scan(); !strings.HasPrefix(replies.Text(), `{"done":true,"items":4`) {
		t.Fatalf("got %s", replies.Text())
	}
}

// TestBulkMany expects a hundred thousand devices in one call to leave no memory behind.
func TestBulkMany(t *testing.T) {
	a := start(t, management.Options{})
	a.want(201, "POST", "/v1/tenants/T", "")
	devices := 100_000 / slower
	source := &generator{devices: devices}
	r, _ := http.NewRequestWithContext(t.Context(), "POST", a.URL+"/v1/bulk/devices/T", source)
	r.SetBasicAuth("admin", "pw")
	r.Header.Set("Content-Type", ndjson)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	res, err := a.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	replies := bufio.NewScanner(res.Body)
	n := 0
	var last line
	for replies.Scan() {
		if n++; n <= devices && !bytes.Contains(replies.Bytes(), []byte(`"status":201`)) {
			t.Fatalf("line %d: %s", n, replies.Text())
		}
		if n > devices {
			if err := json.Unmarshal(replies.Bytes(), &last); err != nil {
				t.Fatal(err)
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n != devices+1 || last.Done == nil || !*last.Done || last.Succeeded != devices {
		t.Fatalf("%d lines, last %+v, %v", n, last, replies.Err())
	}
	t.Logf("%d devices in %v, heap %d KiB before and %d KiB after", devices, time.Since(began), before.HeapAlloc>>10, after.HeapAlloc>>10)
	if total, _ := a.found("/v1/devices/T", "pageSize=1"); total != devices {
		t.Fatalf("%d devices", total)
	}
}

// TestBulkSendsFirst expects a client that reads nothing before it has sent all
// to be served.
func TestBulkSendsFirst(t *testing.T) {
	a := start(t, management.Options{})
	a.want(201, "POST", "/v1/tenants/T", "")
	const items = 60_000 / slower // whose results do not fit into the buffers of a connection
	body := strings.Repeat("{\"op\":\"delete\",\"id\":\"none\"}\n", items)
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(a.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = fmt.Fprintf(c, "POST /v1/bulk/devices/T HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", ndjson, len(body), body)
	if err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(c)
	for range 2 { // the connection serves another request
		res, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), fmt.Sprintf(`{"done":true,"items":%d`, items)) && !strings.Contains(string(b), `{"id":`) {
			t.Fatalf("got %d bytes that end with %s", len(b), b[max(0, len(b)-200):])
		}
		fmt.Fprint(c, "POST /v1/devices/T HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n\r\n")
	}
}

// failing is a store whose bulk writes and exports fail after some calls.
type failing struct {
	*sqlitestore.Store

	mu    sync.Mutex
	armed bool
	good  int
	err   error
}

// fail has the calls after the next good ones fail with err, or panic for nil.
func (f *failing) fail(good int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.good, f.err = true, good, err
}

func (f *failing) broken() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.good--; f.armed && f.good < 0 && f.err == nil {
		panic("secret internals")
	}
	return f.armed && f.good < 0
}

func (f *failing) ApplyDevices(ctx context.Context, tenant iot.TenantID, writes []registry.DeviceWrite, maxDevices int64) ([]error, error) {
	if f.broken() {
		return nil, f.err
	}
	return f.Store.ApplyDevices(ctx, tenant, writes, maxDevices)
}

func (f *failing) Export(ctx context.Context, tenant iot.TenantID, after iot.DeviceID, max int) ([]registry.FullDevice, error) {
	if f.broken() {
		return nil, f.err
	}
	return f.Store.Export(ctx, tenant, after, max)
}

func newFailing(t *testing.T) (*registry.Service, *failing) {
	t.Helper()
	store, err := sqlitestore.Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"), sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	f := &failing{Store: store}
	service, err := registry.New(f, registry.Options{MaxBcryptCost: 4})
	if err != nil {
		t.Fatal(err)
	}
	return service, f
}

// TestBulkStoreFails expects the last line to say what was not done.
func TestBulkStoreFails(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		text   string
	}{
		{iot.Errorf(iot.ErrUnavailable, "the store is down"), 503, "the store is down"},
		{errors.New("secret internals"), 500, "internal error"},
	} {
		service, f := newFailing(t)
		f.fail(2, c.err)
		a := startWith(t, service, management.Options{})
		a.want(201, "POST", "/v1/tenants/T", "")
		var body strings.Builder
		for i := range 5000 {
			fmt.Fprintf(&body, "{\"op\":\"create\",\"id\":\"d%d\"}\n", i)
		}
		results, last := a.bulk("/v1/bulk/devices/T", ndjson, body.String())
		if *last.Done || last.Status != c.status || last.Error != c.text || last.NotDoneFrom != len(results)+1 || last.Items != len(results) {
			t.Fatalf("%d results, %+v", len(results), last)
		}
		if total, _ := a.found("/v1/devices/T"); total != last.Succeeded {
			t.Fatalf("%d devices, %+v", total, last)
		}
	}
}

// TestBulkPanics expects an end that can be told from success, and no other harm.
func TestBulkPanics(t *testing.T) {
	service, f := newFailing(t)
	f.fail(0, nil)
	a := startWith(t, service, management.Options{})
	a.want(201, "POST", "/v1/tenants/T", "")
	results, last := a.bulk("/v1/bulk/devices/T", ndjson, `{"op":"create","id":"d"}`)
	if len(results) != 0 || *last.Done || last.Status != 500 || strings.Contains(last.Error, "secret") {
		t.Fatalf("got %+v", last)
	}
	a.want(201, "POST", "/v1/devices/T/D", "")
}

// generator writes items as they are read.
type generator struct {
	devices, next int
	rest          []byte
}

func (g *generator) Read(b []byte) (int, error) {
	for len(g.rest) == 0 {
		if g.next == g.devices {
			return 0, io.EOF
		}
		for range min(500, g.devices-g.next) {
			g.rest = fmt.Appendf(g.rest, "{\"op\":\"create\",\"id\":\"device-%06d\",\"device\":{\"ext\":{\"serial\":%d}},\"generate\":true}\n", g.next, g.next)
			g.next++
		}
	}
	n := copy(b, g.rest)
	g.rest = g.rest[n:]
	return n, nil
}
