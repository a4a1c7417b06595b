package router

import "github.com/sluice-iot/sluice/internal/amqp"

// Publish sends an encoded message of this process, such as a notice, to an
// address; see [forward.Router.Publish].
func (r *Router) Publish(address string, message []byte, done func(state amqp.Raw)) {
	r.forward.Publish(address, message, done)
}
