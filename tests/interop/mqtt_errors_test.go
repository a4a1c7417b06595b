package interop_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// problem is an error message as a device gets it.
type problem struct {
	Code          int
	Message       string
	Timestamp     string
	CorrelationID string `json:"correlation-id"`
}

func readProblem(t *testing.T, payload string) (p problem) {
	t.Helper()
	if err := json.Unmarshal([]byte(payload), &p); err != nil {
		t.Fatalf("not JSON: %q: %v", payload, err)
	}
	at, err := time.Parse("2006-01-02T15:04:05.000Z", p.Timestamp)
	if err != nil || time.Since(at).Abs() > 2*patience {
		t.Errorf("timestamp %q: %v", p.Timestamp, err)
	}
	return p
}

// TestMQTTOnError asserts every way in which a device may want its errors, with and
// without a subscription for them, in both versions.
func TestMQTTOnError(t *testing.T) {
	t.Parallel()
	p := startPlant(t, "")
	const notThere = "no consumer available"
	for _, mode := range []struct {
		onError                         string
		ackAlone, closeAlone            bool // without a subscription
		ackSubscribed, closesSubscribed bool
	}{
		{"", false, true, true, false},
		{"default", false, true, true, false},
		{"what is this", false, true, true, false},
		{"disconnect", false, true, false, true},
		{"ignore", true, false, true, false},
		{"skip-ack", false, false, false, false},
	} {
		for _, kind := range []string{"paho", "paho5"} {
			for _, subscribed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%q, %s, subscribed %t", mode.onError, kind, subscribed), func(t *testing.T) {
					d := p.connects(t, kind, asSensor("sensor-1@"+acme))
					topic, ack, closes := "telemetry/?correlation-id=c-1", mode.ackAlone, mode.closeAlone
					if mode.onError != "" {
						topic += "&on-error=" + strings.ReplaceAll(mode.onError, " ", "%20")
					}
					if subscribed {
						d.subscribes(t, "error///#")
						ack, closes = mode.ackSubscribed, mode.closesSubscribed
					}
					d.does(t, mqttCommand{Cmd: "publish", ID: 1, Topic: topic, Payload: "x", QoS: 1})
					var kinds []string
					if subscribed {
						kinds = append(kinds, "message")
					}
					if ack {
						kinds = append(kinds, "puback")
					}
					if closes {
						kinds = append(kinds, d.farewell())
					}
					got := d.together(t, kinds...)
					if e, ok := got["message"]; ok {
						if e.Topic != "error///telemetry/c-1/503" {
							t.Errorf("error message to %s", e.Topic)
						}
						if got := readProblem(t, e.Payload); got.Code != 503 || got.Message != notThere || got.CorrelationID != "c-1" {
							t.Errorf("error message %+v", got)
						}
					}
					if e, ok := got["puback"]; ok && (e.ID != 1 || d.five && (e.Code != 0x80 || e.Reason != notThere)) {
						t.Errorf("acknowledged %d with %#x %q", e.ID, e.Code, e.Reason)
					}
					if closes {
						if e := got["disconnect"]; d.five && e.Reason != notThere {
							t.Errorf("closed with %#x %q", e.Code, e.Reason)
						}
						return
					}
					// It is open, and what has not been acknowledged is not acknowledged later.
					d.does(t, mqttCommand{Cmd: "publish", ID: 2, Topic: "t/?on-error=ignore", Payload: "x", QoS: 1})
					if kinds = []string{"puback"}; subscribed {
						kinds = append(kinds, "message")
					}
					if e := d.together(t, kinds...)["puback"]; e.ID != 2 {
						t.Errorf("acknowledged %d; want 2", e.ID)
					}
				})
			}
		}
	}
}

// TestMQTTErrors asserts what devices are told of every error, and whether their
// connection lives on.
func TestMQTTErrors(t *testing.T) {
	t.Parallel()
	p := startPlant(t, "")
	for _, answer := range []string{"telemetry", "event"} {
		p.receives(t, answer, acme, "").ignore(t)
	}
	const (
		unknownDevice = "device is disabled or not registered"
		otherTenant   = "not authorized for this tenant"
		notification  = "application%2Fvnd.eclipse-hono-empty-notification"
	)
	const some, long = "x", 2048
	for _, tt := range []struct {
		name, user, filter, topic, payload string
		qos                                int
		report                             string // topic of the error message, %s = correlation
		code                               int
		says                               string
		closes                             bool
	}{
		{"no payload", "sensor-1", "error///#", "t/?correlation-id=1", "", 1, "error///t/1/400", 400, "", false},
		{"payload of a notification", "sensor-1", "error///#", "telemetry/?content-type=" + notification, some, 0, "error///telemetry/-1/400", 400, "", false},
		{"event with QoS 0", "sensor-1", "e///#", "event/?correlation-id=2", some, 0, "e///event/2/400", 400, "", false},
		{"no such endpoint", "sensor-1", "error///#", "nonsense/?correlation-id=3", some, 1, "error///unknown/3/404", 404, "no such endpoint", false},
		{"malformed topic", "sensor-1", "error///#", "/telemetry/?correlation-id=4", some, 0, "", 400, "malformed topic name", false},
		{"tenant without device", "sensor-1", "error///#", "t/" + acme + "/?correlation-id=5", some, 1, "error///t/5/400", 400, "", false},
		{"another tenant", "sensor-1", "error///#", "t/" + other + "/meter-1/?correlation-id=6", some, 1, "", 403, otherTenant, false},
		{"device that is not there", "gw-1", "error///#", "telemetry//unknown/?correlation-id=7", some, 1, "error//unknown/telemetry/7/404", 404, unknownDevice, false},
		{"device that is not there, short", "gw-1", "e//+/#", "t//unknown/?correlation-id=8", some, 1, "e//unknown/t/8/404", 404, unknownDevice, false},
		{"device disabled", "gw-1", "e/" + acme + "/+/#", "t//meter-off/?correlation-id=9", some, 1, "e/" + acme + "/meter-off/t/9/404", 404, unknownDevice, false},
		{"by the filter for one device", "gw-1", "error//meter-2/#", "event//meter-2/?correlation-id=10", some, 0, "error//meter-2/event/10/400", 400, "", false},
		{"gateway itself", "gw-1", "error//+/#", "event/?correlation-id=11", some, 0, "error//gw-1/event/11/400", 400, "", false},
		{"not its gateway", "gw-2", "error//+/#", "t//meter-2/?correlation-id=12", some, 1, "error//meter-2/t/12/403", 403, "", true},
	} {
		for _, kind := range []string{"paho", "paho5"} {
			t.Run(tt.name+" "+kind, func(t *testing.T) {
				d := p.connects(t, kind, asSensor(tt.user+"@"+acme))
				d.subscribes(t, tt.filter)
				d.does(t, mqttCommand{Cmd: "publish", ID: 1, Topic: tt.topic, Payload: tt.payload, QoS: tt.qos})
				kinds := []string{"message"}
				switch {
				case tt.closes:
					kinds = append(kinds, d.farewell())
				case tt.qos == 0 && d.five:
					kinds = append(kinds, "sent")
				default:
					kinds = append(kinds, "puback") // for paho, what is sent with QoS 0, too
				}
				e := d.together(t, kinds...)["message"]
				if got := readProblem(t, e.Payload); tt.report != "" && e.Topic != tt.report || got.Code != tt.code || got.Message == "" || tt.says != "" && got.Message != tt.says {
					t.Errorf("error message %+v to %s; want %d %q to %s", got, e.Topic, tt.code, tt.says, tt.report)
				}
				if !tt.closes {
					d.publishes(t, "t", some)
				}
			})
		}
	}
	t.Run("too large", func(t *testing.T) {
		for _, kind := range []string{"paho", "paho5"} {
			o := asSensor("sensor-1@" + acme)
			d := p.connects(t, kind, o)
			d.subscribes(t, "error///#")
			d.does(t, mqttCommand{Cmd: "publish", Topic: "t", Payload: strings.Repeat("x", 2*long), QoS: 1})
			e := d.next(t)
			if kind == "paho" && e.Event != "closed" || kind == "paho5" && (e.Event != "disconnect" || e.Code != 0x95 || e.Reason == "") {
				t.Errorf("%s says %+v; want the connection closed", kind, e)
			}
		}
	})
}

// TestMosquittoWantsTooMuch publishes with the quality of service that there is not.
func TestMosquittoWantsTooMuch(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, "")
	app := p.receives(t, "telemetry", acme, "")
	m := mosquitto{version: "mqttv311", user: "sensor-1@" + acme}
	if got := m.run(t, p, "pub", "-q", "2", "-t", "telemetry", "-m", "22.5"); got.code == 0 || got.stderr == "" {
		t.Errorf("QoS 2: ended with %d: %s", got.code, got.stderr)
	}
	m.publishes(t, p, "-t", "telemetry", "-m", "23.5")
	if e := app.await(t, "message"); string(e.Body) != "23.5" {
		t.Errorf("the application got %q; want nothing that was refused", e.Body)
	}
}

// TestMosquittoSubscribes asserts what is answered to every kind of filter.
func TestMosquittoSubscribes(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, "")
	for _, tt := range []struct {
		user, filter, qos string
		v3, v5            int // 0 = granted
	}{
		{"sensor-1", "error///#", "0", 0, 0},
		{"sensor-1", "e///#", "0", 0, 0},
		{"sensor-1", "error/" + acme + "/meter-1/#", "0", 0, 0},
		{"gw-1", "error//+/#", "0", 0, 0},
		{"gw-1", "error//meter-2/#", "0", 0, 0},
		{"sensor-1", "error///#", "1", 0x80, 0x83},
		{"sensor-1", "error///#", "2", 0x80, 0x83},
		{"gw-2", "error//meter-2/#", "0", 0x80, 0x87},
		{"gw-1", "error//unknown/#", "0", 0x80, 0x80},
		{"sensor-1", "error/" + other + "/meter-1/#", "0", 0x80, 0x87},
		{"sensor-1", "error/+/meter-1/#", "0", 0x80, 0x8f},
		{"sensor-1", "error/#", "0", 0x80, 0x8f},
		{"sensor-1", "error////#", "0", 0x80, 0x8f},
		{"sensor-1", "telemetry/#", "0", 0x80, 0x8f},
		{"sensor-1", "#", "0", 0x80, 0x8f},
	} {
		for _, version := range versions {
			t.Run(tt.user+" "+tt.filter+" "+tt.qos+" "+version, func(t *testing.T) {
				want := tt.v3
				if version == "mqttv5" {
					want = tt.v5
				}
				m := mosquitto{version: version, user: tt.user + "@" + acme}
				got := m.run(t, p, "sub", "-d", "-E", "-t", tt.filter, "-q", tt.qos)
				code := -1
				if line := lineWith(got.stdout, "Subscribed (mid: "); line != "" {
					_, _ = fmt.Sscanf(line[strings.LastIndexByte(line, ' ')+1:], "%d", &code)
				}
				if code != want && !(want == 0x80 && code >= 0x80) {
					t.Errorf("answered %#x; want %#x: %s%s", code, want, got.stdout, got.stderr)
				}
			})
		}
	}
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// TestPaho5Filters looks at several filters in one packet, and at what a device is told of them.
func TestPaho5Filters(t *testing.T) {
	p := startPlant(t, "")
	d := p.connects(t, "paho5", asSensor("gw-1@"+acme))
	d.does(t, mqttCommand{Cmd: "subscribe", Filters: []string{"error//+/#", "command//+/req/#", "nonsense", "e//meter-2/#"}})
	e := d.await(t, "suback")
	if got := fmt.Sprintf("%#x", e.Codes); got != "[0x0 0x0 0x8f 0x0]" || e.Reason == "" {
		t.Errorf("answered %s %q; want all but the third granted", got, e.Reason)
	}
	d.does(t, mqttCommand{Cmd: "unsubscribe", Filters: []string{"e//meter-2/#", "error//meter-2/#"}})
	if e = d.await(t, "unsuback"); len(e.Codes) != 2 || e.Codes[0] != 0 {
		t.Errorf("answered %#x; want the first one to be gone", e.Codes)
	}
}

// TestMQTTWaitsForTheOutcome has applications that do not take what they get.
func TestMQTTWaitsForTheOutcome(t *testing.T) {
	t.Parallel()
	p := startPlant(t, "send-timeout: 300ms\n")
	for _, tt := range []struct {
		answer string
		code   int // of the error message; 0 = accepted
		says   string
	}{
		{"accepted", 0, ""},
		{"hold", 503, "consumer failed to indicate in time whether it has processed the message"},
		{"released", 503, "consumer didn't process the message"},
		{"modified", 503, "consumer didn't process the message"},
		{"rejected", 400, "as the subject asked"},
	} {
		for _, kind := range []string{"paho", "paho5"} {
			t.Run(tt.answer+" "+kind, func(t *testing.T) {
				app := p.receives(t, "telemetry", acme, tt.answer)
				d := p.connects(t, kind, asSensor("sensor-1@"+acme))
				d.subscribes(t, "error///#")
				d.does(t, mqttCommand{Cmd: "publish", ID: 1, Topic: "t/?on-error=skip-ack", Payload: "1", QoS: 1})
				app.await(t, "message")
				if tt.code == 0 {
					d.await(t, "puback")
				} else if got := readProblem(t, d.await(t, "message").Payload); got.Code != tt.code || got.Message != tt.says {
					t.Errorf("error message %+v; want %d %s", got, tt.code, tt.says)
				}
				app.close()
			})
		}
	}
}

// TestMQTTAfterChanges changes the registry under a connection: what ends it, and
// what does not.
func TestMQTTAfterChanges(t *testing.T) {
	p := startPlant(t, "")
	p.receives(t, "telemetry", acme, "").ignore(t)
	d := p.connects(t, "paho5", asSensor("gw-1@"+acme))
	d.subscribes(t, "error//+/#")
	d.publishes(t, "t//meter-2", "x")
	// A device behind it is gone: that is no concern of the gateway's connection.
	p.registers(t, http.MethodDelete, "devices/"+acme+"/meter-2", "", 204)
	eventually(t, "an error for the device that is gone", func() error {
		d.does(t, mqttCommand{Cmd: "publish", Topic: "t//meter-2", Payload: "x", QoS: 1})
		e := d.next(t)
		if e.Event == "puback" && e.Code == 0 {
			return errors.New("acknowledged")
		}
		if e.Event == "puback" {
			e = d.await(t, "message")
		} else {
			d.await(t, "puback")
		}
		if got := readProblem(t, e.Payload); got.Code != 404 {
			t.Fatalf("error message %+v; want 404", got)
		}
		return nil
	})
	d.publishes(t, "t//meter:3", "x")
	// It may no longer act for one: that ends it.
	p.registers(t, http.MethodPut, "devices/"+acme+"/meter:3", `{"via": ["gw-2"]}`, 204)
	eventually(t, "an error for the device that it may not act for", func() error {
		d.does(t, mqttCommand{Cmd: "publish", Topic: "t//meter:3", Payload: "x", QoS: 1})
		e := d.next(t)
		switch e.Event {
		case "puback":
			return errors.New("acknowledged")
		case "message":
			d.await(t, "disconnect")
		default:
			e = d.await(t, "message")
		}
		if got := readProblem(t, e.Payload); got.Code != 403 {
			t.Errorf("error message %+v; want 403", got)
		}
		return nil
	})
}
