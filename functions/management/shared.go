package management

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/sluice-iot/sluice/internal/iot"
)

// checkShared refuses an operator of single tenants who sets what reaches
// beyond a tenant: an alias takes a name away from all others, and a trust
// anchor group lets its tenants share authorities, so that whoever joins one
// can make another's devices ambiguous. Keeping and removing is allowed.
func (s *server) checkShared(ctx context.Context, id iot.TenantID, t *iot.Tenant) error {
	if t.Alias == "" && t.TrustAnchorGroup == "" || operatorOf(ctx).May(AllTenants, Write) {
		return nil
	}
	var stored iot.Tenant
	if id != "" {
		record, err := s.registry.Tenant(ctx, id)
		if err != nil && !errors.Is(err, iot.ErrNotFound) {
			return err
		}
		stored = record.Tenant
	}
	for _, member := range []struct{ name, now, then string }{
		{"alias", stored.Alias, t.Alias}, {"trust-anchor-group", stored.TrustAnchorGroup, t.TrustAnchorGroup},
	} {
		if member.then != "" && member.then != member.now {
			return iot.Errorf(iot.ErrForbidden, "the operator's scopes do not allow this: to set %s takes write for all tenants", member.name)
		}
	}
	return nil
}

// checkSharedPatch is checkShared for a merge patch. What is wrong with its
// form is said by whoever applies it.
func (s *server) checkSharedPatch(ctx context.Context, id iot.TenantID, patch []byte) error {
	var t struct {
		Alias            string `json:"alias"`
		TrustAnchorGroup string `json:"trust-anchor-group"`
	}
	if json.Unmarshal(patch, &t) != nil {
		return nil
	}
	return s.checkShared(ctx, id, &iot.Tenant{Alias: t.Alias, TrustAnchorGroup: t.TrustAnchorGroup})
}
