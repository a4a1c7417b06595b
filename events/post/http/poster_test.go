package http_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/events/post/http"
	"github.com/sluice-iot/sluice/internal/iot"
)

var at = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func change(n int) events.Fact {
	return events.RegistryChanged{Type: events.TypeDeviceChanged, TenantID: "T", DeviceID: "D", Sequence: uint64(n), Change: "UPDATE", At: at}
}

func changes(n int) (list []events.Fact) {
	for i := range n {
		list = append(list, change(i+1))
	}
	return list
}

var born events.Fact = events.DeviceProvisioned{TenantID: "T", DeviceID: "D", Method: events.ByCertificate, At: at}

// place is a receiver of facts.
type place struct {
	*httptest.Server
	mu       sync.Mutex
	requests int
	got      []events.Fact
	answer   func(facts []events.Fact) int
	hang     chan struct{}
}

// listen starts a receiver at an address of loopback.
func listen(t *testing.T, address string) *place {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("no second loopback address: %v", err)
	}
	p := &place{}
	p.Server = httptest.NewUnstartedServer(nethttp.HandlerFunc(p.serve))
	p.Listener.Close()
	p.Listener = l
	p.Start()
	t.Cleanup(p.Close)
	return p
}

func (p *place) port() string {
	_, port, _ := net.SplitHostPort(p.Listener.Addr().String())
	return port
}

func (p *place) serve(w nethttp.ResponseWriter, r *nethttp.Request) {
	body, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	p.requests++
	hang := p.hang
	p.mu.Unlock()
	if hang != nil {
		<-hang
	}
	var facts []events.Fact
	if cehttp.ModeOf(r.Header) == cehttp.Batched {
		list, errs, err := cehttp.ReadBatch(body, 1000)
		if err = errors.Join(append(errs, err)...); err != nil {
			nethttp.Error(w, err.Error(), 400)
			return
		}
		for i := range list {
			f, err := events.DecodeFact(&list[i])
			if err != nil {
				nethttp.Error(w, err.Error(), 400)
				return
			}
			facts = append(facts, f)
		}
	} else {
		e, err := cehttp.Read(r.Header, body)
		if err != nil {
			nethttp.Error(w, err.Error(), 400)
			return
		}
		f, err := events.DecodeFact(&e)
		if err != nil {
			nethttp.Error(w, err.Error(), 400)
			return
		}
		facts = append(facts, f)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	code := 202
	if p.answer != nil {
		code = p.answer(facts)
	}
	if code == 202 {
		p.got = append(p.got, facts...)
	}
	w.WriteHeader(code)
}

func (p *place) always(code int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = func([]events.Fact) int { return code }
}

func (p *place) facts() []events.Fact {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

func (p *place) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests
}

func poster(t *testing.T, c http.Config) *http.Poster {
	t.Helper()
	c.Name = "sluice.local"
	p, err := http.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// two starts two routers behind one name.
func two(t *testing.T) (a, b *place, c http.Config) {
	t.Helper()
	a = listen(t, "127.0.0.1:0")
	b = listen(t, "127.0.0.2:"+a.port())
	c.URLs = []string{"http://routers.test:" + a.port()}
	c.Resolve = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")}, nil
	}
	return a, b, c
}

func TestEveryRouterHasEveryChange(t *testing.T) {
	a, b, c := two(t)
	c.MaxBatch = 10
	p := poster(t, c)
	want := changes(25)
	if err := p.Post(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*place{a, b} {
		if d := cmp.Diff(want, x.facts()); d != "" {
			t.Error(d)
		}
		if x.count() != 3 {
			t.Errorf("%d requests for 25 facts in batches of 10", x.count())
		}
	}
	if err := p.Post(t.Context(), nil); err != nil || a.count() != 3 {
		t.Error("nothing is posted as something", err)
	}
}

func TestBatchesAreBoundedInBytes(t *testing.T) {
	a := listen(t, "127.0.0.1:0")
	p := poster(t, http.Config{URLs: []string{a.URL}, MaxBatchBytes: 1500})
	if err := p.Post(t.Context(), changes(10)); err != nil {
		t.Fatal(err)
	}
	if len(a.facts()) != 10 || a.count() != 5 {
		t.Errorf("%d facts in %d requests", len(a.facts()), a.count())
	}
}

func TestOneRouterTellsOfAProvisionedDevice(t *testing.T) {
	a, b, c := two(t)
	p := poster(t, c)
	for range 10 {
		if err := p.Post(t.Context(), []events.Fact{born}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(a.facts()) + len(b.facts()); n != 10 {
		t.Errorf("told %d times, want once each", n)
	}
	a.always(503)
	for range 10 {
		if err := p.Post(t.Context(), []events.Fact{born, change(1)}); !errors.Is(err, iot.ErrUnavailable) {
			t.Fatal(err) // the change was not taken by a
		}
		if err := p.Post(t.Context(), []events.Fact{born}); err != nil {
			t.Fatal(err)
		}
	}
	b.always(503)
	if err := p.Post(t.Context(), []events.Fact{born}); !errors.Is(err, iot.ErrUnavailable) {
		t.Error(err)
	}
}

func TestTellAndCopy(t *testing.T) {
	a := listen(t, "127.0.0.1:0")
	sink := listen(t, "127.0.0.1:0")
	p := poster(t, http.Config{URLs: []string{a.URL}, Sink: sink.URL})
	if err := p.Tell(t.Context(), []events.Fact{born}); err != nil || a.count() != 1 || sink.count() != 0 {
		t.Error(err, a.count(), sink.count())
	}
	if p.Copy(t.Context(), []events.Fact{born}); a.count() != 1 || sink.count() != 1 {
		t.Error(a.count(), sink.count())
	}
	only := poster(t, http.Config{Sink: sink.URL})
	if err := only.Tell(t.Context(), []events.Fact{born}); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("without a router: %v", err)
	}
}

func TestWhatRoutersDoNotTakeGoesToTheFallback(t *testing.T) {
	for _, batched := range []bool{false, true} {
		a, b, c := two(t)
		broker := listen(t, "127.0.0.1:0")
		c.Fallback, c.SinkBatched = broker.URL+"/topic", batched
		p := poster(t, c)
		if err := p.Post(t.Context(), changes(3)); err != nil || broker.count() != 0 {
			t.Fatal(err, broker.count())
		}
		b.Close()
		if err := p.Post(t.Context(), []events.Fact{change(4), born}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]events.Fact{change(4)}, broker.facts()); d != "" || len(a.facts()) < 4 {
			t.Error(d)
		}
		broker.always(503)
		if err := p.Post(t.Context(), []events.Fact{change(5)}); !errors.Is(err, iot.ErrUnavailable) {
			t.Error(err)
		}
	}
}

func TestSinkGetsACopyOfAll(t *testing.T) {
	a := listen(t, "127.0.0.1:0")
	sink := listen(t, "127.0.0.1:0")
	p := poster(t, http.Config{URLs: []string{a.URL}, Sink: sink.URL, Fallback: sink.URL})
	if err := p.Post(t.Context(), append(changes(20), born)); err != nil {
		t.Fatal(err)
	}
	if len(sink.facts()) != 21 || sink.count() != 21 {
		t.Errorf("%d facts in %d requests", len(sink.facts()), sink.count())
	}
	sink.always(500)
	if err := p.Post(t.Context(), changes(1)); err != nil {
		t.Errorf("a sink that fails fails the post: %v", err)
	}
	a.always(500)
	if err := p.Post(t.Context(), changes(1)); err == nil {
		t.Error("neither took it")
	}
	sink.always(202)
	was := sink.count()
	if err := p.Post(t.Context(), changes(1)); err != nil || sink.count() != was+1 {
		t.Errorf("%v, %d requests: the sink is the fallback as well, and has it", err, sink.count()-was)
	}
	only := poster(t, http.Config{Sink: sink.URL})
	if err := only.Post(t.Context(), []events.Fact{born, change(1)}); err != nil {
		t.Error(err)
	}
}

// TestPresenceIsForSubscribers holds that routers, and what repeats for them, are not asked.
func TestPresenceIsForSubscribers(t *testing.T) {
	a, broker, sink := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	a.always(500)
	connected := events.DeviceConnected{Connection: events.Connection{TenantID: "T", DeviceID: "D", RemoteID: "c", Source: "a", At: time.Now()}}
	facts := []events.Fact{events.DeviceTTD{TenantID: "T", DeviceID: "D", TTDSeconds: -1, At: time.Now()}, connected}
	p := poster(t, http.Config{URLs: []string{a.URL}, Fallback: broker.URL, Sink: sink.URL})
	if err := p.Post(t.Context(), facts); err != nil {
		t.Error(err)
	}
	p.Copy(t.Context(), facts)
	if err := p.Tell(t.Context(), facts); err != nil {
		t.Error(err)
	}
	if a.count() != 0 || broker.count() != 0 || len(sink.facts()) != 4 {
		t.Errorf("%d requests to routers, %d to the broker, %d facts for subscribers; want 0, 0, 4", a.count(), broker.count(), len(sink.facts()))
	}
	if err := poster(t, http.Config{URLs: []string{a.URL}}).Post(t.Context(), facts); err != nil || a.count() != 0 {
		t.Errorf("nobody subscribes: %v, %d requests", err, a.count())
	}
}

// TestOneBadFactKeepsNothingBack has a router of another version.
func TestOneBadFactKeepsNothingBack(t *testing.T) {
	a := listen(t, "127.0.0.1:0")
	a.answer = func(facts []events.Fact) int {
		if slices.Contains(facts, change(5)) {
			return 422
		}
		return 202
	}
	broker := listen(t, "127.0.0.1:0")
	p := poster(t, http.Config{URLs: []string{a.URL}, Fallback: broker.URL})
	if err := p.Post(t.Context(), changes(9)); !errors.Is(err, iot.ErrInvalid) {
		t.Error(err)
	}
	if len(a.facts()) != 8 || broker.count() != 0 {
		t.Errorf("%d taken, %d at the broker", len(a.facts()), broker.count())
	}
}

// TestDeadRouterCostsLittle has one that takes connections and says nothing.
func TestDeadRouterCostsLittle(t *testing.T) {
	a, b, c := two(t)
	p := poster(t, c)
	b.hang = make(chan struct{})
	defer close(b.hang)
	slow := 0
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		began := time.Now()
		err := p.Post(ctx, []events.Fact{change(i + 1)})
		cancel()
		if err == nil || !strings.Contains(err.Error(), "127.0.0.2") {
			t.Errorf("%v, want one that names the router", err)
		}
		if time.Since(began) > 100*time.Millisecond {
			slow++
		}
	}
	if len(a.facts()) != 20 {
		t.Errorf("the other router has %d facts", len(a.facts()))
	}
	if slow == 0 || slow > 6 {
		t.Errorf("%d of 20 posts waited for it", slow)
	}
}

func TestAFailureIsLoggedOnce(t *testing.T) {
	a := listen(t, "127.0.0.1:0")
	var mu sync.Mutex
	var out bytes.Buffer
	p := poster(t, http.Config{URLs: []string{a.URL}, Log: slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(b)
	}), nil))})
	for _, code := range []int{403, 403, 403, 401, 401, 202, 202, 302} {
		a.always(code)
		if err := p.Post(t.Context(), changes(1)); (err == nil) != (code == 202) {
			t.Errorf("%d: %v", code, err)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 4 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func TestNamesThatDoNotResolve(t *testing.T) {
	a := listen(t, "127.0.0.1:0")
	broker := listen(t, "127.0.0.1:0")
	lost := false
	c := http.Config{URLs: []string{"http://routers.test:" + a.port()}, Fallback: broker.URL,
		Resolve: func(context.Context, string) ([]netip.Addr, error) {
			if lost {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}}
	first := poster(t, c)
	lost = true
	if err := first.Post(t.Context(), changes(1)); err != nil || len(broker.facts()) != 1 {
		t.Errorf("%v: what cannot be posted goes to the broker", err)
	}
	if err := first.Post(t.Context(), []events.Fact{born}); err == nil {
		t.Error("nobody was told, and all is well")
	}
	c.Fallback = ""
	second := poster(t, c)
	lost = false
	if err := second.Post(t.Context(), changes(1)); err != nil {
		t.Fatal(err)
	}
	lost = true
	time.Sleep(1100 * time.Millisecond) // until the name is asked for again; the sockets are real
	if err := second.Post(t.Context(), changes(1)); err == nil || len(a.facts()) != 2 {
		t.Errorf("%v, %d facts: those who are known are told, and the error says that others may not be", err, len(a.facts()))
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []http.Config{
		{}, {Name: "i", URLs: []string{"routers:1"}}, {Name: "i", URLs: []string{"https://r/events"}}, {Name: "i", URLs: []string{"ftp://r"}},
		{Name: "i", Sink: "x"}, {Name: "i", Fallback: "http://u:p@b"},
	} {
		if _, err := http.New(c); err == nil {
			t.Errorf("%+v is taken", c)
		} else if strings.Contains(err.Error(), ":p@") {
			t.Error("the error tells a password")
		}
	}
}

func TestIncompleteFact(t *testing.T) {
	p := poster(t, http.Config{})
	if err := p.Post(t.Context(), []events.Fact{events.RegistryChanged{}}); !errors.Is(err, iot.ErrInvalid) {
		t.Error(err)
	}
}

func BenchmarkPost(b *testing.B) {
	srv := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(202)
	}))
	defer srv.Close()
	p, err := http.New(http.Config{Name: "i", URLs: []string{srv.URL}})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	for _, n := range []int{1, 250} {
		b.Run(fmt.Sprint("facts=", n), func(b *testing.B) {
			facts := changes(n)
			b.ReportAllocs()
			for b.Loop() {
				ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
				if err := p.Post(ctx, facts); err != nil {
					b.Fatal(err)
				}
				cancel()
			}
		})
	}
}

// kept is a queue.
type kept struct {
	facts  []events.Fact
	err    error
	closed bool
}

func (k *kept) Post(_ context.Context, facts []events.Fact) error {
	k.facts = append(k.facts, facts...)
	return k.err
}

func (k *kept) Close() { k.closed = true }

func TestWhatRoutersDoNotTakeIsQueued(t *testing.T) {
	a, b, c := two(t)
	q := &kept{}
	c.Queue = q
	p := poster(t, c)
	if err := p.Post(t.Context(), changes(3)); err != nil || len(q.facts) != 0 {
		t.Fatal(err, q.facts)
	}
	b.Close()
	if err := p.Post(t.Context(), []events.Fact{change(4), born}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]events.Fact{change(4)}, q.facts); d != "" || len(a.facts()) < 4 {
		t.Error(d)
	}
	q.err = iot.ErrUnavailable
	if err := p.Post(t.Context(), []events.Fact{change(5)}); !errors.Is(err, iot.ErrUnavailable) {
		t.Error(err)
	}
	if p.Close(); !q.closed {
		t.Error("the queue stays open")
	}
	c.Name, c.Fallback = "sluice.local", a.URL
	if _, err := http.New(c); err == nil {
		t.Error("a broker and a queue")
	}
}
