package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// linkOptions says where a peer connects and what link it asks for.
type linkOptions struct {
	addr, user, password, address string
	ca                            string // file; "" = plain text
	credit                        int    // receivers; 0 = 10
	sndSettleMode, rcvSettleMode  string // "" = the client's default
	maxFrame                      int    // bytes that the client announces; 0 = its default
	manual                        bool   // receivers: no credit but what grant gives
	digest                        bool   // receivers: report the body's SHA-256 in its place
	parts                         bool   // Proton's receiver: say when part of a message is there
	buffer                        int    // rhea: frames that its session takes; 0 = its default
	dynamic                       bool   // receivers: ask the router for an address
	answer                        string // receivers: the outcome, whatever the subject says
	links                         int    // senders: as many idle links beside the one
}

// event is what a peer says; see doc.go and the programs of the foreign peers.
type event struct {
	Event string `json:"event"`

	// ready
	Address       string `json:"address"`
	SndSettleMode string `json:"sndSettleMode"`
	RcvSettleMode string `json:"rcvSettleMode"`

	// message
	Body                []byte         `json:"body"`
	Subject             string         `json:"subject"`
	To                  string         `json:"to"`
	ContentType         string         `json:"contentType"`
	ReplyTo             string         `json:"replyTo"`
	CorrelationID       string         `json:"correlationId"`
	Size                int            `json:"size"`
	SHA256              string         `json:"sha256"`
	MessageID           string         `json:"messageId"`
	Annotations         map[string]any `json:"annotations"`
	DeliveryAnnotations map[string]any `json:"deliveryAnnotations"`
	Properties          map[string]any `json:"properties"`
	Settled             bool           `json:"settled"`
	Durable             bool           `json:"durable"`
	DeliveryCount       int            `json:"deliveryCount"`
	FirstAcquirer       bool           `json:"firstAcquirer"`
	TTL                 int            `json:"ttl"` // ms

	// outcome, sent
	ID                int    `json:"id"`
	State             string `json:"state"`
	SettledByPeer     bool   `json:"settledByPeer"`
	DeliveryFailed    bool   `json:"deliveryFailed"`
	UndeliverableHere bool   `json:"undeliverableHere"`

	// outcome rejected, closed; info also of outcome modified
	Condition   string         `json:"condition"`
	Description string         `json:"description"`
	Info        map[string]any `json:"info"`

	// drained, flooded
	N int `json:"n"`
}

// outgoing is a message for a sender; Subject also tells the receiver how to answer.
type outgoing struct {
	ID          int    `json:"id"`
	Subject     string `json:"subject"`
	Body        []byte `json:"body"`
	ContentType string `json:"contentType"`
	To          string `json:"to"`
	Settled     bool   `json:"settled"`

	ReplyTo       string `json:"replyTo,omitempty"`
	CorrelationID string `json:"correlationId,omitempty"`
	MessageID     string `json:"messageId,omitempty"`
	Form          string `json:"form,omitempty"` // of the body: "" = a data section, "text" = an amqp-value
	Size          int    `json:"size,omitempty"` // the body is pattern(Size, ID)

	// Cmd is "credit" (N of it) or "drain" to a receiver, and "flood" (for N
	// milliseconds as fast as there is credit) to a sender; "" sends a message.
	Cmd string `json:"cmd,omitempty"`
	N   int    `json:"n,omitempty"`
}

// peer is one AMQP client with one link, whoever wrote it.
type peer struct {
	name   string
	events chan event
	send   func(outgoing) error
	close  func() // politely
}

// kinds are the clients that every router must serve.
var kinds = []string{"go-amqp", "proton", "rhea"}

func startSender(t *testing.T, kind string, o linkOptions) *peer {
	t.Helper()
	return startPeer(t, kind, "send", o)
}

func startReceiver(t *testing.T, kind string, o linkOptions) *peer {
	t.Helper()
	return startPeer(t, kind, "recv", o)
}

// startPeer returns a peer whose link is attached.
func startPeer(t *testing.T, kind, role string, o linkOptions) *peer {
	t.Helper()
	p := connectPeer(t, kind, role, o)
	p.await(t, "ready")
	return p
}

// connectPeer returns a peer that is on its way.
func connectPeer(t *testing.T, kind, role string, o linkOptions) *peer {
	t.Helper()
	if kind == "go-amqp" {
		return connectGoAMQP(t, role, o)
	}
	p := connectForeign(t, kind, role, o)
	t.Cleanup(p.close)
	return p
}

// await returns the next event, which must be of the given kind.
func (p *peer) await(t *testing.T, kind string) event {
	t.Helper()
	e := p.next(t, kind)
	if e.Event != kind {
		t.Fatalf("%s says %q (%s: %s); expected %q", p.name, e.Event, e.Condition, e.Description, kind)
	}
	return e
}

// next returns the next event, which is expected to be of the given kind.
func (p *peer) next(t *testing.T, kind string) event {
	t.Helper()
	select {
	case e, ok := <-p.events:
		if !ok {
			t.Fatalf("%s ended; expected %q", p.name, kind)
		}
		return e
	case <-time.After(patience):
		t.Fatalf("%s says nothing; expected %q", p.name, kind)
		return event{}
	}
}

// ignore takes what the peer says from here on, as long as the test runs: a
// receiver whose messages nobody takes stops settling them.
func (p *peer) ignore(t *testing.T) {
	t.Helper()
	go func() {
		for {
			select {
			case _, ok := <-p.events:
				if !ok {
					return
				}
			case <-t.Context().Done():
				return
			}
		}
	}()
}

// mustSend hands a message to a sender.
func (p *peer) mustSend(t *testing.T, m outgoing) {
	t.Helper()
	if err := p.send(m); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
}

// needPeer skips or fails when a client is not installed.
func needPeer(t *testing.T, kind string) {
	t.Helper()
	switch kind {
	case "proton":
		need(t, "Proton for Python (Debian package python3-qpid-proton)", protonMissing())
	case "rhea":
		need(t, "rhea (npm) on Node", rheaMissing())
	}
}

// python is Debian's interpreter: its package of Proton belongs to no other.
const python = "/usr/bin/python3"

var protonMissing = sync.OnceValue(func() error {
	if out, err := exec.Command(python, "-c", "import proton").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	// Without Cyrus SASL's PLAIN, Proton cannot log in with a password.
	if found, _ := filepath.Glob("/usr/lib/*/sasl2/libplain.so*"); len(found) == 0 {
		return errors.New("no PLAIN mechanism (Debian package libsasl2-modules)")
	}
	return nil
})

var rheaMissing = sync.OnceValue(func() error {
	if _, err := exec.LookPath("node"); err != nil {
		return err
	}
	_, err := os.Stat(filepath.Join(nodePath(), "rhea"))
	return err
})

func nodePath() string { return filepath.Join(repository(), "build", "node_modules") }

// connectForeign starts a client in a process of its own.
func connectForeign(t *testing.T, kind, role string, o linkOptions) *peer {
	t.Helper()
	needPeer(t, kind)
	cmd := exec.Command(python, "-u", "proton_peer.py", role)
	if kind == "rhea" {
		cmd = exec.Command("node", "rhea_peer.js", role)
		cmd.Env = append(os.Environ(), "NODE_PATH="+nodePath())
	}
	p := &peer{name: kind + " " + role + " " + o.address, events: make(chan event, 4096)}
	output, input := io.Pipe()
	c := startChild(t, p.name, cmd, input)
	go func() {
		<-c.done
		input.Close()
	}()
	go readEvents(t.Context(), output, p.events)

	host, port, err := net.SplitHostPort(o.addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	lines := json.NewEncoder(c.stdin)
	if err := lines.Encode(map[string]any{
		"host": host, "port": number, "user": o.user, "password": o.password, "ca": o.ca, "address": o.address,
		"credit": o.credit, "sndSettleMode": o.sndSettleMode, "rcvSettleMode": o.rcvSettleMode,
		"maxFrame": o.maxFrame, "manual": o.manual, "digest": o.digest, "dynamic": o.dynamic, "links": o.links, "parts": o.parts, "answer": o.answer, "buffer": o.buffer,
	}); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	p.send = func(m outgoing) error { return lines.Encode(m) }
	p.close = func() {
		c.stdin.Close()
		select {
		case <-c.done:
		case <-time.After(5 * time.Second):
			c.kill()
		}
	}
	return p
}

// readEvents ends with the channel closed. After the test it reads on for nobody,
// so that the process is not held up by its own output.
func readEvents(ctx context.Context, r io.Reader, events chan<- event) {
	defer close(events)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			e = event{Event: "not JSON: " + lines.Text()}
		}
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
}
