package router

import (
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/forward"
	"github.com/sluice-iot/sluice/router/stored"
)

// Publish sends an encoded message of this process, such as a notice, to an
// address; see [forward.Router.Publish].
func (r *Router) Publish(address string, message []byte, done func(state amqp.Raw)) {
	if r.events != nil {
		if p := r.patterns.find(address); p != nil && p.kind == forward.Stored {
			r.events.Put(address, []*forward.Deposit{forward.NewDeposit(message, done)})
			return
		}
	}
	r.forward.Publish(address, message, done)
}

// Appended is told that another router has added to a partition of a tenant's events, see
// [stored.Server.Appended].
func (r *Router) Appended(tenant iot.TenantID, p eventstore.PartitionID, end uint64) {
	if r.events != nil {
		r.events.Appended(tenant, p, end)
	}
}

// Events says what became of events; false where none are kept.
func (r *Router) Events() (stored.Figures, bool) {
	if r.events == nil {
		return stored.Figures{}, false
	}
	return r.events.Figures(), true
}
