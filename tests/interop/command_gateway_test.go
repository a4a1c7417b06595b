package interop_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestCommandsChooseAGateway has several gateways, and several connections of one
// device, wait for the commands to a device.
func TestCommandsChooseAGateway(t *testing.T) {
	needCurl(t)
	needMosquitto(t)
	p := startPlant(t, patient)
	p.registersDevice(t, acme, "sensor", `{"via": ["gw-1", "gw-2"]}`, hashed("sensor"))
	p.registersDevice(t, acme, "gw-3", `{}`, hashed("gw-3"))
	p.receives(t, "telemetry", acme, "").ignore(t)
	app := p.commands(t, "rhea", acme, "")
	gets := func(l *lamp, topic string) {
		t.Helper()
		app.commanded(t, "sensor", "accepted")
		if got := l.gets(t, 1); got.topic != topic {
			t.Fatalf("%s got %+v; want it at %s", l.name, got, topic)
		}
	}
	by := func(gateway string) mosquitto { return mosquitto{version: "mqttv5", user: gateway + "@" + acme} }
	upload := func(gateway string) { by(gateway).publishes(t, p, "-t", "t//sensor", "-m", "22.5") }
	const all, ofAll = "c//+/q/#", "c//sensor/q//blink"

	by("gw-3").listens(t, p, 1, "-t", all)
	app.commanded(t, "sensor", "released") // the one that may not act for it gets nothing
	two := by("gw-2").listens(t, p, 1, "-t", all)
	gets(two, ofAll) // the only one
	one := by("gw-1").listens(t, p, 1, "-t", all)
	// The one that acted for the device last; nobody waits until routers have heard of it.
	follows := func(last *lamp) {
		t.Helper()
		eventually(t, "the gateway that acted last gets the command", func() error {
			app.commanded(t, "sensor", "accepted")
			if taker := either(t, one, two); taker != last {
				return errors.New(taker.name + " got it")
			}
			return nil
		})
	}
	for range 2 {
		upload("gw-1")
		follows(one)
		upload("gw-2")
		follows(two)
	}
	request{method: http.MethodPut, user: "gw-1@" + acme, target: "/telemetry//sensor", header: []string{"QoS-Level: 1"}}.curl(t, p).accepted(t)
	follows(one)

	// For this device alone, and the device itself, go before all of a gateway's.
	single := by("gw-2").listens(t, p, 1, "-t", "command//sensor/req/#")
	gets(single, "command//sensor/req//blink")
	upload("gw-1")
	gets(single, "command//sensor/req//blink")
	own := by("sensor").listens(t, p, 1, "-t", "c///q/#")
	gets(own, "c///q//blink")
	// Of subscriptions for the device itself the latest counts, and when it ends the one before.
	later := by("sensor").listens(t, p, 1, "-t", "command///req/#")
	gets(later, "command///req//blink")
	ends := func(l, heir *lamp, topic string) {
		t.Helper()
		l.interrupt(t) // nobody waits until the router has heard of it
		eventually(t, "another takes its commands", func() error { return wanted("accepted", app.tries(t, "sensor")) })
		if got := heir.gets(t, 1); got.topic != topic {
			t.Fatalf("%s got %+v; want it at %s", heir.name, got, topic)
		}
	}
	ends(later, own, "c///q//blink")
	ends(own, single, "command//sensor/req//blink")
	ends(single, one, ofAll)
	ends(one, two, ofAll)
	// Whoever must not act for the device any more gets nothing, though its subscription stays.
	p.registers(t, http.MethodPut, "devices/"+acme+"/sensor", `{"via": ["gw-1"]}`, 204)
	eventually(t, "the gateway gets nothing", func() error { return wanted("released", app.tries(t, "sensor")) })
}

// either is the one that got a command.
func either(t *testing.T, one, two *lamp) *lamp {
	t.Helper()
	for {
		taker, line := one, ""
		select {
		case line = <-one.lines:
		case line = <-two.lines:
			taker = two
		case <-time.After(patience):
			t.Fatal("nobody got the command")
		}
		if strings.HasPrefix(line, "got ") {
			return taker
		}
	}
}
