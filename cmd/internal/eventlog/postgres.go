//go:build !nopostgres

package eventlog

import (
	"context"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/eventstore/pgstore"
)

func init() {
	openers["postgres"] = func(ctx context.Context, e config.Events, _ *config.DataFolder) (Store, error) {
		return opened(pgstore.Open(ctx, e.URL, pgstore.Options{}))
	}
}
