package dynamostore

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// CreateTenant implements registry.Store.
func (s *Store) CreateTenant(ctx context.Context, t registry.TenantRecord) error {
	doc, err := encodeTenant(&t)
	if err != nil {
		return err
	}
	return s.change(ctx, t.ID, func(ctx context.Context, st state) (*change, error) {
		ops, err := s.claims(ctx, &registry.TenantRecord{ID: t.ID}, &t, !st.live)
		if err != nil {
			return nil, err
		}
		if st.live {
			return nil, iot.Errorf(iot.ErrExists, "tenant already exists")
		}
		next := st
		next.live = true
		ops = append(ops, tenantOp(t.ID, nil, tenantItem(&t, doc, st.sequence+1)), op{key: listKey(t.ID), put: item{}})
		return &change{ops: ops, next: next, changes: []registry.Change{t.Change(registry.Create, t.Created)}}, nil
	})
}

// UpdateTenant implements registry.Store.
func (s *Store) UpdateTenant(ctx context.Context, t registry.TenantRecord, ifVersion string) error {
	doc, err := encodeTenant(&t)
	if err != nil {
		return err
	}
	return s.change(ctx, t.ID, func(ctx context.Context, st state) (*change, error) {
		old, stored, err := s.storedTenant(ctx, t.ID, &st, ifVersion)
		if err != nil {
			return nil, err
		}
		ops, err := s.claims(ctx, &old, &t, false)
		if err != nil {
			return nil, err
		}
		t := t
		t.Created = old.Created
		ops = append(ops, tenantOp(t.ID, stored, tenantItem(&t, doc, st.sequence+1)))
		return &change{ops: ops, next: st, changes: []registry.Change{t.Change(registry.Update, t.Updated)}}, nil
	})
}

// DeleteTenant implements registry.Store.
func (s *Store) DeleteTenant(ctx context.Context, id iot.TenantID, ifVersion string, at time.Time) error {
	return s.change(ctx, id, func(ctx context.Context, st state) (*change, error) {
		old, stored, err := s.storedTenant(ctx, id, &st, ifVersion)
		if err != nil {
			return nil, err
		}
		ops, err := s.claims(ctx, &old, &registry.TenantRecord{ID: id}, false)
		if err != nil {
			return nil, err
		}
		next := st
		next.live = false
		ops = append(ops, tenantOp(id, stored, nil), op{key: nameKey(string(id))}, op{key: listKey(id), put: item{"gone": flag(true)}})
		return &change{ops: ops, next: next, changes: []registry.Change{{
			Tenant: id, Kind: registry.TenantChanged, Change: registry.Delete, InvalidateCache: true, At: at,
		}}}, nil
	})
}

// Tenant implements registry.Store.
func (s *Store) Tenant(ctx context.Context, id iot.TenantID) (registry.TenantRecord, error) {
	i, err := s.tenantItem(ctx, id)
	if err != nil {
		return registry.TenantRecord{}, err
	}
	return decodeTenant(id, i)
}

func (s *Store) tenantItem(ctx context.Context, id iot.TenantID) (item, error) {
	if err := ctx.Err(); err != nil {
		return nil, s.translate(ctx, err)
	}
	if !storable(string(id)) {
		return nil, errNoTenant
	}
	i, err := s.get(ctx, tenantKey(id))
	if err == nil && i == nil {
		err = errNoTenant
	}
	return i, err
}

// storedTenant reads a tenant that is to be changed.
func (s *Store) storedTenant(ctx context.Context, id iot.TenantID, st *state, ifVersion string) (registry.TenantRecord, item, error) {
	if !st.live {
		return registry.TenantRecord{}, nil, errNoTenant
	}
	i, err := s.tenantItem(ctx, id)
	if err != nil {
		return registry.TenantRecord{}, nil, err
	}
	t, err := decodeTenant(id, i)
	if err == nil && ifVersion != "" && ifVersion != t.Version {
		err = errVersion
	}
	return t, i, err
}

// tenantOp writes or removes a tenant that was read as stored.
func tenantOp(id iot.TenantID, stored, put item) op {
	o := op{key: tenantKey(id), put: put}
	o.unchanged(stored != nil, uint64(stored.num("q")))
	return o
}

// encodeTenant also refuses names that no key can hold.
func encodeTenant(t *registry.TenantRecord) ([]byte, error) {
	if !storable(string(t.ID)) {
		return nil, iot.Errorf(iot.ErrInvalid, "tenant id has %d bytes, want 1 to %d", len(t.ID), maxSK)
	}
	return json.Marshal(t.Tenant)
}

func tenantItem(t *registry.TenantRecord, doc []byte, sequence uint64) item {
	return item{"doc": blob(doc), "version": str(t.Version), "created": millis(t.Created), "updated": millis(t.Updated),
		"q": number(int64(sequence))}
}

func decodeTenant(id iot.TenantID, i item) (registry.TenantRecord, error) {
	t := registry.TenantRecord{ID: id, Version: i.str("version"), Created: i.time("created"), Updated: i.time("updated")}
	return t, decode(i.bytes("doc"), &t.Tenant)
}

func decode(doc []byte, dst any) error {
	if err := json.Unmarshal(doc, dst); err != nil {
		return fmt.Errorf("stored document: %w", err)
	}
	return nil
}

// claims returns the writes on names and trust anchors that lead from one
// form of a tenant to the next; iot.ErrExists where another tenant is in the
// way. Each is on condition that the item is still as it was read, because
// other tenants change them too.
func (s *Store) claims(ctx context.Context, old, next *registry.TenantRecord, creates bool) ([]op, error) {
	names, anchors := namesToRead(old, next), anchorsOf(old, next)
	keys := make([]key, 0, len(names)+len(anchors))
	for _, n := range names {
		keys = append(keys, nameKey(n))
	}
	for _, dn := range anchors {
		keys = append(keys, anchorKey(dn))
	}
	got := make(map[key]item)
	if err := s.getAll(ctx, got, keys...); err != nil {
		return nil, err
	}
	ops, err := anchorClaims(got, anchors, old, next)
	if err != nil {
		return nil, err
	}
	named, err := nameClaims(got, old, next, creates)
	if err != nil {
		return nil, err
	}
	ops = append(ops, named...)
	if len(ops) > maxWrites-4 {
		return nil, iot.Errorf(iot.ErrTooLarge, "trusted-ca: the registry's store changes at most %d trust anchors at once", maxWrites-8)
	}
	return ops, nil
}

func namesToRead(old, next *registry.TenantRecord) []string {
	names := []string{string(next.ID)}
	for _, alias := range []string{old.Tenant.Alias, next.Tenant.Alias} {
		if alias != "" {
			names = append(names, alias)
		}
	}
	return names
}

// nameClaims takes the id and the alias from one space of names, so that an
// alias is never another tenant's id. A tenant's alias may be its own id.
func nameClaims(got map[key]item, old, next *registry.TenantRecord, creates bool) ([]op, error) {
	id, was, is := string(next.ID), old.Tenant.Alias, next.Tenant.Alias
	var ops []op
	take := func(name, refusal string) error {
		k := nameKey(name)
		switch got[k].str("tenant") {
		case "":
			ops = append(ops, op{key: k, put: item{"tenant": str(id)}, condition: "attribute_not_exists(pk)"})
		case id:
		default:
			return iot.Errorf(iot.ErrExists, "%s", refusal)
		}
		return nil
	}
	if creates {
		if err := take(id, "tenant id is the alias of another tenant"); err != nil {
			return nil, err
		}
	}
	if is != "" && is != id {
		if err := take(is, "tenant alias already in use"); err != nil {
			return nil, err
		}
	}
	if was != "" && was != is && was != id {
		ops = append(ops, op{key: nameKey(was)})
	}
	return ops, nil
}

// anchorsOf lists the DNs of both forms, each once.
func anchorsOf(records ...*registry.TenantRecord) []string {
	var all []string
	for _, r := range records {
		for i := range r.Tenant.TrustedCA {
			all = append(all, r.Tenant.TrustedCA[i].SubjectDN)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func hasAnchor(t *iot.Tenant, dn string) bool {
	return slices.ContainsFunc(t.TrustedCA, func(a iot.TrustAnchor) bool { return a.SubjectDN == dn })
}

// anchorClaims keeps, for every DN, who uses it and under which group.
func anchorClaims(got map[key]item, dns []string, old, next *registry.TenantRecord) ([]op, error) {
	id, group := string(next.ID), next.Tenant.TrustAnchorGroup
	var ops []op
	for _, dn := range dns {
		k := anchorKey(dn)
		found := got[k]
		others := slices.DeleteFunc(slices.Clone(found.strs("tenants")), func(t string) bool { return t == id })
		uses := hasAnchor(&next.Tenant, dn)
		if uses && len(others) > 0 && (group == "" || group != found.str("group")) {
			n := slices.IndexFunc(next.Tenant.TrustedCA, func(a iot.TrustAnchor) bool { return a.SubjectDN == dn })
			return nil, iot.Errorf(iot.ErrExists, "trusted-ca[%d]: another tenant of a different trust anchor group uses the same CA", n)
		}
		if uses && hasAnchor(&old.Tenant, dn) && old.Tenant.TrustAnchorGroup == group {
			continue
		}
		o := op{key: k, condition: "attribute_not_exists(pk)"}
		if found != nil {
			o.condition, o.values = "rv = :token", item{":token": str(found.str("rv"))}
		}
		if uses {
			o.put = item{"tenants": strs(append(others, id)), "group": str(group), "rv": str(newToken())}
		} else if len(others) > 0 {
			o.put = item{"tenants": strs(others), "group": str(found.str("group")), "rv": str(newToken())}
		}
		ops = append(ops, o)
	}
	return ops, nil
}
