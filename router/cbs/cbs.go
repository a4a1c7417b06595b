package cbs

import (
	"log/slog"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/router/forward"
)

// Address is that of the API.
const Address = "cbs"

// tokenType is the application property type of a message with a token.
const tokenType = "amqp:jwt"

// Tokens makes tokens.
type Tokens interface {
	// Issue returns a compact JWS with the identity's name and authorities.
	Issue(id *auth.Identity) (string, error)
}

// Node gives out tokens.
type Node struct {
	tokens   Tokens
	identity func(*peer.Conn) *auth.Identity
	log      *slog.Logger
}

// New returns a node. identity is who the peer of a connection is now, nil when
// it is nobody any more.
func New(tokens Tokens, identity func(*peer.Conn) *auth.Identity, log *slog.Logger) *Node {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Node{tokens, identity, log}
}

var errPresettled = &amqp.Error{Condition: amqp.CondInvalidField,
	Description: "source " + Address + ": expected a link that is not of sender settle mode settled"}

// Access is what a receiver on [Address] is granted.
func (n *Node) Access() forward.Access {
	return forward.Access{Handout: n.message, Presettled: errPresettled}
}

// message is the one that the peer of c gets.
func (n *Node) message(c *peer.Conn) ([]byte, *amqp.Error) {
	id := n.identity(c)
	if id == nil {
		return nil, &amqp.Error{Condition: amqp.CondUnauthorizedAccess, Description: "the identity is gone"}
	}
	token, err := n.tokens.Issue(id)
	if err != nil {
		n.log.Error("token not made", "identity", id.Name, "err", err)
		return nil, &amqp.Error{Condition: amqp.CondInternalError, Description: "no token can be made now"}
	}
	b, err := encode(token)
	if err != nil {
		n.log.Error("token not encoded", "identity", id.Name, "err", err)
		return nil, &amqp.Error{Condition: amqp.CondInternalError, Description: "no token can be made now"}
	}
	return b, nil
}

func encode(token string) ([]byte, error) {
	m := amqp.Message{
		ApplicationProperties: amqp.Map{{Key: "type", Value: tokenType}},
		Value:                 token, HasValue: true,
	}
	return m.Append(nil)
}
