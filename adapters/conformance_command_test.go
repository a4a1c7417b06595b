package adapters_test

import (
	"context"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

var _ adaptertest.Commanded = (*harness)(nil)

// listener is a device whose protocol are calls.
type listener struct {
	conn *conn
	sub  *adapters.CommandSubscription
	got  chan received
}

type received struct {
	c    *adapters.Command
	done func(error)
}

func (h *harness) Listen(ctx context.Context, l adaptertest.Listen) (adaptertest.Listener, error) {
	c, err := h.Connect(ctx, l.Login)
	if err != nil {
		return nil, err
	}
	who, err := c.(*conn).Admit(ctx, "", l.TargetDevice)
	if err != nil {
		c.Close()
		return nil, reported(err)
	}
	li := &listener{conn: c.(*conn), got: make(chan received, adapters.DefaultPerSubscription)}
	li.sub, err = h.p.Subscribe(ctx, adapters.Subscribe{
		Who: who, All: l.All, Notify: true, Address: "memory",
		Deliver: func(c *adapters.Command, done func(error)) { li.got <- received{c, done} },
	})
	if err != nil {
		c.Close()
		return nil, reported(err)
	}
	return li, nil
}

func (l *listener) Next(ctx context.Context) (adaptertest.Received, error) {
	select {
	case r := <-l.got:
		got := adaptertest.Received{Name: r.c.Name, Device: r.c.Device, Payload: r.c.Payload}
		if !r.c.OneWay() {
			id, err := r.c.RequestID()
			if err != nil {
				r.done(err)
				return got, err
			}
			got.RequestID = id
		}
		r.done(nil)
		return got, nil
	case <-ctx.Done():
		return adaptertest.Received{}, ctx.Err()
	}
}

func (l *listener) Close() error {
	l.sub.Close(false)
	return l.conn.Close()
}

func (h *harness) Respond(ctx context.Context, r adaptertest.Response) error {
	c, err := h.Connect(ctx, r.Login)
	if err != nil {
		return err
	}
	defer c.Close()
	who, err := c.(*conn).Admit(ctx, "", r.TargetDevice)
	if err != nil {
		return reported(err)
	}
	up := &adapters.Upload{Endpoint: iot.CommandResponse, QoS: iot.AtLeastOnce, Status: r.Status, Payload: r.Payload}
	if up.To, err = adapters.ParseRequestID(r.RequestID, who.Device()); err != nil {
		return reported(err)
	}
	return reported(h.p.Publish(ctx, who, up))
}
