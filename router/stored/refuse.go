package stored

import (
	"errors"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// refusal reports whether an append failed of what was to be stored, rather than of the store:
// nothing of it is stored then.
func refusal(err error) bool {
	return errors.Is(err, iot.ErrQuota) || errors.Is(err, iot.ErrTooLarge) || errors.Is(err, iot.ErrInvalid)
}

// refused answers a batch that was refused as a whole. One status stands for many records
// then: those of each tenant are tried by themselves, and smaller parts as long as that may find
// the one that is to blame.
func (a *appender) refused(batch []item, err error, parts *int) {
	list := byTenant(batch)
	if len(list) == 1 && len(batch) > 1 && !errors.Is(err, iot.ErrQuota) {
		list = [][]item{batch[:len(batch)/2], batch[len(batch)/2:]}
	}
	switch {
	case len(list) == 1:
		d := events.ErrorDataOf(err)
		a.answer(batch, func(int) amqp.Raw { return a.outcome(&eventstore.Appended{Status: d.Status, Error: d.Error}) })
	case *parts < len(list):
		a.s.m.failed.Add(int64(len(batch)))
		a.answer(batch, func(int) amqp.Raw { return amqp.StateReleased })
	default:
		*parts -= len(list)
		for _, part := range list {
			a.store(part, parts)
		}
	}
}

// byTenant sorts items, each tenant's in their order.
func byTenant(batch []item) (list [][]item) {
	at := map[iot.TenantID]int{}
	for _, it := range batch {
		i, there := at[it.record.Tenant]
		if !there {
			i = len(list)
			at[it.record.Tenant], list = i, append(list, nil)
		}
		list[i] = append(list[i], it)
	}
	return list
}
