//go:build !nopostgres

package identity

import (
	"context"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/registry/pgstore"
)

func init() {
	openers["postgres"] = func(ctx context.Context, cfg *config.Config, _ *config.DataFolder) (Store, error) {
		return opened(pgstore.Open(ctx, cfg.Registry.URL, pgstore.Options{Indexes: indexes(cfg)}))
	}
}
