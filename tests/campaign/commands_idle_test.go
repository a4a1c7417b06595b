package campaign_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// What a subscription for commands may hold of the adapter's memory beside its connection,
// and how long it may take until a router that was started anew knows of all.
const (
	idleSubscription = 2.0 // KiB
	announcedWithin  = 2 * time.Second
)

func subscribedScale() (devices int, idle time.Duration) {
	switch runs() {
	case some:
		return 2000, 5 * time.Second
	case full:
		return 15_000, 30 * time.Second
	}
	return 200, 0
}

// TestCommandsIdle has many MQTT devices subscribed for commands that do nothing but ping:
// what each holds beside its connection, how soon a router that was started anew knows of
// them, and that each gets a command afterwards.
func TestCommandsIdle(t *testing.T) {
	t.Parallel()
	devices, idle := subscribedScale()
	s := newCommandSite(t, 1)
	s.register(t, devices)
	router, adapter := s.routers[0], &router{health: s.mqttHealth}
	heard := &notified{ids: map[any]bool{}, told: map[string][]change{}}
	stop := make(chan struct{})
	var consuming sync.WaitGroup
	consuming.Go(func() { heard.consume(router.northbound, stop) })
	defer consuming.Wait()
	defer close(stop)

	empty, emptyUsed := adapter.live(t), s.mqttAdapter.used(t)
	clients, connected := startIdleClients(t, idleSettings{Addr: s.mqtt, Tenant: eventTenant, Clients: devices, KeepAlive: 120, Subscribe: true})
	time.Sleep(idle)
	before, beforeUsed := adapter.live(t), s.mqttAdapter.used(t)
	subscribed := clients.subscribe(t)
	took := s.mqttAdapter.used(t).processor - beforeUsed.processor
	time.Sleep(idle)
	after, afterUsed := adapter.live(t), s.mqttAdapter.used(t)
	routerUsed := router.part.used(t)
	each := func(a, b int) float64 { return float64(b-a) / 1024 / float64(devices) }
	t.Logf("%d devices connected in %s, and subscribed in %s more, for %s of the adapter's processor", devices,
		connected.Took.Round(time.Millisecond), subscribed.Took.Round(time.Millisecond), took)
	t.Logf("each holds %.2f KiB resident by its connection (%.2f of it heap), and %.2f KiB more (%.2f) by its subscription; the router has %d MB resident",
		each(emptyUsed.resident, beforeUsed.resident), each(empty.heap, before.heap),
		each(beforeUsed.resident, afterUsed.resident), each(before.heap, after.heap), routerUsed.resident>>20)
	if more := each(before.heap, after.heap); runs() == full && more > idleSubscription {
		t.Errorf("a subscription holds %.2f KiB; want %v at most", more, idleSubscription)
	}
	s.reannounced(t, devices, "killed", 0)
	s.reannounced(t, devices, "stopped", 0)
	s.reannounced(t, devices, "killed", 3*time.Second) // so long that the adapter tries seldom
	s.commandEach(t, devices)
	if r := clients.end(t); r.Lost > 0 || r.Deaf > 0 || r.Commands != devices || r.Commanded != devices {
		t.Errorf("%d connections were ended, on %d no ping was answered; %d commands came to %d of %d devices; want one to each",
			r.Lost, r.Deaf, r.Commands, r.Commanded, devices)
	}
}

// reannounced starts the router anew, after a pause, and waits until it knows of all devices.
func (s *commandSite) reannounced(t *testing.T, devices int, how string, pause time.Duration) {
	t.Helper()
	r := s.routers[0]
	used := s.mqttAdapter.used(t)
	if how == "killed" {
		r.kill()
	} else {
		r.part.stop(t)
	}
	down := time.Now()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && ready(s.mqttHealth) == nil; time.Sleep(time.Millisecond) {
		// It is ready for a moment longer, though its router is gone.
	}
	time.Sleep(pause)
	began := time.Now()
	r.start(t, s.events)
	s.mqttAdapter.eventually(t, "back at the router", func() error { return ready(s.mqttHealth) })
	back := time.Since(began)
	r.part.eventually(t, "told of all devices", func() error {
		if got := int(figure(t, r.health, "sluice_router_device_directory_entries")); got != devices {
			return fmt.Errorf("it knows of %d devices; want %d", got, devices)
		}
		return nil
	})
	all := time.Since(began)
	t.Logf("router %s: down for %s; the adapter is back %s after its start, and all devices are announced after %s, %s after that; processor: adapter %s, router %s", how,
		began.Sub(down).Round(time.Millisecond), back.Round(time.Millisecond), all.Round(time.Millisecond), (all - back).Round(time.Millisecond),
		s.mqttAdapter.used(t).processor-used.processor, r.part.used(t).processor)
	if runs() == full && all > announcedWithin {
		t.Errorf("all devices are announced %s after the router's start; want %s at most", all, announcedWithin)
	}
}

// ready returns why a process is not.
func ready(health string) error {
	resp, err := http.Get("http://" + health + "/readiness")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("readiness: %s", resp.Status)
	}
	return nil
}

// commandEach sends a command to each device, and wants all accepted.
func (s *commandSite) commandEach(t *testing.T, devices int) {
	t.Helper()
	const window = 500
	a, err := newCommander(s.routers[0].northbound, eventTenant, "nobody", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	var mu sync.Mutex
	outcomes := map[string]int{}
	began := time.Now()
	for i := range devices {
		id := fmt.Sprint("command-", i)
		if err := a.send(outgoingCommand{device: eventDevice(i), name: "wake", id: id, payload: id, oneWay: true}, func(outcome string) {
			mu.Lock()
			defer mu.Unlock()
			outcomes[outcome]++
		}); err != nil {
			t.Fatal(err)
		}
		a.wait(window)
	}
	if left := a.wait(0); left > 0 {
		t.Errorf("%d commands have no outcome", left)
	}
	took := time.Since(began)
	mu.Lock()
	defer mu.Unlock()
	t.Logf("a command to each of %d devices: %v, in %s, %.0f a second", devices, outcomes, took.Round(time.Millisecond), float64(devices)/took.Seconds())
	if outcomes["accepted"] != devices {
		t.Errorf("outcomes of a command to each of %d devices: %v; want all accepted", devices, outcomes)
	}
}
