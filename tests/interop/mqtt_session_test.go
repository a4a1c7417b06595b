package interop_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestMQTTManyInFlight publishes faster than outcomes come, and expects order and one
// acknowledgement each.
func TestMQTTManyInFlight(t *testing.T) {
	const n = 500
	p := startPlant(t, "adapters: {mqtt: {max-in-flight: 50}}\n")
	// More than the adapter reads at a time, and in one case more than it says it takes.
	for _, tt := range []struct {
		kind     string
		inFlight int
		ordered  bool // paho5 publishes from many goroutines
	}{{"paho", 20, true}, {"paho", 400, true}, {"paho5", 0, false}} {
		t.Run(fmt.Sprint(tt.kind, " ", tt.inFlight), func(t *testing.T) {
			app := p.receives(t, "telemetry", acme, "")
			o := asSensor("sensor-1@" + acme)
			o.InFlight = tt.inFlight
			d := p.connects(t, tt.kind, o)
			d.does(t, mqttCommand{Cmd: "flood", N: n, Topic: "t", QoS: 1})
			seen := map[string]bool{}
			for i := range n {
				body := string(app.await(t, "message").Body)
				if tt.ordered && body != strconv.Itoa(i) || seen[body] {
					t.Fatalf("message %d is %q", i, body)
				}
				seen[body] = true
			}
			for acknowledged := 0; ; {
				e := d.next(t)
				if e.Event == "flooded" && acknowledged == n {
					break
				}
				if e.Event != "puback" || e.Code != 0 || tt.ordered && e.ID != acknowledged {
					t.Fatalf("%+v after %d acknowledgements", e, acknowledged)
				}
				acknowledged++
			}
			app.close()
		})
	}
}

// TestMosquittoLines publishes line by line on one connection, in both versions.
func TestMosquittoLines(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, "")
	var lines strings.Builder
	const n = 300
	for i := range n {
		fmt.Fprintln(&lines, i)
	}
	for _, version := range versions {
		app := p.receives(t, "telemetry", acme, "")
		cmd := mosquitto{version: version, user: "sensor-1@" + acme}.command(p, "pub", "-q", "1", "-t", "telemetry", "-l")
		cmd.Stdin = strings.NewReader(lines.String())
		if r := runs(t, cmd); r.code != 0 {
			t.Fatalf("mosquitto_pub ended with %d: %s", r.code, r.stderr)
		}
		for i := range n {
			if body := string(app.await(t, "message").Body); body != strconv.Itoa(i) {
				t.Fatalf("%s: message %d is %q", version, i, body)
			}
		}
		app.close()
	}
}

// TestMQTTTakeOver connects twice with one client identifier.
func TestMQTTTakeOver(t *testing.T) {
	t.Parallel()
	p := startPlant(t, "")
	for _, kind := range []string{"paho", "paho5"} {
		t.Run(kind, func(t *testing.T) {
			o := asSensor("sensor-1@" + acme)
			o.ClientID = "twin"
			first := p.connects(t, kind, o)
			another := asSensor("sensor-1@" + other) // the name is another tenant's, too
			another.ClientID = "twin"
			bystander := p.connects(t, kind, another)
			second := p.connects(t, kind, o)
			if code, reason := first.closes(t); kind == "paho5" && (code != 0x8E || reason == "") {
				t.Errorf("closed with %#x %q; want 0x8E", code, reason)
			}
			second.publishesNothing(t)
			bystander.publishesNothing(t)
		})
	}
}

// TestPahoComesBack restarts the program under a client that reconnects by itself.
func TestPahoComesBack(t *testing.T) {
	p := startPlant(t, "")
	o := asSensor("sensor-1@" + acme)
	o.Reconnect = true
	d := p.connects(t, "paho", o)
	p.interrupt(t)
	d.await(t, "closed")
	p.restart(t)
	app := p.receives(t, "telemetry", acme, "")
	for {
		if e := d.next(t); e.Event == "connack" {
			if e.Code != 0 {
				t.Fatalf("connection refused with %d", e.Code)
			}
			break
		}
	}
	d.publishes(t, "t", "back")
	if e := app.await(t, "message"); string(e.Body) != "back" {
		t.Errorf("the application got %q", e.Body)
	}
}

// TestMQTTShutdown stops the program while devices are connected: those of MQTT 5 are
// told.
func TestMQTTShutdown(t *testing.T) {
	p := startPlant(t, "")
	d := p.connects(t, "paho5", asSensor("sensor-1@"+acme))
	if took, code := p.interrupt(t); code != 0 || took > stopsWithin {
		t.Errorf("ended with exit code %d after %s; want 0 within %s", code, took, stopsWithin)
	}
	if code, reason := d.closes(t); code != 0x8B || reason == "" {
		t.Errorf("closed with %#x %q; want 0x8B", code, reason)
	}
}

// TestMQTTKeepAlive has a device that pings, and one that stops in the middle of its work.
func TestMQTTKeepAlive(t *testing.T) {
	t.Parallel()
	p := startPlant(t, "")
	app := p.receives(t, "telemetry", acme, "")
	for _, kind := range []string{"paho", "paho5"} {
		o := asSensor("sensor-1@" + acme)
		o.KeepAlive, o.Will = 1, &mqttCommand{Topic: "telemetry", Payload: "lost", QoS: 1}
		d := p.connects(t, kind, o)
		if kind == "paho" {
			for range 2 {
				d.await(t, "pong")
			}
		}
		began := time.Now()
		if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if e := app.await(t, "message"); string(e.Body) != "lost" {
			t.Errorf("the application got %q; want the will", e.Body)
		}
		if took := time.Since(began); took < 500*time.Millisecond { // 1.5 s after its last packet
			t.Errorf("%s: lost after %s", kind, took)
		}
		d.kill()
	}
}

// awaitConnections waits until the adapter counts so many devices of the tenant.
func (p *plant) awaitConnections(t *testing.T, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d connections", want), func() error {
		for name, n := range p.counts(t) {
			if strings.HasPrefix(name, "hono_connections_authenticated{") && strings.Contains(name, `tenant="`+acme+`"`) {
				if n != fmt.Sprint(want) {
					return errors.New(n)
				}
				return nil
			}
		}
		if want > 0 {
			return errors.New("none are counted")
		}
		return nil
	})
}

// TestMQTTWills looks at when a will is published, and as what.
func TestMQTTWills(t *testing.T) {
	t.Parallel()
	needMosquitto(t)
	p := startPlant(t, "")
	app := p.receives(t, "telemetry", acme, "")
	t.Run("mosquitto", func(t *testing.T) {
		for _, version := range versions {
			m := mosquitto{version: version, user: "gw-1@" + acme, args: []string{"--will-topic", "telemetry//meter-2", "--will-payload", "lost", "--will-qos", "1", "--will-retain"}}
			// It says goodbye; in MQTT 5 it asks for its will then. Killed, it says nothing.
			wills, contentType := map[os.Signal]int{os.Interrupt: 0, os.Kill: 1}, "application/vnd.acme"
			if version == "mqttv5" {
				wills[os.Interrupt], contentType = 1, textPlain
				m.args = append(m.args, "-D", "will", "content-type", contentType)
			}
			for sig, n := range wills {
				c := startChild(t, "mosquitto_sub", m.command(p, "sub", "-t", "error//+/#"), nil)
				p.awaitConnections(t, 1)
				if err := c.cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				_ = c.wait(t)
				p.awaitConnections(t, 0)
				for range n {
					got := app.await(t, "message")
					origin{acme, "meter-2", "hono-mqtt", "telemetry//meter-2", "1", contentType, "lost"}.arrived(t, got, "telemetry")
					if got.Annotations["x-opt-retain"] != true {
						t.Error("the will is not marked as retained")
					}
				}
			}
		}
	})
	dropped := func(o mqttOptions) {
		t.Helper()
		d := p.connects(t, "paho5", o)
		d.does(t, mqttCommand{Cmd: "drop"})
		d.closes(t)
	}
	will := func(payload string) mqttOptions {
		o := asSensor("sensor-1@" + acme)
		o.ClientID, o.Will = payload, &mqttCommand{Topic: "telemetry", Payload: payload, QoS: 1, Properties: [][2]string{{"why", "lost"}, {"content-type", textPlain}}}
		return o
	}
	t.Run("asked for by DISCONNECT", func(t *testing.T) {
		d := p.connects(t, "paho5", will("asked for"))
		d.does(t, mqttCommand{Cmd: "disconnect", Code: 4})
		e := app.await(t, "message")
		if string(e.Body) != "asked for" || e.ContentType != textPlain || e.Properties["why"] != "lost" {
			t.Errorf("the application got %q of %s with %v", e.Body, e.ContentType, e.Properties)
		}
	})
	t.Run("delayed", func(t *testing.T) {
		o := will("delayed")
		o.WillDelay, o.SessionExpiry = at(1), at(60)
		began := time.Now()
		dropped(o)
		if e := app.await(t, "message"); string(e.Body) != "delayed" || time.Since(began) < time.Second {
			t.Errorf("the application got %q after %s; want the will after a second", e.Body, time.Since(began))
		}
	})
	t.Run("not of a device that comes back", func(t *testing.T) {
		o := will("superfluous")
		o.WillDelay, o.SessionExpiry = at(1), at(60)
		dropped(o)
		d := p.connects(t, "paho5", o)
		time.Sleep(1200 * time.Millisecond) // when it would have come
		d.publishes(t, "t", "back")
		if e := app.await(t, "message"); string(e.Body) != "back" {
			t.Errorf("the application got %q; want none but what the device published", e.Body)
		}
	})
	t.Run("to nowhere", func(t *testing.T) {
		o := will("nowhere")
		o.Will.Topic = "home/status" // devices that use other brokers, too, get in
		dropped(o)
	})
}

// TestMQTTIgnoresWills is the same installation with wills switched off.
func TestMQTTIgnoresWills(t *testing.T) {
	p := startPlant(t, "adapters: {mqtt: {will: ignore}}\n")
	app := p.receives(t, "telemetry", acme, "")
	o := asSensor("sensor-1@" + acme)
	o.Will = &mqttCommand{Topic: "telemetry", Payload: "lost", QoS: 1}
	d := p.connects(t, "paho5", o)
	d.does(t, mqttCommand{Cmd: "disconnect", Code: 4})
	p.connects(t, "paho5", asSensor("sensor-1@"+acme)).publishes(t, "t", "alive")
	if e := app.await(t, "message"); string(e.Body) != "alive" {
		t.Errorf("the application got %q; want no will", e.Body)
	}
}

// TestMQTTTokenExpires publishes on after the token ended with which the device came in.
func TestMQTTTokenExpires(t *testing.T) {
	t.Parallel()
	p := startPlant(t, "")
	p.receives(t, "telemetry", acme, "").ignore(t)
	login := func() mqttOptions {
		now := time.Now()
		// It counts for ten minutes more than it says.
		return mqttOptions{User: "unused", Password: p.token(t, "sensor-1", claims(acme, "sensor-1", jwt.MapClaims{
			"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(-10*time.Minute + 3*time.Second).Unix()}), nil)}
	}
	publisher, subscriber := p.connects(t, "paho5", login()), p.connects(t, "paho5", login())
	publisher.subscribes(t, "error///#")
	eventually(t, "the token expires", func() error {
		publisher.does(t, mqttCommand{Cmd: "publish", Topic: "t", Payload: "x", QoS: 1})
		e := publisher.next(t)
		if e.Event == "puback" && e.Code == 0 {
			time.Sleep(50 * time.Millisecond)
			return fmt.Errorf("acknowledged with %#x", e.Code)
		}
		if got := readProblem(t, e.Payload); got.Code != 401 {
			t.Fatalf("error message %+v; want 401", got)
		}
		return nil
	})
	publisher.closes(t)
	subscriber.does(t, mqttCommand{Cmd: "subscribe", Filters: []string{"error///#"}})
	if code, reason := subscriber.closes(t); code != 0x87 || reason == "" {
		t.Errorf("closed with %#x %q; want 0x87", code, reason)
	}
}
