package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/events"
	functions "github.com/sluice-iot/sluice/functions/eventstore"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Store is what a database of ours does for events.
type Store interface {
	eventstore.Store
	Close() error
}

// openers are the stores that this program links, by their name in the
// configuration. The build tags nosqlite, nopostgres and nodynamodb leave one out.
var openers = map[string]func(context.Context, config.Events, *config.DataFolder) (Store, error){}

// opened keeps a nil pointer from becoming a store.
func opened[S Store](s S, err error) (Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Events is the event store of a process. Safe for concurrent use.
type Events struct {
	Log *eventstore.Log

	store     Store
	functions []events.Function
}

// NeedsData reports whether the store is a file in the data folder.
func NeedsData(cfg *config.Config) bool { return cfg.EventStore().Store == "sqlite" }

// Open opens the store that cfg names and makes the functions over it. data is the folder of
// the SQLite file; it may be nil where [NeedsData] is false. facts, which may be
// nil, is told of dead letters. Errors are one line.
func Open(ctx context.Context, cfg *config.Config, data *config.DataFolder, log *slog.Logger, facts events.Poster) (*Events, error) {
	e := cfg.EventStore()
	if data == nil && NeedsData(cfg) {
		return nil, errors.New("events: the store sqlite needs a data folder")
	}
	open, ok := openers[e.Store]
	if !ok {
		return nil, fmt.Errorf("events.store %q is not served by this program; expected one of %s",
			e.Store, strings.Join(slices.Sorted(maps.Keys(openers)), ", "))
	}
	store, err := open(ctx, e, data)
	if err != nil {
		return nil, err
	}
	quota := eventstore.Quota{Messages: e.MaxMessages, Bytes: int64(e.MaxBytes)}
	l := eventstore.New(store, eventstore.Options{MaxTTL: e.MaxTTL, MaxAttempts: e.MaxAttempts,
		Quota: func(iot.TenantID) eventstore.Quota { return quota }})
	return &Events{Log: l, store: store, functions: functions.New(l, functions.Options{Facts: facts, Log: log}).Functions()}, nil
}

// Functions returns the function of every call about events.
func (e *Events) Functions() []events.Function { return e.functions }

// Close closes the store. Calls in flight must have ended.
func (e *Events) Close() error { return e.store.Close() }

// Ready returns nil when the store answers.
func (e *Events) Ready(ctx context.Context) error {
	_, err := e.store.Tenants(ctx, "", 1)
	return err
}

// Readiness is [Events.Ready] as an observe.Check.
func (e *Events) Readiness(ctx context.Context) (bool, map[string]any) {
	return e.Ready(ctx) == nil, nil
}

const (
	// sweepEvery is how often a process does what a schedule does where functions come and go.
	sweepEvery = time.Hour
	sweepPause = time.Second // between two portions, so that appends are not held up
)

// Expire removes events that have expired, all that there are, unless ctx ends.
func (e *Events) Expire(ctx context.Context) error {
	for more := true; more; {
		var err error
		if _, more, err = e.Log.Expire(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// Sweep removes events that have expired, until ctx ends.
func (e *Events) Sweep(ctx context.Context, log *slog.Logger) {
	for wait := sweepEvery; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		n, more, err := e.Log.Expire(ctx, 0)
		if wait = sweepEvery; more {
			wait = sweepPause
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Warn("expired events are not removed", "err", err)
		case n > 0:
			log.Debug("expired events removed", "events", n)
		}
	}
}
