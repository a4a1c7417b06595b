package registry

import (
	"context"
	"math"
	"regexp"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

var aliasForm = regexp.MustCompile(`^[a-z0-9-]+$`)

// CreateTenant adds a tenant (contract: registry, section 3.8); an empty id
// becomes a random UUID.
func (s *Service) CreateTenant(ctx context.Context, id iot.TenantID, t iot.Tenant) (_ iot.TenantID, version string, err error) {
	if id == "" {
		id = iot.TenantID(newUUID())
	}
	if err := s.CheckTenantID(id); err != nil {
		return "", "", err
	}
	if err := checkTenant(&t); err != nil {
		return "", "", err
	}
	version = newUUID()
	err = s.store.CreateTenant(ctx, TenantRecord{ID: id, Tenant: t, Version: version, Created: s.now()})
	return id, version, err
}

// Tenant returns a tenant by its id.
func (s *Service) Tenant(ctx context.Context, id iot.TenantID) (TenantRecord, error) {
	if err := s.CheckTenantID(id); err != nil {
		return TenantRecord{}, err
	}
	return s.store.Tenant(ctx, id)
}

// UpdateTenant replaces a tenant; ifVersion "" means whatever its version.
func (s *Service) UpdateTenant(ctx context.Context, id iot.TenantID, t iot.Tenant, ifVersion string) (version string, err error) {
	if err := s.CheckTenantID(id); err != nil {
		return "", err
	}
	if err := checkTenant(&t); err != nil {
		return "", err
	}
	version = newUUID()
	return version, s.store.UpdateTenant(ctx, TenantRecord{ID: id, Tenant: t, Version: version, Updated: s.now()}, ifVersion)
}

// DeleteTenant removes a tenant; its devices stay (section 6).
func (s *Service) DeleteTenant(ctx context.Context, id iot.TenantID, ifVersion string) error {
	if err := s.CheckTenantID(id); err != nil {
		return err
	}
	return s.store.DeleteTenant(ctx, id, ifVersion, s.now())
}

// checkTenant checks a tenant and brings it into the form that is kept.
func checkTenant(t *iot.Tenant) error {
	if t.Alias != "" && !aliasForm.MatchString(t.Alias) {
		return invalid("alias %.60q does not match the pattern [a-z0-9-]+", t.Alias)
	}
	if t.MinimumMessageSize < 0 || t.MinimumMessageSize > math.MaxInt32 {
		return invalid("minimum-message-size: is %d, want 0 to %d", t.MinimumMessageSize, math.MaxInt32)
	}
	if err := freeForm("ext", &t.Ext); err != nil {
		return err
	}
	if err := freeForm("defaults", &t.Defaults); err != nil {
		return err
	}
	for _, check := range []func(*iot.Tenant) error{checkAdapters, checkResourceLimits, checkRegistrationLimits, checkTracing, checkAnchors} {
		if err := check(t); err != nil {
			return err
		}
	}
	return nil
}

func checkAdapters(t *iot.Tenant) error {
	if t.Adapters != nil && len(t.Adapters) == 0 {
		return invalid("adapters: is empty, want at least one adapter or no such member")
	}
	t.Adapters = slices.Clone(t.Adapters)
	seen := make(map[string]bool, len(t.Adapters))
	for i := range t.Adapters {
		a := &t.Adapters[i]
		if a.Type == "" {
			return invalid("adapters[%d]: member type is missing", i)
		}
		if seen[a.Type] {
			return invalid("adapters[%d]: type %.60q comes twice", i, a.Type)
		}
		seen[a.Type] = true
		if err := freeForm("adapters.ext", &a.Ext); err != nil {
			return err
		}
	}
	return nil
}

func checkResourceLimits(t *iot.Tenant) error {
	if t.ResourceLimits == nil {
		return nil
	}
	l := *t.ResourceLimits
	t.ResourceLimits = &l
	for name, limit := range map[string]**int64{
		"max-connections": &l.MaxConnections, "max-ttl": &l.MaxTTL,
		"max-ttl-telemetry-qos0": &l.MaxTTLTelemetryQoS0, "max-ttl-telemetry-qos1": &l.MaxTTLTelemetryQoS1,
		"max-ttl-command-response": &l.MaxTTLCommandResponse,
	} {
		if err := checkLimit("resource-limits."+name, limit); err != nil {
			return err
		}
	}
	if l.MaxConnections != nil && *l.MaxConnections > math.MaxInt32 { // components of Hono read 32 bits
		return invalid("resource-limits.max-connections: is %d, want at most %d", *l.MaxConnections, math.MaxInt32)
	}
	if l.DataVolume != nil {
		v := *l.DataVolume
		l.DataVolume = &v
		if err := checkPeriod("resource-limits.data-volume", "max-bytes", v.EffectiveSince, &v.MaxBytes, &v.Period); err != nil {
			return err
		}
	}
	if l.ConnectionDuration != nil {
		d := *l.ConnectionDuration
		l.ConnectionDuration = &d
		if err := checkPeriod("resource-limits.connection-duration", "max-minutes", d.EffectiveSince, &d.MaxMinutes, &d.Period); err != nil {
			return err
		}
	}
	return freeForm("resource-limits.ext", &l.Ext)
}

// checkLimit turns an explicit -1 into no limit.
func checkLimit(path string, limit **int64) error {
	if *limit == nil || **limit >= 0 {
		return nil
	}
	if **limit < -1 {
		return invalid("%s: is %d, want -1 (unlimited) or more", path, **limit)
	}
	*limit = nil
	return nil
}

func checkPeriod(path, member string, since iot.Timestamp, limit **int64, p *iot.Period) error {
	if since.IsZero() {
		return invalid("%s: member effective-since is missing", path)
	}
	if err := checkLimit(path+"."+member, limit); err != nil {
		return err
	}
	if *p == (iot.Period{}) {
		p.Mode = "monthly"
	}
	if !slices.Contains([]string{"monthly", "days", "unknown"}, p.Mode) {
		return invalid("%s.period: mode %.40q is neither monthly nor days", path, p.Mode)
	}
	if p.NoOfDays < 0 || p.NoOfDays > math.MaxInt32 {
		return invalid("%s.period: no-of-days is %d, want 0 to %d", path, p.NoOfDays, math.MaxInt32)
	}
	return nil
}

func checkRegistrationLimits(t *iot.Tenant) error {
	l := t.RegistrationLimits
	if l != nil && (l.MaxDevices < -1 || l.MaxCredentialsPerDevice < -1) {
		return invalid("registration-limits: want -1 (unlimited) or more")
	}
	return nil
}

func checkTracing(t *iot.Tenant) error {
	if t.Tracing == nil {
		return nil
	}
	modes := []string{"default", "all", "none"}
	if m := t.Tracing.SamplingMode; m != "" && !slices.Contains(modes, m) {
		return invalid("tracing.sampling-mode: %.40q is none of default, all, none", m)
	}
	for _, m := range t.Tracing.SamplingModePerAuthID {
		if !slices.Contains(modes, m) {
			return invalid("tracing.sampling-mode-per-auth-id: %.40q is none of default, all, none", m)
		}
	}
	return nil
}
