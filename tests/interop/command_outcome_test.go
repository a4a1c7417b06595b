package interop_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	amqp "github.com/Azure/go-amqp"
)

// TestCommandOutcomes has applications of every kind see what becomes of commands
// that no device takes, and of malformed ones.
func TestCommandOutcomes(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, strings.Replace(patient, "5s", "2s", 1))
	sensor := mosquitto{version: "mqttv5", user: "sensor-1@" + acme}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			needPeer(t, kind)
			app := p.commands(t, kind, acme, "")
			for _, tt := range []struct {
				name, device string
				m            outgoing
				want         string
				condition    string
				says         string // in the description
			}{
				{"nobody subscribed", "meter-1", outgoing{}, "released", "", ""},
				{"nobody subscribed, with a response", "meter-1", outgoing{ReplyTo: "answers"}, "released", "", ""},
				{"unknown device", "nobody", outgoing{}, "rejected", "hono:bad-request", "does not exist"},
				{"disabled device", "meter-off", outgoing{}, "rejected", "hono:bad-request", "disabled"},
				{"another tenant", "", outgoing{To: "command/" + other + "/meter-1"}, "rejected", "amqp:unauthorized-access", "tenant"},
				{"another endpoint", "", outgoing{To: "telemetry/" + acme + "/meter-1"}, "rejected", "hono:bad-request", "address"},
				{"no device", "", outgoing{To: "command/" + acme}, "rejected", "hono:bad-request", "device"},
				{"an empty device", "", outgoing{To: "command/" + acme + "/"}, "rejected", "hono:bad-request", "device"},
				{"a slash first", "", outgoing{To: "/command/" + acme + "/meter-1"}, "rejected", "hono:bad-request", "address"},
				{"no id", "meter-1", outgoing{ReplyTo: "command_response/" + acme + "/r"}, "rejected", "hono:bad-request", "id"},
				{"responses elsewhere", "meter-1", outgoing{ReplyTo: "reply/to/address", CorrelationID: "1"}, "rejected", "hono:bad-request", "reply-to"},
				{"responses of another tenant", "meter-1", outgoing{ReplyTo: "command_response/" + other + "/r", CorrelationID: "1"}, "rejected", "hono:bad-request", "reply-to"},
				{"responses without an id", "meter-1", outgoing{ReplyTo: "command_response/" + acme + "/", CorrelationID: "1"}, "rejected", "hono:bad-request", "reply-to"},
			} {
				t.Run(tt.name, func(t *testing.T) {
					app.sends(t, tt.device, tt.m)
					if e := app.hears(t, tt.want); e.Condition != tt.condition || !strings.Contains(e.Description, tt.says) {
						t.Errorf("%s with %s %q; want %s %q", tt.want, e.Condition, e.Description, tt.condition, tt.says)
					}
				})
			}
			l := sensor.listens(t, p, 1, "-t", "c///q/#", "-D", "connect", "maximum-packet-size", "300")
			for name, m := range map[string]outgoing{
				"message-id in place of a correlation-id": {ReplyTo: "answers", MessageID: "m-1"},
				"an amqp-value":       {Form: "text", Body: []byte("text")},
				"a name with slashes": {Subject: "set/brightness"},
			} {
				t.Run(name, func(t *testing.T) {
					app.sends(t, "meter-1", m)
					app.hears(t, "accepted")
					if got := l.gets(t, 1); got.payload != string(m.Body) || m.MessageID != "" && !strings.Contains(got.topic, "03m-1") || !strings.HasSuffix(got.topic, "/"+cmp.Or(m.Subject, "setBrightness")) {
						t.Errorf("got %+v of %+v", got, m)
					}
				})
			}
			t.Run("too large for the device", func(t *testing.T) {
				app.sends(t, "meter-1", outgoing{Size: 400})
				if e := app.hears(t, "rejected"); !strings.Contains(e.Description, "larger than the device takes") {
					t.Errorf("rejected with %s %q", e.Condition, e.Description)
				}
				app.commanded(t, "meter-1", "accepted")
				l.gets(t, 1)
			})
			t.Run("a name that is no topic", func(t *testing.T) {
				app.sends(t, "meter-1", outgoing{Subject: "set+brightness"})
				app.hears(t, "rejected")
			})
			t.Run("the device is stuck", func(t *testing.T) {
				stop(t, l.child, syscall.SIGSTOP)
				app.commanded(t, "meter-1", "released")
				// It acknowledges late, which is of no use any more; it got it, though.
				stop(t, l.child, syscall.SIGCONT)
				l.gets(t, 1)
				app.commanded(t, "meter-1", "accepted")
				l.gets(t, 1)
			})
			t.Run("the device is cut off with commands under way", func(t *testing.T) {
				stop(t, l.child, syscall.SIGSTOP)
				for range 3 {
					app.sends(t, "meter-1", outgoing{Subject: "blink"})
				}
				l.kill()
				for range 3 {
					if e := app.sender.await(t, "outcome"); e.State != "released" {
						t.Errorf("command %d is %s", e.ID, e.State)
					}
				}
				app.commanded(t, "meter-1", "released")
			})
		})
	}
	t.Run("tenants", func(t *testing.T) {
		for _, tenant := range []string{dark, "NOWHERE"} {
			p.commands(t, "go-amqp", tenant, "").commanded(t, "meter-1", "rejected")
		}
	})
	t.Run("malformed", func(t *testing.T) { malformedCommands(t, p) })
	t.Run("settled by the application", func(t *testing.T) {
		for _, kind := range kinds {
			o := p.app("command/" + acme)
			o.sndSettleMode = "settled"
			link := connectPeer(t, kind, "send", o)
			e := link.next(t, "closed")
			if e.Event == "ready" && e.Address == "" { // AMQP refuses a link after its attach
				e = link.next(t, "closed")
			}
			if e.Event != "closed" || e.Condition != "amqp:precondition-failed" {
				t.Errorf("%s is told %s: %s", kind, e.Condition, e.Description)
			}
		}
	})
}

func stop(t *testing.T, c *child, signal syscall.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// malformedCommands sends what the programs of the foreign clients cannot.
func malformedCommands(t *testing.T, p *plant) {
	t.Helper()
	_, conn, err := dialGoAMQP(t.Context(), p.app(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	session, err := conn.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := session.NewSender(t.Context(), "command/"+acme, nil)
	if err != nil {
		t.Fatal(err)
	}
	to, subject, reply := "command/"+acme+"/meter-1", "blink", "command_response/"+acme+"/r"
	for name, m := range map[string]*amqp.Message{
		"nothing":             {ApplicationProperties: map[string]any{"a": "b"}},
		"no address":          {Properties: &amqp.MessageProperties{Subject: &subject}},
		"no name":             {Properties: &amqp.MessageProperties{To: &to}},
		"an id that is none":  {Properties: &amqp.MessageProperties{To: &to, Subject: &subject, ReplyTo: &reply, CorrelationID: uint64(7)}},
		"an id of bytes":      {Properties: &amqp.MessageProperties{To: &to, Subject: &subject, ReplyTo: &reply, MessageID: []byte("7")}},
		"a body that is none": {Properties: &amqp.MessageProperties{To: &to, Subject: &subject}, Value: int32(7)},
		"a body of sequences": {Properties: &amqp.MessageProperties{To: &to, Subject: &subject}, Sequence: [][]any{{"a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			receipt, err := sender.SendWithReceipt(t.Context(), m, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			state, err := receipt.Wait(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if e := outcomeOf(0, state); e.State != "rejected" || e.Condition != "hono:bad-request" {
				t.Errorf("%s (%s: %s)", e.State, e.Condition, e.Description)
			}
		})
	}
}

// TestCommandsOfPaho subscribes with paho for Python and for Go, which answer on the
// connection on which they are told of errors.
func TestCommandsOfPaho(t *testing.T) {
	p := startPlant(t, patient)
	app := p.commands(t, "proton", acme, "")
	for _, kind := range []string{"paho", "paho5"} {
		t.Run(kind, func(t *testing.T) {
			d := p.connects(t, kind, asSensor("sensor-1@"+acme))
			for _, filter := range []string{"c///q", "c///q/+", "c/+//q/#", "c/" + other + "//q/#", "c///x/#", "c//meter-2/q/#", "c//nobody/q/#"} {
				d.does(t, mqttCommand{Cmd: "subscribe", Filters: []string{filter}})
				if e := d.await(t, "suback"); len(e.Codes) != 1 || e.Codes[0] < 0x80 {
					t.Errorf("%q is granted: %v", filter, e.Codes)
				}
			}
			d.does(t, mqttCommand{Cmd: "subscribe", Filters: []string{"c///q/#"}, QoS: 2})
			if e := d.await(t, "suback"); len(e.Codes) != 1 || e.Codes[0] < 0x80 {
				t.Errorf("quality of service 2 is granted: %v", e.Codes)
			}
			d.subscribes(t, "error///#", "command///req/#", "e//meter-1/#")
			app.sends(t, "meter-1", outgoing{ReplyTo: "answers", Body: []byte("50")})
			app.hears(t, "accepted")
			id := requestOf(t, d.await(t, "message").Topic)
			for _, tt := range []struct {
				topic string
				code  int
			}{
				{"command///res/" + id + "/99", 400},
				{"command///res/" + id + "/300", 400},
				{"command///res/" + id + "/600", 400},
				{"command///res/" + id + "/good", 400},
				{"command///res/" + id, 400},
				{"command///res/nonsense/200", 400},
				{"command///res//200", 400},
				{"command///res/0011nobody/200", 503},
			} {
				t.Run(strings.ReplaceAll(tt.topic, "/", "|"), func(t *testing.T) {
					d.does(t, mqttCommand{Cmd: "publish", Topic: tt.topic + "/?on-error=ignore&correlation-id=mine", Payload: "done", QoS: 1})
					e := d.together(t, "message", "puback")["message"]
					if got := readProblem(t, e.Payload); got.Code != tt.code || !strings.HasSuffix(e.Topic, fmt.Sprintf("command-response/mine/%d", tt.code)) {
						t.Errorf("told %+v at %s; want %d", got, e.Topic, tt.code)
					}
				})
			}
			d.publishes(t, "c///s/"+id+"/500/?content-type=text%2Fplain", "broken")
			app.answered(t, "meter-1", "500", textPlain, "broken")
			d.does(t, mqttCommand{Cmd: "unsubscribe", Filters: []string{"command///req/#"}})
			d.await(t, "unsuback")
			app.commanded(t, "meter-1", "released")
			d.subscribes(t, "c///q/#")
			app.commanded(t, "meter-1", "accepted")
			if e := d.await(t, "message"); e.Topic != "c///q//blink" {
				t.Errorf("got %+v", e)
			}
			p.registers(t, http.MethodPut, "devices/"+acme+"/meter-1", `{"enabled": false}`, 204)
			d.closes(t)
			eventually(t, "commands are rejected", func() error { return wanted("rejected", app.tries(t, "meter-1")) })
			p.registers(t, http.MethodPut, "devices/"+acme+"/meter-1", `{}`, 204)
			eventually(t, "commands are released", func() error { return wanted("released", app.tries(t, "meter-1")) })
		})
	}
}

// requestOf is the request id in the topic of a command to the device itself.
func requestOf(t *testing.T, topic string) string {
	t.Helper()
	s := strings.Split(topic, "/")
	if len(s) != 6 || s[4] == "" {
		t.Fatalf("topic %q has no request id", topic)
	}
	return s[4]
}
