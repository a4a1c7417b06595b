//go:build !nodynamodb

package identity

import (
	"context"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/registry/dynamostore"
)

func init() {
	openers["dynamodb"] = func(ctx context.Context, cfg *config.Config, _ *config.DataFolder) (Store, error) {
		return opened(dynamostore.Open(ctx, dynamostore.Options{
			Table: cfg.Registry.Table, Region: cfg.Registry.Region, Endpoint: cfg.Registry.Endpoint, Indexes: indexes(cfg)}))
	}
}
