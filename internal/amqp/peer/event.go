package peer

import (
	"sync"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// EventKind says what happened.
type EventKind uint8

// The kinds of events, in the order in which a connection meets them.
const (
	// EventOpen: the peer's open came (Open is set); a server has answered it.
	EventOpen EventKind = iota + 1
	// EventBegin: a session is there, begun by either side.
	EventBegin
	// EventAttach: the peer attaches a link (Attach is set). The handler answers
	// with Link.Accept or Link.Refuse.
	EventAttach
	// EventAttached: the peer answered our attach (Attach is set). A peer that
	// refuses answers without a terminus; its detach follows.
	EventAttached
	// EventDelivery: a whole delivery came on a receiving link (ID, Tag, Format,
	// Settled, State, Payload).
	EventDelivery
	// EventPart: more of a delivery whose EventDelivery had More set (ID,
	// Payload); the last one has More unset.
	EventPart
	// EventAborted: the rest of a delivery whose EventDelivery had More set will
	// not come (ID).
	EventAborted
	// EventCredit: the credit of a sending link changed, or the peer wants it
	// drained (Link.Drain).
	EventCredit
	// EventOutcome: the receiver's word on a delivery that we sent (ID, Token,
	// State, Settled). When not Settled the receiver awaits our settlement.
	EventOutcome
	// EventSenderState: the sender's word on a delivery that we received (ID,
	// Token, State, Settled).
	EventSenderState
	// EventLost: a delivery that we sent was not settled when its link, session
	// or connection went away (ID, Token; Settled if its outcome had come).
	EventLost
	// EventDetach: the link is gone: detached by the peer (Error, Closed), with
	// its session or with the connection. The engine has answered.
	EventDetach
	// EventWritable: a session that refused a Send may take one again.
	EventWritable
	// EventEnd: the session is gone; its links' EventDetach came before.
	EventEnd
	// EventClose: the peer closed the connection (Error); the engine has answered.
	EventClose
)

// Event is one thing that a batch of input brought about.
type Event struct {
	Kind    EventKind
	Settled bool
	Closed  bool
	More    bool // EventDelivery, EventPart: further parts follow
	Session *Session
	Link    *Link
	ID      uint32 // delivery-id
	Format  uint32 // message-format
	Token   Token
	Tag     []byte
	Payload []byte
	State   amqp.Raw
	Attach  *amqp.Attach
	Open    *amqp.Open
	Error   *amqp.Error
}

// Effects collects the events of one Input. It is reused.
type Effects struct {
	Events []Event

	// What frames are decoded into: an idle connection needs none.
	transfer    amqp.Transfer
	disposition amqp.Disposition
	flow        amqp.Flow
}

// A connection borrows its Effects for each batch, so that an idle one holds none.
var effects = sync.Pool{New: func() any { return &Effects{} }}

func putEffects(fx *Effects) {
	if fx.Reset(); cap(fx.Events) <= 4096 {
		effects.Put(fx)
	}
}

func (fx *Effects) add(ev Event) { fx.Events = append(fx.Events, ev) }

// Reset forgets the events and what they point to.
func (fx *Effects) Reset() {
	clear(fx.Events)
	fx.Events = fx.Events[:0]
}

// Token is what an owner remembers of a delivery: for a router, the delivery on
// the other side.
type Token struct {
	Ref any // a pointer: storing it allocates nothing
	ID  uint32
}
