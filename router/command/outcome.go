package command

import "github.com/sluice-iot/sluice/internal/amqp"

// outcome is what became of a message.
type outcome uint8

const (
	accepted outcome = iota
	rejected
	released
	modified
	outcomes // how many there are
)

// outcomeNames are the names of outcomes in metrics.
var outcomeNames = [outcomes]string{"accepted", "rejected", "released", "modified"}

// outcomeOf reads a delivery state; one that is none counts as released, which it is to
// whoever sent.
func outcomeOf(state amqp.Raw) outcome {
	switch state.StateKind() {
	case amqp.DescAccepted:
		return accepted
	case amqp.DescRejected:
		return rejected
	case amqp.DescModified:
		return modified
	}
	return released
}
