package command_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/command"
)

// reader is an invoker that waits for a word before it answers.
type reader struct {
	calls atomic.Int32
	most  atomic.Int32
	now   atomic.Int32
	more  chan struct{}
	err   error
	age   time.Duration
}

func (r *reader) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	n := r.calls.Add(1)
	r.most.Store(max(r.most.Load(), r.now.Add(1)))
	defer r.now.Add(-1)
	if r.more != nil {
		select {
		case <-r.more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return &events.RegistrationAsserted{Registration: events.Registration{Via: []iot.DeviceID{iot.DeviceID(fmt.Sprint(n))}}, CacheFor: r.age}, nil
}

func sent(string, []byte, func(amqp.Raw)) {}

// via waits for the registration of a device and returns its first gateway.
func via(t *testing.T, d *command.Directory, device iot.DeviceID) string {
	t.Helper()
	got := ""
	if !d.Via("T", device, func(via []iot.DeviceID, err error) { got = fmt.Sprint(via, err) }) {
		t.Fatal("no room")
	}
	synctest.Wait()
	return got
}

// TestRegistrationsAreKept shows for how long, and what ends it.
func TestRegistrationsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{age: time.Hour}
		d := command.NewDirectory(command.Options{Invoker: r, Send: sent})
		defer d.Close()
		step := func(what string, device iot.DeviceID, want string) {
			t.Helper()
			if got := via(t, d, device); got != "["+want+"] <nil>" {
				t.Errorf("%s: got %s, want %s", what, got, want)
			}
		}
		step("first", "d", "1")
		step("kept", "d", "1")
		step("another device", "e", "2")
		time.Sleep(299 * time.Second)
		step("nearly 300 s", "d", "1")
		time.Sleep(2 * time.Second)
		step("not longer than 300 s", "d", "3")
		step("nor the other", "e", "4")
		d.Changed("T", "d")
		step("the device changed", "d", "5")
		step("not the other", "e", "4")
		d.Changed("U", "")
		step("another tenant changed", "e", "4")
		d.Changed("T", "")
		step("the tenant changed", "e", "6")
		r.age = 10 * time.Second
		step("for less", "f", "7")
		time.Sleep(11 * time.Second)
		step("for less, over", "f", "8")
		r.age = 0
		step("not to be kept", "g", "9")
		step("not kept", "g", "10")
		r.err = iot.Errorf(iot.ErrNotFound, "no such")
		if got := via(t, d, "h"); got != "[] no such" {
			t.Errorf("unknown: %s", got)
		}
		r.err = nil
		step("a failure is not kept", "h", "12")
	})
}

// TestLookupsCollapse shows that those who ask for one device wait for one look-up, are
// answered in their order, and not from before a change that they came after.
func TestLookupsCollapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{age: time.Hour, more: make(chan struct{})}
		d := command.NewDirectory(command.Options{Invoker: r, Send: sent})
		defer d.Close()
		var order []string
		ask := func(name string) {
			d.Via("T", "d", func(via []iot.DeviceID, err error) {
				order = append(order, fmt.Sprint(name, via, err))
				if name == "a" {
					// One that comes while others are being answered is behind them.
					d.Via("T", "d", func(via []iot.DeviceID, err error) { order = append(order, fmt.Sprint("z", via, err)) })
				}
			})
		}
		ask("a")
		ask("b")
		synctest.Wait()
		d.Changed("T", "d")
		ask("c")
		r.more <- struct{}{}
		r.more <- struct{}{}
		synctest.Wait()
		if got, want := fmt.Sprint(order), "[a[2] <nil> b[2] <nil> c[2] <nil> z[2] <nil>]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := via(t, d, "d"); got != "[2] <nil>" {
			t.Errorf("not kept: %s", got)
		}
	})
}

// TestChangedGateway shows that what is known of a device is not used any more once one of its
// gateways has changed, which may have left a group.
func TestChangedGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{age: time.Hour}
		d := command.NewDirectory(command.Options{Invoker: r, Send: sent})
		defer d.Close()
		step := func(what, want string) {
			t.Helper()
			if got := via(t, d, "d"); got != "["+want+"] <nil>" {
				t.Errorf("%s: got %s, want %s", what, got, want)
			}
		}
		step("first", "1")
		d.Changed("T", "2")
		d.Changed("U", "1")
		step("others changed", "1")
		d.Changed("T", "1")
		step("its gateway changed", "2")
		step("kept", "2")
		r.more = make(chan struct{})
		d.Changed("T", "2")
		var got []string
		ask := func() {
			d.Via("T", "d", func(via []iot.DeviceID, err error) { got = append(got, fmt.Sprint(via, err)) })
		}
		ask()
		synctest.Wait()
		d.Changed("T", "3") // of which the answer will speak
		ask()
		r.more <- struct{}{}
		r.more <- struct{}{}
		synctest.Wait()
		if want := "[[4] <nil> [4] <nil>]"; fmt.Sprint(got) != want {
			t.Errorf("changed while it was read: got %v, want %s", got, want)
		}
		r.more = nil
		for i := range command.MaxRegistrations + 1 {
			d.Changed("T", iot.DeviceID(fmt.Sprint("other", i)))
		}
		step("more changes than are remembered", "5")
	})
}

// TestChangeWhileTold shows that those who come while others are told of a registration do not get
// one from before a change.
func TestChangeWhileTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{age: time.Hour}
		d := command.NewDirectory(command.Options{Invoker: r, Send: sent})
		defer d.Close()
		var got []string
		d.Via("T", "d", func(via []iot.DeviceID, err error) {
			got = append(got, fmt.Sprint(via, err))
			d.Changed("T", "d")
			d.Via("T", "d", func(via []iot.DeviceID, err error) { got = append(got, fmt.Sprint(via, err)) })
		})
		synctest.Wait()
		if want := "[[1] <nil> [2] <nil>]"; fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
	})
}

// TestLookupsAreBounded shows how many are made at a time, how many wait, and how long one may take.
func TestLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{age: time.Hour, more: make(chan struct{})}
		d := command.NewDirectory(command.Options{Invoker: r, Send: sent})
		defer d.Close()
		taken, failed := 0, atomic.Int32{}
		for i := range command.MaxWaiting + 10 {
			// Each of a tenant of its own: none has too much.
			if d.Via(iot.TenantID(fmt.Sprint("T", i)), iot.DeviceID(fmt.Sprint(i)), func(_ []iot.DeviceID, err error) {
				if err != nil {
					failed.Add(1)
				}
			}) {
				taken++
			}
		}
		synctest.Wait()
		if taken != command.MaxWaiting || r.now.Load() != command.MaxLookups {
			t.Errorf("%d taken, %d at a time; want %d, %d", taken, r.now.Load(), command.MaxWaiting, command.MaxLookups)
		}
		if _, err := d.Find(t.Context(), "T", "d"); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("one more: %v", err)
		}
		time.Sleep(command.LookupTimeout)
		synctest.Wait()
		if n := failed.Load(); n != command.MaxLookups {
			t.Errorf("%d took too long, want %d", n, command.MaxLookups)
		}
		close(r.more)
		synctest.Wait()
		if n := failed.Load(); n != command.MaxLookups || r.most.Load() != command.MaxLookups {
			t.Errorf("%d failed, %d at a time at most", n, r.most.Load())
		}
		if n := d.Kept(); n != command.MaxWaiting-command.MaxLookups {
			t.Errorf("%d kept", n)
		}
	})
}

// A tenant with many unknown devices leaves room to others, and they do not wait behind it.
func TestLookupsOfTenantsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{age: time.Hour, more: make(chan struct{})}
		d := command.NewDirectory(command.Options{Invoker: r, Send: sent})
		defer d.Close()
		taken := 0
		var answered atomic.Int32
		for i := range command.MaxWaiting {
			if d.Via("GREEDY", iot.DeviceID(fmt.Sprint(i)), func([]iot.DeviceID, error) { answered.Add(1) }) {
				taken++
			}
		}
		synctest.Wait()
		if taken != command.MaxWaiting*3/4 {
			t.Errorf("%d of one tenant taken, want three quarters of %d", taken, command.MaxWaiting)
		}
		before := int32(-1)
		if !d.Via("MODEST", "d", func([]iot.DeviceID, error) { before = answered.Load() }) {
			t.Fatal("no room for another tenant")
		}
		close(r.more)
		synctest.Wait()
		if int(answered.Load()) != taken || before < 0 || before > 3*command.MaxLookups {
			t.Errorf("%d answered, %d before the other tenant; want %d, and few", answered.Load(), before, taken)
		}
		if !d.Via("GREEDY", "later", func([]iot.DeviceID, error) {}) {
			t.Error("no room when nobody waits any more")
		}
	})
}

func TestFindGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{more: make(chan struct{})}
		d := command.NewDirectory(command.Options{Invoker: r, Send: sent})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.Find(ctx, "T", "d"); !errors.Is(err, iot.ErrTimeout) {
			t.Errorf("got %v, want iot.ErrTimeout", err)
		}
		d.Close() // while it is still being read
		if _, err := d.Find(t.Context(), "T", "d"); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("closed: got %v, want iot.ErrUnavailable", err)
		}
	})
}

func TestPanicOfAFunctionIsAFailure(t *testing.T) {
	d := newDirectory(t, asked(func(context.Context, events.RegistrationAssert) (*events.RegistrationAsserted, error) { panic("x") }), nil)
	if _, err := d.Find(t.Context(), "T", "d"); err == nil {
		t.Error("no error")
	}
}

func TestRegistrationsAreBounded(t *testing.T) {
	d := newDirectory(t, through("g"), nil)
	for i := range command.MaxRegistrations * 3 / 2 {
		if _, err := d.Find(t.Context(), "T", iot.DeviceID(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.Kept(); n > command.MaxRegistrations+1 {
		t.Errorf("%d registrations are kept, want at most %d", n, command.MaxRegistrations)
	}
}
