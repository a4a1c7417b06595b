package forward

import (
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// handout is a link whose receiver gets one message that is made for it, and is
// closed then. Its fields but make are guarded by the connection.
type handout struct {
	l    *peer.Link
	c    *peer.Conn
	name string
	make func(c *peer.Conn) ([]byte, *amqp.Error)

	making  bool // by one goroutine
	message []byte
	sent    bool
}

// attachHandout attaches a link for one message, which is made when there is
// credit for it.
func (r *Router) attachHandout(w *work, c *peer.Conn, ev *peer.Event, make func(*peer.Conn) ([]byte, *amqp.Error)) {
	x := &handout{l: ev.Link, c: c, name: ev.Attach.Source.Address, make: make}
	c.Lock()
	ev.Link.Data = x
	ev.Link.Accept(peer.Attachment{})
	w.b.Touch(c)
	c.Unlock()
	r.ownHandout(x, true)
}

// ownHandout notes or forgets a link whose message is yet to be sent.
func (r *Router) ownHandout(x *handout, add bool) {
	r.mu.Lock()
	k := r.conns[x.c]
	r.mu.Unlock()
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if add {
		put(&k.handouts, x)
	} else {
		delete(k.handouts, x)
	}
}

// handOut sends the message once the receiver takes it.
func (r *Router) handOut(w *work, x *handout) {
	x.c.Lock()
	due := !x.sent && !x.making && x.l.Attached() && x.l.Credit() > 0
	message := x.message
	x.making = x.making || due
	x.c.Unlock()
	if !due {
		return
	}
	var err *amqp.Error
	if message == nil {
		message, err = x.make(x.c)
	}
	x.c.Lock()
	x.making, x.message = false, message
	if err == nil {
		switch x.l.Send(&peer.Outgoing{Tail: message}) {
		case peer.Sent:
			x.sent = true
		case peer.TooLarge:
			err = &amqp.Error{Condition: amqp.CondMessageSizeExceeded, Description: "larger than the receiver takes"}
		}
	}
	if err != nil {
		x.l.Detach(err)
	}
	done := x.sent || err != nil
	w.b.Touch(x.c)
	x.c.Unlock()
	if done {
		r.ownHandout(x, false)
	}
}

// handedOut closes the link: the receiver has said what it thinks of the message.
func (r *Router) handedOut(w *work, x *handout, ev *peer.Event) {
	x.c.Lock()
	if !ev.Settled {
		x.l.SettleSent(ev.ID, ev.State)
	}
	x.l.Detach(nil)
	w.b.Touch(x.c)
	x.c.Unlock()
}
