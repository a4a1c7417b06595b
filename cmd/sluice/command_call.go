package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	goamqp "github.com/Azure/go-amqp"
)

// commandCall is one command on its way.
type commandCall struct {
	tenant, device, name string
	payload              []byte
	contentType          string
	oneWay               bool
	timeout              time.Duration // from the moment that the links are there
}

// What the phases of a command are called on a terminal.
const (
	phaseConnect = "connecting to the router"
	phaseCredit  = "waiting until the router takes commands"
	phaseSent    = "sent; waiting until the device has it"
	phaseAnswer  = "delivered to the device; waiting for its answer"
)

// errRejected opens what is said of a command that the router or the device refused.
var errRejected = errors.New("the command was rejected")

// errTimedOut is why waiting for a command ended.
var errTimedOut = errors.New("timed out")

// run sends the command and waits for what becomes of it. The result is nil
// where nothing was sent; the error says what a person has to know. show is told
// each phase.
func (c *commandCall) run(ctx context.Context, at *applicationFlags, show func(string)) (*commandResult, error) {
	show(phaseConnect)
	conn, err := at.dial(ctx, "sluice-command")
	if err != nil {
		return nil, interrupted(ctx, fmt.Errorf("connect to %s: %w", at.url, plainError(err)))
	}
	defer conn.Close()
	session, err := conn.NewSession(ctx, nil)
	if err != nil {
		return nil, interrupted(ctx, plainError(err))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimedOut)
	defer cancel()
	r := &commandResult{Tenant: c.tenant, Device: c.device, Command: c.name}
	m := c.message(r)
	var receiver *goamqp.Receiver
	if !c.oneWay {
		if receiver, err = session.NewReceiver(ctx, *m.Properties.ReplyTo, &goamqp.ReceiverOptions{Credit: 10}); err != nil {
			return nil, c.refused(ctx, at, "receive the answers of devices of "+c.tenant, err)
		}
	}
	sender, err := session.NewSender(ctx, "command/"+c.tenant, nil)
	if err != nil {
		return nil, c.refused(ctx, at, "send commands to devices of "+c.tenant, err)
	}
	show(phaseCredit)
	began := time.Now()
	receipt, err := sender.SendWithReceipt(ctx, m, nil)
	if err != nil {
		if errors.Is(context.Cause(ctx), errTimedOut) {
			return nil, fmt.Errorf("the router gave no credit for commands to %s within %s: nobody there takes them, so no device is reachable", c.tenant, c.timeout)
		}
		return nil, c.refused(ctx, at, "send commands to devices of "+c.tenant, err)
	}
	show(phaseSent)
	err = c.await(ctx, r, receipt, receiver, show)
	r.Milliseconds = float64(time.Since(began).Microseconds()) / 1000
	if r.Outcome == "rejected" {
		if missing := at.missing(ctx, c.tenant, c.device); missing != nil {
			err = fmt.Errorf("%w: %w", errRejected, missing)
		}
	}
	return r, err
}

// message makes the command (contract: messaging 9.2).
func (c *commandCall) message(r *commandResult) *goamqp.Message {
	now, to, id := time.Now(), "command/"+c.tenant+"/"+c.device, rand.Text()
	p := &goamqp.MessageProperties{To: &to, Subject: &c.name, MessageID: id, CreationTime: &now}
	if c.contentType != "" {
		p.ContentType = &c.contentType
	}
	if !c.oneWay {
		replyTo := "command_response/" + c.tenant + "/" + rand.Text()
		p.CorrelationID, p.ReplyTo = id, &replyTo
		r.CorrelationID = id
	}
	return &goamqp.Message{Properties: p, Data: [][]byte{c.payload}}
}

// event is what comes while a command is under way.
type event struct {
	outcome goamqp.DeliveryState
	answer  *goamqp.Message
	err     error
}

// await waits for the outcome, and for the answer where one was asked for. An
// answer can be there before the outcome.
func (c *commandCall) await(ctx context.Context, r *commandResult, receipt goamqp.SendReceipt, receiver *goamqp.Receiver, show func(string)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	outcomes, answers := make(chan event, 1), make(chan event, 1)
	go func() {
		state, err := receipt.Wait(ctx)
		outcomes <- event{outcome: state, err: err}
	}()
	if receiver != nil {
		go func() {
			m, err := nextAnswer(ctx, receiver, r.CorrelationID)
			answers <- event{answer: m, err: err}
		}()
	}
	for {
		select {
		case e := <-outcomes:
			if e.err != nil {
				return c.lost(ctx, r, e.err)
			}
			if err := c.outcome(r, e.outcome); err != nil || c.oneWay {
				return err
			}
			outcomes = nil
			show(phaseAnswer)
		case e := <-answers:
			if e.err != nil {
				return c.lost(ctx, r, e.err)
			}
			r.answered(e.answer)
			return nil
		}
	}
}

// nextAnswer waits for the answer to this command.
func nextAnswer(ctx context.Context, receiver *goamqp.Receiver, id string) (*goamqp.Message, error) {
	for {
		m, err := receiver.Receive(ctx, nil)
		if err != nil {
			return nil, err
		}
		if err := receiver.AcceptMessage(ctx, m); err != nil {
			return nil, err
		}
		if m.Properties != nil && m.Properties.CorrelationID == id {
			return m, nil
		}
	}
}

// outcome notes how the router settled the command, and says what is wrong with it.
func (c *commandCall) outcome(r *commandResult, state goamqp.DeliveryState) error {
	switch s := state.(type) {
	case *goamqp.StateAccepted:
		r.Outcome = "accepted"
		return nil
	case *goamqp.StateRejected:
		r.Outcome = "rejected"
		if s.Error == nil {
			return fmt.Errorf("%w, without a reason", errRejected)
		}
		return fmt.Errorf("%w: %s (%s)", errRejected, cmp.Or(oneLine(s.Error.Description), "no reason given"), s.Error.Condition)
	case *goamqp.StateReleased:
		r.Outcome = "released"
		return fmt.Errorf("%s is not reachable: it is not connected or not subscribed to commands, or did not take this one in time (released)", c.device)
	case *goamqp.StateModified:
		r.Outcome = "modified"
		if s.UndeliverableHere {
			return fmt.Errorf("%s does not take this command (modified, undeliverable-here)", c.device)
		}
		return fmt.Errorf("%s did not take the command (modified)", c.device)
	}
	return fmt.Errorf("the router answered with the outcome %T", state)
}

// lost says what is known when neither outcome nor answer come any more.
func (c *commandCall) lost(ctx context.Context, r *commandResult, err error) error {
	how := "the connection to the router was lost: " + plainError(err).Error()
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errTimedOut):
		how = ""
	case cause != nil:
		how = "interrupted"
	}
	switch {
	case how == "" && r.Outcome == "":
		return fmt.Errorf("no outcome within %s: whether %s got the command is not known", c.timeout, c.device)
	case how == "":
		return fmt.Errorf("%s got the command but did not answer within %s", c.device, c.timeout)
	case r.Outcome == "":
		return fmt.Errorf("%s; whether %s got the command is not known", how, c.device)
	}
	return fmt.Errorf("%s; %s got the command, its answer is not known", how, c.device)
}

// refused explains that a link did not come about.
func (c *commandCall) refused(ctx context.Context, at *applicationFlags, what string, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errTimedOut):
		return fmt.Errorf("the router did not answer within %s", c.timeout)
	case notGranted(err):
		if err := at.missing(ctx, c.tenant, ""); err != nil {
			return err
		}
		return at.grantable(fmt.Errorf("%s may not %s: %w", at.user, what, plainError(err)), mayCommand(c.tenant, c.oneWay))
	}
	return interrupted(ctx, fmt.Errorf("%s: %w", what, plainError(err)))
}

// interrupted is err, or that the user ended it.
func interrupted(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return errors.New("interrupted")
	}
	return err
}

// answered notes the answer of the device (contract: messaging 9.4).
func (r *commandResult) answered(m *goamqp.Message) {
	p := describe(m)
	r.Outcome = cmp.Or(r.Outcome, "accepted")
	r.ContentType, r.body = p.ContentType, bodyOf(m)
	r.Responding = r.Device
	r.Properties = map[string]any{}
	for name, v := range p.Properties {
		switch name {
		case "status":
			r.Status = asInt(v)
		case "device_id":
			r.Responding = fmt.Sprint(v)
		case "tenant_id":
		default:
			r.Properties[name] = v
		}
	}
}

// asInt reads a whole number of whatever width; 0 for anything else.
func asInt(v any) int {
	switch n := v.(type) {
	case int32:
		return int(n)
	case int64:
		return int(n)
	case int16:
		return int(n)
	case int8:
		return int(n)
	case uint32:
		return int(n)
	case uint64:
		return int(n)
	case uint16:
		return int(n)
	case uint8:
		return int(n)
	}
	return 0
}
