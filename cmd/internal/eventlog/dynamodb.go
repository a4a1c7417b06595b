//go:build !nodynamodb

package eventlog

import (
	"context"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/eventstore/dynamostore"
)

func init() {
	openers["dynamodb"] = func(ctx context.Context, e config.Events, _ *config.DataFolder) (Store, error) {
		return opened(dynamostore.Open(ctx, dynamostore.Options{Table: e.Table, Region: e.Region, Endpoint: e.Endpoint}))
	}
}
