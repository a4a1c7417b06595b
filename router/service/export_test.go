package service

import (
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// Answer is the reply to a message sent to an address, or the error that it is
// rejected with.
func (s *Server) Answer(address string, message []byte) ([]byte, *amqp.Error) {
	q, refused := parse(address, message)
	if refused != nil {
		return nil, refused
	}
	mine := s.enter(nil)
	if mine == nil {
		return nil, &amqp.Error{Condition: "released"}
	}
	defer s.leave(nil)
	return s.reply(nil, q, mine), nil
}

// ReplyTo is where the reply to a message would go, "" for one that goes nowhere.
func ReplyTo(address string, message []byte) string {
	if q, refused := parse(address, message); refused == nil && q.repliable() {
		return q.replyTo
	}
	return ""
}

// MaxWorkingPerConn is how many calls one connection may have made at a time.
const MaxWorkingPerConn = maxWorkingPerConn

// MaxWaiting is how many requests there are at a time.
const MaxWaiting = maxWaiting

// Enter counts a request of a connection, where there is room; Leave is its end.
func (s *Server) Enter(c *peer.Conn) bool { return s.enter(c) != nil }
func (s *Server) Leave(c *peer.Conn)      { s.leave(c) }
