package peer_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

var update = flag.Bool("update", false, "rewrite the expected lines of testdata/*.txt")

// TestScripts runs testdata/*.txt. A script opens with a comment that says what
// it shows. Then each line is one of
//
//	start ROLE STATE name=value...  a new engine; STATE is new, open or session
//	< frame                         input; with <+ more input follows in the same batch
//	! call                          a call of the owner; with !+ output is not yet taken
//	> frame                         output that is expected
//	= event                         event that is expected
//	: result                        what a call or an error said
//
// With -update the last three kinds are rewritten.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(script))
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(script) {
				t.Errorf("%s differs:\n%s", name, firstDifference(got, string(script)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

type driver struct {
	t        *testing.T
	e        *peer.Engine
	fx       peer.Effects
	now      time.Time
	input    []byte
	out      []string
	links    map[string]*peer.Link
	sessions map[string]*peer.Session
}

var epoch = time.Unix(0, 0)

func runScript(t *testing.T, script string) string {
	d := &driver{t: t, now: epoch}
	if !strings.HasPrefix(script, "# ") {
		t.Fatal("a script opens with a sentence on what it shows")
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(script, "\n"), "\n") {
		op, arg, _ := strings.Cut(line, " ")
		if op == ">" || op == "=" || op == ":" {
			continue
		}
		d.out = append(d.out, line)
		switch op {
		case "start":
			d.start(words(arg))
		case "<", "<+":
			b, err := parseFrame(arg)
			if err != nil {
				t.Fatal(err)
			}
			d.input = append(d.input, b...)
			if op == "<" {
				d.feed()
				d.takeOutput()
			}
		case "!", "!+":
			d.call(words(arg))
			d.takeEvents()
			if op == "!" {
				d.takeOutput()
			}
		default:
			if line != "" && !strings.HasPrefix(line, "#") {
				t.Fatalf("line %q", line)
			}
		}
	}
	return strings.Join(d.out, "\n") + "\n"
}

func (d *driver) say(format string, args ...any) { d.out = append(d.out, fmt.Sprintf(format, args...)) }

// start makes an engine and brings it silently to the wanted state.
func (d *driver) start(w []string) {
	cfg := peer.Config{ContainerID: "us"}
	mechanisms := []amqp.Symbol{"PLAIN"}
	hello := "open container-id=them"
	begin := "begin incoming-window=100 outgoing-window=100"
	for _, o := range w[2:] {
		k, v, _ := strings.Cut(o, "=")
		n, _ := strconv.Atoi(v)
		switch k {
		case "max-frame-size":
			cfg.MaxFrameSize = uint32(n)
		case "channel-max":
			cfg.ChannelMax = uint16(n)
		case "handle-max":
			cfg.HandleMax = uint32(n)
		case "window":
			cfg.IncomingWindow = uint32(n)
		case "max-message-size":
			cfg.MaxMessageSize = uint64(n)
		case "idle":
			cfg.IdleTimeout, _ = time.ParseDuration(v)
		case "their-window":
			begin = fmt.Sprintf("begin incoming-window=%d outgoing-window=100", n)
		case "their-frames":
			hello += fmt.Sprintf(" max-frame-size=%d", n)
		case "their-idle":
			hello += fmt.Sprintf(" idle-timeout=%d", n)
		default:
			d.t.Fatalf("option %q", o)
		}
	}
	d.links, d.sessions, d.input, d.now = map[string]*peer.Link{}, map[string]*peer.Session{}, nil, epoch
	var steps []string
	if w[0] == "client" {
		d.e = peer.NewClient(cfg, peer.PlainLogin("u", "p"))
		steps = []string{"header SASL", "mechanisms mechanisms=PLAIN", "outcome code=0", "header AMQP", hello}
	} else {
		d.e = peer.NewServer(cfg, mechanisms)
		steps = []string{"header SASL", `init mechanism=PLAIN initial-response="x"`, "header AMQP", hello}
	}
	if w[1] == "new" {
		d.takeOutput()
		return
	}
	if w[1] == "session" {
		steps = append(steps, begin)
	}
	kept := len(d.out)
	for _, s := range steps {
		b, err := parseFrame(s)
		if err != nil {
			d.t.Fatal(err)
		}
		d.input = append(d.input, b...)
		d.feed()
		if d.e.NeedsAuth() {
			d.e.Authenticated(nil)
		}
		d.takeOutput()
	}
	d.out = d.out[:kept]
}

func (d *driver) feed() {
	n, err := d.e.Input(d.input, d.now, &d.fx)
	// Nothing may point into the input once the events were handled.
	d.takeEvents()
	for i := range d.input[:n] {
		d.input[i] = 0xee
	}
	d.input = d.input[n:]
	if err != nil {
		d.say(": error %v", err)
	}
	if d.e.NeedsAuth() {
		d.say(": needs auth")
	}
}

func (d *driver) takeOutput() {
	b := d.e.TakeOutput()
	for _, line := range formatOutput(b) {
		d.say("> %s", line)
	}
	d.e.Wrote(len(b))
	if d.e.Done() {
		d.say(": done")
	}
}

func (d *driver) takeEvents() {
	for _, ev := range d.fx.Events {
		d.say("= %s", d.event(ev))
	}
	d.fx.Reset()
}

func (d *driver) sessionName(s *peer.Session) string {
	for name, known := range d.sessions {
		if known == s {
			return name
		}
	}
	name := fmt.Sprintf("s%d", len(d.sessions))
	d.sessions[name] = s
	return name
}

func (d *driver) event(ev peer.Event) string {
	name := ""
	if ev.Link != nil {
		name = " " + ev.Link.Name()
	}
	outcome := fmt.Sprintf("%s id=%d state=%s settled=%v", name, ev.ID, formatState(ev.State), ev.Settled)
	if ev.Token.ID != 0 {
		outcome += fmt.Sprintf(" token=%d", ev.Token.ID)
	}
	switch ev.Kind {
	case peer.EventOpen:
		return fmt.Sprintf("open %s", ev.Open.ContainerID)
	case peer.EventBegin:
		return "begin " + d.sessionName(ev.Session)
	case peer.EventAttach:
		d.links[ev.Link.Name()] = ev.Link
		return fmt.Sprintf("attach%s, we are %v", name, ev.Link.Role())
	case peer.EventAttached:
		return fmt.Sprintf("attached%s source=%v target=%v", name, ev.Attach.Source != nil, ev.Attach.Target != nil)
	case peer.EventDelivery:
		s := fmt.Sprintf("delivery%s id=%d tag=%s payload=%s", name, ev.ID, formatBytes(ev.Tag), formatBytes(ev.Payload))
		if ev.Settled {
			s += " settled"
		}
		if ev.More {
			s += " more"
		}
		if len(ev.State) > 0 {
			s += " state=" + formatState(ev.State)
		}
		return s
	case peer.EventPart:
		return fmt.Sprintf("part%s id=%d payload=%s more=%v", name, ev.ID, formatBytes(ev.Payload), ev.More)
	case peer.EventAborted:
		return fmt.Sprintf("aborted%s id=%d", name, ev.ID)
	case peer.EventCredit:
		s := fmt.Sprintf("credit%s %d", name, ev.Link.Credit())
		if ev.Link.Drain() {
			s += " drain"
		}
		return s
	case peer.EventOutcome:
		return "outcome" + outcome
	case peer.EventSenderState:
		return "sender-state" + outcome
	case peer.EventLost:
		return fmt.Sprintf("lost%s id=%d token=%d", name, ev.ID, ev.Token.ID)
	case peer.EventDetach:
		return fmt.Sprintf("detach%s closed=%v %s", name, ev.Closed, formatError(ev.Error))
	case peer.EventWritable:
		return "writable " + d.sessionName(ev.Session)
	case peer.EventEnd:
		return fmt.Sprintf("end %s %s", d.sessionName(ev.Session), formatError(ev.Error))
	case peer.EventClose:
		return "close " + formatError(ev.Error)
	}
	return fmt.Sprintf("event %d", ev.Kind)
}

// options splits words into those without and with a value.
func options(w []string) (plain []string, with map[string]string) {
	with = map[string]string{}
	for _, x := range w {
		if k, v, ok := strings.Cut(x, "="); ok {
			with[k] = v
		} else {
			plain = append(plain, x)
		}
	}
	return plain, with
}

func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil && s != "" {
		panic(err)
	}
	return uint32(n)
}

func (d *driver) link(name string) *peer.Link {
	l := d.links[name]
	if l == nil {
		d.t.Fatalf("no link %q", name)
	}
	return l
}

func (d *driver) call(w []string) {
	plain, with := options(w[1:])
	arg := func(i int) string {
		if i < len(plain) {
			return plain[i]
		}
		return ""
	}
	switch w[0] {
	case "authenticated":
		switch arg(0) {
		case "ok":
			d.e.Authenticated(nil)
		case "auth":
			d.e.Authenticated(&peer.AuthError{Code: amqp.SASLAuth})
		default:
			d.e.Authenticated(fmt.Errorf("the database is away"))
		}
		d.feed() // what came behind the SASL frame
	case "challenge":
		d.e.Challenge(parseBytes(arg(0)))
	case "begin":
		if s := d.e.Begin(); s != nil {
			d.say(": %s", d.sessionName(s))
		} else {
			d.say(": no session")
		}
	case "end":
		d.sessions[arg(0)].End(parseError(with["error"]))
	case "withhold":
		d.sessions[arg(0)].Withhold(arg(1) == "on")
	case "close":
		d.e.Close(parseError(with["error"]))
	case "abandon":
		d.e.Abandon(&d.fx)
	case "tick":
		after, err := time.ParseDuration(arg(0))
		if err != nil {
			d.t.Fatal(err)
		}
		d.now = epoch.Add(after)
		next, _ := d.e.Tick(d.now)
		if next.IsZero() {
			d.say(": no next tick")
		} else {
			d.say(": next tick at %v", next.Sub(epoch))
		}
	case "attach":
		d.attach(arg(0), arg(1), with)
	default:
		d.linkCall(w[0], d.link(arg(0)), arg, with)
	}
}

func attachment(with map[string]string) peer.Attachment {
	a := peer.Attachment{Credit: number(with["credit"]), SenderSettleMode: amqp.SenderMixed}
	if v, ok := with["source"]; ok {
		a.Source = &amqp.Source{Address: v, HasAddress: true}
	}
	if v, ok := with["target"]; ok {
		a.Target = &amqp.Target{Address: v, HasAddress: true}
	}
	switch with["snd"] {
	case "settled":
		a.SenderSettleMode = amqp.SenderSettled
	case "unsettled":
		a.SenderSettleMode = amqp.SenderUnsettled
	}
	if with["rcv"] == "second" {
		a.ReceiverSettleMode = amqp.ReceiverSecond
	}
	a.Role = with["role"] == "receiver"
	a.CutThrough = with["parts"] == "true"
	a.MaxMessageSize = uint64(number(with["max-message-size"]))
	return a
}

func (d *driver) attach(session, name string, with map[string]string) {
	a := attachment(with)
	a.Name = name
	if l := d.sessions[session].Attach(a); l != nil {
		d.links[name] = l
	} else {
		d.say(": no link")
	}
}

var sendResults = map[peer.SendResult]string{
	peer.NoCredit: "no credit", peer.NotNow: "not now", peer.TooLarge: "too large", peer.Gone: "gone"}

func (d *driver) linkCall(name string, l *peer.Link, arg func(int) string, with map[string]string) {
	switch name {
	case "accept":
		l.Accept(attachment(with))
	case "refuse":
		l.Refuse(parseError(with["error"]))
	case "detach":
		l.Detach(parseError(with["error"]))
	case "detach-lost":
		l.DetachLost(parseError(with["error"]), &d.fx)
	case "credit":
		l.SetCredit(number(arg(1)))
	case "drain":
		l.SetDrain()
	case "drained":
		l.Drained()
	case "send":
		for range max(1, number(with["times"])) {
			o := peer.Outgoing{Settled: arg(1) == "settled", More: with["more"] == "true", Token: peer.Token{ID: number(with["token"])}}
			if v, ok := with["tag"]; ok {
				o.Tag = parseBytes(v)
			}
			b := parseBytes(with["payload"])
			o.Head, o.Mid, o.Tail = b[:len(b)/3], b[len(b)/3:len(b)/2], b[len(b)/2:]
			if r := l.Send(&o); r == peer.Sent {
				d.say(": sent %d", l.LastID())
			} else {
				d.say(": %s", sendResults[r])
			}
		}
	case "continue":
		if r := l.Continue(parseBytes(with["payload"]), with["more"] == "true"); r != peer.Sent {
			d.say(": %s", sendResults[r])
		}
	case "abort":
		l.Abort()
	case "settle":
		if !l.Settle(number(arg(1)), parseState(arg(2)), arg(3) != "unsettled") {
			d.say(": was settled")
		}
	case "settle-sent":
		if !l.SettleSent(number(arg(1)), parseState(arg(2))) {
			d.say(": was settled")
		}
	case "token":
		l.SetToken(number(arg(1)), peer.Token{ID: number(arg(2))})
	default:
		d.t.Fatalf("call %q", name)
	}
}
