package dynamostore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/dynamostore"
)

// serve answers on a free port until the test ends.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l) // ends with Close
	t.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String()
}

// wire counts requests by operation and breaks them where a test says so.
type wire struct {
	mu     sync.Mutex
	counts map[string]int
	// before may answer in place of the server, after may lose its answer.
	before func(operation string) (*http.Response, error)
	after  func(operation string) error
}

func (w *wire) Do(r *http.Request) (*http.Response, error) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	w.mu.Lock()
	if w.counts == nil {
		w.counts = make(map[string]int)
	}
	w.counts[operation]++
	before, after := w.before, w.after
	w.mu.Unlock()
	if before != nil {
		if resp, err := before(operation); resp != nil || err != nil {
			return resp, err
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err == nil && after != nil {
		if lost := after(operation); lost != nil {
			resp.Body.Close()
			return nil, lost
		}
	}
	return resp, err
}

// taken returns the counts since the last call, as text.
func (w *wire) taken() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprint(w.counts)
	w.counts = nil
	return strings.TrimPrefix(text, "map")
}

func (w *wire) set(before func(string) (*http.Response, error), after func(string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before, w.after = before, after
}

func wired(t *testing.T) (*dynamostore.Store, *wire, dynamostore.Options) {
	w := &wire{}
	o := options(t)
	o.HTTPClient = w
	s := open(t, o)
	must(t, s.CreateTenant(t.Context(), tenant("T")))
	w.taken()
	return s, w, o
}

// TestRequests holds what operations cost, so that nobody makes them dearer
// unnoticed.
func TestRequests(t *testing.T) {
	s, w, o := wired(t)
	cold := open(t, o)
	w.taken()
	ctx := t.Context()
	group := device("in a group")
	group.Device.ViaGroups = []string{"g"}
	read := func(q registry.Query) func() error {
		return func() error {
			q.Tenant.ID = "T"
			snap, err := cold.Read(ctx, q)
			if err == nil && snap.Device == nil {
				err = errors.New("nothing found")
			}
			return err
		}
	}
	many := make([]registry.DeviceWrite, 98)
	for i := range many {
		many[i] = registry.DeviceWrite{Op: registry.CreateOp, Device: device(iot.DeviceID(fmt.Sprint("many", i))), CredentialsVersion: "c"}
	}
	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"create device", func() error { return s.CreateDevice(ctx, device("D"), "c", -1) }, "[TransactWriteItems:1]"},
		{"create device, cold", func() error { return cold.CreateDevice(ctx, device("E"), "c", 9) }, "[GetItem:1 TransactWriteItems:1]"},
		{"create device, counter moved", func() error { return s.CreateDevice(ctx, group, "c", -1) }, "[TransactWriteItems:2]"},
		{"update device", func() error { return s.UpdateDevice(ctx, device("D"), "v1") }, "[GetItem:1 TransactWriteItems:1]"},
		{"put credentials", func() error { return s.PutCredentials(ctx, set("D", "c2", password("a"), password("b")), "", at) },
			"[BatchGetItem:1 TransactWriteItems:1]"},
		{"read, own credential", read(registry.Query{Type: iot.HashedPassword, AuthID: "a"}), "[GetItem:1 TransactGetItems:2]"},
		{"read, as gateway", read(registry.Query{Type: iot.HashedPassword, AuthID: "a", Device: "E"}), "[GetItem:1 TransactGetItems:2]"},
		{"read, device", read(registry.Query{Device: "D"}), "[GetItem:1 TransactGetItems:1]"},
		{"read, device and gateway", read(registry.Query{Device: "D", Gateway: "E"}), "[GetItem:1 TransactGetItems:1]"},
		{"read, device with group", read(registry.Query{Device: "in a group"}), "[GetItem:1 Query:1 TransactGetItems:1]"},
		{"get device", func() error { _, err := s.Device(ctx, "T", "D"); return err }, "[GetItem:2]"},
		{"create many", func() error { _, err := s.ApplyDevices(ctx, "T", many, -1); return err }, "[BatchGetItem:2 TransactWriteItems:2]"},
		{"nothing new", func() error {
			_, _, err := s.Changes(ctx, registry.Position{Sequences: map[iot.TenantID]uint64{"T": 104}}, 9)
			return err
		}, "[GetItem:1]"},
		{"plain search", func() error {
			page, err := s.SearchDevices(ctx, "T", registry.Search{Offset: 50, Limit: 10})
			if err == nil && (page.Total != 101 || len(page.Devices) != 10) {
				err = fmt.Errorf("got %d of %d", len(page.Devices), page.Total)
			}
			return err
		}, "[GetItem:1 Query:2]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, c.do())
			if got := w.taken(); got != c.want {
				t.Fatalf("got requests %s, want %s", got, c.want)
			}
		})
	}
}

var errCut = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}

// TestLostAnswer loses the answers to transactions that were made.
func TestLostAnswer(t *testing.T) {
	for _, c := range []struct {
		name string
		lost int32 // in a row; the SDK tries three times, then the counter is looked at
		want error
	}{
		{"once", 1, nil},
		{"twice", 2, nil},
		{"to the transaction", 3, nil},
		{"for good", 6, iot.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, w, _ := wired(t)
			var lost atomic.Int32
			w.set(nil, func(string) error {
				if lost.Add(1) <= c.lost {
					return errCut
				}
				return nil
			})
			if err := s.CreateDevice(t.Context(), device("D"), "c", -1); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			must(t, s.CreateDevice(t.Context(), device("E"), "c", -1))
			changes, _, err := s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": 0}}, 10)
			must(t, err)
			if len(changes) != 3 || changes[1].Device != "D" || changes[2].Device != "E" || changes[2].Sequence != 3 {
				t.Fatalf("got changes %+v, want tenant, D and E, each once", changes)
			}
			page, err := s.SearchDevices(t.Context(), "T", registry.Search{Limit: 9})
			must(t, err)
			if page.Total != 2 {
				t.Fatalf("counted %d devices, want 2", page.Total)
			}
		})
	}
}

func answer(status int, code string) *http.Response {
	body := fmt.Sprintf(`{"__type":"com.amazonaws.dynamodb.v20120810#%s","message":"secret internals"}`, code)
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		Body: io.NopCloser(bytes.NewReader([]byte(body)))}
}

func TestUnavailable(t *testing.T) {
	s, w, _ := wired(t)
	for _, c := range []struct {
		name  string
		fault func(string) (*http.Response, error)
	}{
		{"refused", func(string) (*http.Response, error) { return nil, errCut }},
		{"500", func(string) (*http.Response, error) { return answer(500, "InternalServerError"), nil }},
		{"503", func(string) (*http.Response, error) { return answer(503, "ServiceUnavailable"), nil }},
		{"throttled", func(string) (*http.Response, error) {
			return answer(400, "ProvisionedThroughputExceededException"), nil
		}},
		{"no right", func(string) (*http.Response, error) { return answer(400, "AccessDeniedException"), nil }},
		{"table gone", func(string) (*http.Response, error) { return answer(400, "ResourceNotFoundException"), nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.set(c.fault, nil)
			defer w.set(nil, nil)
			_, read := s.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}})
			errs := map[string]error{"read": read, "create": s.CreateDevice(t.Context(), device("D"), "c", -1)}
			if c.name == "refused" {
				_, _, errs["feed"] = s.Changes(t.Context(), registry.Position{Since: at}, 9)
				_, errs["bulk"] = s.ApplyDevices(t.Context(), "T", []registry.DeviceWrite{{Op: registry.DeleteOp, Device: device("D")}}, -1)
				errs["key"] = s.PutSigningKey(t.Context(), assertion.StoredKey{KID: "k"})
			}
			for name, err := range errs {
				var own *iot.Error
				if !errors.Is(err, iot.ErrUnavailable) || !errors.As(err, &own) || own.RetryAfter < time.Second || strings.Contains(own.Text, "internals") {
					t.Errorf("%s: got %v, want iot.ErrUnavailable with RetryAfter and no internals", name, err)
				}
			}
		})
	}
	must(t, s.CreateDevice(t.Context(), device("D"), "c", -1)) // and it recovers
}

// TestSilent has a server that takes requests and does not answer.
func TestSilent(t *testing.T) {
	o := options(t)
	o.Timeout = 50 * time.Millisecond
	o.Endpoint = serve(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // then the end of the client shows
		<-r.Context().Done()
	})
	if _, err := dynamostore.Open(t.Context(), o); !errors.Is(err, iot.ErrUnavailable) {
		t.Fatalf("got %v, want iot.ErrUnavailable", err)
	}
}

// TestNoPatience has the counter move on without end.
func TestNoPatience(t *testing.T) {
	_, w, o := wired(t)
	o.Patience = 100 * time.Millisecond
	s := open(t, o)
	w.set(func(operation string) (*http.Response, error) {
		if operation != "TransactWriteItems" {
			return nil, nil
		}
		r := answer(400, "")
		r.Body = io.NopCloser(strings.NewReader(`{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","message":"m",` +
			`"CancellationReasons":[{"Code":"TransactionConflict"},{"Code":"None"},{"Code":"None"}]}`))
		return r, nil
	}, nil)
	err := s.CreateDevice(t.Context(), device("D"), "c", -1)
	if !errors.Is(err, iot.ErrUnavailable) || iot.RetryAfter(err) == 0 {
		t.Fatalf("got %v, want iot.ErrUnavailable with RetryAfter", err)
	}
}

// TestCuts has the network fail at random in the middle of many creations
// whose callers try again: each device is there once.
func TestCuts(t *testing.T) {
	const devices, workers = 160, 8
	s, w, _ := wired(t)
	cut := func(string) error {
		if rand.IntN(20) == 0 {
			return errCut
		}
		return nil
	}
	w.set(func(operation string) (*http.Response, error) { return nil, cut(operation) }, cut)
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			for n := i; n < devices; n += workers {
				err := iot.ErrUnavailable
				for errors.Is(err, iot.ErrUnavailable) {
					err = s.CreateDevice(t.Context(), device(iot.DeviceID(fmt.Sprint("D", n))), "c", -1)
				}
				if err != nil && !errors.Is(err, iot.ErrExists) { // made by a call that did not learn it
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	w.set(nil, nil)
	changes, _, err := s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": 1}}, 1000)
	must(t, err)
	seen := make(map[iot.DeviceID]bool)
	for i, c := range changes {
		if c.Sequence != uint64(i+2) || seen[c.Device] {
			t.Fatalf("change %d of %s has sequence %d and is not its first", i, c.Device, c.Sequence)
		}
		seen[c.Device] = true
	}
	page, err := s.SearchDevices(t.Context(), "T", registry.Search{Limit: devices})
	must(t, err)
	if len(seen) != devices || page.Total != devices || len(page.Devices) != devices {
		t.Fatalf("got %d changes, a count of %d and %d devices, want %d", len(seen), page.Total, len(page.Devices), devices)
	}
}

// replay answers reads of one device with an old answer, once.
type replay struct {
	mu    sync.Mutex
	old   []byte
	armed bool
	used  bool
}

func (p *replay) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	resp, err := http.DefaultClient.Do(r)
	if err != nil || !strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetItem") || !bytes.Contains(body, []byte(`{"S":"D"}`)) {
		return resp, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.armed {
		p.armed, p.used = false, true
		resp.Body.Close()
		resp.Header.Del("X-Amz-Crc32")
		resp.Header.Set("Content-Length", fmt.Sprint(len(p.old)))
		resp.ContentLength = int64(len(p.old))
	} else if p.old, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(p.old))
	return resp, nil
}

// TestOldItem has a plain read see a device as it was before a change that the
// counter tells of already, as DynamoDB allows while it applies a transaction.
func TestOldItem(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*testing.T, *dynamostore.Store) error
	}{
		{"update", func(t *testing.T, s *dynamostore.Store) error { return s.UpdateDevice(t.Context(), device("D"), "v1") }},
		{"delete", func(t *testing.T, s *dynamostore.Store) error { return s.DeleteDevice(t.Context(), "T", "D", "v1", at) }},
		{"mark", func(t *testing.T, s *dynamostore.Store) error {
			return s.MarkNotified(t.Context(), "T", "D", "v1", "v3", at)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t)
			other := open(t, o)
			p := &replay{}
			o.HTTPClient = p
			s := open(t, o)
			must(t, other.CreateTenant(t.Context(), tenant("T")), other.CreateDevice(t.Context(), device("D"), "c", -1))
			_, err := s.Device(t.Context(), "T", "D")
			must(t, err)
			second := device("D")
			second.Version = "v2"
			must(t, other.UpdateDevice(t.Context(), second, "v1"), s.CreateDevice(t.Context(), device("E"), "c", -1))
			p.armed = true
			if err := c.change(t, s); !errors.Is(err, iot.ErrVersion) || !p.used {
				t.Fatalf("got %v, want iot.ErrVersion; old answer used: %t", err, p.used)
			}
		})
	}
}
