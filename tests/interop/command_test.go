package interop_test

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// patient is the configuration of an adapter that gives devices more time to take a
// command than a loaded machine takes it from them.
const patient = "adapters: {mqtt: {send-message-to-device-timeout: 5s}}\n"

// commander is an application that sends commands to the devices of a tenant and
// is told of their responses.
type commander struct {
	tenant, reply string // reply: the id of the responses' address
	sender        *peer
	answers       *peer
	sent          int
}

// commands connects an application to the router at addr, "" = the plant's.
func (p *plant) commands(t *testing.T, kind, tenant, addr string) *commander {
	t.Helper()
	o := p.app("")
	if addr != "" {
		o.addr = addr
	}
	return newCommander(t, kind, tenant, o)
}

func newCommander(t *testing.T, kind, tenant string, o linkOptions) *commander {
	t.Helper()
	c := &commander{tenant: tenant, reply: kind + "/" + fmt.Sprint(time.Now().UnixNano())}
	if kind == "rhea" {
		c.reply = "meter-1/" + c.reply // of some of the devices' own, as Hono's applications do
	}
	o.address = "command/" + tenant
	c.sender = startSender(t, kind, o)
	o.address = "command_response/" + tenant + "/" + c.reply
	c.answers = startReceiver(t, kind, o)
	return c
}

// correlation is the id of the command that was sent last.
func (c *commander) correlation() string { return fmt.Sprintf("id %d/#+?", c.sent) }

// sends sends a command, by default one-way: a ReplyTo of "answers" asks for a response.
func (c *commander) sends(t *testing.T, device string, m outgoing) {
	t.Helper()
	c.sent++
	m.ID = c.sent
	if m.To == "" {
		m.To = "command/" + c.tenant + "/" + device
	}
	if m.Subject == "" {
		m.Subject = "setBrightness"
	}
	if m.ReplyTo == "answers" {
		m.ReplyTo = "command_response/" + c.tenant + "/" + c.reply
		if m.CorrelationID == "" && m.MessageID == "" {
			m.CorrelationID = c.correlation()
		}
	}
	c.sender.mustSend(t, m)
}

// hears expects the outcome of the command that was sent last, and returns it.
func (c *commander) hears(t *testing.T, want string) event {
	t.Helper()
	e := c.sender.await(t, "outcome")
	if e.ID != c.sent || e.State != want {
		t.Fatalf("%s: command %d of %d is %s (%s: %s); want it %s", c.sender.name, e.ID, c.sent, e.State, e.Condition, e.Description, want)
	}
	if !e.SettledByPeer && !strings.HasPrefix(c.sender.name, "go-amqp") {
		t.Errorf("%s: the router left it to the application to settle command %d", c.sender.name, e.ID)
	}
	return e
}

// commanded sends a one-way command and expects its outcome.
func (c *commander) commanded(t *testing.T, device, want string) event {
	t.Helper()
	c.sends(t, device, outgoing{Subject: "blink"})
	return c.hears(t, want)
}

// answered expects the response to the command that was sent last.
func (c *commander) answered(t *testing.T, device, status, contentType, body string) {
	t.Helper()
	e := c.answers.await(t, "message")
	got := []string{e.To, e.CorrelationID, fmt.Sprint(e.Properties["device_id"]), fmt.Sprint(e.Properties["tenant_id"]), fmt.Sprint(e.Properties["status"]), e.ContentType, string(e.Body)}
	want := []string{"command_response/" + c.tenant + "/" + c.reply, c.correlation(), device, c.tenant, status, contentType, body}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("%s: the response is\n%q; want\n%q", c.answers.name, got, want)
	}
}

// lamp is mosquitto_sub waiting for commands.
type lamp struct {
	*child
	lines chan string // what it prints
}

// listens starts mosquitto_sub and returns once its filters are granted.
func (m mosquitto) listens(t *testing.T, p *plant, qos int, args ...string) *lamp {
	t.Helper()
	all := m.command(p, "sub", append([]string{"-d", "-q", fmt.Sprint(qos), "-F", "got %q|%t|%R|%p"}, args...)...).Args
	output, input := io.Pipe()
	// Its lines would stay in a buffer otherwise.
	l := &lamp{child: startChild(t, "mosquitto_sub of "+m.user, exec.Command("stdbuf", append([]string{"-oL"}, all...)...), input), lines: make(chan string, 4096)}
	go func() {
		<-l.done
		input.Close()
	}()
	go func() {
		defer close(l.lines)
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			select {
			case l.lines <- lines.Text():
			case <-t.Context().Done():
			}
		}
	}()
	if granted := l.says(t, "Subscribed "); strings.Contains(granted, "128") || strings.Contains(granted, "135") {
		t.Fatalf("%s %q: %s", l.name, args, granted)
	}
	return l
}

// says returns the rest of the next line that starts like this.
func (l *lamp) says(t *testing.T, start string) string {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-l.lines:
			if !ok {
				t.Fatalf("%s ended; expected that it says %q", l.name, start)
			}
			if rest, found := strings.CutPrefix(line, start); found {
				return rest
			}
		case <-deadline:
			t.Fatalf("%s does not say %q", l.name, start)
		}
	}
}

// order is a command as mosquitto_sub gets it.
type order struct{ topic, reply, payload string } // reply: the topic that MQTT 5 has for it

// gets expects a command with a quality of service.
func (l *lamp) gets(t *testing.T, qos int) order {
	t.Helper()
	got := strings.SplitN(l.says(t, "got "), "|", 4)
	if len(got) != 4 || got[0] != fmt.Sprint(qos) {
		t.Fatalf("%s got %q; want it with quality of service %d", l.name, got, qos)
	}
	return order{got[1], got[2], got[3]}
}
