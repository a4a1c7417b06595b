package campaign_test

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// What an idle connection may hold of the adapter's memory, all included.
const (
	idleOverTCP = 10.0 // KiB
	idleOverTLS = 28.0
)

// idleScale is how many connections there are and for how long.
func idleScale(t *testing.T) (clients int, idle time.Duration, keepAlive uint16) {
	t.Helper()
	switch runs() {
	case some:
		return 2000, 30 * time.Second, 20
	case full:
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		const spare, most = 500, 250_000 // descriptors for all but connections
		return int(min(max(limit.Cur, spare+1)-spare, most)), 10 * time.Minute, 120
	}
	return 200, 20 * time.Second, 10
}

// TestDevicesIdle has MQTT clients connected that do nothing but ping, over TCP and over
// TLS: no function is invoked meanwhile, none loses its connection, and each holds little.
func TestDevicesIdle(t *testing.T) {
	t.Parallel()
	clients, idle, keepAlive := idleScale(t)
	s := newDeviceSite(t)
	s.startFunction(t)
	s.startRouter(t)
	proxy := startCounter(t, s.parts)
	s.register(t, "IDLE", clients, quickSecret)
	// A few are both at once; of many one wants to know what each kind holds.
	kinds := [][]bool{{false}, {true}}
	if runs() == small {
		kinds = [][]bool{{false, true}}
	}
	for _, kind := range kinds {
		s.startMQTT(t, proxy.addr)
		proxy.reset()
		before := s.mqttAdapter.used(t)
		var all []*idleClients
		for i, secure := range kind {
			o := idleSettings{Addr: s.mqtt, Tenant: "IDLE", TLS: secure, Clients: clients / len(kind), KeepAlive: keepAlive}
			if secure {
				o.Addr = s.mqttTLS
			}
			c, r := startIdleClients(t, o)
			all = append(all, c)
			t.Logf("%s: %d clients connected in %s, %.0f/s, with %d invocations", transportName(secure), o.Clients, r.Took.Round(time.Millisecond),
				float64(o.Clients)/r.Took.Seconds(), proxy.all())
			if got := proxy.count(admission); i == 0 && got < o.Clients {
				t.Errorf("%d admissions of %d devices that nobody knew", got, o.Clients)
			}
		}
		connected, invoked := s.mqttAdapter.used(t), proxy.all()
		time.Sleep(idle)
		after := s.mqttAdapter.used(t)
		if got := proxy.all() - invoked; got != 0 {
			t.Errorf("%d invocations in %s while %d clients were idle; want none", got, idle, clients)
		}
		each := float64(after.resident-before.resident) / 1024 / float64(clients)
		t.Logf("%s: %d clients idle for %s: %.1f KiB resident each (%.1f when they had just connected), %s of a processor",
			kindName(kind), clients, idle, each, float64(connected.resident-before.resident)/1024/float64(clients), after.processor-connected.processor)
		if most := map[bool]float64{false: idleOverTCP, true: idleOverTLS}[kind[0]]; runs() == full && each > most {
			t.Errorf("an idle connection over %s holds %.1f KiB; want %v at most", kindName(kind), each, most)
		}
		for _, c := range all {
			if r := c.end(t); r.Lost > 0 || r.Deaf > 0 {
				t.Errorf("%d connections were ended while they were idle, and on %d no ping was answered; %d pings each", r.Lost, r.Deaf, r.Pings)
			}
		}
		s.mqttAdapter.stop(t)
	}
}

func transportName(secure bool) string {
	if secure {
		return "TLS"
	}
	return "TCP"
}

func kindName(kind []bool) string {
	var names []string
	for _, secure := range kind {
		names = append(names, transportName(secure))
	}
	return strings.Join(names, " and ")
}
