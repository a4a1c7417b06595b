package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions"
	"github.com/sluice-iot/sluice/functions/notices"
	"github.com/sluice-iot/sluice/functions/revocation"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Deps is what a program may give the functions; the zero value is enough.
type Deps struct {
	// PasswordsAtOnce bounds slow hashes computed at a time; 0 = one per usable core.
	PasswordsAtOnce int
	// Poster is told of what changes and of devices that are registered by
	// themselves; nil = nobody listens.
	Poster events.Poster
}

// Identity is the identity functions and what they stand on. Safe for concurrent use.
type Identity struct {
	Registry  *registry.Service
	Passwords *registry.Passwords
	Signer    *assertion.Signer

	store     Store
	notices   *notices.Observer // nil = nobody is told
	functions []events.Function
}

// Open opens the store that cfg.Registry names and makes the functions over it.
// data is the folder of the SQLite file and of the key-encryption key; it may be
// nil where [NeedsData] is false. Errors are one line.
func Open(ctx context.Context, cfg *config.Config, data *config.DataFolder, log *slog.Logger, d Deps) (_ *Identity, err error) {
	if data == nil && NeedsData(cfg) {
		return nil, errors.New("identity: the store sqlite, or a key-encryption key that is not in " + KEKVariable + ", needs a data folder")
	}
	kek, err := openKEK(data)
	if err != nil {
		return nil, err
	}
	store, err := openStore(ctx, cfg, data)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	m := &cfg.Management
	id := &Identity{store: store, Passwords: registry.NewPasswords(m.MaxBcryptCostFactor, d.PasswordsAtOnce)}
	if id.Registry, err = registry.New(store, registry.Options{
		TenantIDPattern: m.TenantIDPattern, DeviceIDPattern: m.DeviceIDPattern,
		MaxBcryptCost: m.MaxBcryptCostFactor, HashFunctions: m.HashAlgorithmsAllowList, Passwords: id.Passwords,
	}); err != nil {
		return nil, err
	}
	if id.Signer, err = assertion.NewSigner(assertion.SignerConfig{
		Store: store, KEK: kek, Issuer: "//" + cfg.Name, Algorithm: assertion.Algorithm(cfg.Assertions.Algorithm)}); err != nil {
		return nil, err
	}
	macKey, err := openMACKey(cfg, data)
	if err != nil {
		return nil, err
	}
	realms, err := openRealms(cfg, log)
	if err != nil {
		return nil, err
	}
	if d.Poster != nil {
		id.notices = notices.New(d.Poster, log)
		store.Observe(id.notices.Observe)
	}
	if id.functions, err = functions.Identity(functions.Deps{
		Registry: id.Registry, Passwords: id.Passwords, Signer: id.Signer, Feed: store,
		Poster: d.Poster, MACKey: macKey, Log: log, Revocation: revocation.New(nil), External: realms,
	}); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return id, nil
}

// Functions returns the function of every identity call.
func (i *Identity) Functions() []events.Function { return i.functions }

// Posted counts the changes that every router took at once, and those that were
// left to the feed.
func (i *Identity) Posted() (taken, left uint64) {
	if i.notices == nil {
		return 0, 0
	}
	return i.notices.Counts()
}

// Close closes the store. Calls in flight must have ended.
func (i *Identity) Close() error { return i.store.Close() }

// Ready returns nil when the store answers and its signing key opens.
func (i *Identity) Ready(ctx context.Context) error {
	_, err := i.Registry.Read(ctx, registry.Query{Tenant: registry.TenantKey{ID: "readiness"}})
	if err == nil || errors.Is(err, iot.ErrNotFound) {
		err = i.Signer.Ready(ctx)
	}
	return err
}

// Readiness is [Identity.Ready] as an observe.Check.
func (i *Identity) Readiness(ctx context.Context) (bool, map[string]any) {
	return i.Ready(ctx) == nil, nil
}

// rotateEvery is how often a process looks whether its signing key is due.
const rotateEvery = time.Hour

// KeepKeys puts new signing keys in the place of old ones, as cfg says, until
// ctx ends: what a schedule does where functions come and go. Several processes
// may do it.
func (i *Identity) KeepKeys(ctx context.Context, cfg *config.Config, log *slog.Logger) {
	tick := time.NewTicker(rotateEvery)
	defer tick.Stop()
	if err := i.Signer.Ready(ctx); err != nil && ctx.Err() == nil {
		log.Error("assertions cannot be signed", "err", err)
	}
	for {
		switch rotated, err := i.Signer.RotateDue(ctx, cfg.Assertions.RotateAfter, cfg.Assertions.Overlap); {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Error("signing key not rotated", "err", err)
		case rotated:
			log.Info("signing key rotated")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// KeySource is where a router of the same process gets the keys that verify assertions.
func (i *Identity) KeySource() assertion.KeySource { return i.Signer.KeySource() }
