package manage

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/router/forward"
)

// Address is that of the node; replies may come to what begins with ReplyPrefix.
const (
	Address     = "$management"
	ReplyPrefix = Address + "/"
)

const (
	// maxWorking is how many requests are answered at a time.
	maxWorking = 2
	// maxWaiting is how many wait for that; more are released.
	maxWaiting = 128
)

// Listener is a socket on which the router accepts peers.
type Listener struct {
	Address    string
	Role       string
	TLS        bool
	Mechanisms []string // empty = the default ones
	Open       int64    // connections, in their handshake or after it
	Accepted   int64    // connections since it was opened
}

// Options of a node.
type Options struct {
	Name      string // of the router
	Version   string
	Started   time.Time
	Router    *forward.Router
	Listeners func() []Listener
	// May reports whether the peer of a connection may have the operation done.
	May    func(c *peer.Conn, operation string) bool
	Logger *slog.Logger
}

// Node answers management requests. It is a [forward.Service].
type Node struct {
	o       Options
	types   []*entityType
	working chan struct{}
	waiting atomic.Int32
}

var _ forward.Service = (*Node)(nil)

// New returns the node of a router.
func New(o Options) *Node {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Node{o: o, types: entityTypes, working: make(chan struct{}, maxWorking)}
}

// Request implements [forward.Service].
func (n *Node) Request(q *forward.Request) {
	if n.waiting.Add(1) > maxWaiting {
		n.waiting.Add(-1)
		q.Settle(amqp.StateReleased)
		q.Done()
		return
	}
	go func() {
		defer n.waiting.Add(-1)
		defer q.Done()
		n.working <- struct{}{}
		defer func() { <-n.working }()
		n.answer(q)
	}()
}

func (n *Node) answer(q *forward.Request) {
	defer func() {
		if v := recover(); v != nil {
			n.o.Logger.Error("panic in a management request", "panic", v, "stack", string(debug.Stack()))
			q.Settle(amqp.StateReleased)
		}
	}()
	req, bad, malformed := parse(q.Message)
	if malformed != nil {
		q.Settle(amqp.AppendRejected(nil, malformed))
		return
	}
	q.Settle(amqp.StateAccepted)
	v := &view{node: n, asker: q.Conn}
	var a answer
	if bad.code != 0 {
		a.status = bad
	} else if !n.o.May(q.Conn, req.operation) {
		a.status = failed(403, "%.64q is not granted", req.operation)
	} else {
		a = n.perform(v, req)
	}
	if !n.reply(q, req, a) {
		n.o.Logger.Debug("management reply not taken", "operation", req.operation)
	}
	if v.after != nil {
		v.after()
	}
}

// answer is what an operation comes to.
type answer struct {
	status
	body  any      // any AMQP value
	extra amqp.Map // application properties
}

// reply sends the answer, or an error when it is larger than the receiver takes.
func (n *Node) reply(q *forward.Request, req *request, a answer) bool {
	m, err := encode(req, a)
	if err != nil {
		n.o.Logger.Error("management reply", "operation", req.operation, "err", err)
		a = answer{status: failed(500, "the reply cannot be encoded")}
		m, _ = encode(req, a)
	}
	if q.Reply(req.replyTo, m) {
		return true
	}
	if a.code != 0 && a.code != 200 {
		return false
	}
	// Without credit this one is not taken either.
	m, _ = encode(req, answer{status: failed(500, "the reply of %d bytes is larger than the receiver takes: ask for a lower count", len(m))})
	return q.Reply(req.replyTo, m)
}

func encode(req *request, a answer) ([]byte, error) {
	if a.code == 0 {
		a.status = status{200, "OK"}
	}
	if a.body == nil {
		a.body = amqp.Map{}
	}
	m := amqp.Message{
		Properties: &amqp.Properties{To: req.replyTo, CorrelationID: req.correlation},
		ApplicationProperties: append(amqp.Map{
			{Key: "statusCode", Value: a.code}, {Key: "statusDescription", Value: a.text},
		}, a.extra...),
		Value: a.body, HasValue: true,
	}
	b, err := m.Append(nil)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b, nil
}
