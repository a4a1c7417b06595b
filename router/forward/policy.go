package forward

import (
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// Distribution says what an address does with the deliveries it is sent.
type Distribution uint8

const (
	// Balanced hands each delivery to the receiver with the least backlog.
	Balanced Distribution = iota + 1
	// Closest hands each delivery to one of the receivers, by turns.
	Closest
	// Multicast gives every receiver a copy.
	Multicast
	// Closed lets receivers attach and gives senders no credit: the address of
	// a kind that this installation does not serve. What this process itself
	// publishes there reaches one of the receivers.
	Closed
	// Local hands each delivery to a [Service] of this process.
	Local
	// Stored hands each delivery to a [Shelf], which offers it to receivers.
	Stored
)

// Access is what a peer is granted on an address.
type Access struct {
	Distribution Distribution  // of the address, the same for everybody
	Gate         Gate          // for a sender: sees every message; nil = none
	Service      Service       // of a Local address
	Credit       int           // of a Local address: what each sender has; 0 = 100
	Shelf        Shelf         // of a Stored address
	MaxMessage   uint64        // for a sender: bytes; 0 = what the connection allows
	Offered      []amqp.Symbol // capabilities of the link
	// Presettled refuses a link whose sender settles everything before it sends;
	// nil = it may.
	Presettled *amqp.Error
	// Second refuses a link whose receiver settles only after its sender has (rcv-settle-mode
	// second); nil = it may.
	Second *amqp.Error
	// Exclusive lets an address have one receiver and no other at a time.
	Exclusive bool
	// Handout makes the one message that a receiver of this link gets; after the
	// peer has settled it the link is closed. There is no address then.
	Handout func(c *peer.Conn) ([]byte, *amqp.Error)
	// Dynamic lets a receiver have an address made for it.
	Dynamic bool
}

// Policy decides what may be attached where. An error refuses the link. A Policy
// with a method Version() uint64 is asked anew about the addresses of a link without
// one when that number changed; links with an address are its owner's to end.
type Policy interface {
	// Sender is asked when the peer of c wants to send to address.
	Sender(c *peer.Conn, address string) (Access, *amqp.Error)
	// Receiver is asked when the peer of c wants to receive from address; the
	// empty address asks for a dynamic one.
	Receiver(c *peer.Conn, address string) (Access, *amqp.Error)
	// Anonymous is asked when the peer of c wants to send without naming an
	// address on the link. Sender is asked for each address all the same.
	Anonymous(c *peer.Conn) *amqp.Error
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
