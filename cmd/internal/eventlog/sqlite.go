//go:build !nosqlite

package eventlog

import (
	"context"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/eventstore/sqlitestore"
)

func init() {
	openers["sqlite"] = func(ctx context.Context, _ config.Events, data *config.DataFolder) (Store, error) {
		return opened(sqlitestore.Open(ctx, data.File("events.db"), sqlitestore.Options{}))
	}
}
