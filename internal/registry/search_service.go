package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"

	"github.com/sluice-iot/sluice/internal/iot"
)

// The bounds of a search.
const (
	MaxPageSize     = 200
	DefaultPageSize = 30
	MaxFilters      = 32
	MaxOrders       = 32
	maxPointer      = 32   // names in a path
	maxFilterText   = 1024 // bytes: a pattern costs as often as it is long, at each place of a text
)

// SearchTenants returns one page of the tenants that match (contract:
// registry, section 8); iot.ErrNotFound when none does.
func (s *Service) SearchTenants(ctx context.Context, q Search) (TenantPage, error) {
	if err := checkSearch(ctx, &q); err != nil {
		return TenantPage{}, err
	}
	page, err := s.store.SearchTenants(ctx, q)
	if err == nil && page.Total == 0 {
		err = iot.Errorf(iot.ErrNotFound, "no tenant matches")
	}
	return page, err
}

// SearchTenantsAmong is [Service.SearchTenants] for those of the given tenants
// that exist. It reads each of them.
func (s *Service) SearchTenantsAmong(ctx context.Context, ids []iot.TenantID, q Search) (TenantPage, error) {
	if err := checkSearch(ctx, &q); err != nil {
		return TenantPage{}, err
	}
	found := make(map[string]TenantRecord, len(ids))
	selection := NewSelection(q)
	for _, id := range ids {
		t, err := s.store.Tenant(ctx, id)
		if errors.Is(err, iot.ErrNotFound) {
			continue
		}
		if err != nil {
			return TenantPage{}, err
		}
		doc, err := json.Marshal(t.Tenant)
		if err != nil {
			return TenantPage{}, err
		}
		if err := selection.Offer(Candidate{ID: string(t.ID), Doc: doc}); err != nil {
			return TenantPage{}, err
		}
		found[string(t.ID)] = t
	}
	total, page := selection.Page()
	if total == 0 {
		return TenantPage{}, iot.Errorf(iot.ErrNotFound, "no tenant matches")
	}
	result := TenantPage{Total: total, Tenants: make([]TenantRecord, len(page))}
	for i, id := range page {
		result.Tenants[i] = found[id]
	}
	return result, nil
}

// SearchDevices returns one page of a tenant's devices that match;
// iot.ErrNotFound when none does or the tenant does not exist.
func (s *Service) SearchDevices(ctx context.Context, tenant iot.TenantID, q Search) (DevicePage, error) {
	if err := checkSearch(ctx, &q); err != nil {
		return DevicePage{}, err
	}
	page, err := s.store.SearchDevices(ctx, tenant, q)
	if err == nil && page.Total == 0 {
		err = iot.Errorf(iot.ErrNotFound, "no device matches")
	}
	return page, err
}

func checkSearch(ctx context.Context, q *Search) error {
	q.Done = ctx.Done()
	for i := range q.Filters {
		if text, ok := q.Filters[i].Value.(string); ok && len(text) > maxFilterText {
			return invalid("a filter's text has %d bytes, at most %d are allowed", len(text), maxFilterText)
		}
	}
	switch {
	case q.Limit < 1 || q.Limit > MaxPageSize:
		return invalid("page size %d is not in 1..%d", q.Limit, MaxPageSize)
	case q.Offset < 0:
		return invalid("page offset is negative")
	case len(q.Filters) > MaxFilters:
		return invalid("%d filters, at most %d are allowed", len(q.Filters), MaxFilters)
	case len(q.Sort) > MaxOrders:
		return invalid("%d orders, at most %d are allowed", len(q.Sort), MaxOrders)
	}
	return nil
}

// ParseFilter reads the value of a parameter filterJson (contract: registry,
// section 8.1).
func ParseFilter(text string) (Filter, error) {
	var f struct {
		Field *string         `json:"field"`
		Op    *string         `json:"op"`
		Value json.RawMessage `json:"value"`
	}
	if err := parseQueryJSON("filterJson", text, &f); err != nil {
		return Filter{}, err
	}
	path, err := parsePointer("filterJson", f.Field)
	if err != nil {
		return Filter{}, err
	}
	if f.Op != nil && *f.Op != "eq" {
		return Filter{}, invalid("parameter filterJson: op %.20q is not eq, the only one there is", *f.Op)
	}
	var value any
	if len(f.Value) > 0 {
		if err := json.Unmarshal(f.Value, &value); err != nil {
			return Filter{}, invalid("parameter filterJson: value: the number is too large")
		}
	}
	switch value.(type) {
	case bool, float64, string:
		return Filter{Path: path, Value: value}, nil
	}
	return Filter{}, invalid("parameter filterJson: member value: want a boolean, a number or a string")
}

// ParseOrder reads the value of a parameter sortJson (contract: registry,
// section 8.2).
func ParseOrder(text string) (Order, error) {
	var o struct {
		Field     *string `json:"field"`
		Direction *string `json:"direction"`
	}
	if err := parseQueryJSON("sortJson", text, &o); err != nil {
		return Order{}, err
	}
	path, err := parsePointer("sortJson", o.Field)
	if err != nil {
		return Order{}, err
	}
	if o.Direction != nil && *o.Direction != "asc" && *o.Direction != "desc" {
		return Order{}, invalid("parameter sortJson: direction %.20q is neither asc nor desc", *o.Direction)
	}
	return Order{Path: path, Descending: o.Direction != nil && *o.Direction == "desc"}, nil
}

// parseQueryJSON decodes a JSON object whose member names must be those of dst.
func parseQueryJSON(name, text string, dst any) error {
	b := bytes.TrimSpace([]byte(text))
	if !json.Valid(b) || b[0] != '{' {
		return invalid("parameter %s: want a JSON object", name)
	}
	if err := checkMembers(b, reflect.TypeOf(dst).Elem(), name); err != nil {
		return invalid("parameter %s", err)
	}
	if err := json.Unmarshal(b, dst); err != nil {
		return invalid("parameter %s: %s", name, explain(err))
	}
	return nil
}

// parsePointer takes a JSON pointer apart (RFC 6901).
func parsePointer(name string, pointer *string) ([]string, error) {
	if pointer == nil {
		return nil, invalid("parameter %s: member field is missing", name)
	}
	rest, ok := strings.CutPrefix(*pointer, "/")
	if !ok {
		return nil, invalid("parameter %s: field %.60q is no JSON pointer, which starts with /", name, *pointer)
	}
	path := strings.Split(rest, "/")
	if len(path) > maxPointer {
		return nil, invalid("parameter %s: field has %d names, at most %d are allowed", name, len(path), maxPointer)
	}
	for i, p := range path {
		if strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(p), "~") {
			return nil, invalid("parameter %s: field %.60q is no JSON pointer: ~ is followed by 0 or 1", name, *pointer)
		}
		path[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p)
	}
	return path, nil
}
