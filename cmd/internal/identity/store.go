package identity

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Store is what a database of ours does for identity.
type Store interface {
	registry.Backend
	assertion.KeyStore
	Close() error
}

// openers are the stores that this program links, by their name in the
// configuration. The build tags nosqlite, nopostgres and nodynamodb leave one out.
var openers = map[string]func(context.Context, *config.Config, *config.DataFolder) (Store, error){}

// opened keeps a nil pointer from becoming a store.
func opened[S Store](s S, err error) (Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

func openStore(ctx context.Context, cfg *config.Config, data *config.DataFolder) (Store, error) {
	open, ok := openers[cfg.Registry.Store]
	if !ok {
		return nil, fmt.Errorf("registry.store %q is not served by this program; expected one of %s",
			cfg.Registry.Store, strings.Join(slices.Sorted(maps.Keys(openers)), ", "))
	}
	return open(ctx, cfg, data)
}

// indexes are the declared paths, never nil: what is not declared is dropped.
// The configuration was checked.
func indexes(cfg *config.Config) [][]string {
	paths := [][]string{}
	for _, pointer := range cfg.Registry.Indexes {
		var path []string
		for _, name := range strings.Split(pointer[1:], "/") {
			path = append(path, strings.NewReplacer("~1", "/", "~0", "~").Replace(name))
		}
		paths = append(paths, path)
	}
	return paths
}
