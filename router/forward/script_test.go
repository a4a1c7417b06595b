package forward_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/router/forward"
)

var update = flag.Bool("update", false, "rewrite the expected lines of testdata/*.txt")

// TestScripts runs testdata/*.txt in virtual time. A script opens with a
// sentence on what it shows. A line that begins with > is what clients saw of the
// action before it; -update rewrites these. Other lines are actions of clients,
// which connect when they are first named by a word in capitals:
//
//	A sender s [ADDRESS] [rcv=second] [snd=settled|unsettled]
//	A senders s 100 [ADDRESS]          that many
//	B receiver r [ADDRESS] [max=BYTES] [snd=...] [rcv=second]
//	B credit r 10                      B drain r
//	A send s 3 [settled] [size=BYTES]  messages s1 s2 s3
//	B accept|release|reject|modify r s1-s3 [unsettled]
//	A settle s s1 released             the sender's own word; without a state if none is named
//	A begin s 70000 100000             the first bytes of a message with that many in all
//	A more|finish s 1000               further ones; A abort s
//	A detach s                         A close, A kill
//	A hold, A go                       what A writes is kept back in between
//	B stall, B read                    B does not read in between
//	wait 100ms                         shutdown 1s
//
// An address is "a" unless it is named. Credit is told when it has changed.
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
			var got string
			synctest.Test(t, func(t *testing.T) { got = runScript(t, string(script)) })
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

// stage is a router and its clients in one bubble of virtual time.
type stage struct {
	t       testing.TB
	ctx     context.Context
	wg      sync.WaitGroup
	router  *forward.Router
	wheel   *peer.Wheel
	clients map[string]*client
	held    map[string]bool
	told    forward.Counts
	out     []string
}

func newStage(t testing.TB) *stage {
	ctx, cancel := context.WithCancel(t.Context())
	s := &stage{t: t, ctx: ctx, router: forward.New(open{}), wheel: peer.NewWheel(), clients: map[string]*client{}, held: map[string]bool{}}
	s.wg.Go(func() { s.wheel.Run(ctx) })
	t.Cleanup(func() {
		for _, c := range s.clients {
			if c.stall != nil {
				close(c.stall)
			}
		}
		cancel()
		s.wg.Wait()
		if conns, addresses := s.router.Counts(); conns+addresses > 0 {
			t.Errorf("%d connections and %d addresses are left", conns, addresses)
		}
	})
	return s
}

func (s *stage) client(name string) *client {
	c := s.clients[name]
	if c == nil {
		c = connect(s.ctx, &s.wg, name, s.router, s.wheel, func(v any, stack []byte) { s.t.Errorf("panic: %v\n%s", v, stack) })
		s.clients[name] = c
		synctest.Wait()
	}
	return c
}

func runScript(t *testing.T, script string) string {
	s := newStage(t)
	if !strings.HasPrefix(script, "# ") {
		t.Fatal("a script opens with a sentence on what it shows")
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(script, "\n"), "\n") {
		if strings.HasPrefix(line, "> ") {
			continue
		}
		s.out = append(s.out, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s.act(line)
		synctest.Wait()
		s.tell()
		if err := s.router.Check(); err != nil {
			t.Errorf("after %q: %v", line, err)
		}
	}
	return strings.Join(s.out, "\n") + "\n"
}

func (s *stage) act(line string) {
	w := strings.Fields(line)
	switch w[0] {
	case "wait":
		d, err := time.ParseDuration(w[1])
		if err != nil {
			s.t.Fatal(err)
		}
		time.Sleep(d)
		return
	case "shutdown":
		d, _ := time.ParseDuration(w[1])
		s.wg.Go(func() {
			ctx, cancel := context.WithTimeout(s.ctx, d)
			defer cancel()
			s.router.Shutdown(ctx)
		})
		return
	}
	c := s.client(w[0])
	switch w[1] {
	case "hold":
		s.held[c.name] = true
		return
	case "go":
		s.held[c.name] = false
		c.batch.Flush()
		return
	case "stall":
		c.mu.Lock()
		c.stall = make(chan struct{})
		c.mu.Unlock()
		return
	case "read":
		c.mu.Lock()
		close(c.stall)
		c.stall = nil
		c.mu.Unlock()
		return
	case "kill":
		c.end.Close()
		return
	case "close":
		c.conn.Close(nil)
		return
	}
	if w[1] == "send" && strings.HasSuffix(w[2], "*") {
		for _, l := range slices.Clone(c.order) {
			if strings.HasPrefix(l.name, strings.TrimSuffix(w[2], "*")) {
				c.do(!s.held[c.name], func() { s.call(c, "send", l.name, w[3:]) })
				synctest.Wait()
			}
		}
		return
	}
	if w[1] == "send" && strings.Contains(line, "size=") && !s.held[c.name] {
		// A message at a time: our engine too takes only so much unsent.
		n := atoi(w[3])
		w[3] = "1"
		for range n {
			c.do(true, func() { s.call(c, "send", w[2], w[3:]) })
			synctest.Wait()
		}
		return
	}
	c.do(!s.held[c.name], func() { s.call(c, w[1], w[2], w[3:]) })
}

// option cuts name=value out of the words.
func option(w *[]string, name string) (value string) {
	*w = slices.DeleteFunc(*w, func(x string) bool {
		k, v, _ := strings.Cut(x, "=")
		if k == name {
			value = v
			if v == "" {
				value = "yes"
			}
		}
		return k == name
	})
	return value
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

var senderModes = map[string]amqp.SenderSettleMode{"": amqp.SenderMixed, "settled": amqp.SenderSettled, "unsettled": amqp.SenderUnsettled}
var receiverModes = map[string]amqp.ReceiverSettleMode{"": amqp.ReceiverFirst, "second": amqp.ReceiverSecond}

// call is one action on a link.
func (s *stage) call(c *client, verb, link string, w []string) {
	w = slices.Clone(w)
	a := peer.Attachment{SenderSettleMode: senderModes[option(&w, "snd")], ReceiverSettleMode: receiverModes[option(&w, "rcv")]}
	max, size, settled := option(&w, "max"), option(&w, "size"), option(&w, "settled")
	l := c.links[link]
	switch verb {
	case "begin":
		l.sent++
		name := fmt.Sprintf("%s%d", l.name, l.sent)
		l.link.Send(&peer.Outgoing{More: true, Settled: settled != "", Tail: head(name, atoi(w[0]), atoi(w[1]))})
		if !l.link.Settles(settled != "") {
			l.note(name, l.link.LastID())
		}
	case "more", "finish":
		l.link.Continue([]byte(strings.Repeat("x", atoi(w[0]))), verb == "more")
	case "abort":
		l.link.Abort()
	case "sender", "senders", "receiver":
		names := []string{link}
		if verb == "senders" {
			names = nil
			for i := range atoi(w[0]) {
				names = append(names, fmt.Sprintf("%s.%d.", link, i+1))
			}
			w = w[1:]
		}
		address := "a"
		if len(w) > 0 {
			address = w[0]
		}
		for _, name := range names {
			a := a
			a.Source, a.Target = &amqp.Source{Address: address, HasAddress: true}, &amqp.Target{Address: address, HasAddress: true}
			if a.Role = amqp.RoleSender; verb == "receiver" {
				a.Role = amqp.RoleReceiver
				if max != "" {
					a.MaxMessageSize = uint64(atoi(max))
				}
			}
			c.attach(name, a)
		}
	case "credit":
		l.link.SetCredit(uint32(atoi(w[0])))
	case "drain":
		l.link.SetDrain()
		l.draining = true
	case "send":
		if size == "" {
			size = "0"
		}
		for i := range atoi(w[0]) {
			if res := c.send(l, settled != "", atoi(size)); res != peer.Sent {
				c.say("%s sent %d of %s: %v", link, i, w[0], map[peer.SendResult]string{
					peer.NoCredit: "no credit", peer.NotNow: "not now", peer.TooLarge: "too large", peer.Gone: "gone"}[res])
				return
			}
		}
	case "detach":
		l.link.Detach(nil)
	case "settle":
		state := amqp.Raw(nil)
		if len(w) > 1 {
			state = states[w[1]]
		}
		for _, name := range expand(w[0]) {
			l.link.SettleSent(l.ids[name], state)
			delete(l.names, l.ids[name])
		}
	default:
		state, ok := states[verb]
		if !ok {
			s.t.Fatalf("no action is called %q", verb)
		}
		unsettled := option(&w, "unsettled") != ""
		for _, name := range expand(w[0]) {
			if !l.link.Settle(l.ids[name], state, !unsettled) {
				c.say("%s %s was settled", link, name)
			}
		}
	}
}

var states = map[string]amqp.Raw{
	"accept": amqp.StateAccepted, "release": amqp.StateReleased, "released": amqp.StateReleased, "accepted": amqp.StateAccepted,
	"reject": amqp.AppendRejected(nil, &amqp.Error{Condition: "hono:bad-request", Description: "no such unit"}),
	"modify": (&amqp.Modified{UndeliverableHere: true}).Append(nil),
}

// expand reads s2-s4 as s2 s3 s4.
func expand(names string) (list []string) {
	first, last, ranged := strings.Cut(names, "-")
	if !ranged {
		return []string{first}
	}
	stem := strings.TrimRight(first, "0123456789")
	for i := atoi(first[len(stem):]); i <= atoi(last[len(stem):]); i++ {
		list = append(list, stem+strconv.Itoa(i))
	}
	return list
}

// tell writes what clients saw since the last action.
func (s *stage) tell() {
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range s.clients {
			if !yield(name) {
				return
			}
		}
	}) {
		c := s.clients[name]
		c.conn.Lock()
		c.mu.Lock()
		for _, line := range squeeze(append(c.seen, c.credits()...)) {
			s.out = append(s.out, "> "+name+" "+line)
		}
		c.seen = nil
		c.mu.Unlock()
		c.conn.Unlock()
	}
	now := s.router.Stats()
	for _, x := range []struct {
		name     string
		now, was int64
	}{{"released", now.Released, s.told.Released}, {"dropped", now.Dropped, s.told.Dropped}, {"rejected", now.Rejected, s.told.Rejected}} {
		if x.now != x.was {
			s.out = append(s.out, fmt.Sprintf("> router %s %d", x.name, x.now-x.was))
		}
	}
	s.told = now
}

// credits tells of senders whose credit has changed, those with the same in one line.
func (c *client) credits() (lines []string) {
	var same []string
	last := -1
	end := func() {
		switch {
		case len(same) == 1:
			lines = append(lines, fmt.Sprintf("%s credit %d", same[0], last))
		case len(same) > 1:
			lines = append(lines, fmt.Sprintf("%s...%s credit %d", same[0], same[len(same)-1], last))
		}
		same = nil
	}
	for _, l := range c.order {
		n := int(l.link.Credit())
		if l.draining && !l.link.Drain() {
			l.draining = false
			lines = append(lines, fmt.Sprintf("%s drained, credit %d", l.name, n))
		}
		if l.link.Role() != amqp.RoleSender || n == l.last || !l.link.Attached() {
			continue
		}
		l.last = n
		if n != last {
			end()
		}
		last = n
		same = append(same, l.name)
	}
	end()
	return lines
}

// squeeze writes lines that differ by a number counting up as one.
func squeeze(lines []string) (out []string) {
	type run struct{ pre, stem, post, first, last string }
	var cur *run
	end := func() {
		if cur == nil {
			return
		}
		name := cur.stem + cur.first
		if cur.last != cur.first {
			name += "-" + cur.stem + cur.last
		}
		out = append(out, cur.pre+name+cur.post)
		cur = nil
	}
	for _, line := range lines {
		w := strings.SplitN(line, " ", 3)
		var next *run
		at, post := 1, ""
		if len(w) == 3 && w[1] == "got" {
			x := strings.SplitN(w[2], " ", 2)
			w = []string{w[0], "got", x[0]}
			if len(x) > 1 {
				post = " " + x[1]
			}
			at = 2
		} else if len(w) == 3 {
			post = " " + w[2]
		}
		if len(w) == 3 {
			if stem := strings.TrimRight(w[at], "0123456789"); stem != w[at] && stem != "" {
				next = &run{strings.Join(w[:at], " ") + " ", stem, post, w[at][len(stem):], w[at][len(stem):]}
			}
		}
		if next != nil && cur != nil && next.pre == cur.pre && next.stem == cur.stem && next.post == cur.post && atoi(next.first) == atoi(cur.last)+1 {
			cur.last = next.first
			continue
		}
		end()
		if cur = next; cur == nil {
			out = append(out, line)
		}
	}
	end()
	return out
}
