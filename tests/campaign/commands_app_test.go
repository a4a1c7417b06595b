package campaign_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

// What became of a command that had no outcome when the application's connection ended.
const outcomeLost = "lost"

var errCommanderGone = errors.New("the application's connection has ended")

// commander is an application's connection that sends commands to a tenant and receives
// the responses to one reply id.
type commander struct {
	c        *wire.Client
	tenant   string
	replyTo  string
	response func(*amqp.Message) // nil = there are none

	writing  sync.Mutex // of transfers and what says how many there were
	sent     uint32
	received atomic.Uint32 // responses

	mu      sync.Mutex
	changed *sync.Cond // credit, an outcome or the end
	next    uint32
	limit   uint32 // deliveries that the router takes in all
	pending map[uint32]func(outcome string)
	ended   bool
	over    chan struct{}
}

// outgoingCommand is one command.
type outgoingCommand struct {
	device, name, id, payload string
	oneWay                    bool
}

// newCommander connects. response is called on one goroutine, as are the outcomes.
func newCommander(addr, tenant, reply string, response func(*amqp.Message)) (*commander, error) {
	c, err := wire.Dial(wire.Options{Addr: addr, User: user, Password: secret})
	if err != nil {
		return nil, err
	}
	a := &commander{c: c, tenant: tenant, replyTo: "command_response/" + tenant + "/" + reply, response: response,
		pending: map[uint32]func(string){}, over: make(chan struct{})}
	a.changed = sync.NewCond(&a.mu)
	err = c.Write(wire.Sender(0, "commands", "command/"+tenant), nil)
	if err == nil {
		_, _, err = wire.Await[*amqp.Attach](c)
	}
	if err == nil && response != nil {
		if err = c.Write(wire.Receiver(1, "responses", a.replyTo), nil); err == nil {
			err = c.Write(wire.Credit(1, 0, responseCredit), nil)
		}
	}
	if err != nil {
		c.Conn.Close()
		return nil, err
	}
	go a.read()
	return a, nil
}

const responseCredit = 1000

// send sends a command, once there is credit; one goroutine does. done is called with its outcome, "lost" when
// the connection ends before it; after an error it is not.
func (a *commander) send(o outgoingCommand, done func(outcome string)) error {
	m := amqp.Message{Properties: &amqp.Properties{MessageID: o.id, To: "command/" + a.tenant + "/" + o.device, Subject: o.name}, Data: [][]byte{[]byte(o.payload)}}
	if !o.oneWay {
		m.Properties.ReplyTo, m.Properties.CorrelationID = a.replyTo, o.id
	}
	body, err := m.Append(nil)
	if err != nil {
		return err
	}
	id, err := a.claim(done)
	if err != nil {
		return err
	}
	a.writing.Lock()
	defer a.writing.Unlock()
	a.c.Sent()
	a.sent++
	_ = a.c.Write(wire.Transfer(0, id, false, false), body) // an error is one of reading, too
	return nil
}

// claim waits for credit and takes a delivery-id.
func (a *commander) claim(done func(outcome string)) (id uint32, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.ended && (int32(a.limit-a.next) <= 0 || a.c.Window() <= 0) {
		a.changed.Wait()
	}
	if a.ended {
		return 0, errCommanderGone
	}
	id = a.next
	a.next++
	a.pending[id] = done
	return id, nil
}

// credit lets more responses come. A flow also says how many frames were sent, which
// must be neither more nor less.
func (a *commander) credit() {
	a.writing.Lock()
	defer a.writing.Unlock()
	f := wire.Credit(1, a.received.Load(), responseCredit)
	f.NextOutgoingID = a.sent
	_ = a.c.Write(f, nil)
}

// String says what it waits for.
func (a *commander) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("%d commands sent, %d without outcome, credit for %d, room for %d frames", a.next, len(a.pending), int32(a.limit-a.next), a.c.Window())
}

// wait waits until so many commands at most have no outcome, and returns how many have none.
func (a *commander) wait(most int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	timeout := time.AfterFunc(patience, a.changed.Broadcast)
	defer timeout.Stop()
	for began := time.Now(); len(a.pending) > most && time.Since(began) < patience; {
		a.changed.Wait()
	}
	return len(a.pending)
}

// close ends the connection as the application's death would.
func (a *commander) close() {
	a.c.Cut()
	<-a.over
}

func (a *commander) read() {
	defer close(a.over)
	for {
		p, body, err := a.c.Read()
		if err != nil {
			break
		}
		switch p := p.(type) {
		case *amqp.Flow:
			a.mu.Lock()
			if p.HasHandle && p.Handle == 0 {
				a.limit = p.DeliveryCount + p.LinkCredit
			}
			a.changed.Broadcast()
			a.mu.Unlock()
			continue
		case *amqp.Disposition:
			a.settled(p)
			continue
		case *amqp.Transfer:
			m, err := amqp.DecodeMessage(body)
			if err != nil {
				m = nil
			}
			a.response(m)
			_ = a.c.Write(&amqp.Disposition{Role: amqp.RoleReceiver, First: p.DeliveryID, Last: p.DeliveryID, Settled: true, State: amqp.StateAccepted}, nil)
			if a.received.Add(1)%(responseCredit/2) == 0 {
				go a.credit() // who reads does not wait for whom one writes to
			}
			continue
		case *amqp.Detach, *amqp.End, *amqp.Close:
			a.c.Conn.Close()
		default:
			continue
		}
		break
	}
	a.mu.Lock()
	a.ended = true
	left := a.pending
	a.pending = map[uint32]func(string){}
	a.changed.Broadcast()
	a.mu.Unlock()
	for _, done := range left {
		done(outcomeLost)
	}
}

func (a *commander) settled(p *amqp.Disposition) {
	outcome := outcomeName(p.State)
	for id := p.First; int32(p.Last-id) >= 0; id++ {
		a.mu.Lock()
		done := a.pending[id]
		delete(a.pending, id)
		a.changed.Broadcast()
		a.mu.Unlock()
		if done != nil {
			done(outcome)
		}
	}
}

func outcomeName(state amqp.Raw) string {
	switch kind := state.StateKind(); kind {
	case amqp.DescAccepted:
		return "accepted"
	case amqp.DescRejected:
		return "rejected"
	case amqp.DescReleased:
		return "released"
	case amqp.DescModified:
		return "modified"
	default:
		return fmt.Sprintf("state %#x", kind)
	}
}
