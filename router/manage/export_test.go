package manage

import (
	"github.com/sluice-iot/sluice/internal/amqp"
)

// Parsed is what tests see of a request.
type Parsed struct {
	Operation, Kind, ID, ReplyTo string
	Offset, Count                int
	Attributes                   []string
	Correlation                  any
	Status                       int32 // 0 = fine
	Reply                        []byte
}

// Parse reads a request and makes a reply to it.
func Parse(message []byte) (*Parsed, *amqp.Error, error) {
	q, bad, refused := parse(message)
	if refused != nil {
		return nil, refused, nil
	}
	reply, err := encode(q, answer{status: bad})
	return &Parsed{q.operation, q.kind, q.id, q.replyTo, q.offset, q.count, q.attributes, q.correlation, bad.code, reply}, nil, err
}
