package router_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/sqlitestore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
	"github.com/sluice-iot/sluice/router"
	"github.com/sluice-iot/sluice/router/stored"
)

// counted is a log whose calls are counted.
type counted struct {
	stored.Log
	appends, others atomic.Int64
}

func (l *counted) Append(ctx context.Context, r eventstore.AppendRequest) (*eventstore.AppendResult, error) {
	l.appends.Add(1)
	return l.Log.Append(ctx, r)
}
func (l *counted) Claim(ctx context.Context, r eventstore.ClaimRequest) (*eventstore.ClaimResult, error) {
	l.others.Add(1)
	return l.Log.Claim(ctx, r)
}
func (l *counted) Read(ctx context.Context, r eventstore.ReadRequest) (*eventstore.ReadResult, error) {
	l.others.Add(1)
	return l.Log.Read(ctx, r)
}
func (l *counted) Settle(ctx context.Context, r eventstore.SettleRequest) (*eventstore.SettleResult, error) {
	l.others.Add(1)
	return l.Log.Settle(ctx, r)
}
func (l *counted) Release(ctx context.Context, r eventstore.ReleaseRequest) error {
	l.others.Add(1)
	return l.Log.Release(ctx, r)
}

// keeping serves a router that keeps events, for everybody, until the test ends or stop is called.
func keeping(t testing.TB, o stored.Options) (s *served, stop func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identities.yaml")
	if err := auth.AddIdentityWith(path, "app", secret, may(auth.Read, "event/*"), may(auth.Write, "event/*")); err != nil {
		t.Fatal(err)
	}
	dir, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := router.New(router.Options{Name: "r", Directory: dir, Events: &o})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	wg.Go(func() { r.Serve(ctx, router.Listener{Listener: ln}) })
	var once sync.Once
	stop = func() {
		once.Do(func() {
			grace, end := context.WithTimeout(context.Background(), 2*time.Second)
			defer end()
			r.Shutdown(grace)
			cancel()
			wg.Wait()
		})
	}
	t.Cleanup(stop)
	return &served{r, ln.Addr().String(), path, dir}, stop
}

func memoryLog() *eventstore.Log { return eventstore.New(&storetest.Memory{}, eventstore.Options{}) }

// event is one that says a device and a number.
func event(device string, n int) *goamqp.Message {
	return &goamqp.Message{
		Header:                &goamqp.MessageHeader{Durable: true},
		Properties:            &goamqp.MessageProperties{MessageID: fmt.Sprintf("%s/%d", device, n)},
		Annotations:           goamqp.Annotations{"x-opt-anything": int64(5)},
		ApplicationProperties: map[string]any{"device_id": device, "n": int32(n)},
		Data:                  [][]byte{fmt.Appendf(nil, "%s/%d", device, n)},
	}
}

func send(t testing.TB, s *goamqp.Sender, m *goamqp.Message) {
	t.Helper()
	if err := s.Send(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
}

// take receives the next event, accepts it unless settle is given, and returns its body.
func take(t testing.TB, r *goamqp.Receiver, settle func(*goamqp.Message) error) string {
	t.Helper()
	m, err := r.Receive(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if settle == nil {
		settle = func(m *goamqp.Message) error { return r.AcceptMessage(t.Context(), m) }
	}
	if err := settle(m); err != nil {
		t.Fatal(err)
	}
	return string(m.GetData())
}

// none reports what comes though nothing should.
func none(t testing.TB, r *goamqp.Receiver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if m, err := r.Receive(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", m, err)
	}
}

// eventually waits for what happens soon.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: it does not happen", what)
		}
	}
}

// TestEventsSurviveTheRouter: accepted means kept, though nobody listens and the router and its
// store are gone in between.
func TestEventsSurviveTheRouter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.db")
	open := func() (*counted, func()) {
		st, err := sqlitestore.Open(t.Context(), path, sqlitestore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return &counted{Log: eventstore.New(st, eventstore.Options{})}, func() { st.Close() }
	}
	log, closeStore := open()
	s, stop := keeping(t, stored.Options{Log: log})
	tx, err := s.session(t, "app").NewSender(t.Context(), "event/T", nil)
	if err != nil {
		t.Fatal(err)
	}
	if max := tx.MaxMessageSize(); max != eventstore.MaxMessageBytes {
		t.Errorf("max-message-size is %d", max)
	}
	for n := range 50 {
		send(t, tx, event("d", n))
	}
	if n := log.others.Load(); n != 0 {
		t.Errorf("%d calls besides appends while nobody listens", n)
	}
	stop()
	closeStore()

	log, closeStore = open()
	defer closeStore()
	s, stop = keeping(t, stored.Options{Log: log})
	defer stop()
	rx, err := s.session(t, "app").NewReceiver(t.Context(), "event/T", &goamqp.ReceiverOptions{Credit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 50 {
		m, err := rx.Receive(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := event("d", n); m.Properties.MessageID != want.Properties.MessageID || m.Annotations["x-opt-anything"] != int64(5) ||
			m.ApplicationProperties["n"] != int32(n) || !m.Header.Durable || !m.Header.FirstAcquirer || m.Header.DeliveryCount != 0 {
			t.Fatalf("%d: %+v, header %+v", n, m, m.Header)
		}
		if err := rx.AcceptMessage(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	none(t, rx)
	// Live, and nothing is read from the store any more.
	tx, err = s.session(t, "app").NewSender(t.Context(), "event/T", nil)
	if err != nil {
		t.Fatal(err)
	}
	calls := log.others.Load()
	send(t, tx, event("d", 50))
	if got := take(t, rx, nil); got != "d/50" {
		t.Errorf("live: %s", got)
	}
	eventually(t, "settled", func() bool { return log.others.Load() > calls })
	if f, ok := s.Events(); !ok || f.Live != 1 || f.Accepted != 1 || f.Delivered != 51 {
		t.Errorf("%+v", f)
	}
}

func TestEventOutcomes(t *testing.T) {
	log := memoryLog()
	s, _ := keeping(t, stored.Options{Log: log})
	tx, err := s.session(t, "app").NewSender(t.Context(), "event/T", nil)
	if err != nil {
		t.Fatal(err)
	}
	killed := s.dial(t, "app")
	x, err := killed.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	rx, err := x.NewReceiver(t.Context(), "event/T", &goamqp.ReceiverOptions{Credit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for name, settle := range map[string]func(m *goamqp.Message) error{
		"released": func(m *goamqp.Message) error { return rx.ReleaseMessage(t.Context(), m) },
		"modified": func(m *goamqp.Message) error {
			return rx.ModifyMessage(t.Context(), m, &goamqp.ModifyMessageOptions{DeliveryFailed: true, UndeliverableHere: true})
		},
	} {
		began := time.Now()
		send(t, tx, event(name, 1))
		take(t, rx, settle)
		m, err := rx.Receive(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); m.Header.DeliveryCount != 1 || m.Header.FirstAcquirer || d > 2*time.Second {
			t.Errorf("%s: again after %v with %+v", name, d, m.Header)
		}
		if err := rx.AcceptMessage(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	send(t, tx, event("rejected", 1))
	take(t, rx, func(m *goamqp.Message) error {
		return rx.RejectMessage(t.Context(), m, &goamqp.Error{Condition: "hono:bad-request", Description: "no such thing"})
	})
	eventually(t, "a dead letter", func() bool {
		list, _, err := log.Browse(t.Context(), eventstore.BrowseRequest{Tenant: "T", Partition: eventstore.PartitionOf("rejected"), Dead: true})
		return err == nil && len(list) == 1 && list[0].Reason == "hono:bad-request: no such thing"
	})
	// What a consumer had that is gone comes again at once, to the other.
	send(t, tx, event("killed", 1))
	if _, err := rx.Receive(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	other, err := s.session(t, "app").NewReceiver(t.Context(), "event/T", &goamqp.ReceiverOptions{Credit: 10})
	if err != nil {
		t.Fatal(err)
	}
	killed.Close()
	m, err := other.Receive(t.Context(), nil)
	if err != nil || string(m.GetData()) != "killed/1" || m.Header.DeliveryCount != 1 {
		t.Errorf("%v, %v", m, err)
	}
}

// TestEventDrain: go-amqp waits for the word that there is no more.
func TestEventDrain(t *testing.T) {
	s, _ := keeping(t, stored.Options{Log: memoryLog()})
	tx, err := s.session(t, "app").NewSender(t.Context(), "event/T", nil)
	if err != nil {
		t.Fatal(err)
	}
	rx, err := s.session(t, "app").NewReceiver(t.Context(), "event/T", &goamqp.ReceiverOptions{Credit: -1})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 20 {
		for n := range round {
			send(t, tx, event("d", n))
		}
		// It drains by taking its credit back, so what it is to have comes before.
		if err := rx.IssueCredit(10); err != nil {
			t.Fatal(err)
		}
		for range min(10, round) {
			take(t, rx, nil)
		}
		if err := rx.DrainCredit(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		for range round - 10 { // the rest
			if err := rx.IssueCredit(1); err != nil {
				t.Fatal(err)
			}
			take(t, rx, nil)
		}
	}
}

func TestEventLinks(t *testing.T) {
	s, _ := keeping(t, stored.Options{Log: memoryLog()})
	settled, mixed := goamqp.SenderSettleModeSettled, goamqp.SenderSettleModeMixed
	if _, err := s.session(t, "app").NewSender(t.Context(), "event/T", &goamqp.SenderOptions{SettlementMode: &settled}); condition(err) != "amqp:precondition-failed" {
		t.Errorf("a sender that settles first: %v", err)
	}
	if _, err := s.session(t, "app").NewReceiver(t.Context(), "event/T", &goamqp.ReceiverOptions{RequestedSenderSettleMode: &settled}); condition(err) != "amqp:precondition-failed" {
		t.Errorf("a receiver that wants it settled: %v", err)
	}
	if _, err := s.session(t, "app").NewSender(t.Context(), "event/T", &goamqp.SenderOptions{SettlementMode: &mixed}); err != nil {
		t.Errorf("a mixed sender: %v", err)
	}
	for _, address := range []string{"event/T/d", "event/a\x00b", "event/a\r\nb"} {
		if _, err := s.session(t, "app").NewSender(t.Context(), address, nil); condition(err) != "amqp:not-found" {
			t.Errorf("a sender to %s: %v", address, err)
		}
		if _, err := s.session(t, "app").NewReceiver(t.Context(), address, nil); condition(err) != "amqp:not-found" {
			t.Errorf("a receiver of %s: %v", address, err)
		}
	}
	// Settled in two steps.
	second := goamqp.ReceiverSettleModeSecond
	if _, err := s.session(t, "app").NewReceiver(t.Context(), "event/T", &goamqp.ReceiverOptions{SettlementMode: &second}); condition(err) != "amqp:precondition-failed" ||
		!strings.Contains(err.Error(), "rcv-settle-mode second") {
		t.Errorf("a receiver that settles second: %v", err)
	}
	if _, err := s.session(t, "app").NewSender(t.Context(), "event/T", &goamqp.SenderOptions{RequestedReceiverSettleMode: &second}); condition(err) != "amqp:precondition-failed" {
		t.Errorf("a sender to one that settles second: %v", err)
	}
}

// TestEventsPublished: what the process itself sends is kept as well.
func TestEventsPublished(t *testing.T) {
	s, stop := keeping(t, stored.Options{Log: memoryLog()})
	message, err := (&amqp.Message{ApplicationProperties: amqp.Map{{Key: "device_id", Value: "d"}}, Data: [][]byte{[]byte("p/1")}}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	publish := func() string {
		state := make(chan string, 1)
		s.Publish("event/T", slices.Clone(message), func(x amqp.Raw) { state <- fmt.Sprintf("%x", []byte(x)) })
		return <-state
	}
	if got := publish(); got != fmt.Sprintf("%x", []byte(amqp.StateAccepted)) {
		t.Errorf("outcome %s", got)
	}
	rx, err := s.session(t, "app").NewReceiver(t.Context(), "event/T", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := take(t, rx, nil); got != "p/1" {
		t.Error(got)
	}
	stop()
	if got := publish(); got != fmt.Sprintf("%x", []byte(amqp.StateReleased)) {
		t.Errorf("outcome after the end %s", got)
	}
}

// TestEventsOfTwoRouters: what comes through one wakes the holder, another's consumer gets a
// share, and one that is shut down leaves all to the other.
func TestEventsOfTwoRouters(t *testing.T) {
	log := memoryLog()
	var mu sync.Mutex
	sites := map[string]*served{}
	tell := func(_ context.Context, ingress string, h eventstore.Holding) error {
		mu.Lock()
		defer mu.Unlock()
		for name, s := range sites {
			if ingress == "" || ingress == name {
				s.Appended(h.Tenant, h.Partition, h.End)
			}
		}
		return nil
	}
	a, stopA := keeping(t, stored.Options{Log: log, Instance: "a", Ingress: "http://a", Tell: tell})
	b, _ := keeping(t, stored.Options{Log: log, Instance: "b", Ingress: "http://b", Tell: tell})
	mu.Lock()
	sites["http://a"], sites["http://b"] = a, b
	mu.Unlock()
	ra, err := a.session(t, "app").NewReceiver(t.Context(), "event/T", &goamqp.ReceiverOptions{Credit: 100})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := b.session(t, "app").NewSender(t.Context(), "event/T", nil)
	if err != nil {
		t.Fatal(err)
	}
	send(t, tx, event("first", 1))
	if got := take(t, ra, nil); got != "first/1" {
		t.Error(got)
	}
	rb, err := b.session(t, "app").NewReceiver(t.Context(), "event/T", &goamqp.ReceiverOptions{Credit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var ca, cb atomic.Int64
	consume := func(r *goamqp.Receiver, n *atomic.Int64) {
		for {
			m, err := r.Receive(t.Context(), nil)
			if err != nil || r.AcceptMessage(t.Context(), m) != nil {
				return
			}
			n.Add(1)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { consume(ra, &ca) })
	wg.Go(func() { consume(rb, &cb) })
	n := 0
	eventually(t, "both have a share", func() bool {
		send(t, tx, event(fmt.Sprint("d", n%50), n))
		n++
		return ca.Load() > 20 && cb.Load() > 20
	})
	eventually(t, "all are delivered once", func() bool { return ca.Load()+cb.Load() == int64(n) })
	stopA()
	before := cb.Load()
	for i := range 50 {
		send(t, tx, event(fmt.Sprint("e", i), i))
	}
	eventually(t, "all are the other's", func() bool { return cb.Load() == before+50 })
	b.Shutdown(t.Context())
	wg.Wait()
}
