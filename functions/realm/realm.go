package realm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/sluice-iot/sluice/internal/auth/oidc"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Defaults of [Provider].
const (
	DefaultUserClaim   = "preferred_username"
	DefaultDeviceClaim = "preferred_username"
	DefaultMaxAge      = 5 * time.Minute
	DefaultTimeout     = 5 * time.Second
	DefaultMaxCalls    = 32
)

// AllTenants in [Provider.Tenants] stands for every tenant that names the provider.
const AllTenants iot.TenantID = "*"

const (
	// waiting is how many logins may wait for a place, for each place.
	waiting = 16
	// warnEvery is the shortest time between two warnings about one provider.
	warnEvery = time.Second
	// retryAfter is the pause that is asked for when a provider cannot take more.
	retryAfter = 5 * time.Second
)

// Issuer logs users in; an [oidc.Client] does. Its errors are
// iot.ErrUnauthenticated for a user that is refused, and else say that it could
// not be decided; their texts are for the log.
type Issuer interface {
	Login(ctx context.Context, user, password string) (*oidc.Token, error)
}

// Provider is one identity provider. Zero values of the last six stand for the
// defaults above, and no tenant claim.
type Provider struct {
	Name    string // what tenants call it
	Issuer  Issuer
	Tenants []iot.TenantID // whose devices its users may be; required

	// UserClaim holds the user's name, which must be the device's auth-id letter for
	// letter: issuers also take other spellings, and e-mail addresses.
	UserClaim   string
	DeviceClaim string // holds the id of the user's device
	// TenantClaim holds the id of the user's tenant, or a list of them. Required
	// where there may be several.
	TenantClaim string

	MaxAge   time.Duration // longest time that an answer holds
	Timeout  time.Duration // of one login, waiting for its turn included
	MaxCalls int           // logins at a time
}

// Realms are the identity providers of an installation. Safe for concurrent use.
type Realms struct {
	providers map[string]*provider
	log       *slog.Logger
	now       func() time.Time
}

type provider struct {
	Provider
	places  chan struct{}
	present atomic.Int64 // logins under way or waiting
	warned  atomic.Int64 // time of the last warning, in nanoseconds
}

// New checks the providers.
func New(list []Provider, log *slog.Logger, now func() time.Time) (*Realms, error) {
	r := &Realms{providers: make(map[string]*provider, len(list)), log: log, now: now}
	for _, p := range list {
		if err := r.add(p); err != nil {
			return nil, fmt.Errorf("identity provider %q: %w", p.Name, err)
		}
	}
	return r, nil
}

func (r *Realms) add(p Provider) error {
	several := len(p.Tenants) > 1 || slices.Contains(p.Tenants, AllTenants)
	switch {
	case p.Name == "":
		return errors.New("it has no name")
	case r.providers[p.Name] != nil:
		return errors.New("given twice")
	case p.Issuer == nil:
		return errors.New("it has no issuer")
	case len(p.Tenants) == 0:
		return errors.New("it names no tenants; expected those whose devices its users may be")
	case several && p.TenantClaim == "":
		return errors.New("several tenants need a tenant-claim that tells them apart")
	case p.MaxAge < 0 || p.Timeout < 0 || p.MaxCalls < 0:
		return errors.New("a limit is negative")
	}
	p.UserClaim = cmp.Or(p.UserClaim, DefaultUserClaim)
	p.DeviceClaim = cmp.Or(p.DeviceClaim, DefaultDeviceClaim)
	p.MaxAge = cmp.Or(p.MaxAge, DefaultMaxAge)
	p.Timeout = cmp.Or(p.Timeout, DefaultTimeout)
	p.MaxCalls = cmp.Or(p.MaxCalls, DefaultMaxCalls)
	r.providers[p.Name] = &provider{Provider: p, places: make(chan struct{}, p.MaxCalls)}
	return nil
}

var (
	errRefused     = iot.Errorf(iot.ErrUnauthenticated, "bad credentials")
	errUnavailable = iot.Error{Sentinel: iot.ErrUnavailable, Text: "the identity provider cannot be asked now", RetryAfter: retryAfter}
)

// Verify asks the provider of that name whether the password is that of the user
// authID, and returns the device of the tenant that the user is, and until when
// that holds. iot.ErrUnauthenticated, with one text for all, when the user is
// refused or is no device of the tenant; iot.ErrUnavailable, with the time to wait,
// when that cannot be found out, also where no such provider is configured for the
// tenant; context.Canceled.
func (r *Realms) Verify(ctx context.Context, name string, tenant iot.TenantID, authID, password string) (iot.DeviceID, time.Time, error) {
	p := r.providers[name]
	if p == nil || !p.serves(tenant) {
		r.log.WarnContext(ctx, "a tenant names an identity provider that is not configured for it", "tenant", string(tenant), "provider", name)
		return "", time.Time{}, &errUnavailable
	}
	asked := r.now()
	t, err := p.login(ctx, authID, password)
	switch {
	case errors.Is(err, iot.ErrUnauthenticated):
		r.log.DebugContext(ctx, "identity provider refuses", "tenant", string(tenant), "provider", name, "err", err)
		return "", time.Time{}, errRefused
	case errors.Is(err, context.Canceled):
		return "", time.Time{}, err
	case err != nil:
		return "", time.Time{}, r.unavailable(ctx, p, err)
	}
	device, err := p.device(t, tenant, authID)
	if err != nil {
		r.log.InfoContext(ctx, "a user of the identity provider is no device", "tenant", string(tenant), "provider", name, "err", err)
		return "", time.Time{}, errRefused
	}
	until := asked.Add(p.MaxAge)
	if t.Expires.Before(until) {
		until = t.Expires
	}
	return device, until, nil
}

func (p *provider) serves(tenant iot.TenantID) bool {
	return slices.Contains(p.Tenants, tenant) || slices.Contains(p.Tenants, AllTenants)
}

var errBusy = errors.New("too many logins wait already")

// login logs in when there is a place.
func (p *provider) login(ctx context.Context, user, password string) (*oidc.Token, error) {
	if strings.ContainsFunc(user, unicode.IsControl) {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "the auth-id has control characters")
	}
	defer p.present.Add(-1)
	if p.present.Add(1) > int64(p.MaxCalls)*(waiting+1) {
		return nil, errBusy
	}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	select {
	case p.places <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.places }()
	return p.Issuer.Login(ctx, user, password)
}

// unavailable says no more than that, with the provider's own pause. The log says
// why, now and then: every device of the tenant may be asking.
func (r *Realms) unavailable(ctx context.Context, p *provider, why error) error {
	now, last := time.Now().UnixNano(), p.warned.Load()
	if now-last >= int64(warnEvery) && p.warned.CompareAndSwap(last, now) {
		r.log.WarnContext(ctx, "identity provider cannot be asked", "provider", p.Name, "err", why)
	}
	e := errUnavailable
	e.RetryAfter = cmp.Or(iot.RetryAfter(why), e.RetryAfter)
	return &e
}
