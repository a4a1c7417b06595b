package service

import "github.com/sluice-iot/sluice/internal/amqp"

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
