package forward

import (
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// Distribution says what an address does with the deliveries it is sent.
type Distribution uint8

const (
	// Anycast hands each delivery to one of the attached receivers.
	Anycast Distribution = iota + 1
	// Closed lets receivers attach and gives senders no credit: the address of
	// a kind that this installation does not serve.
	Closed
)

// Policy decides what may be attached where.
type Policy interface {
	// Sender is asked when the peer of c wants to send to address. The Gate,
	// which may be nil, sees every message. An error refuses the link.
	Sender(c *peer.Conn, address string) (Distribution, Gate, *amqp.Error)
	// Receiver is asked when the peer of c wants to receive from address.
	Receiver(c *peer.Conn, address string) (Distribution, *amqp.Error)
}

// Gate looks at every message of one sender before it is forwarded.
type Gate interface {
	// Admit returns the message in the three parts in which it goes on, or the
	// error with which it is rejected. A part that is made anew is appended to
	// scratch, which is returned.
	Admit(message, scratch []byte) (Parts, []byte, *amqp.Error)
}

// Parts of an encoded message, to be sent one after the other.
type Parts struct{ Head, Mid, Tail []byte }

func (p *Parts) join() []byte {
	b := make([]byte, 0, len(p.Head)+len(p.Mid)+len(p.Tail))
	return append(append(append(b, p.Head...), p.Mid...), p.Tail...)
}
