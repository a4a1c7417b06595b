package downstream

import (
	"errors"
	"sync/atomic"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

const (
	commandInternal = "command_internal/"

	// commandCredit is how many commands a router may send ahead.
	commandCredit = 200
	// commandStep is the least by which credit is raised: not a flow for each command.
	commandStep = 50
	// maxUnsettled is how many commands of one connection may be with the handler.
	maxUnsettled = 2000
	// maxCommandBytes is how much they may take; credit that was given may exceed it.
	maxCommandBytes = 32 << 20
	maxCommandSize  = 1 << 20
)

// inbox is the way by which a router sends commands. The connection guards it.
type inbox struct {
	link    *peer.Link // nil = none
	used    inUse      // by commands that the handler has
	handing bool       // the reading goroutine is handing one over, and flushes after that
	gone    bool       // the connection is closed: nobody waits for outcomes
	refused bool       // the log knows that there is no link
}

// commandLink marks the receiving link of commands.
type commandLink struct{ c *conn }

func (c *conn) attachCommands(b *peer.Batch) {
	c.pc.Lock()
	defer c.pc.Unlock()
	c.in.link = c.attachOwn(c.s.commandAddress, peer.Attachment{
		Role:             amqp.RoleReceiver,
		SenderSettleMode: amqp.SenderMixed, ReceiverSettleMode: amqp.ReceiverFirst,
		Source: &amqp.Source{Address: c.s.commandAddress, HasAddress: true},
		Target: &amqp.Target{},
		Credit: c.room(), MaxMessageSize: maxCommandSize,
	}, &commandLink{c}, b)
}

// room is how much credit a router may have: with it and what the handler has,
// maxUnsettled is not exceeded.
func (c *conn) room() uint32 {
	if c.in.used.bytes > maxCommandBytes {
		return 0
	}
	unsettled := c.in.used.count
	if c.in.link != nil { // and what came with it and is not looked at yet
		unsettled = max(unsettled, c.in.link.Unsettled())
	}
	return uint32(min(commandCredit, max(maxUnsettled-unsettled, 0)))
}

// replenish gives credit back. The connection is locked.
func (c *conn) replenish() {
	l := c.in.link
	if l == nil {
		return
	}
	if room := c.room(); room >= l.Credit()+commandStep {
		l.SetCredit(room)
	}
}

// commandsAttached takes note that a router answered; without a source it refused.
func (c *conn) commandsAttached(ev *peer.Event) {
	if ev.Attach.Source != nil {
		c.pc.Lock()
		c.in.refused = false
		c.pc.Unlock()
	}
}

// commandsDetached asks for commands again where only the link is gone.
func (c *conn) commandsDetached(ev *peer.Event) {
	c.pc.Lock()
	if c.in.link == ev.Link {
		c.in.link = nil
	}
	tell := !c.in.refused && c.stands()
	c.in.refused = c.in.refused || tell
	c.pc.Unlock()
	if tell {
		c.s.log.Warn("router sends no commands", "router", c.name, "address", c.s.commandAddress, "err", ev.Error)
	}
	c.later(c.attachCommands)
}

// commandsGone lets nobody wait any more for the outcomes of the connection's commands.
func (c *conn) commandsGone() {
	c.pc.Lock()
	n := c.in.used.count
	if c.in.gone {
		n = 0
	}
	c.in.gone = true
	c.pc.Unlock()
	for range n {
		c.s.leave()
	}
}

// inbound takes what came by the link of commands: a command, or word on
// announcements.
func (c *conn) inbound(b *peer.Batch, ev *peer.Event) {
	in, err := readInbound(ev.Payload)
	switch {
	case err != nil:
		c.s.log.Debug("what came as a command is not readable", "router", c.name, "err", err)
		c.answer(b, ev, rejectedCommand(status.BadRequest, err.Error()))
	case in.command != nil:
		c.hand(b, ev, in.command)
	default:
		c.answer(b, ev, amqp.StateAccepted)
		c.s.superseded(in.news)
	}
}

// answer settles what was not handed to the handler.
func (c *conn) answer(b *peer.Batch, ev *peer.Event, state amqp.Raw) {
	c.pc.Lock()
	defer c.pc.Unlock()
	if !ev.Settled {
		ev.Link.Settle(ev.ID, state, true)
	}
	c.replenish()
	b.Touch(c.pc)
}

// handed is a command that the handler has.
type handed struct {
	c       *conn
	link    *peer.Link
	id      uint32
	tenant  iot.TenantID
	size    int
	settled bool // nobody wants to know the outcome
	told    atomic.Bool
}

func (c *conn) hand(b *peer.Batch, ev *peer.Event, command *adapters.Command) {
	if !c.s.enter() {
		c.answer(b, ev, amqp.StateReleased)
		return
	}
	h := &handed{c: c, link: ev.Link, id: ev.ID, tenant: command.Tenant, size: len(ev.Payload), settled: ev.Settled}
	c.pc.Lock()
	taken := c.in.used.take(h.tenant, h.size)
	c.in.handing = taken
	c.pc.Unlock()
	if !taken {
		c.s.leave()
		c.answer(b, ev, amqp.StateReleased)
		return
	}
	c.s.guarded("a command was handed over", func() { c.s.o.Commands.Command(command, h.done) }, func() { h.done(errHandler) })
	c.pc.Lock()
	defer c.pc.Unlock()
	c.in.handing = false
	c.replenish()
	b.Touch(c.pc)
}

var errHandler = errors.New("downstream: the handler of commands panicked")

// done settles the command. It may be called on any goroutine, and after the
// link or the connection is gone, when it does nothing.
func (h *handed) done(err error) {
	if h.told.Swap(true) {
		return
	}
	var b peer.Batch
	c := h.c
	c.pc.Lock()
	if !h.settled {
		h.link.Settle(h.id, commandState(err), true)
	}
	c.in.used.give(h.tenant, h.size)
	c.replenish()
	gone := c.in.gone
	if !c.in.handing {
		b.Touch(c.pc)
	}
	c.pc.Unlock()
	b.Flush()
	if !gone {
		c.s.leave()
	}
}

// commandState is the outcome that the handler's error stands for (contract:
// messaging 9.3).
func commandState(err error) amqp.Raw {
	var modified *adapters.ModifiedError
	switch {
	case err == nil:
		return amqp.StateAccepted
	case errors.As(err, &modified):
		m := amqp.Modified{DeliveryFailed: modified.DeliveryFailed, UndeliverableHere: modified.UndeliverableHere}
		return m.Append(nil)
	case errors.Is(err, iot.ErrForbidden):
		return rejectedCommand(status.UnauthorizedAccess, status.Text(err))
	case errors.Is(err, iot.ErrInvalid), errors.Is(err, iot.ErrTooLarge), errors.Is(err, iot.ErrQuota):
		// Applications read other conditions as a failure of ours.
		return rejectedCommand(status.BadRequest, status.Text(err))
	}
	return amqp.StateReleased
}

func rejectedCommand(condition amqp.Symbol, text string) amqp.Raw {
	return amqp.AppendRejected(nil, &amqp.Error{Condition: condition, Description: shorten(text)})
}

// superseded tells the handler, in the router's order.
func (s *Set) superseded(all []news) {
	for _, n := range all {
		s.guarded("news of a subscription were told", func() { s.o.Commands.Superseded(n.tenant, n.device, n.at, n.superseded) }, nil)
	}
}

// guarded calls f for a connection that has others to serve: a panic goes no
// further than to the log and to failed, which may be nil.
func (s *Set) guarded(what string, f, failed func()) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(what, v)
			if failed != nil {
				failed()
			}
		}
	}()
	f()
}
