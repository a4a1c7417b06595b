package campaign_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

// revokedWithin is how long an adapter may let in whom a change shuts out.
const revokedWithin = time.Second

// TestBulkChange makes, disables and deletes many devices over the management API,
// one call each, while a router takes the changes and tells an adapter: every change
// arrives once, nobody who listens is dropped, and devices that had been let in are
// refused within a second of the answer.
func TestBulkChange(t *testing.T) {
	devices := 2000
	switch runs() {
	case some:
		devices = 20_000
	case full:
		devices = 100_000
	}
	const warm = 200 // log in before the change
	p := newParts(t, "")
	p.startFunction(t)
	p.startRouter(t)
	p.startAdapter(t, p.functions)
	follower := startFollower(t, p)
	f := &fleet{tenant: "BULK", devices: warm, passwords: []string{"correct horse"}}
	p.operator(t, http.MethodPost, "tenants/"+f.tenant, "application/json", bytes.NewReader([]byte("{}")), http.StatusCreated)
	consume(t, p, f.tenant)
	keepInUse(t, p)
	salted := `{"hash-function":"sha-256","pwd-hash":"` + sha256Base64(f.passwords[0]) + `"}`

	change := func(name string, item func(w io.Writer, i int)) {
		t.Helper()
		var body bytes.Buffer
		for i := range devices {
			item(&body, i)
		}
		follower.expect(name, devices)
		before := []used{p.function.used(t), p.router.used(t), p.adapter.used(t)}
		began := time.Now()
		bulk(t, p, f.tenant, &body, devices)
		took := time.Since(began)
		lag := follower.await(t, p)
		after := []used{p.function.used(t), p.router.used(t), p.adapter.used(t)}
		t.Logf("%s: %d devices in %s, %.0f/s; last notice %s after the answer; processor: functions %s, router %s, adapter %s; resident: %d, %d, %d MB",
			name, devices, took.Round(time.Millisecond), float64(devices)/took.Seconds(), lag.Round(time.Millisecond),
			after[0].processor-before[0].processor, after[1].processor-before[1].processor, after[2].processor-before[2].processor,
			after[0].resident>>20, after[1].resident>>20, after[2].resident>>20)
		for i, most := range []int{300 << 20, 200 << 20, 200 << 20} {
			if after[i].resident > most {
				t.Errorf("%s: process %d of functions, router, adapter holds %d MB; want %d at most", name, i, after[i].resident>>20, most>>20)
			}
		}
	}
	change("create", func(w io.Writer, i int) {
		fmt.Fprintf(w, `{"op":"create","id":%q,"device":{"ext":{"serial":"s%d"}},"credentials":[{"type":"hashed-password","auth-id":%q,"secrets":[%s]}]}`+"\n",
			f.device(i), i, f.device(i), salted)
	})
	s := f.storm(t, p.device, false)
	s.check(t, f, false)
	change("disable", func(w io.Writer, i int) { fmt.Fprintf(w, `{"op":"disable","id":%q}`+"\n", f.device(i)) })
	f.awaitAll(t, p.device, http.StatusNotFound)
	change("enable", func(w io.Writer, i int) { fmt.Fprintf(w, `{"op":"enable","id":%q}`+"\n", f.device(i)) })
	f.awaitAll(t, p.device, http.StatusAccepted)
	change("delete", func(w io.Writer, i int) { fmt.Fprintf(w, `{"op":"delete","id":%q}`+"\n", f.device(i)) })
	f.awaitAll(t, p.device, http.StatusUnauthorized)

	for name, want := range map[string]float64{
		"sluice_router_notices_facts_total":     float64(4*devices + 1 + inUseChanges),
		"sluice_router_receivers_overrun_total": 0,
	} {
		if got := figure(t, p.routerHealth, name); got != want {
			t.Errorf("%s is %v; want %v", name, got, want)
		}
	}
	t.Logf("told by the feed alone: %v; asked for gaps: %v times; taken again: %v", figure(t, p.routerHealth, "sluice_router_notices_missed_total"),
		figure(t, p.routerHealth, "sluice_router_notices_gaps_total"), figure(t, p.routerHealth, "sluice_router_notices_repeated_total"))
}

// inUse is the tenant of keepInUse, and inUseChanges how many changes it takes.
const (
	inUse        = "LIVE"
	inUseChanges = 2
)

// keepInUse has a device of another tenant upload all the time. A router looks
// for changes that it was not told of, because it was too busy, only while tokens are used.
func keepInUse(t *testing.T, p *parts) {
	t.Helper()
	f := &fleet{tenant: inUse, devices: 1, passwords: []string{"battery staple"}}
	p.operator(t, http.MethodPost, "tenants/"+f.tenant, "application/json", bytes.NewReader([]byte("{}")), http.StatusCreated)
	consume(t, p, f.tenant)
	bulk(t, p, f.tenant, strings.NewReader(fmt.Sprintf(
		`{"op":"create","id":%q,"credentials":[{"type":"hashed-password","auth-id":%q,"secrets":[{"hash-function":"sha-256","pwd-hash":%q}]}]}`+"\n",
		f.device(0), f.device(0), sha256Base64(f.passwords[0]))), 1)
	ctx, stop := context.WithCancel(t.Context())
	var uploads sync.WaitGroup
	uploads.Go(func() {
		client, s := from(252), newStormed()
		for ctx.Err() == nil {
			upload(ctx, client, s, p.device, f.device(0)+"@"+f.tenant, f.password(0))
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
	t.Cleanup(func() {
		stop()
		uploads.Wait()
	})
}

// awaitAll wants every device of the fleet to be answered with the status soon.
func (f *fleet) awaitAll(t *testing.T, addr string, want int) {
	t.Helper()
	client := from(251)
	began := time.Now()
	for i := range f.devices {
		for {
			s := newStormed()
			got := upload(t.Context(), client, s, addr, f.device(i)+"@"+f.tenant, f.password(i))
			if got == want {
				break
			}
			if time.Since(began) > revokedWithin {
				t.Fatalf("%s is still answered with %d after %s; want %d", f.device(i), got, time.Since(began), want)
			}
		}
		if i == 0 {
			t.Logf("%d after %s", want, time.Since(began).Round(time.Millisecond))
		}
	}
}

// follower hears of changes as an adapter does.
type follower struct {
	mu      sync.Mutex
	change  string
	missing int
	heard   map[string]bool
	extra   int
	last    time.Time
	ended   atomic.Bool // the router detached it
	told    chan struct{}
}

func startFollower(t *testing.T, p *parts) *follower {
	t.Helper()
	config := p.mutual(t, "adapter-http-0")
	config.ServerName = "localhost"
	c, err := wire.Dial(wire.Options{Addr: p.internal, TLS: config, Container: "follower"})
	if err != nil {
		t.Fatal(err)
	}
	const credit = 5000 // an adapter's
	if err := c.Write(wire.Receiver(0, "notices", "notification/registry-device"), nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := wire.Await[*amqp.Attach](c); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(wire.Credit(0, 0, credit), nil); err != nil {
		t.Fatal(err)
	}
	f := &follower{told: make(chan struct{}, 1)}
	stayAlive(t, c)
	var reading sync.WaitGroup
	reading.Go(func() {
		for count, topped := uint32(0), uint32(0); ; {
			performative, body, err := c.Read()
			if err != nil {
				return
			}
			switch tr := performative.(type) {
			case *amqp.Detach, *amqp.End, *amqp.Close:
				f.ended.Store(true)
				return
			case *amqp.Transfer:
				count++
				f.notice(body)
				if !tr.Settled {
					_ = c.Write(&amqp.Disposition{Role: amqp.RoleReceiver, First: tr.DeliveryID, Last: tr.DeliveryID, Settled: true, State: amqp.StateAccepted}, nil)
				}
				if count-topped >= credit/2 && !c.Buffered() || count-topped >= credit-100 {
					topped = count
					_ = c.Write(wire.Credit(0, count, credit), nil)
				}
			}
		}
	})
	t.Cleanup(func() {
		c.Conn.Close()
		reading.Wait()
	})
	return f
}

// notice takes one notification.
func (f *follower) notice(message []byte) {
	var n struct {
		Type   string `json:"type"`
		Change string `json:"change"`
		Tenant string `json:"tenant-id"`
		Device string `json:"device-id"`
	}
	m, err := amqp.DecodeMessage(message)
	if err == nil {
		err = json.Unmarshal(bytes.Join(m.Data, nil), &n)
	}
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.extra++
		return
	}
	if n.Type != "device-change-v1" || n.Tenant == inUse {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.heard[n.Device] || n.Change != f.change {
		f.extra++
		return
	}
	f.heard[n.Device] = true
	f.last = time.Now()
	if f.missing--; f.missing == 0 {
		f.told <- struct{}{}
	}
}

// expect says what comes next.
func (f *follower) expect(name string, devices int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.change = map[string]string{"create": "CREATE", "delete": "DELETE"}[name]
	if f.change == "" {
		f.change = "UPDATE"
	}
	f.missing, f.extra, f.heard = devices, 0, make(map[string]bool, devices)
}

// await waits until all of it has come, and returns how long it took from now.
func (f *follower) await(t *testing.T, p *parts) time.Duration {
	t.Helper()
	began := time.Now()
	select {
	case <-f.told:
	case <-time.After(3 * patience): // a router that was too busy to be told reads the feed after a minute
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.missing != 0 || f.extra != 0 || f.ended.Load() {
		t.Logf("router:\n%s", figures(t, p.routerHealth, "sluice_router_notices", "sluice_router_receivers"))
		t.Logf("functions:\n%s", figures(t, p.functionsHealth, "sluice_facts", "sluice_function"))
		t.Fatalf("%d notices are missing, %d came twice or are others; detached: %t", f.missing, f.extra, f.ended.Load())
	}
	return max(0, f.last.Sub(began))
}
