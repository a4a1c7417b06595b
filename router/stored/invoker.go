package stored

import (
	"context"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/eventstore"
)

// ByInvoker is the log that functions have.
func ByInvoker(i events.Invoker) Log { return invoked{i} }

type invoked struct{ i events.Invoker }

func (l invoked) Append(ctx context.Context, r eventstore.AppendRequest) (*eventstore.AppendResult, error) {
	out, err := events.Call(ctx, l.i, events.EventAppend{AppendRequest: r})
	if err != nil {
		return nil, err
	}
	return &out.AppendResult, nil
}

func (l invoked) Claim(ctx context.Context, r eventstore.ClaimRequest) (*eventstore.ClaimResult, error) {
	out, err := events.Call(ctx, l.i, events.EventClaim{ClaimRequest: r})
	if err != nil {
		return nil, err
	}
	return &out.ClaimResult, nil
}

func (l invoked) Read(ctx context.Context, r eventstore.ReadRequest) (*eventstore.ReadResult, error) {
	out, err := events.Call(ctx, l.i, events.EventRead{ReadRequest: r})
	if err != nil {
		return nil, err
	}
	return &out.ReadResult, nil
}

func (l invoked) Settle(ctx context.Context, r eventstore.SettleRequest) (*eventstore.SettleResult, error) {
	out, err := events.Call(ctx, l.i, events.EventSettle{SettleRequest: r})
	if err != nil {
		return nil, err
	}
	return &out.SettleResult, nil
}

func (l invoked) Release(ctx context.Context, r eventstore.ReleaseRequest) error {
	_, err := events.Call(ctx, l.i, events.EventRelease{ReleaseRequest: r})
	return err
}
