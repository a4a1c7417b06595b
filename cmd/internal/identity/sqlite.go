//go:build !nosqlite

package identity

import (
	"context"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
)

func init() {
	openers["sqlite"] = func(ctx context.Context, cfg *config.Config, data *config.DataFolder) (Store, error) {
		return opened(sqlitestore.Open(ctx, data.File("registry.db"), sqlitestore.Options{Indexes: indexes(cfg)}))
	}
}
