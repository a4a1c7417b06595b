package adapters_test

import (
	"runtime"
	"testing"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// listeners are devices that are connected and may subscribe.
func listeners(t testing.TB, n int) (*adapters.Commands, *adapters.Pipeline, []adapters.Admission) {
	a, _ := newAdmissions(t, adapters.AdmissionOptions{Invoker: invokerFunc(crowd)})
	a.Following(true)
	commands := adapters.NewCommands(adapters.CommandsOptions{})
	commands.AnnounceTo(silent{})
	p := adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: a, Downstream: adaptertest.Discard{}, Commands: commands})
	ss := adapters.NewSessions(p, adapters.SessionOptions{})
	t.Cleanup(ss.Close)
	all := make([]adapters.Admission, n)
	for i := range all {
		var err error
		if all[i], err = openNth(t, ss, i).Admit(t.Context(), "", ""); err != nil {
			t.Fatal(err)
		}
	}
	return commands, p, all
}

// silent are routers that are told, and keep nothing.
type silent struct{}

func (silent) Announce(_ []adapters.Announcement, done func()) {
	if done != nil {
		done()
	}
}
func (silent) LastGateway(iot.TenantID, iot.DeviceID, iot.DeviceID) {}

// maxSubscriptionBytes is what an idle subscription may take, without what its protocol
// keeps.
const maxSubscriptionBytes = 300

// TestIdleSubscriptionIsSmall: a device that waits for commands costs little.
func TestIdleSubscriptionIsSmall(t *testing.T) {
	const n = 15_000
	commands, p, admitted := listeners(t, n)
	deliver := func(*adapters.Command, func(error)) {}
	subs := make([]*adapters.CommandSubscription, n)
	before, goroutines := heap(), runtime.NumGoroutine()
	for i, who := range admitted {
		var err error
		if subs[i], err = p.Subscribe(t.Context(), adapters.Subscribe{Who: who, Notify: true, Address: "command///req/#", Deliver: deliver}); err != nil {
			t.Fatal(err)
		}
	}
	each := (heap() - before) / n
	t.Logf("%d bytes each", each)
	if each > maxSubscriptionBytes || runtime.NumGoroutine() > goroutines {
		t.Errorf("an idle subscription takes %d bytes, and all together %d goroutines; want at most %d bytes and none",
			each, runtime.NumGoroutine()-goroutines, maxSubscriptionBytes)
	}
	if commands.Len() != n {
		t.Errorf("%d subscriptions, want %d", commands.Len(), n)
	}
	for _, s := range subs {
		s.Close(true)
	}
	runtime.KeepAlive(admitted)
}

func BenchmarkCommand(b *testing.B) {
	commands, p, admitted := listeners(b, 15_000)
	deliver := func(_ *adapters.Command, done func(error)) { done(nil) }
	for _, who := range admitted {
		if _, err := p.Subscribe(b.Context(), adapters.Subscribe{Who: who, Deliver: deliver}); err != nil {
			b.Fatal(err)
		}
	}
	done := func(err error) {
		if err != nil {
			b.Error(err)
		}
	}
	b.Run("one of 15000", func(b *testing.B) {
		b.ReportAllocs()
		c, i := command("", ""), 0
		for b.Loop() {
			c.Device = admitted[i].Device()
			commands.Command(c, done)
			i = (i + 1) % len(admitted)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			c := command(admitted[0].Device(), "")
			for pb.Next() {
				commands.Command(c, func(error) {})
			}
		})
	})
	b.Run("nobody", func(b *testing.B) {
		b.ReportAllocs()
		c := command("nobody", "")
		for b.Loop() {
			commands.Command(c, func(error) {})
		}
	})
	b.Run("subscribed, 15000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if len(commands.Subscribed()) != len(admitted) {
				b.Fatal("not all of them")
			}
		}
	})
}

func BenchmarkSubscribe(b *testing.B) {
	_, p, admitted := listeners(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		s, err := p.Subscribe(b.Context(), adapters.Subscribe{Who: admitted[0]})
		if err != nil {
			b.Fatal(err)
		}
		s.Close(true)
	}
}

func BenchmarkRequestID(b *testing.B) {
	b.ReportAllocs()
	c := command("4711", "")
	for b.Loop() {
		id, err := c.RequestID()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := adapters.ParseRequestID(id, c.Device); err != nil {
			b.Fatal(err)
		}
	}
}
